import dataclasses
import math
from unittest.mock import Mock

import pytest

from autotuner.core import Capacity, Check, LoadPlanSummary, LoadPoint, Verdict
from autotuner.scoring import rank as rank_module
from autotuner.scoring.confirm import LaunchVariation
from autotuner.scoring.judge import judge
from autotuner.scoring.rank import rank


def numbers(ranking):
    return [standing.trial_number for standing in ranking.standings]


def test_latency_is_the_geometric_mean_over_the_load_points(make):
    trials = [
        make.trial(1, make.result(1, e2e=1.0), make.result(16, e2e=9.0)),
        make.trial(2, make.result(1, e2e=2.0), make.result(16, e2e=2.0)),
    ]
    ranking = rank(trials, make.experiment("minimize_latency", (1, 16)))
    assert numbers(ranking) == [2, 1]
    assert [standing.value for standing in ranking.standings] == pytest.approx([2.0, 3.0])  # sqrt(1 x 9)
    assert [standing.score for standing in ranking.standings] == pytest.approx([1 / 2, 1 / 3])
    assert ranking.standings[0].load_point is None
    assert ranking.unit == "s"


def test_with_one_load_point_latency_stands_there(make):
    ranking = rank([make.trial(1, make.result(1))], make.experiment("minimize_latency", (1,)))
    assert ranking.winner.load_point == LoadPoint("D(100,100)", concurrency=1)


def test_throughput_stands_at_the_best_feasible_load_point(make):
    slo = {"tpot": 0.05}
    trials = [
        make.trial(
            1,
            make.result(1, throughput=100.0, tpot=0.01),
            make.result(16, throughput=900.0, tpot=0.04),
            make.result(64, throughput=5000.0, tpot=0.2),
        )
    ]
    ranking = rank(trials, make.experiment("maximize_throughput", (1, 16, 64), slo=slo))
    assert ranking.winner.load_point.concurrency == 16
    assert ranking.winner.value == pytest.approx(900.0)
    assert ranking.winner.reason == "all targets met"


def test_throughput_is_compared_per_gpu(make):
    trials = [
        make.trial(1, make.result(throughput=1000.0), parameters={"tp-size": 4}),
        make.trial(2, make.result(throughput=400.0), parameters={"tp-size": 1}),
    ]
    ranking = rank(trials, make.experiment("maximize_throughput"))
    assert numbers(ranking) == [2, 1]
    assert [standing.value for standing in ranking.standings] == pytest.approx([400.0, 250.0])


def test_cost_ranks_the_cheaper_first_and_names_its_unit(make):
    trials = [make.trial(1, make.result(throughput=200.0)), make.trial(2, make.result(throughput=400.0))]
    ranking = rank(trials, make.experiment("minimize_cost", price=3.6))
    assert numbers(ranking) == [2, 1]
    assert ranking.winner.value == pytest.approx(5.0)  # 1e6 / 200 tokens/s x 3.6 / 3600
    assert ranking.unit == "currency / 1M output tokens"
    assert rank(trials, make.experiment("minimize_cost")).unit.startswith("GPU-s")


def test_targets_met_come_first_then_the_penalised_score(make):
    slo = {"ttft": {"threshold": 1.0, "hard_fail": True, "fail_ratio": 0.5}}
    trials = [
        make.trial(1, make.result(e2e=0.1, ttft=3.0, good=0)),  # fails hard
        make.trial(2, make.result(e2e=0.2, ttft=1.4, good=10)),  # misses by 40%
        make.trial(3, make.result(e2e=0.3, ttft=1.1, good=70)),  # misses by 10%
        make.trial(4, make.result(e2e=9.0, ttft=0.5, good=20, n=20)),  # not proven
        make.trial(5, make.result(e2e=8.0, ttft=0.5)),  # met
        make.trial(6, make.result(e2e=0.1, validity=[Check("completed-rate", 0.5, ">= 0.90 of arrivals", False)])),
    ]
    ranking = rank(trials, make.experiment(slo=slo))
    assert numbers(ranking) == [5, 4, 3, 2, 1, 6]
    assert [standing.verdict for standing in ranking.standings] == [
        Verdict.FEASIBLE,
        Verdict.UNDECIDED,
        Verdict.INFEASIBLE,
        Verdict.INFEASIBLE,
        Verdict.INFEASIBLE,
        Verdict.SATURATED,
    ]
    assert [standing.reason for standing in ranking.standings] == [
        "all targets met",
        "100% of requests good (83.9% to 100%), target 95%; 20 requests are too few to tell",
        "70% of requests good, target 95% (mean ttft 1.1 s, target 1 s)",
        "10% of requests good, target 95% (mean ttft 1.4 s, target 1 s)",
        "0% of requests good, target 95% (mean ttft 3 s, target 1 s); ttft 3 s, target 1 s, a hard target",
        "completed-rate 0.5, not >= 0.90 of arrivals",
    ]


def test_what_is_not_proven_wins_only_where_nothing_is(make):
    unproven = make.trial(1, make.result(good=20, n=20))
    ranking = rank([unproven], make.experiment(slo={"ttft": 1.0}))
    assert ranking.winner.verdict is Verdict.UNDECIDED


