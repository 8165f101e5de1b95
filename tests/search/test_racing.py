"""The racing search, on servers that are written down here."""

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from autotuner.core import Candidate, Failure, FailureKind, Measurement, Trial
from autotuner.predict.efficiencies import UNIT_COSTS
from autotuner.scoring.confirm import confirmed_gain
from autotuner.scoring.intervals import wilson_share
from autotuner.search.launch import ListedLoads
from autotuner.search.problem import Problem
from autotuner.search.space import Space
from autotuner.search.strategies import searcher_for
from autotuner.tune import tune
from tests.search.problems import experiment, figures

SPACE = Space("sim", {"tp-size": [1], "a": [1, 2, 3, 4, 5], "b": [1, 2, 4, 8]})
BASELINE = Candidate("sim", {})


def edge(candidate: Candidate) -> float:
    """The capacity of a candidate: 100 for the engine's own defaults, 200 for a=3 and b=8."""
    if not candidate.parameters:
        return 100.0
    a, b = candidate.parameters["a"], candidate.parameters["b"]
    return 200 * 0.8 ** abs(a - 3) * 0.85 ** (3 - [1, 2, 4, 8].index(b))


def predict(wrong: float):
    """The closed form's answer, off by a factor of its own for each candidate."""

    def answer(candidate, point, costs=UNIT_COSTS):
        off = random.Random(candidate.key).gauss(0, wrong)
        load = point.concurrency
        tpot = 0.01 * load / (edge(candidate) * 2.718**off) * (costs.weights * costs.matrices) ** 0.5
        seconds = 0.1 + 99 * tpot
        return SimpleNamespace(
            ttft=0.1, tpot=tpot, requests=load / seconds, throughput=100 * load / seconds, running=1e4
        )

    return answer


class Servers:
    """An executor on which good requests fall through 95% at a candidate's capacity."""

    def __init__(self, die_after: int | None = None, broken=()) -> None:
        self.waiting, self.launched, self.die_after, self.broken = [], [], die_after, broken
        self.load_points = 0

    @property
    def has_room(self) -> bool:
        return not self.waiting

    def submit(self, number, launch, folder) -> None:
        self.waiting.append((number, launch))

    def wait_for_trial(self) -> Trial | None:
        if not self.waiting:
            return None
        if self.die_after is not None and len(self.launched) == self.die_after:
            raise KeyboardInterrupt
        number, launch = self.waiting.pop()
        self.launched.append((launch.purpose, launch.candidate))
        if launch.candidate.parameters.get("b") in self.broken:
            failure = Failure(FailureKind.BAD_FLAG, f"error: argument --b: {launch.candidate}", "Correct it.")
            return Trial(number, launch.candidate, Measurement("simulated", (), failure), number, number + 1.0)
        course, seen = launch.course or ListedLoads(CAPACITY.workload()), []
        while (step := course.ask()) is not None:
            seen.append(self.answer(launch.candidate, step.load_point, number))
            course.tell(seen[-1])
        measurement = Measurement("simulated", tuple(seen), outcome=course.outcome)
        return Trial(number, launch.candidate, measurement, float(number), number + 1.0, launch.purpose)

    def answer(self, candidate, point, number):
        self.load_points += 1
        load, most = point.concurrency, edge(candidate)
        good = round(200 / (1 + (1 / 0.95 - 1) * (load / most) ** 12))
        seconds = (0.1 + 0.99 * load / most) * (1 + 0.004 * random.Random(number).random())
        return figures(point, throughput=200 * load / seconds, e2e=seconds, attainment=wilson_share(good, 200))


class Memory:
    def __init__(self, folder: Path, kept=()) -> None:
        self.folder, self.kept, self.opened = folder, list(kept), len(kept)

    def trials(self):
        return list(self.kept)

    def open_trial(self):
        self.opened += 1
        return self.opened, self.folder

    def append(self, trial) -> None:
        self.kept.append(trial)


def asked(find_capacity=True, **optimization):
    return experiment(
        optimization={"objective": "maximize_throughput", "max_iterations": 50, **optimization},
        benchmark={
            "traffic_scenarios": ["D(100,100)"],
            "num_concurrency": [1, 1024] if find_capacity else [8, 32, 128],
            "find_capacity": find_capacity,
        },
        slo={"tpot": 0.01},
    )


CAPACITY = asked()


