import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.experiment import Slo
from autotuner.scoring.slo import is_good, penalty, request_terms, slo_statements, term_outcomes


def slo(**terms):
    return Slo.model_validate(terms)


def changed(make, **changes):
    return dataclasses.replace(make.metrics(), **changes)


def only(metrics, targets, **options):
    (outcome,) = term_outcomes(metrics, targets, open_loop=options.get("open_loop", False))
    return outcome


def test_ten_percent_over_costs_weight_times_e_minus_one(make):
    outcome = only(make.metrics(ttft=1.1), slo(ttft={"threshold": 1.0, "weight": 2.0}))
    assert outcome.violation == pytest.approx(0.1)
    assert outcome.penalty == pytest.approx(2 * (math.e - 1))  # steepness 0.1 by default
    assert (outcome.term, outcome.actual, outcome.threshold, outcome.state) == ("ttft", 1.1, 1.0, "missed")


def test_a_minimum_is_reversed(make):
    outcome = only(make.metrics(throughput=1600.0), slo(output_throughput={"threshold": 1000.0, "steepness": 0.2}))
    assert outcome.violation == pytest.approx(0.2)  # 800 of 1000
    assert outcome.penalty == pytest.approx(math.e - 1)
    assert only(make.metrics(throughput=4000.0), slo(output_throughput=1000.0)).state == "met"


@pytest.mark.parametrize(("ttft", "state"), [(0.89, "met"), (0.91, "warning"), (1.0, "warning"), (1.01, "missed")])
def test_the_warning_band_is_shown_and_not_scored(make, ttft, state):
    outcome = only(make.metrics(ttft=ttft), slo(ttft=1.0))
    assert outcome.state == state
    assert (outcome.penalty > 0) == (state == "missed")


@pytest.mark.parametrize(("throughput", "state"), [(2400.0, "met"), (2100.0, "warning"), (1900.0, "missed")])
def test_a_minimum_warns_above_itself(make, throughput, state):
    assert only(make.metrics(throughput=throughput), slo(output_throughput=1000.0)).state == state


@pytest.mark.parametrize(("e2e", "state"), [(5.9, "missed"), (6.1, "failed")])
def test_a_hard_term_fails_beyond_its_ratio(make, e2e, state):
    targets = slo(latency={"p90": {"threshold": 5.0, "hard_fail": True, "fail_ratio": 0.2}})
    assert only(make.metrics(e2e=e2e), targets).state == state


@given(st.floats(0, 1e9), st.floats(0, 1e3), st.floats(0.001, 10))
def test_a_penalty_is_finite_and_never_negative(violation, weight, steepness):
    assert 0 <= penalty(violation, weight, steepness) < math.inf
    assert penalty(-violation, weight, steepness) == 0


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0.01, 10))
def test_a_larger_violation_never_costs_less(one, other, weight):
    low, high = sorted((one, other))
    assert penalty(low, weight, 0.1) <= penalty(high, weight, 0.1)


@given(st.floats(0.01, 100), st.floats(0.01, 1))
def test_a_penalty_starts_at_nothing_at_the_threshold(weight, steepness):
    assert penalty(1e-9, weight, steepness) < 1e-4 * weight


def test_a_percentile_counts_errors_as_infinitely_slow(make):
    slow = make.constant(0.1, adjusted={"p50": 0.1, "p90": None})
    outcome = only(changed(make, ttft=slow), slo(ttft={"p90": 1.0}))
    assert outcome.actual is None
    assert outcome.state == "missed"
    assert math.isfinite(outcome.violation)
    assert only(changed(make, ttft=slow), slo(ttft={"p50": 1.0})).state == "met"


def test_a_load_point_without_answers_misses_every_latency(make):
    nothing = changed(make, ttft=None, tpot=None, itl=None, e2e=None)
    terms = term_outcomes(nothing, slo(ttft=1.0, tpot=1.0, latency={"p90": 5.0}), open_loop=False)
    assert [term.state for term in terms] == ["missed"] * 3
    assert all(term.actual is None for term in terms)


