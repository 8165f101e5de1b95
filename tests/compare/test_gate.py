import random

import pytest

from autotuner.compare.comparison import Comparison
from autotuner.compare.gate import GateDecision, GateState, decide, failed_figures_text, needs_another_pair
from autotuner.compare.headline import headline, pairs_text
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


def launch(throughput: float | None):
    """A fresh launch of a winner, or a failed one."""
    return run(candidate([throughput] if throughput else [], failure=None if throughput else "out-of-memory: no room"))


def gate_of_pairs(pairs):
    recorded = run(candidate([1000.0, 1001.0, 999.0]), name="before"), run(candidate([1000.0]), name="after")
    comparison = Comparison(*recorded, pairs=tuple((launch(first), launch(second)) for first, second in pairs))
    return comparison, decide(comparison)


EQUAL, HALF, NEW_FAILED, BASELINE_FAILED = (1000.0, 1000.0), (1000.0, 500.0), (1000.0, None), (None, 1000.0)


@pytest.mark.parametrize(
    ("pairs", "state"),
    [
        ([EQUAL, EQUAL, NEW_FAILED, EQUAL, EQUAL], GateState.PASSES),
        ([BASELINE_FAILED, HALF, HALF, HALF, HALF], GateState.WORSE),
        ([NEW_FAILED, NEW_FAILED, EQUAL], GateState.WORSE),
        ([NEW_FAILED, NEW_FAILED], GateState.WORSE),
        ([NEW_FAILED, NEW_FAILED, BASELINE_FAILED, BASELINE_FAILED, EQUAL], GateState.UNCLEAR),
        ([NEW_FAILED, BASELINE_FAILED, EQUAL, EQUAL], GateState.PASSES),
        ([NEW_FAILED, EQUAL], GateState.UNCLEAR),
        ([BASELINE_FAILED, BASELINE_FAILED], GateState.UNCLEAR),
    ],
)
def test_a_launch_that_failed_is_left_out_with_its_pair_and_counts_where_it_is_no_accident(pairs, state):
    assert gate_of_pairs(pairs)[1].state is state


def test_failed_launches_of_pairs_are_said():
    comparison, decision = gate_of_pairs([NEW_FAILED, NEW_FAILED, EQUAL])
    said = "Decided by 3 fresh pairs of launches. 2 of 3 launches of after gave no objective (out-of-memory)."
    assert pairs_text(comparison) == said
    assert "total throughput per GPU of the winner (2 of 3 launches of after gave none)" in headline(
        comparison, decision
    )


def test_where_nothing_can_be_compared_a_gate_is_unclear():
    baseline = run(candidate([]), name="before")
    comparison = Comparison(baseline, run(candidate([1000.0]), name="after"))
    decision = decide(comparison)
    assert (decision.figures, decision.state) == ((), GateState.UNCLEAR)
    assert failed_figures_text(comparison, decision) == "after has no figure to compare"
    assert headline(comparison).startswith("before has no trusted figures of its winner")


def test_a_headline_of_a_gate_is_of_the_figures_that_decide_it():
    comparison = Comparison(run(candidate([1000.0, 1040.0])), run(candidate([1500.0, 1560.0]), name="after"))
    assert headline(comparison, decide(comparison)).startswith("after is better: total throughput")
    unclear = Comparison(run(candidate([1000.0])), run(candidate([1000.0])))
    assert headline(unclear, decide(unclear)).count("one launch a side") == 1
