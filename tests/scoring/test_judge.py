import dataclasses
import math

import pytest

from autotuner.core import Check, Verdict
from autotuner.scoring.judge import judge, judge_load_point
from autotuner.scoring.reasons import MEETS_TARGETS, MISSES_TARGETS


def verdict(make, result, **experiment):
    return judge_load_point(result, 1, make.experiment(**experiment)).verdict


def broken(*names):
    return [Check(name, 1.0, "limit", False) for name in names]


def test_without_targets_everything_valid_is_feasible(make):
    assert verdict(make, make.result(good=0)) is Verdict.FEASIBLE


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["error-share"], Verdict.INVALID),
        (["loop-lag-p99"], Verdict.CLIENT_LIMITED),
        (["completed-rate"], Verdict.SATURATED),
        (["sample-size"], Verdict.UNDECIDED),
        (["sample-size", "completed-rate"], Verdict.SATURATED),
        (["completed-rate", "dispatch-delay-p99"], Verdict.CLIENT_LIMITED),
        (["dispatch-delay-p99", "output-length"], Verdict.INVALID),
        (["a check of tomorrow"], Verdict.INVALID),
    ],
)
def test_the_gravest_broken_check_decides(make, names, expected):
    assert verdict(make, make.result(validity=broken(*names))) is expected


def test_a_check_that_held_decides_nothing(make):
    assert verdict(make, make.result(validity=[Check("error-share", 0.0, "<= 0.01", True)])) is Verdict.FEASIBLE


def test_a_missed_term_is_infeasible_and_a_met_one_feasible(make):
    assert verdict(make, make.result(ttft=0.9), slo={"ttft": {"mean": 1.0}}) is Verdict.FEASIBLE
    assert verdict(make, make.result(ttft=1.1), slo={"ttft": {"mean": 1.0}}) is Verdict.INFEASIBLE
    assert verdict(make, make.result(throughput=100.0), slo={"output_throughput": 60.0}) is Verdict.INFEASIBLE


@pytest.mark.parametrize(
    ("good", "n", "expected"),
    [
        (100, 100, Verdict.FEASIBLE),  # 96.3% to 100%
        (20, 20, Verdict.UNDECIDED),  # 83.9% to 100%
        (95, 100, Verdict.UNDECIDED),  # 88.8% to 97.8%
        (85, 100, Verdict.INFEASIBLE),  # 76.7% to 90.7%
    ],
)
def test_attainment_is_decided_by_its_interval_around_the_target(make, good, n, expected):
    assert verdict(make, make.result(good=good, n=n), slo={"ttft": 1.0, "attainment": 0.95}) is expected


def test_attainment_asks_nothing_where_no_term_is_about_requests(make):
    assert verdict(make, make.result(good=20, n=20), slo={"output_throughput": 1.0}) is Verdict.FEASIBLE


def test_a_percentile_that_so_few_requests_cannot_bound_is_undecided(make):
    result = make.result()
    loose = make.constant(0.5, 100, intervals={"p99": (0.4, None)})
    result = dataclasses.replace(result, metrics=dataclasses.replace(result.metrics, ttft=loose))
    assert verdict(make, result, slo={"ttft": {"p99": 1.0}}) is Verdict.UNDECIDED
    assert verdict(make, result, slo={"ttft": {"p50": 1.0}}) is Verdict.FEASIBLE


def test_score_is_utility_over_one_plus_penalties(make):
    targets = {"ttft": {"threshold": 1.0, "weight": 2.0}, "tpot": {"threshold": 0.05, "weight": 3.0}}
    score = judge_load_point(make.result(e2e=4.0, ttft=1.1, tpot=0.06), 1, make.experiment(slo=targets)).score
    # 2 (e - 1) for 10% over, 3 (e^2 - 1) for 20% over
    penalty = 2 * (math.e - 1) + 3 * (math.e**2 - 1)
    assert score.utility == pytest.approx(0.25)
    assert score.penalty == pytest.approx(penalty)
    assert score.value == pytest.approx(0.25 / (1 + penalty))
    assert [term.term for term in score.terms] == ["ttft", "tpot"]


def test_throughput_is_per_gpu_of_the_candidate(make):
    trial = make.trial(1, make.result(throughput=1000.0), parameters={"tp-size": 2, "dp-size": 2})
    (result,) = judge(trial, make.experiment("maximize_throughput")).measurement.load_points
    assert result.score.value == pytest.approx(250.0)


def test_a_load_point_without_the_objectives_figure_has_no_score(make):
    result = make.result()
    result = dataclasses.replace(result, metrics=dataclasses.replace(result.metrics, e2e=None))
    assert judge_load_point(result, 1, make.experiment()).score is None