@pytest.mark.parametrize("metric", ["tpot", "itl"])
def test_a_time_per_token_that_no_answer_has_meets_no_target(make, metric):
    """Answers of one token have none, and neither have those that a proxy sent at once."""
    term = only(changed(make, **{metric: None}), slo(**{metric: 0.05}))
    assert (term.actual, term.state) == (None, "missed")


def test_an_open_loop_is_held_against_the_schedule(make):
    metrics = changed(make, ttft_from_schedule=make.constant(2.0), e2e_from_schedule=make.constant(3.0))
    assert only(metrics, slo(ttft=1.0), open_loop=True).actual == 2.0
    assert only(metrics, slo(latency={"p90": 1.0}), open_loop=True).actual == 3.0
    assert only(metrics, slo(ttft=1.0)).actual == 0.1


def test_a_statistic_is_stated_with_its_own_interval(make):
    for ends, state in (((0.1, 0.9), "holds"), ((0.1, 1.1), "open"), ((0.1, None), "open"), ((1.1, 1.2), "fails")):
        metrics = changed(make, ttft=make.constant(0.5, intervals={"p90": ends}))
        (statement,) = slo_statements(metrics, slo(ttft={"p90": 1.0}), open_loop=False)
        assert (statement.name, statement.lower, statement.upper, statement.state) == ("ttft.p90", *ends, state)


def test_single_requests_are_held_to_the_targets_without_a_statistic_alone():
    terms = slo(latency={"p50": 1.0, "p99": 3.0}, ttft={"threshold": 0.5}, tpot={"mean": 0.1}, output_throughput=10)
    assert {term.name: term.threshold for term in request_terms(terms)} == {"ttft": 0.5}


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ({"ttft": 1.0}, ["attainment"]),
        ({"ttft": 1.0, "tpot": 1.0, "attainment": 0.8}, ["attainment"]),
        ({"latency": {"p90": 5.0}}, ["latency.p90"]),
        ({"ttft": 1.0, "latency": {"p50": 5.0, "mean": 4.0}}, ["attainment", "latency.p50", "latency.mean"]),
        ({"output_throughput": 1.0, "itl": 1.0}, ["attainment", "output_throughput"]),
        ({}, []),
    ],
)
def test_an_slo_states_the_attainment_once_and_every_other_term_by_itself(make, targets, names):
    assert [statement.name for statement in slo_statements(make.metrics(), slo(**targets), open_loop=False)] == names


def test_the_attainment_is_stated_as_written(make):
    targets = slo(ttft=1.0, latency={"p50": 5.0}, attainment=0.95)
    statement = {one.name: one for one in slo_statements(make.metrics(good=81), targets, open_loop=False)}
    assert (statement["attainment"].target, statement["attainment"].state) == (0.95, "fails")
    assert statement["latency.p50"].state == "holds"


def test_a_request_is_good_when_every_term_is_met(make):
    terms = request_terms(slo(ttft=0.105, tpot=0.0205, itl=0.0205, latency=0.305))
    assert is_good(make.record(0.0, ttft=0.1, gap=0.02), terms, open_loop=False)
    assert not is_good(make.record(0.0, ttft=0.11, gap=0.01), terms, open_loop=False)
    assert not is_good(make.record(0.0, ttft=0.05, gap=0.021, tokens=5), terms, open_loop=False)
    assert not is_good(make.record(0.0, ttft=0.1, gap=0.02, tokens=12), terms, open_loop=False)


def test_a_single_chunk_says_nothing_of_the_gaps_between_tokens(make):
    lone = make.record(0.0, ttft=0.1, tokens=1)
    assert is_good(lone, request_terms(slo(tpot=0.02)), open_loop=False) is None
    assert is_good(lone, request_terms(slo(itl=0.02, ttft=0.2)), open_loop=False) is None
    assert is_good(lone, request_terms(slo(ttft=0.2)), open_loop=False) is True
