import pytest

from autotuner.report.objective_text import objective_line, objective_meaning
from autotuner.scoring.objective import OBJECTIVES
from tests.factories import scored_experiment

GPUS = "; not normalized by the number of GPUs of a candidate"


@pytest.mark.parametrize(
    ("objective", "changes", "text"),
    [
        ("minimize_latency", {}, f"the mean end-to-end latency over all load points{GPUS}"),
        ("minimize_ttft", {"loads": (4,)}, f"the mean time to first token at D(100,100) @ 4{GPUS}"),
        ("minimize_tpot", {}, f"the mean time per output token over all load points{GPUS}"),
        (
            "maximize_throughput",
            {},
            "total (prompt + output) tokens/s per GPU, each candidate at its best load point",
        ),
        (
            "maximize_goodput",
            {"scenarios": ("D(100,100)", "D(10,10)")},
            "requests/s of one server that meet the targets, "
            f"each candidate at its best load point of each scenario{GPUS}",
        ),
        ("minimize_cost", {}, "the GPU-seconds of a million output tokens, each candidate at its best load point"),
        ("minimize_cost", {"price": 2.0, "loads": (1,)}, "the price of a million output tokens at D(100,100) @ 1"),
    ],
)
def test_an_objective_says_what_it_compares_where_and_whether_gpus_count(objective, changes, text):
    assert objective_meaning(scored_experiment(objective, **changes)) == text


def test_at_capacity_each_candidate_has_its_own_load():
    base = scored_experiment("maximize_throughput")
    with_capacity = base.model_copy(update={"benchmark": base.benchmark.model_copy(update={"find_capacity": True})})
    assert objective_meaning(with_capacity).endswith("per GPU, each candidate at its own capacity")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_has_a_line(objective):
    assert objective_line(scored_experiment(objective)).startswith(f"Objective: {objective}, ")