def test_the_worst_miss_still_scores_above_nothing(make):
    score = judge_load_point(make.result(ttft=1e6), 1, make.experiment(slo={"ttft": 0.001})).score
    assert 0 < score.value < 1e-20


def test_judging_twice_changes_nothing(make):
    experiment = make.experiment(slo={"ttft": 0.05})
    once = judge(make.trial(1, make.result(1), make.result(4)), experiment)
    assert judge(once, experiment) == once


def test_an_open_loop_is_judged_from_the_schedule(make):
    result = make.result(
        rate=4.0, ttft=0.1, ttft_from_schedule=make.constant(2.0), e2e_from_schedule=make.constant(3.0)
    )
    assert verdict(make, result, slo={"ttft": {"mean": 1.0}}) is Verdict.INFEASIBLE


def test_a_met_percentile_softens_no_other_target(make):
    """81 of 100 good misses 95%, whatever else is met by far."""
    plain = {"attainment": 0.95, "ttft": 0.032}
    for more in (
        {},
        {"latency": {"p50": 5.0}},
        {"tpot": {"p99": 9.0}},
        {"latency": {"p90": 9.0}, "tpot": {"mean": 9.0}},
    ):
        assert verdict(make, make.result(good=81), slo={**plain, **more}) is Verdict.INFEASIBLE
        assert verdict(make, make.result(good=100), slo={**plain, **more}) is Verdict.FEASIBLE


def test_a_mean_beyond_a_plain_target_is_scored_and_decides_nothing(make):
    """Two very slow requests of a hundred move the mean, and 98% met the target."""
    result = make.result(ttft=1.5, good=100, n=100)
    judged = judge_load_point(result, 1, make.experiment(slo={"ttft": 1.0}))
    assert judged.verdict is Verdict.FEASIBLE
    assert judged.score.penalty > 0


def test_a_hard_target_fails_by_its_mean_beyond_the_ratio(make):
    hard = {"ttft": {"threshold": 1.0, "hard_fail": True, "fail_ratio": 0.2}}
    assert verdict(make, make.result(ttft=1.1), slo=hard) is Verdict.FEASIBLE
    assert verdict(make, make.result(ttft=1.3), slo=hard) is Verdict.INFEASIBLE


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((0.8, 0.9), Verdict.FEASIBLE), ((0.8, 1.1), Verdict.UNDECIDED), ((1.1, 1.2), Verdict.INFEASIBLE)],
)
@pytest.mark.parametrize("statistic", ["mean", "p90"])
def test_a_statistic_is_judged_by_its_own_interval(make, statistic, interval, expected):
    result = make.result()
    ttft = make.constant(1.0, intervals={statistic: interval})
    result = dataclasses.replace(result, metrics=dataclasses.replace(result.metrics, ttft=ttft))
    assert verdict(make, result, slo={"ttft": {statistic: 1.0}}) is expected


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((61.0, 70.0), Verdict.FEASIBLE), ((55.0, 65.0), Verdict.UNDECIDED), ((50.0, 59.0), Verdict.INFEASIBLE)],
)
def test_a_minimum_is_judged_by_the_interval_of_the_throughput(make, interval, expected):
    result = make.result(intervals={"output_throughput": interval})
    assert verdict(make, result, slo={"output_throughput": 60.0}) is expected


@pytest.mark.parametrize(
    ("decided", "expected"), [(MEETS_TARGETS, Verdict.FEASIBLE), (MISSES_TARGETS, Verdict.INFEASIBLE)]
)
def test_a_sequential_test_has_the_last_word_on_the_share(make, decided, expected):
    experiment = make.experiment(slo={"ttft": 1.0, "attainment": 0.95})
    result = dataclasses.replace(make.result(good=77, n=80), decided=decided)
    assert judge_load_point(dataclasses.replace(result, decided=None), 1, experiment).verdict is Verdict.UNDECIDED
    assert judge_load_point(result, 1, experiment).verdict is expected


def test_it_has_none_on_a_percentile_that_asks_more_or_on_figures_that_are_invalid(make):
    experiment = make.experiment(slo={"ttft": {"p99": {"threshold": 1.0}}, "attainment": 0.9})
    result = dataclasses.replace(make.result(good=80, n=80), decided=MEETS_TARGETS)
    assert judge_load_point(result, 1, experiment).verdict is not Verdict.INFEASIBLE
    broken = dataclasses.replace(result, validity=(Check("littles-law", 2.0, "within 10% of 1", False),))
    assert judge_load_point(broken, 1, experiment).verdict is Verdict.INVALID