def test_nothing_wins_when_all_miss(make):
    ranking = rank([make.trial(1, make.result(ttft=2.0, good=0))], make.experiment(slo={"ttft": 1.0}))
    assert ranking.winner is None
    assert ranking.standings[0].verdict is Verdict.INFEASIBLE


def test_no_trials_give_an_empty_ranking(make):
    ranking = rank([], make.experiment())
    assert (ranking.standings, ranking.winner, ranking.baseline_trial_number, ranking.sources) == ((), None, None, ())


def test_the_worst_load_point_gives_the_verdict_and_says_where(make):
    trial = make.trial(1, make.result(1, ttft=0.1), make.result(64, ttft=2.0))
    (standing,) = rank([trial], make.experiment(concurrency=(1, 64), slo={"ttft": {"p90": 1.0}})).standings
    assert standing.verdict is Verdict.INFEASIBLE
    assert standing.reason == "ttft.p90 2 s, target 1 s at D(100,100) @ 64"


def test_gain_is_over_the_engines_own_defaults_and_over_nothing_else(make):
    trials = [
        make.trial(1, failure=make.OOM),
        make.trial(2, make.result(e2e=3.0), purpose="baseline"),
        make.trial(3, make.result(e2e=2.0)),
    ]
    ranking = rank(trials, make.experiment())
    assert ranking.baseline_trial_number == 2
    assert [(standing.trial_number, standing.gain) for standing in ranking.standings] == [
        (3, pytest.approx(1.5)),
        (2, pytest.approx(1.0)),
        (1, None),
    ]
    without = rank([trials[0], trials[2]], make.experiment())
    assert without.baseline_trial_number is None
    assert [standing.gain for standing in without.standings] == [None, None]


def test_launches_of_one_candidate_stand_together(make):
    again = {"parameters": {"tp-size": 1, "max-running-requests": 2}}
    trials = [
        make.trial(1, make.result(e2e=3.0), purpose="baseline"),
        make.trial(2, make.result(e2e=2.0)),
        make.trial(3, make.result(e2e=2.5), purpose="confirmation", **again),
        make.trial(4, make.result(e2e=2.5), purpose="confirmation", **again),
    ]
    winner, defaults = rank(trials, make.experiment()).standings
    assert (winner.trial_number, winner.launch_count, winner.confirmation_count) == (2, 3, 2)
    assert winner.value == pytest.approx((2.0 * 2.5 * 2.5) ** (1 / 3))
    assert (winner.confirmation_value, winner.headline_value) == pytest.approx((2.5, 2.5))
    assert (defaults.trial_number, defaults.launch_count, defaults.confirmation_value) == (1, 1, None)


def test_a_winner_that_fresh_launches_refute_yields_to_the_next(make):
    """The search's launch met the targets; those that were not chosen miss them."""
    slo = {"ttft": 1.0}
    again = {"parameters": {"tp-size": 1, "max-running-requests": 2}, "purpose": "confirmation"}
    trials = [
        make.trial(1, make.result(throughput=900.0), purpose="baseline"),
        make.trial(2, make.result(throughput=1200.0)),
        make.trial(3, make.result(throughput=1000.0)),
        make.trial(4, make.result(throughput=600.0, good=70), **again),
        make.trial(5, make.result(throughput=400.0, good=47), **again),
    ]
    searched = rank(trials[:3], make.experiment("maximize_throughput", slo=slo))
    assert searched.winner.trial_number == 2
    confirmed = rank(trials, make.experiment("maximize_throughput", slo=slo), prefer_defaults=False)
    assert numbers(confirmed) == [3, 1, 2]
    assert confirmed.winner.trial_number == 3
    assert confirmed.standings[-1].verdict is Verdict.INFEASIBLE
    assert confirmed.standings[-1].reason == "72.3% of requests good, target 95%, over 3 launches"


def test_what_says_nothing_is_left_out_where_other_launches_say_something(make):
    unsteady = [Check("stationarity", 1.5, "within 25% of 1", False)]
    trials = [
        make.trial(1, make.result(e2e=9.0, validity=unsteady), purpose="baseline"),
        make.trial(
            2, make.result(e2e=2.0), purpose="confirmation", parameters={"tp-size": 1, "max-running-requests": 1}
        ),
    ]
    (standing,) = rank(trials, make.experiment()).standings
    assert (standing.trial_number, standing.verdict, standing.launch_count) == (1, Verdict.FEASIBLE, 1)
    assert standing.value == pytest.approx(2.0)