def race(folder, what=CAPACITY, servers=None, kept=(), wrong: float | None = 0.1):
    given = {} if wrong is None else {"predict": predict(wrong)}
    problem = Problem(SPACE, what, baseline=BASELINE, **given)
    chosen, record, servers = searcher_for(problem), Memory(folder, kept), servers or Servers()
    ranking = tune(what, chosen, servers, record)
    return SimpleNamespace(ranking=ranking, searcher=chosen, record=record, servers=servers)


def purposes(done) -> list[str]:
    return [trial.purpose for trial in done.record.kept]


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.25])
def test_it_finds_a_candidate_near_the_best_in_a_few_launches(tmp_path, wrong):
    done = race(tmp_path, wrong=wrong)
    assert edge(done.ranking.winner.candidate) >= 0.95 * 200 or wrong > 0.2
    assert edge(done.ranking.winner.candidate) >= 0.84 * 200
    assert purposes(done).count("search") <= 10
    assert done.searcher.account.stopped == "converged: no untested candidate is predicted to be more than 4% better"
    assert all(why.startswith("predicted: at best") for _, why in done.searcher.account.skipped)


def test_the_engines_defaults_come_first_and_are_what_gains_refer_to(tmp_path):
    done = race(tmp_path)
    assert done.servers.launched[0] == ("baseline", BASELINE)
    assert done.ranking.baseline == 1
    assert done.ranking.winner.gain == pytest.approx(2, rel=0.15)


def test_winner_and_defaults_are_launched_again_in_turn(tmp_path):
    done = race(tmp_path)
    again = [candidate for purpose, candidate in done.servers.launched if purpose == "confirmation"]
    assert again == [done.ranking.winner.candidate, BASELINE] * 2
    seeds = {trial.number for trial in done.record.kept if trial.purpose == "confirmation"}
    assert len(seeds) == 4
    found = confirmed_gain(done.ranking, done.record.kept, CAPACITY)
    assert found is not None
    assert found.is_reliable
    assert found.low < found.value < found.high
    assert (found.winner, found.baseline) == (2, 3)


def test_without_predictions_it_learns_what_each_value_is_worth_and_losers_cost_one_load_point(tmp_path):
    done = race(tmp_path, wrong=None)
    assert edge(done.ranking.winner.candidate) >= 0.95 * 200
    assert 6 <= purposes(done).count("search") <= 14
    assert all(why.startswith("by what like it came to: at best") for _, why in done.searcher.account.skipped)
    given_up = [trial for trial in done.record.kept if trial.measurement.outcome.gave_up]
    assert len(given_up) >= 3
    assert sum(len(trial.measurement.load_points) for trial in given_up) <= 1.5 * len(given_up)


def test_what_was_given_up_ranks_below_and_says_so(tmp_path):
    done = race(tmp_path, wrong=None)
    last = done.ranking.standings[-1]
    assert last.verdict is None
    assert last.failure is None
    assert last.reason.startswith("pruned: cannot beat trial")


