"""Seconds and errors of `autotune sla run --url` and of Dynamo's own profile_endpoint on a mocker of known speed.

    PYTHONPATH=. python benchmarks/profiling/head_to_head.py --dynamo FOLDER --aiperf ENVIRONMENT

FOLDER is that of tests/dynamo/setup_dynamo.py, ENVIRONMENT a virtual environment with aiperf==0.13.0, the load
generator of profile_endpoint. Linux and root: the mocker runs in a network namespace of its own. The mocker follows a
measured H200 profile. profile_endpoint gets what its documentation asks for: no prefix cache while it profiles
prefill. Errors are those of the points themselves, and those of the curves that a planner interpolates between them,
at loads that neither profiler measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotuner.errors import AutotuneError
from autotuner.profiling.artefacts import write_mocker_grid
from autotuner.profiling.plan import WorkerCurves
from autotuner.profiling.planner_model import PlannerInterpolation
from autotuner.profiling.planner_profile import DECODE_FOLDER, PREFILL_FOLDER, PlannerProfile
from tests.dynamo.known_truth import write_real_profiles, write_word_model

SERVE = Path(__file__).parents[2] / "tests/dynamo/serve_and_run.py"
PORT, BLOCK, BLOCKS, LONGEST = 18_341, 64, 512, 6144
LEFT_OUT_LENGTHS = (700, 1100, 2000, 3500, 4200)
LEFT_OUT_BATCHES = ((3, 1300), (6, 1300), (9, 2400), (5, 3200), (3, 3900))
"""(Requests in flight, context length) within what both profilers reach."""
TOKENIZER = "local/tiny"


@dataclass(frozen=True)
class Profiled:
    """What one profiler took and left: seconds by phase, and its profile as the planner reads it."""

    name: str
    seconds: Mapping[str, float]
    profile: PlannerProfile


def serve_and_run(
    dynamo: Path,
    model: Path,
    grid: Path,
    command: Sequence[str | Path],
    *more: str,
    env: Mapping[str, str] | None = None,
) -> float:
    """Run a command against a fresh mocker; its seconds, without those of the mocker's start."""
    serving = [sys.executable, str(SERVE), str(dynamo / "serving-1.6.1"), str(model), str(PORT)]
    mocker = ["--planner-profile-data", str(grid), "--block-size", str(BLOCK)]
    mocker += ["--num-gpu-blocks-override", str(BLOCKS), "--max-num-batched-tokens", "32768", *more]
    with tempfile.NamedTemporaryFile("r") as clock:
        timed = ["bash", "-c", 'd=$1; shift; s=$(date +%s.%N); "$@"; r=$?; echo $s $(date +%s.%N) > "$d"; exit $r', "-"]
        whole = ["unshare", "-n", *serving, *mocker, "--", *timed, clock.name, *map(str, command)]
        done = subprocess.run(whole, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{command} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        start, end = map(float, clock.read().split())
    return end - start


def run_autotune(dynamo: Path, model: Path, grid: Path, folder: Path) -> Profiled:
    """Profile with autotune: one run, both phases."""
    command: list[str | Path] = [Path(sys.executable).parent / "autotune", "sla", "run", "--output", folder]
    options = {"url": f"http://127.0.0.1:{PORT}", "max-kv-tokens": BLOCK * BLOCKS, "isl": 3000, "osl": 150}
    options |= {"ttft": 5000, "itl": 1000, "max-context-length": LONGEST, "prefill-points": 8, "decode-points": 4}
    command += [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    seconds = serve_and_run(dynamo, model, grid, command)
    return Profiled("autotune sla run", {"both": seconds}, PlannerProfile.read(folder))


def run_profile_endpoint(dynamo: Path, aiperf: Path, model: Path, grid: Path, folder: Path, points: int) -> Profiled:
    """Profile with Dynamo's profile_endpoint: a run for each phase, each on a mocker as it asks for."""
    hub = folder / "hub"
    snapshot = hub / "hub" / f"models--{TOKENIZER.replace('/', '--')}" / "snapshots" / "1"
    shutil.copytree(model, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1")
    env = {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    env["PATH"] = f"{aiperf}/bin:{os.environ['PATH']}"
    seconds = {}
    for mode, name, more in (
        ("prefill", PREFILL_FOLDER, ["--no-enable-prefix-caching"]),
        ("decode", DECODE_FOLDER, []),
    ):
        command = [f"{dynamo}/serving-1.6.1/bin/python", "-m", "dynamo.profiler.profile_endpoint", "--mode", mode]
        options = {"model_name": "tiny", "tokenizer_path": TOKENIZER, "url": f"http://127.0.0.1:{PORT}"}
        options |= {"num_gpus": "1", "max_kv_tokens": str(BLOCK * BLOCKS), "work_dir": str(folder / name)}
        options |= {"max_context_length": str(LONGEST)}
        options |= {"interpolation_granularity": str(points if mode == "prefill" else max(2, points // 2))}
        command += [part for name, value in options.items() for part in (f"--{name}", value)]
        seconds[mode] = serve_and_run(dynamo, model, grid, command, *more, env=env)
    return Profiled("profile_endpoint", seconds, PlannerProfile.read(folder))


def print_errors(profiled: Profiled, truth: WorkerCurves) -> None:
    """Print seconds, and median and largest error of points and of curves between them."""
    profile = profiled.profile
    total = sum(profiled.seconds.values())
    phases = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in profiled.seconds.items())
    count = len(profile.prefill_isl) + len(profile.z_itl)
    print(f"{profiled.name}: {phases}; {count} points, {total / count:.1f} s a point")
    ttft = [
        value / 1000 / truth.ttft(isl) - 1 for isl, value in zip(profile.prefill_isl, profile.prefill_ttft, strict=True)
    ]
    itl = [
        value / 1000 / truth.itl(n, context) - 1
        for n, context, value in zip(profile.requests, profile.y_context_length, profile.z_itl, strict=True)
    ]
    print_row("TTFT, points", ttft)
    print_row("ITL, points", itl)
    interpolation = PlannerInterpolation(profile)
    try:
        between = [interpolation.ttft(isl) / 1000 / truth.ttft(isl) - 1 for isl in LEFT_OUT_LENGTHS]
        print_row("TTFT, left-out lengths, the planner's curve", between)
    except AutotuneError as error:
        print(f"  TTFT, left-out lengths: none, {error}")
    own = WorkerCurves(profile, 1, 1)
    print_row("TTFT, left-out lengths, fitted curve", [own.ttft(isl) / truth.ttft(isl) - 1 for isl in LEFT_OUT_LENGTHS])
    print_row("ITL, left-out batches, fitted surface", [own.itl(*at) / truth.itl(*at) - 1 for at in LEFT_OUT_BATCHES])


def print_row(name: str, errors: Sequence[float]) -> None:
    """Print a median and the extremes of relative errors."""
    median = statistics.median(map(abs, errors))
    print(f"  {name}: median {median:.1%}, from {min(errors):+.1%} to {max(errors):+.1%} ({len(errors)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dynamo", type=Path, required=True)
    parser.add_argument("--aiperf", type=Path, required=True)
    parser.add_argument(
        "--points", type=int, default=4, help="prompt lengths of profile_endpoint; half as many contexts"
    )
    values = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        model, grid = home / "model", home / "truth.npz"
        model.mkdir()
        write_word_model(model)
        profiles = write_real_profiles(values.dynamo, home)
        truth = WorkerCurves(PlannerProfile.read(next(profiles[each] for each in profiles if "8B" in each)), 1, 1)
        write_mocker_grid(truth, grid)
        print_errors(run_autotune(values.dynamo, model, grid, home / "autotune"), truth)
        sys.stdout.flush()
        real = run_profile_endpoint(values.dynamo, values.aiperf, model, grid, home / "real", values.points)
        print_errors(real, truth)


if __name__ == "__main__":
    main()
