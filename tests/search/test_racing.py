"""The racing search on synthetic servers whose capacities are known."""

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from autotuner.core import Candidate, Failure, FailureKind, Measurement, Purpose, Trial
from autotuner.predict.efficiencies import UNIT_COSTS
from autotuner.scoring.confirm import confirmed_gain
from autotuner.scoring.intervals import wilson_share
from autotuner.scoring.rank import rank
from autotuner.search.launch import Launch, ListedLoads
from autotuner.search.problem import Problem
from autotuner.search.space import Space
from autotuner.search.strategies import searcher_for
from autotuner.tune import tune
from tests.factories import experiment, load_point_result

SPACE = Space("sim", {"tp-size": [1], "a": [1, 2, 3, 4, 5], "b": [1, 2, 4, 8]})
BASELINE = Candidate("sim", {})


def capacity(candidate: Candidate) -> float:
    """The true capacity of a candidate: 100 for the engine's own defaults, 200 for a=3 and b=8."""
    if not candidate.parameters:
        return 100.0
    a, b = candidate.parameters["a"], candidate.parameters["b"]
    assert isinstance(a, int)
    assert isinstance(b, int)
    return 200 * 0.8 ** abs(a - 3) * 0.85 ** (3 - [1, 2, 4, 8].index(b))


def noisy_predictor(log_error_sd: float):
    """Predicts the true capacity times a log-normal error of each candidate."""

    def predict(candidate, point, costs=UNIT_COSTS):
        log_error = random.Random(candidate.key).gauss(0, log_error_sd)
        load = point.concurrency
        tpot = 0.01 * load / (capacity(candidate) * 2.718**log_error) * (costs.weights * costs.matrices) ** 0.5
        seconds = 0.1 + 99 * tpot
        return SimpleNamespace(
            ttft=0.1, tpot=tpot, requests=load / seconds, throughput=100 * load / seconds, max_in_flight=1e4
        )

    return predict


class Servers:
    """An executor on which attainment falls through 95% at the candidate's capacity."""

    def __init__(self, interrupt_after: int | None = None, refused_values=()) -> None:
        self.waiting: list[tuple[int, Launch]] = []
        self.launched: list[tuple[Purpose, Candidate]] = []
        self.load_point_count = 0
        self.interrupt_after, self.refused_values = interrupt_after, refused_values

    @property
    def has_room(self) -> bool:
        return not self.waiting

    def submit(self, number, launch, folder) -> None:
        self.waiting.append((number, launch))

    def wait_for_trial(self) -> Trial | None:
        if not self.waiting:
            return None
        if self.interrupt_after is not None and len(self.launched) == self.interrupt_after:
            raise KeyboardInterrupt
        number, launch = self.waiting.pop()
        self.launched.append((launch.purpose, launch.candidate))
        if launch.candidate.parameters.get("b") in self.refused_values:
            failure = Failure(FailureKind.BAD_FLAG, f"error: argument --b: {launch.candidate}", "Correct it.")
            return Trial(number, launch.candidate, Measurement("simulated", (), failure), number, number + 1.0)
        load_plan, results = launch.load_plan or ListedLoads(CAPACITY.workload()), []
        while (step := load_plan.ask()) is not None:
            results.append(self.measure(launch.candidate, step.load_point, number))
            load_plan.tell(results[-1])
        measurement = Measurement("simulated", tuple(results), outcome=load_plan.outcome)
        return Trial(number, launch.candidate, measurement, float(number), number + 1.0, launch.purpose)

    def measure(self, candidate, point, number):
        self.load_point_count += 1
        load, max_load = point.concurrency, capacity(candidate)
        good = round(200 / (1 + (1 / 0.95 - 1) * (load / max_load) ** 12))
        seconds = (0.1 + 0.99 * load / max_load) * (1 + 0.004 * random.Random(number).random())
        return load_point_result(
            point, throughput=200 * load / seconds, e2e=seconds, attainment=wilson_share(good, 200)
        )


