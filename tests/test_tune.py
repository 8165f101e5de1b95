"""The loop, with an evaluator whose answers are written down here."""

from pathlib import Path

import pytest

from autotuner.core import (
    Candidate,
    Distribution,
    Failure,
    FailureKind,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Metrics,
    Progress,
    Trial,
    Verdict,
)
from autotuner.runs.store import RunStore
from autotuner.scoring.rank import Ranking, rank
from autotuner.search.grid import GridSearch
from autotuner.search.launch import Launch
from autotuner.search.problem import Problem
from autotuner.search.space import Space
from autotuner.tune import tune

CONFIG = {
    "task_name": "t",
    "model": {"id_or_path": "m"},
    "base_runtime": "sim",
    "parameters": {"tp-size": [1, 2, 4]},
    "optimization": {"objective": "minimize_latency"},
    "benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": [1]},
}
POINT = LoadPoint("D(100,100)", concurrency=1)


def seconds(value: float) -> Distribution:
    return Distribution(30, value, 0.0, value, value, value, value, value, value, value, value)


def answer(e2e: float) -> Measurement:
    metrics = Metrics(
        requests=30,
        ttft=seconds(e2e / 10),
        ttfo=None,
        tpot=seconds(e2e / 100),
        itl=None,
        chunk_gap=None,
        e2e=seconds(e2e),
        interactivity=100 / e2e,
        output_throughput=100 / e2e,
        throughput=200 / e2e,
        request_throughput=1 / e2e,
        goodput=1 / e2e,
        token_goodput=100 / e2e,
        attainment=None,
        errors={},
    )
    return Measurement("simulated", (LoadPointResult(POINT, "simulated", metrics),))


CRASH = Measurement("simulated", (), Failure(FailureKind.CRASHED_AT_START, "Killed", "Look at the log."))
ANSWERS = {1: answer(2.0), 2: answer(1.0), 4: CRASH}


def tp_size(candidate: Candidate) -> int:
    size = candidate.parameters["tp-size"]
    assert isinstance(size, int)
    return size


class Scripted:
    """An executor that looks answers up, holding up to `width` candidates at once."""

    def __init__(self, answers: dict[int, Measurement], width: int = 1, interrupt_at: int | None = None) -> None:
        self.answers, self.width, self.interrupt_at = answers, width, interrupt_at
        self.running: list[tuple[int, Candidate]] = []
        self.submitted: list[int] = []

    @property
    def has_room(self) -> bool:
        return len(self.running) < self.width

    def submit(self, number: int, launch: Launch, folder: Path) -> None:
        assert folder.is_dir()
        self.running.append((number, launch.candidate))
        self.submitted.append(tp_size(launch.candidate))

    def wait_for_trial(self) -> Trial | None:
        if not self.running:
            return None
        number, candidate = self.running.pop()
        tp = tp_size(candidate)
        if tp == self.interrupt_at:
            raise KeyboardInterrupt
        return Trial(number, candidate, self.answers[tp], 0.0, 1.0)


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore.create(tmp_path, CONFIG, {})


def run(store: RunStore, executor: Scripted, events: list[Progress] | None = None) -> Ranking:
    searcher = GridSearch(Problem(Space("sim", store.experiment.parameters), store.experiment))
    tune(store.experiment, searcher, executor, store, (events if events is not None else []).append)
    return rank(store.trials(), store.experiment)


def test_every_candidate_is_evaluated_judged_and_recorded(store):
    run(store, Scripted(ANSWERS))
    trials = RunStore.open(store.path).trials()
    assert [trial.candidate.parameters["tp-size"] for trial in trials] == [1, 2, 4]
    assert [point.verdict for trial in trials for point in trial.measurement.load_points] == [Verdict.FEASIBLE] * 2


def test_the_best_candidate_wins_and_a_crash_stands_last(store):
    ranking = run(store, Scripted(ANSWERS))
    assert ranking.winner is not None
    assert ranking.winner.candidate.parameters["tp-size"] == 2
    assert ranking.standings[-1].candidate.parameters["tp-size"] == 4


def test_a_run_in_which_everything_failed_has_no_winner(store):
    ranking = run(store, Scripted(dict.fromkeys((1, 2, 4), CRASH)))
    assert ranking.winner is None
    assert len(ranking.standings) == 3


def test_an_interrupted_run_goes_on_without_repeating_a_finished_trial(store):
    with pytest.raises(KeyboardInterrupt):
        run(store, Scripted(ANSWERS, interrupt_at=2))
    second = Scripted(ANSWERS)
    ranking = run(RunStore.open(store.path), second)
    assert second.submitted == [2, 4]
    assert [trial.number for trial in store.trials()] == [1, 2, 3]
    assert ranking.winner is not None
    assert ranking.winner.candidate.parameters["tp-size"] == 2


def test_several_candidates_can_run_at_once_and_end_in_any_order(store):
    ranking = run(store, Scripted(ANSWERS, width=3))
    assert sorted(trial.number for trial in store.trials()) == [1, 2, 3]
    assert ranking.winner is not None
    assert ranking.winner.candidate.parameters["tp-size"] == 2


def test_whoever_watches_hears_of_each_finished_trial(store):
    events: list[Progress] = []
    run(store, Scripted(ANSWERS), events)
    assert [(progress.stage, progress.trial_number) for progress in events] == [("finished", n) for n in (1, 2, 3)]
