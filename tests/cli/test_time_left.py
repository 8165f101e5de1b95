"""Estimates of the time left of a run, on simulated streams of progress with a clock of their own."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from autotuner.cli.time_left import TimeEstimator, format_duration
from autotuner.core import Candidate, Failure, FailureKind, LoadPoint, Measurement, Progress, Stage, Trial
from autotuner.experiment import Experiment
from autotuner.search.launch import Launch
from autotuner.search.plan import Plan
from tests import factories

LOADS = (1, 4, 16)
START = 90.0
PLANNED = 25.0


def experiment(objective: str = "minimize_latency", **optimization) -> Experiment:
    return factories.experiment(
        base_runtime="vllm",
        parameters={"x": list(range(8))},
        optimization={"objective": objective, **optimization},
        benchmark={"traffic_scenarios": ["D(100,100)"], "num_concurrency": LOADS},
    )


def plan(searched: int = 8, virtual: bool = False, **changes) -> Plan:
    return factories.plan(experiment(**({"strategy": "grid_search"} | changes)), searched, START, virtual)


POINTS = tuple(LoadPoint("D(100,100)", concurrency=load) for load in LOADS)


@dataclass
class World:
    """What phases really take: an engine's start, each load point by its load, an end; in seconds."""

    start: float = START
    first_start: float | None = None
    points: dict[int, float] = field(default_factory=lambda: dict.fromkeys(LOADS, PLANNED))
    end: float = 2.0
    spread: float = 0.0
    pruned: dict[int, int] = field(default_factory=dict)
    failed: tuple[int, ...] = ()


def stream(
    made: Plan, world: World, searched: int | None = None, confirmed: int | None = None
) -> Iterator[tuple[float, Progress]]:
    """(seconds, progress) of a run that makes so many launches of its search, and confirms its second candidate."""
    now = 0.0
    searches = made.launches[: 1 + (searched if searched is not None else len(made.launches) - 1)]
    winner, baseline = searches[-1].candidate, searches[0].candidate
    again = made.confirmations if confirmed is None else confirmed
    turns = [Launch((winner, baseline)[turn % 2], "confirmation") for turn in range(again)]
    for number, launch in enumerate((*searches, *turns), start=1):
        wobble = 1 + world.spread * (-1) ** number
        points = POINTS if launch.purpose != "confirmation" or made.confirmation_load.points > 1 else POINTS[-1:]
        yield now, Progress("starting", number, launch.candidate, purpose=launch.purpose)
        now += world.first_start if number == 1 and world.first_start else world.start * wobble
        if number in world.failed:
            yield now, finished(number, launch, failed=True)
            continue
        yield now, Progress("ready", number, launch.candidate, purpose=launch.purpose)
        for place, point in enumerate(points[: world.pruned.get(number)], start=1):
            assert point.concurrency is not None
            seconds = world.points[point.concurrency] * wobble
            parts: tuple[tuple[Stage, float], ...] = (("warming-up", 0.2), ("measuring", 0.8))
            for stage, part in parts:
                yield now, Progress(stage, number, launch.candidate, point, place, 3, expected_seconds=20.0)
                now += part * seconds
            yield now, Progress("measured", number, launch.candidate, point, place, 3)
        yield now, Progress("stopping", number, launch.candidate, purpose=launch.purpose)
        now += world.end
        yield now, finished(number, launch)


def finished_trial(number: int, launch: Launch, *, failed: bool = False) -> Trial:
    failure = Failure(FailureKind.CRASHED_AT_START, "", "") if failed else None
    return Trial(number, launch.candidate, Measurement("measured", (), failure), 0.0, 1.0, launch.purpose)


def finished(number: int, launch: Launch, *, failed: bool = False) -> Progress:
    trial = finished_trial(number, launch, failed=failed)
    return Progress("finished", number, launch.candidate, finished_trial=trial)


def errors(made: Plan, events: list[tuple[float, Progress]], *, leads: bool = True) -> list[tuple[float, float]]:
    """(share of the run that has passed, predicted total over the real one - 1) after each event."""
    total_seconds = events[-1][0]
    estimator = TimeEstimator(made, (), 0.0)
    outcomes = []
    for now, progress in events:
        estimator.update(progress, now)
        estimator.set_winner(POINTS[-1:] if made.confirmation_load.points == 1 else POINTS, beats_baseline=leads)
        remaining = estimator.remaining_seconds(now)
        if remaining is not None:
            outcomes.append((now / total_seconds, (now + remaining) / total_seconds - 1))
    return outcomes


SLOW = World(start=200.0, first_start=500.0, points={1: 120.0, 4: 60.0, 16: 26.0})
WORLDS = {
    "as planned": World(),
    "windows that go on, most of all at light loads, and slow starts": SLOW,
    "launches that differ by a third": World(spread=0.33, points={1: 60.0, 4: 40.0, 16: 25.0}),
    "quick starts": World(start=4.0, points={1: 22.0, 4: 22.0, 16: 22.0}),
    "candidates that are pruned": World(pruned={3: 1, 4: 1, 6: 1, 7: 2, 8: 1, 9: 1}),
    "some that do not start": World(failed=(4, 5, 8)),
}


