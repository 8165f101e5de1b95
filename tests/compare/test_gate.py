import random

import pytest

from autotuner.compare.comparison import Comparison
from autotuner.compare.gate import GateDecision, GateState, decide, needs_another_pair
from tests.compare.builders import candidate, run


def gate(baseline, new):
    return decide(Comparison(run(candidate(baseline)), run(candidate(new))))


@pytest.mark.parametrize(
    ("new", "state"),
    [
        ([1000.0, 1002.0, 998.0], GateState.PASSES),
        ([1100.0, 1102.0, 1098.0], GateState.PASSES),
        ([900.0, 902.0, 898.0], GateState.WORSE),
        ([1000.0, 1200.0, 800.0], GateState.UNCLEAR),
    ],
)
def test_a_gate_passes_fails_or_is_unclear(new, state):
    assert gate([1000.0, 1001.0, 999.0], new).state is state


def test_one_launch_a_side_is_unclear_however_large_the_change():
    assert gate([1000.0], [500.0]).state is GateState.UNCLEAR


def test_a_missing_winner_is_worse():
    decision = decide(Comparison(run(candidate([1000.0, 1001.0])), run(candidate([1000.0]), winner=None)))
    assert decision.state is GateState.WORSE


def decision(state: GateState) -> GateDecision:
    figure = Comparison(run(candidate([1.0])), run(candidate([1.0]))).gated[0]
    return GateDecision(((figure, state),))


PASSES, WORSE, UNCLEAR = (decision(state) for state in GateState)


@pytest.mark.parametrize(
    ("decisions", "goes_on"),
    [
        ([], True),
        ([PASSES], False),
        ([UNCLEAR], True),
        ([WORSE], True),
        ([WORSE, WORSE], False),
        ([WORSE, UNCLEAR], True),
        ([UNCLEAR, WORSE], True),
    ],
)
def test_worse_must_survive_a_fresh_pair(decisions, goes_on):
    assert needs_another_pair(decisions) is goes_on


def test_unchanged_launches_with_noise_are_never_worse_at_three_percent():
    rng = random.Random(0)

    def launches(mean: float) -> list[float]:
        return [mean * rng.lognormvariate(0, 0.01) for _ in range(4)]

    states = [gate(launches(1000), launches(1000)).state for _ in range(100)]
    assert GateState.WORSE not in states
    assert states.count(GateState.PASSES) > 80
    assert [gate(launches(1000), launches(900)).state for _ in range(20)] == [GateState.WORSE] * 20