def test_candidates_within_their_intervals_are_tied_and_a_confirmed_one_goes_first(make):
    def result(e2e, reach):
        ends = {"mean": (e2e - reach, e2e + reach)}
        plain = make.result(e2e=e2e)
        samples = make.constant(e2e, intervals=ends)
        return dataclasses.replace(plain, metrics=dataclasses.replace(plain.metrics, e2e=samples))

    again = {"parameters": {"tp-size": 1, "max-running-requests": 2}, "purpose": "confirmation"}
    trials = [make.trial(1, result(1.00, 0.05)), make.trial(2, result(1.02, 0.05)), make.trial(3, result(1.3, 0.05))]
    first = rank(trials, make.experiment())
    assert [(s.trial_number, s.is_tied) for s in first.standings] == [(1, False), (2, True), (3, False)]
    assert first.standings[0].interval == pytest.approx((0.95, 1.05), rel=2e-3)
    confirmed = rank([*trials, make.trial(4, result(1.02, 0.05), **again)], make.experiment())
    assert [(s.trial_number, s.is_tied) for s in confirmed.standings] == [(2, False), (1, True), (3, False)]


def test_differences_below_the_resolution_are_ties_even_without_chance(make):
    trials = [make.trial(1, make.result(e2e=1.0)), make.trial(2, make.result(e2e=1.009))]
    assert rank(trials, make.experiment()).standings[1].is_tied
    trials = [make.trial(1, make.result(e2e=1.0)), make.trial(2, make.result(e2e=1.011))]
    assert not rank(trials, make.experiment()).standings[1].is_tied


def test_sources_are_named_and_never_compared(make):
    trials = [
        make.trial(1, make.result(e2e=0.1, source="simulated"), source="simulated"),
        make.trial(2, make.result(e2e=5.0)),
        make.trial(3, make.result(e2e=0.01, source="predicted"), source="predicted"),
    ]
    ranking = rank(trials, make.experiment())
    assert numbers(ranking) == [2, 1, 3]
    assert ranking.sources == ("measured", "simulated", "predicted")
    assert [standing.source for standing in ranking.standings] == ["measured", "simulated", "predicted"]
    assert [standing.gain for standing in ranking.standings] == [None, None, None]


def test_equal_scores_keep_the_order_of_trials(make):
    trials = [make.trial(number, make.result()) for number in (3, 1, 2)]
    assert numbers(rank(trials, make.experiment())) == [1, 2, 3]


def test_misses_too_large_to_score_apart_are_ordered_by_size(make):
    trials = [make.trial(1, make.result(ttft=900.0, good=0)), make.trial(2, make.result(ttft=20.0, good=0))]
    assert numbers(rank(trials, make.experiment(slo={"ttft": 1.0}))) == [2, 1]


def test_an_error_share_below_the_limit_still_shows_in_attainment(make):
    result = make.result(good=96, n=100, errors={"timeout": 1})
    (standing,) = rank([make.trial(1, result)], make.experiment(slo={"ttft": 1.0})).standings
    assert standing.attainment.value == pytest.approx(0.96)
    assert standing.score is not None
    assert math.isfinite(standing.score)


def test_latency_without_a_tpot_has_no_place_under_tpot(make):
    result = make.result()
    one_token = dataclasses.replace(result, metrics=dataclasses.replace(result.metrics, tpot=None))
    (standing,) = rank([make.trial(1, one_token)], make.experiment("minimize_tpot")).standings
    assert standing.reason == "no figure at D(100,100) @ 1"


def test_a_capacity_that_no_number_of_requests_could_prove_stands_beside_a_proven_one(make):
    experiment = make.experiment("maximize_throughput", (8, 16), slo={"ttft": 1.0, "attainment": 0.95})
    proven = make.trial(1, make.result(8, throughput=500.0, good=100, n=100))
    near = make.trial(2, make.result(16, throughput=900.0, good=96, n=100))
    assert numbers(rank([proven, near], experiment)) == [1, 2]

    def with_capacity(trial, load):
        capacity = Capacity("D(100,100)", "concurrency", load, load + 1, 1, "bracketed")
        outcome = LoadPlanSummary((capacity,))
        return dataclasses.replace(trial, measurement=dataclasses.replace(trial.measurement, outcome=outcome))

    ranking = rank([with_capacity(proven, 8.0), with_capacity(near, 16.0)], experiment)
    assert numbers(ranking) == [2, 1]
    assert ranking.winner.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("count", [5, 50])
def test_every_trial_is_judged_once_and_the_variation_between_launches_pooled_once(make, monkeypatch, count):
    judge_trial = Mock(side_effect=judge)
    monkeypatch.setattr(rank_module, "judge", judge_trial)
    pool_variation = Mock(side_effect=LaunchVariation.pooled)
    monkeypatch.setattr(LaunchVariation, "pooled", pool_variation)
    trials = [make.trial(number, make.result(e2e=1 + number / 1000)) for number in range(1, count + 1)]
    rank(trials, make.experiment())
    assert (judge_trial.call_count, pool_variation.call_count) == (count, 1)


def test_judged_trials_are_ranked_as_they_are(make, monkeypatch):
    question = make.experiment("maximize_goodput", (1, 16), slo={"ttft": 0.5})
    trials = [
        make.trial(number, make.result(1, ttft=number / 10), make.result(16, ttft=number / 5)) for number in (1, 2, 6)
    ]
    expected = rank(trials, question)
    judged = [judge(trial, question) for trial in trials]
    monkeypatch.setattr(rank_module, "judge", None)
    assert rank(judged, question, are_judged=True) == expected