@pytest.mark.parametrize("objective", ["minimize_latency", "maximize_throughput"])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_in_the_second_half_of_a_run_its_end_is_known_to_a_fifth(world, objective):
    made = plan(objective=objective)
    late = [error for passed, error in errors(made, list(stream(made, world))) if passed >= 0.5]
    assert len(late) > 20
    assert max(map(abs, late)) <= 0.2


def test_confirmations_are_in_it_from_the_beginning():
    made = plan()
    events = list(stream(made, World(end=0.0)))
    # 13 launches; a planned load point has a second more than these take
    assert errors(made, events)[0] == pytest.approx((0.0, 39 / (13 * 165.0)))
    assert TimeEstimator(made, (), 0.0).total_launches == 13


@pytest.mark.parametrize("searched", [2, 4, 7])
def test_a_search_that_ends_early_is_said_to_take_up_to_so_long_and_then_about(searched):
    made = plan(strategy="racing")
    estimator = TimeEstimator(made, (), 0.0)
    events = list(stream(made, World(), searched))
    total_seconds, launches = events[-1][0], 1 + searched + 4
    for now, progress in events:
        estimator.update(progress, now)
        estimator.set_winner(POINTS, beats_baseline=True)
        remaining = estimator.remaining_seconds(now)
        assert remaining is not None
        total = now + remaining
        if estimator.is_confirming:
            assert not estimator.may_end_early
            assert estimator.total_launches == launches
            assert total == pytest.approx(total_seconds, rel=0.05)
        else:
            assert estimator.may_end_early
            assert estimator.total_launches == 13
            assert total >= total_seconds


def test_a_number_of_launches_is_never_below_the_one_under_way():
    made = plan(strategy="racing")
    estimator = TimeEstimator(made, (), 0.0)
    for now, progress in stream(made, World(), 3):
        estimator.update(progress, now)
        assert progress.trial_number <= estimator.total_launches


def test_more_confirmations_than_were_planned_are_counted_as_they_come():
    made = plan()
    estimator = TimeEstimator(made, (), 0.0)
    for now, progress in stream(made, World(), confirmed=6):
        estimator.update(progress, now)
        estimator.set_winner(POINTS, beats_baseline=True)
        assert estimator.total_launches == max(13, progress.trial_number)
    assert estimator.remaining_seconds(now) == 0.0


def test_a_candidate_that_the_search_launches_twice_confirms_nothing():
    made = plan()
    estimator = TimeEstimator(made, (), 0.0)
    for number in (1, 2):
        estimator.update(Progress("starting", number, Candidate("vllm"), purpose="search"), 0.0)
    assert not estimator.is_confirming


def test_where_nothing_leads_the_baseline_no_confirmation_is_expected_late_in_the_search():
    made = plan()
    late = [error for passed, error in errors(made, list(stream(made, World(), confirmed=0)), leads=False)]
    assert max(map(abs, late[-40:])) <= 0.05
    estimator = TimeEstimator(made, (), 0.0)
    estimator.set_winner((), beats_baseline=False)
    assert estimator.total_launches == 13


def test_a_phase_that_takes_longer_than_expected_leaves_what_comes_after_it():
    made = plan()
    estimator = TimeEstimator(made, (), 0.0)
    estimator.update(Progress("starting", 1, Candidate("vllm")), 0.0)
    begun = estimator.remaining_seconds(0.0)
    assert begun is not None
    assert estimator.remaining_seconds(60.0) == pytest.approx(begun - 60.0)
    assert estimator.remaining_seconds(1000.0) == estimator.remaining_seconds(2000.0) == pytest.approx(begun - START)


def test_a_resumed_run_counts_what_was_done_before():
    made = plan()
    done = [finished_trial(number, launch) for number, launch in enumerate(made.launches[:4], start=1)]
    estimator = TimeEstimator(made, done, 0.0)
    assert (estimator.finished_launches, estimator.total_launches) == (4, 13)
    assert estimator.remaining_seconds(0.0) == pytest.approx(9 * (START + 3 * 26.0))
    confirming = [finished_trial(n, launch) for n, launch in enumerate(made.launches, start=1)]
    confirming.append(finished_trial(10, Launch(Candidate("vllm"), "confirmation")))
    resumed = TimeEstimator(made, confirming, 0.0)
    assert (resumed.is_confirming, resumed.total_launches) == (True, 13)


def test_in_virtual_time_there_is_no_estimate_before_a_launch_has_ended():
    made = plan(virtual=True)
    estimator = TimeEstimator(made, (), 0.0)
    assert estimator.remaining_seconds(0.0) is None
    quick = World(start=0.1, points=dict.fromkeys(LOADS, 0.1), end=0.1)
    outcomes = errors(made, list(stream(made, quick)))
    assert max(abs(error) for _, error in outcomes) < 0.05


def test_the_number_of_load_points_of_a_capacity_search_is_estimated_from_launches():
    question = experiment("maximize_throughput", strategy="grid_search")
    wide = question.model_copy(update={"benchmark": question.benchmark.model_copy(update={"find_capacity": True})})
    base = plan(objective="maximize_throughput")
    made = Plan(base.space, wide, base.launches, START, base.gpus)
    late = [error for passed, error in errors(made, list(stream(made, SLOW))) if passed >= 0.5]
    assert max(map(abs, late)) <= 0.2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1:00"), (245, "4:05"), (3723, "1:02:03")]
)
def test_durations_are_formatted_for_people(seconds, text):
    assert format_duration(seconds) == text