class InMemoryRecord:
    def __init__(self, folder: Path, trials=()) -> None:
        self.folder, self.finished, self.opened = folder, list(trials), len(trials)

    def summaries(self):
        return list(self.finished)

    def open_trial(self):
        self.opened += 1
        return self.opened, self.folder

    def append(self, trial) -> None:
        self.finished.append(trial)


def capacity_experiment(find_capacity=True, **optimization):
    return experiment(
        optimization={"objective": "maximize_throughput", "max_iterations": 50, **optimization},
        benchmark={
            "traffic_scenarios": ["D(100,100)"],
            "num_concurrency": [1, 1024] if find_capacity else [8, 32, 128],
            "find_capacity": find_capacity,
        },
        slo={"tpot": 0.01},
    )


CAPACITY = capacity_experiment()


def problem_of(experiment, log_error_sd: float | None) -> Problem:
    predictor = {} if log_error_sd is None else {"predict": noisy_predictor(log_error_sd)}
    return Problem(SPACE, experiment, baseline=BASELINE, **predictor)


def race(folder, experiment=CAPACITY, servers=None, trials=(), log_error_sd: float | None = 0.1):
    """Run a whole search; `log_error_sd` is None for a search without predictions."""
    problem = problem_of(experiment, log_error_sd)
    searcher, record, servers = searcher_for(problem), InMemoryRecord(folder, trials), servers or Servers()
    tune(experiment, searcher, servers, record)
    ranking = rank(record.summaries(), experiment)
    return SimpleNamespace(ranking=ranking, searcher=searcher, record=record, servers=servers)


def purposes(run) -> list[str]:
    return [trial.purpose for trial in run.record.finished]


@pytest.mark.parametrize("log_error_sd", [0.0, 0.1, 0.25])
def test_it_finds_a_candidate_near_the_best_in_a_few_launches(tmp_path, log_error_sd):
    run = race(tmp_path, log_error_sd=log_error_sd)
    assert capacity(run.ranking.winner.candidate) >= 0.95 * 200 or log_error_sd > 0.2
    assert capacity(run.ranking.winner.candidate) >= 0.84 * 200
    assert purposes(run).count("search") <= 10
    assert run.searcher.report.stop_reason == "converged: no untested candidate is predicted to be more than 4% better"
    assert all(reason.startswith("predicted: at most") for _, reason in run.searcher.report.skipped)


def test_the_engines_defaults_come_first_and_gains_are_relative_to_them(tmp_path):
    run = race(tmp_path)
    assert run.servers.launched[0] == ("baseline", BASELINE)
    assert run.ranking.baseline_trial_number == 1
    assert run.ranking.winner.gain == pytest.approx(2, rel=0.15)


def test_winner_and_defaults_are_launched_again_in_turn(tmp_path):
    run = race(tmp_path)
    confirmed = [candidate for purpose, candidate in run.servers.launched if purpose == "confirmation"]
    assert confirmed == [run.ranking.winner.candidate, BASELINE] * 2
    assert purposes(run).count("confirmation") == 4
    gain = confirmed_gain(run.ranking, run.record.finished, CAPACITY)
    assert gain is not None
    assert gain.is_reliable
    assert gain.low < gain.value < gain.high
    assert (gain.winner, gain.baseline) == (2, 3)


def test_without_predictions_it_learns_the_effects_of_values_and_losers_cost_one_load_point(tmp_path):
    run = race(tmp_path, log_error_sd=None)
    assert capacity(run.ranking.winner.candidate) >= 0.95 * 200
    assert 6 <= purposes(run).count("search") <= 14
    assert all(
        reason.startswith("estimated from similar candidates: at most") for _, reason in run.searcher.report.skipped
    )
    pruned = [trial for trial in run.record.finished if trial.measurement.outcome.gave_up]
    assert len(pruned) >= 3
    assert sum(len(trial.measurement.load_points) for trial in pruned) <= 1.5 * len(pruned)


