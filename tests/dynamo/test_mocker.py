"""`autotune sla run --url` on a real mocker whose step times are known.

Bands are wide: on a busy machine the mocker and its client are late by milliseconds. What must hold always is what is
filed and what is left out.
"""

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autotuner.profiling.artefacts import write_mocker_grid
from autotuner.profiling.plan import WorkerCurves
from autotuner.profiling.planner_profile import PlannerProfile
from autotuner.profiling.session import open_profile

pytestmark = pytest.mark.dynamo
SCRIPT = Path(__file__).with_name("serve_and_run.py")
BLOCK, BLOCKS, PORT = 64, 512, 18_311
SMALL = {"prefill-points": 4, "decode-points": 2, "max-context-length": 1200}
MAX_ERROR = 0.5
"""Largest accepted median of relative errors against the truth; a cold decode point would be further off."""


@pytest.fixture(scope="session")
def truth(real_profiles, tmp_path_factory) -> tuple[Path, WorkerCurves]:
    """The mocker's grid of a measured profile, and the curves that it was made of."""
    name = next(name for name in real_profiles if "8B" in name)
    curves = WorkerCurves(PlannerProfile.read(real_profiles[name]), 1, 1)
    path = tmp_path_factory.mktemp("truth") / "perf_data.npz"
    write_mocker_grid(curves, path)
    return path, curves


@pytest.fixture(scope="session")
def on_a_mocker(dynamo, word_model, truth, tmp_path_factory):
    """Profile a mocker with further arguments; the outcome."""
    if shutil.which("unshare") is None:
        pytest.fail("unshare, of util-linux, must give the mocker a network namespace of its own")

    def run(*mocker_arguments, **options):
        folder = tmp_path_factory.mktemp("mocker") / "profile"
        command = [str(Path(sys.executable).parent / "autotune"), "sla", "run", "--url", f"http://127.0.0.1:{PORT}"]
        settings = {"model": "tiny", "max-kv-tokens": BLOCK * BLOCKS, "isl": 1000, "osl": 100, "output": folder}
        settings |= {"ttft": 5000, "itl": 1000, "max-context-length": 4000} | options
        command += [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
        mocker = ["--planner-profile-data", str(truth[0]), "--block-size", BLOCK, "--num-gpu-blocks-override", BLOCKS]
        mocker += ["--max-num-batched-tokens", 32_768, *mocker_arguments]
        serving = [sys.executable, str(SCRIPT), str(dynamo / "serving-1.6.1"), str(word_model), str(PORT)]
        whole = ["unshare", "-n", *serving, *map(str, mocker), "--", *command]
        done = subprocess.run(whole, capture_output=True, text=True, timeout=420)
        assert folder.exists(), done.stderr[-3000:]
        return open_profile(folder), done

    return run


@pytest.fixture(scope="session")
def profiled(on_a_mocker):
    return on_a_mocker(**{"prefill-points": 6, "decode-points": 3})


def test_a_mocker_is_profiled_within_reach_of_its_truth(profiled, truth):
    outcome, done = profiled
    assert done.returncode == 0, done.stderr[-3000:]
    assert outcome.is_complete
    _, curves = truth
    ttft = [
        abs(p.ttft / curves.ttft(p.prompt_tokens) - 1) for p in outcome.prefill_curve_points if p.prompt_tokens > 900
    ]
    itl = [
        abs(p.itl / curves.itl(p.concurrency, p.context_length) - 1)
        for p in outcome.decode_curve_points
        if p.concurrency < 20
    ]
    assert statistics.median(ttft) < MAX_ERROR
    assert statistics.median(itl) < MAX_ERROR


def test_only_points_with_cached_prompts_that_ran_at_once_are_filed(profiled):
    outcome, _ = profiled
    for point in outcome.decode_curve_points:
        assert point.cached_share * point.prompt_tokens >= point.prompt_tokens - 2 * BLOCK
        assert point.running == point.concurrency
        assert 0.93 <= point.consistency <= 1.05
    with np.load(outcome.record.path / "selected_decode_interpolation/raw_data.npz") as data:
        assert data["max_kv_tokens"].tolist() == [BLOCK * BLOCKS]
        assert data["x_kv_usage"].max() <= 1


def test_an_engine_that_runs_sixteen_requests_has_no_point_above_sixteen(on_a_mocker):
    outcome, _ = on_a_mocker("--max-num-seqs", 16, isl=300, **SMALL)
    sizes = [point.concurrency for point in outcome.decode_curve_points]
    assert sizes
    assert max(sizes) <= 16
    launches = json.loads((outcome.record.path / "sla.json").read_text())["launches"]
    assert "runs 16 requests at once" in launches[0]["remarks"][0]


def test_an_engine_without_a_prefix_cache_files_no_decode_point_and_says_so(on_a_mocker):
    outcome, done = on_a_mocker("--no-enable-prefix-caching", isl=300, **SMALL)
    assert done.returncode == 1
    assert not outcome.decode_curve_points
    assert outcome.selection.prefill_pick is not None
    assert "not cached" in " ".join(done.stderr.split())
