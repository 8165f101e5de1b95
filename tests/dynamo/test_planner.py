"""The real 0.9.1 planner reads our files, and its replicas are ours; so are the rates of the 1.6.1 planner."""

import json
import re
import subprocess
from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest

from autotuner.profiling.planner_model import PlannerInterpolation, PlannerLoad, planner_replicas
from autotuner.profiling.planner_profile import PlannerProfile
from autotuner.profiling.planner_regression import PlannerRegression
from autotuner.profiling.session import prepare, profile
from tests.profiling.points import sla_request

pytestmark = pytest.mark.dynamo
REPLICAS = Path(__file__).with_name("planner_replicas.py")
RATES = Path(__file__).with_name("planner_regression.py")
LOADS_PER_PROFILE = 20


def python(dynamo, *arguments, environment="planner-0.9.1", question=""):
    """What the interpreter of an environment prints."""
    command = [str(dynamo / environment / "bin/python"), *arguments]
    done = subprocess.run(command, input=question, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def answers(dynamo, script, questions, **options):
    """The answer of a script to each question."""
    text = python(dynamo, str(script), question=json.dumps(questions), **options)
    return json.loads(text.splitlines()[-1])


def random_loads(profile: PlannerProfile, seed: str) -> list[PlannerLoad]:
    """Loads within and a little beyond the lengths and targets of a profile."""
    rng = Random(seed)
    return [
        PlannerLoad(
            rate=rng.uniform(0.1, 200),
            isl=rng.uniform(0.5 * profile.prefill_isl.min(), 1.2 * profile.prefill_isl.max()),
            osl=rng.uniform(10, 800),
            itl=rng.uniform(0.5 * profile.z_itl.min(), profile.z_itl.max()),
            prefill_gpus=rng.choice((1, 2, 4)),
            decode_gpus=rng.choice((1, 2, 8)),
            max_gpus=rng.choice((8, 64, 100_000)),
        )
        for _ in range(LOADS_PER_PROFILE)
    ]


def test_replicas_equal_the_real_planners_on_random_loads_over_its_own_profiles(dynamo, real_profiles):
    assert len(real_profiles) >= 4
    planners = {name: PlannerInterpolation(PlannerProfile.read(folder)) for name, folder in real_profiles.items()}
    loads = {name: random_loads(planner.profile, name) for name, planner in planners.items()}
    questions = [
        {"folder": str(folder), "loads": [asdict(load) for load in loads[name]]}
        for name, folder in real_profiles.items()
    ]
    for name, pairs in zip(real_profiles, answers(dynamo, REPLICAS, questions), strict=True):
        assert [list(planner_replicas(planners[name], load)) for load in loads[name]] == pairs, name


def test_rates_of_workers_are_those_of_the_real_regression_within_one_percent(dynamo, real_profiles):
    planners = {name: PlannerRegression(PlannerProfile.read(folder)) for name, folder in real_profiles.items()}
    loads = {name: random_loads(planner.profile, name) for name, planner in planners.items()}
    questions = [
        {
            "folder": str(folder),
            "max_kv_tokens": planners[name].profile.max_kv_tokens,
            "loads": [asdict(load) for load in loads[name]],
        }
        for name, folder in real_profiles.items()
    ]
    rates = answers(dynamo, RATES, questions, environment="serving-1.6.1")
    for (name, planner), expected in zip(planners.items(), rates, strict=True):
        ours = [
            [*planner.prefill_rate(load.isl), *planner.decode_rate(load.itl, load.isl, load.osl)[:2]]
            for load in loads[name]
        ]
        assert ours == [pytest.approx(row, rel=0.01) for row in expected], name


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """The folder of a profile in virtual time."""
    folder = tmp_path_factory.mktemp("profiled") / "profile"
    settings = {"parameters": {"max-running-requests": [64]}}
    request = sla_request(evaluator="simulated", prefill_points=8, decode_points=4, settings=settings)
    assert profile(prepare(request), folder).is_complete
    return folder


@pytest.mark.parametrize("form", ["npz", "json"])
def test_the_real_interpolators_read_the_folder_and_print_our_numbers(dynamo, profiled, tmp_path, form):
    folder = profiled
    if form == "json":
        folder = tmp_path
        for name in ("prefill_raw_data.json", "decode_raw_data.json"):
            (folder / name).write_bytes((profiled / name).read_bytes())
    isl, osl, ttft, itl = 600, 40, 200.0, 15.0
    values = (("isl", isl), ("osl", osl), ("ttft", ttft), ("itl", itl))
    options = [part for name, value in values for part in (f"--{name}", str(value))]
    module = ("-m", "dynamo.planner.utils.perf_interpolation")
    text = python(dynamo, *module, "--profile-results-dir", str(folder), *options)
    printed = [float(number) for number in re.findall(r"(?:TTFT=|throughput: |ITL=)([\d.]+)", text)]
    interpolation = PlannerInterpolation(PlannerProfile.read(folder))
    throughput, expected_itl, _ = interpolation.best_decode(itl, isl + osl // 2)
    for expected in (interpolation.ttft(isl), interpolation.prefill_throughput(isl), expected_itl, throughput):
        assert any(abs(number - expected) < 0.006 for number in printed), (expected, text)