@pytest.mark.parametrize("die_after", [1, 2, 4])
@pytest.mark.parametrize("wrong", [0.1, None])
def test_killed_and_resumed_it_gives_the_same_answer(tmp_path, die_after, wrong):
    whole = race(tmp_path, wrong=wrong)
    first = Servers(die_after=die_after)
    problem = Problem(SPACE, CAPACITY, baseline=BASELINE, **({"predict": predict(wrong)} if wrong else {}))
    record = Memory(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tune(CAPACITY, searcher_for(problem), first, record)
    second = race(tmp_path, kept=record.kept, wrong=wrong)
    assert [*first.launched, *second.servers.launched] == whole.servers.launched
    assert second.ranking == whole.ranking
    assert second.searcher.account == whole.searcher.account


def test_a_finished_record_says_again_why_the_search_stopped(tmp_path):
    done = race(tmp_path)
    again = race(tmp_path, kept=done.record.kept)
    assert again.servers.launched == []
    assert again.searcher.account == done.searcher.account


def test_at_fixed_load_points_losers_end_before_the_last_one(tmp_path):
    done = race(tmp_path, asked(find_capacity=False, seed=2), wrong=None)
    assert edge(done.ranking.winner.candidate) >= 128
    assert done.servers.load_points < 3 * len(done.servers.launched)
    assert any(trial.measurement.outcome.gave_up for trial in done.record.kept)


def test_a_value_that_was_refused_is_not_tried_again(tmp_path):
    done = race(tmp_path, servers=Servers(broken=(8,)), wrong=None)
    tried = [candidate for _, candidate in done.servers.launched if candidate.parameters.get("b") == 8]
    assert len(tried) <= 2
    assert any(why.startswith("b=8 was refused in trial") for _, why in done.searcher.account.skipped)


def test_budgets_end_the_search_and_say_which(tmp_path):
    assert race(tmp_path, asked(max_iterations=3, confirm=0), wrong=None).searcher.account.stopped.startswith(
        "max_iterations allows 3 launches"
    )
    slow = race(tmp_path, asked(max_seconds=4.5), wrong=None)
    assert len(slow.record.kept) == 4
    assert slow.searcher.account.stopped.startswith("max_seconds is 4.5 s: the launches so far took ")
    patient = race(tmp_path, asked(patience=3, confirm=0), wrong=None)
    assert patient.searcher.account.stopped.startswith("patience: 3 launches")
    assert len(patient.record.kept) == 4


def test_confirmations_change_no_standing(tmp_path):
    done = race(tmp_path)
    searched = [trial for trial in done.record.kept if trial.purpose != "confirmation"]
    assert len(done.ranking.standings) == len(searched)


def test_a_gain_that_one_launch_shows_and_the_next_does_not_is_not_reliable(tmp_path):
    done = race(tmp_path)

    def scaled(trial: Trial, factor: float) -> Trial:
        points = tuple(
            replace(r, metrics=replace(r.metrics, throughput=r.metrics.throughput * factor))
            for r in trial.measurement.load_points
        )
        return replace(trial, measurement=replace(trial.measurement, load_points=points))

    factors = iter([0.4, 1.0, 1.6, 1.0])
    shaken = [scaled(t, next(factors)) if t.purpose == "confirmation" else t for t in done.record.kept]
    found = confirmed_gain(done.ranking, shaken, CAPACITY)
    assert found is not None
    assert not found.is_reliable


class Refuting(Servers):
    """The first launch of one candidate came out far too well."""

    def __init__(self, lucky: Candidate) -> None:
        super().__init__()
        self.lucky = lucky

    def answer(self, candidate, point, number):
        result = super().answer(candidate, point, number)
        if candidate != self.lucky or sum(one == candidate for _, one in self.launched) > 1:
            return result
        metrics = replace(result.metrics, throughput=3 * result.metrics.throughput, attainment=wilson_share(200, 200))
        return replace(result, metrics=metrics)


def test_a_refuted_winner_yields_to_the_runner_up_which_is_confirmed_in_turn(tmp_path):
    lucky = Candidate("sim", {"tp-size": 1, "a": 1, "b": 1})
    what = asked(find_capacity=False, strategy="grid_search", max_iterations=21)
    done = race(tmp_path, what, Refuting(lucky), wrong=None)
    again = [trial.candidate for trial in done.record.kept if trial.purpose == "confirmation"]
    assert 1 <= again.count(lucky) <= 2
    assert done.ranking.winner.candidate != lucky
    assert done.ranking.winner.confirmations == 2
    assert again.count(BASELINE) == 2
    assert again.index(lucky) < again.index(done.ranking.winner.candidate)


def test_a_search_in_which_nothing_can_meet_the_targets_ends_early(tmp_path):
    class Slow(Servers):
        def answer(self, candidate, point, number):
            result = super().answer(candidate, point, number)
            tpot = replace(result.metrics.tpot, mean=0.05, p95=0.05)
            metrics = replace(result.metrics, attainment=wilson_share(0, 200), tpot=tpot)
            return replace(result, metrics=metrics)

    done = race(tmp_path, asked(find_capacity=False), Slow(), wrong=None)
    assert done.ranking.winner is None
    assert len(done.servers.launched) <= 8
    assert done.searcher.account.stopped == "no candidate that is left is likely to meet the targets"
    assert {why for _, why in done.searcher.account.skipped} == {"not expected to meet the targets"}


def test_without_a_baseline_the_winner_is_launched_again_all_the_same(tmp_path):
    what = asked(find_capacity=False, strategy="grid_search", max_iterations=3)
    chosen, record = searcher_for(Problem(SPACE, what, can_relaunch=True)), Memory(tmp_path)
    ranking = tune(what, chosen, Servers(), record)
    assert [trial.purpose for trial in record.kept].count("confirmation") == 2
    assert (ranking.winner.confirmation_count, ranking.baseline_trial_number) == (2, None)
    alone = Memory(tmp_path)
    tune(what, searcher_for(Problem(SPACE, what)), Servers(), alone)
    assert "confirmation" not in [trial.purpose for trial in alone.kept]