def test_pruned_candidates_rank_last_and_say_so(tmp_path):
    run = race(tmp_path, log_error_sd=None)
    last = run.ranking.standings[-1]
    assert last.verdict is None
    assert last.failure is None
    assert last.reason.startswith("pruned: cannot beat trial")


@pytest.mark.parametrize(("log_error_sd", "interrupt_after"), [(0.1, 1), (0.1, 4), (None, 2)])
def test_an_interrupted_and_resumed_search_gives_the_same_result(tmp_path, interrupt_after, log_error_sd):
    uninterrupted = race(tmp_path, log_error_sd=log_error_sd)
    servers = Servers(interrupt_after=interrupt_after)
    problem = problem_of(CAPACITY, log_error_sd)
    record = InMemoryRecord(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tune(CAPACITY, searcher_for(problem), servers, record)
    resumed = race(tmp_path, trials=record.finished, log_error_sd=log_error_sd)
    assert [*servers.launched, *resumed.servers.launched] == uninterrupted.servers.launched
    assert resumed.ranking == uninterrupted.ranking
    assert resumed.searcher.report == uninterrupted.searcher.report


def test_a_finished_record_reports_the_same_stop_reason_again(tmp_path):
    run = race(tmp_path)
    resumed = race(tmp_path, trials=run.record.finished)
    assert resumed.servers.launched == []
    assert resumed.searcher.report == run.searcher.report


def test_at_fixed_load_points_losers_are_pruned_before_the_last_one(tmp_path):
    run = race(tmp_path, capacity_experiment(find_capacity=False, seed=2), log_error_sd=None)
    assert capacity(run.ranking.winner.candidate) >= 128
    assert run.servers.load_point_count < 3 * len(run.servers.launched)
    assert any(trial.measurement.outcome.gave_up for trial in run.record.finished)


def test_a_value_that_the_engine_refused_is_not_launched_again(tmp_path):
    run = race(tmp_path, servers=Servers(refused_values=(8,)), log_error_sd=None)
    tried = [candidate for _, candidate in run.servers.launched if candidate.parameters.get("b") == 8]
    assert len(tried) <= 2
    assert any(reason.startswith("b=8 was refused in trial") for _, reason in run.searcher.report.skipped)


@pytest.mark.parametrize("log_error_sd", [None, 0.1])
def test_after_failures_alone_the_report_does_not_speak_of_gains(tmp_path, log_error_sd):
    class Crashing(Servers):
        def wait_for_trial(self):
            if not self.waiting:
                return None
            number, launch = self.waiting.pop()
            measurement = Measurement("simulated", (), Failure(FailureKind.CRASHED_AT_START, "It ended.", ""))
            return Trial(number, launch.candidate, measurement, number, number + 1.0, launch.purpose)

    run = race(tmp_path, servers=Crashing(), log_error_sd=log_error_sd)
    report = run.searcher.report
    assert report.stop_reason == "every launch failed, and the untested candidates are expected to fail the same way"
    assert {reason for _, reason in report.skipped} == {
        "trials 1, 2 ended with crashed-at-start, whatever their values"
    }


def test_an_exhausted_budget_ends_the_search_and_is_named(tmp_path):
    short = race(tmp_path, capacity_experiment(max_iterations=3, confirm=0), log_error_sd=None)
    assert short.searcher.report.stop_reason.startswith("max_iterations allows 3 launches")
    slow = race(tmp_path, capacity_experiment(max_seconds=4.5), log_error_sd=None)
    assert len(slow.record.finished) == 4
    assert slow.searcher.report.stop_reason.startswith("max_seconds is 4.5 s: the launches so far took ")
    patient = race(tmp_path, capacity_experiment(patience=3, confirm=0), log_error_sd=None)
    assert patient.searcher.report.stop_reason.startswith("patience: 3 launches")
    assert len(patient.record.finished) == 4


def test_confirmations_add_no_standings(tmp_path):
    run = race(tmp_path)
    search_trials = [trial for trial in run.record.finished if trial.purpose != "confirmation"]
    assert len(run.ranking.standings) == len(search_trials)


def test_a_gain_that_varies_between_launches_is_not_reliable(tmp_path):
    run = race(tmp_path)

    def scaled(trial: Trial, factor: float) -> Trial:
        points = tuple(
            replace(r, metrics=replace(r.metrics, throughput=r.metrics.throughput * factor))
            for r in trial.measurement.load_points
        )
        return replace(trial, measurement=replace(trial.measurement, load_points=points))

    factors = iter([0.4, 1.0, 1.6, 1.0])
    scaled_trials = [scaled(t, next(factors)) if t.purpose == "confirmation" else t for t in run.record.finished]
    gain = confirmed_gain(run.ranking, scaled_trials, CAPACITY)
    assert gain is not None
    assert not gain.is_reliable


class RefutingServers(Servers):
    """Servers on which the first launch of one candidate measures three times its throughput."""

    def __init__(self, lucky: Candidate) -> None:
        super().__init__()
        self.lucky = lucky

    def measure(self, candidate, point, number):
        result = super().measure(candidate, point, number)
        if candidate != self.lucky or sum(one == candidate for _, one in self.launched) > 1:
            return result
        metrics = replace(result.metrics, throughput=3 * result.metrics.throughput, attainment=wilson_share(200, 200))
        return replace(result, metrics=metrics)


def test_a_refuted_winner_is_replaced_by_the_runner_up_which_is_confirmed_in_turn(tmp_path):
    lucky = Candidate("sim", {"tp-size": 1, "a": 1, "b": 1})
    experiment = capacity_experiment(find_capacity=False, strategy="grid_search", max_iterations=21)
    run = race(tmp_path, experiment, RefutingServers(lucky), log_error_sd=None)
    confirmed = [trial.candidate for trial in run.record.finished if trial.purpose == "confirmation"]
    assert 1 <= confirmed.count(lucky) <= 2
    assert run.ranking.winner.candidate != lucky
    assert run.ranking.winner.confirmation_count == 2
    assert confirmed.count(BASELINE) == 2
    assert confirmed.index(lucky) < confirmed.index(run.ranking.winner.candidate)


def test_a_search_in_which_no_candidate_can_meet_the_targets_ends_early(tmp_path):
    class SlowServers(Servers):
        def measure(self, candidate, point, number):
            result = super().measure(candidate, point, number)
            tpot = replace(result.metrics.tpot, mean=0.05, p95=0.05)
            metrics = replace(result.metrics, attainment=wilson_share(0, 200), tpot=tpot)
            return replace(result, metrics=metrics)

    run = race(tmp_path, capacity_experiment(find_capacity=False), SlowServers(), log_error_sd=None)
    assert run.ranking.winner is None
    assert len(run.servers.launched) <= 8
    assert run.searcher.report.stop_reason == "infeasible: no untested candidate is likely to meet the targets"
    assert {reason for _, reason in run.searcher.report.skipped} == {"not expected to meet the targets"}


def test_without_a_baseline_the_winner_is_still_confirmed(tmp_path):
    experiment = capacity_experiment(find_capacity=False, strategy="grid_search", max_iterations=3)
    searcher, record = searcher_for(Problem(SPACE, experiment, can_relaunch=True)), InMemoryRecord(tmp_path)
    tune(experiment, searcher, Servers(), record)
    ranking = rank(record.summaries(), experiment)
    assert [trial.purpose for trial in record.finished].count("confirmation") == 2
    assert (ranking.winner.confirmation_count, ranking.baseline_trial_number) == (2, None)
    unconfirmed = InMemoryRecord(tmp_path)
    tune(experiment, searcher_for(Problem(SPACE, experiment)), Servers(), unconfirmed)
    assert "confirmation" not in [trial.purpose for trial in unconfirmed.finished]
