import ast
from pathlib import Path
from typing import get_args

import pytest

import autotuner
from autotuner.experiment import ObjectiveName as ObjectiveName
from autotuner.scoring.objective import OBJECTIVES, PredictedMetrics


def test_every_objective_a_configuration_can_name_is_registered():
    assert set(OBJECTIVES) == set(get_args(ObjectiveName))
    assert all(objective.name == name for name, objective in OBJECTIVES.items())


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("minimize_latency", 2.0, "s"),
        ("minimize_ttft", 0.1, "s"),
        ("minimize_tpot", 0.02, "s"),
        ("maximize_throughput", 600.0, "total tokens/s/GPU"),  # 1200 tokens/s on 2 GPUs
        ("maximize_goodput", 3.0, "requests/s"),  # half of 6 requests/s
    ],
)
def test_values_by_hand(make, name, value, unit):
    metrics = make.metrics(e2e=2.0, ttft=0.1, tpot=0.02, throughput=1200.0, good=50)
    objective = OBJECTIVES[name]
    assert objective.value(metrics, 2, None) == pytest.approx(value)
    assert objective.unit() == unit
    utility = objective.utility(value)
    assert utility == pytest.approx(1 / value if objective.direction == "min" else value)


def test_cost_is_in_currency_where_a_price_is_known_and_in_gpu_seconds_elsewhere(make):
    cost = OBJECTIVES["minimize_cost"]
    metrics = make.metrics(throughput=2000.0)  # 1000 output tokens/s
    # a million output tokens take 1000 s on each of 2 GPUs
    assert cost.value(metrics, 2, None) == pytest.approx(2000.0)
    assert cost.unit(None) == "GPU-s / 1M output tokens"
    assert cost.value(metrics, 2, 3.6) == pytest.approx(2.0)
    assert cost.unit(3.6) == "currency / 1M output tokens"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_load_point_without_answers_has_no_value(make, name):
    nothing = make.metrics(throughput=0.0, good=0)
    empty = type(nothing)(
        **{field: getattr(nothing, field) for field in nothing.__dataclass_fields__}
        | {"ttft": None, "tpot": None, "e2e": None, "interactivity": None}
    )
    assert OBJECTIVES[name].value(empty, 1, 2.0) is None


@pytest.mark.parametrize("name", OBJECTIVES)
def test_utility_is_positive_and_better_values_have_more(name):
    objective = OBJECTIVES[name]
    better, worse = (1.0, 2.0) if objective.direction == "min" else (2.0, 1.0)
    assert objective.utility(better) > objective.utility(worse) > 0


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_an_objective_is_predicted_as_it_is_measured(make, objective):
    measured = make.metrics(e2e=2.0, ttft=0.1, tpot=0.02, throughput=1200.0, good=100)
    predicted = PredictedMetrics(
        ttft=0.1,
        tpot=0.02,
        e2e=2.0,
        throughput=measured.throughput,
        output_throughput=measured.output_throughput,
        goodput=measured.goodput,
    )
    for price in (None, 2.5):
        assert objective.value(predicted, 4, price) == pytest.approx(objective.value(measured, 4, price))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_an_objective_says_how_it_is_shown(objective):
    for price in (None, 2.5):
        assert objective.unit(price)
        assert objective.describe(price)
    assert objective.label
    assert objective.comparison_phrase
    assert objective.column_scale > 0
    # a value in seconds needs a title, which says of what
    assert objective.column_title or objective.unit() != "s"


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_an_objective_knows_whether_more_gpus_and_a_price_change_it(make, objective):
    metrics = make.metrics(e2e=2.0, ttft=0.1, tpot=0.02, throughput=1200.0, good=100)
    assert (objective.value(metrics, 1, None) != objective.value(metrics, 2, None)) == objective.is_per_gpu
    assert (objective.value(metrics, 1, None) != objective.value(metrics, 1, 2.5)) == objective.uses_price
    assert (objective.unit(None) != objective.unit(2.5)) == objective.uses_price


def test_no_other_code_tells_objectives_apart_by_name():
    """The experiment declares the names, and the default in the help is one of them."""
    package = Path(autotuner.__file__).parent
    naming = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in tuple(OBJECTIVES)
    }
    assert naming == {"scoring/objective.py", "experiment.py", "cli/config_options.py"}
