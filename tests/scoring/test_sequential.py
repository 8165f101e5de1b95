"""The sequential test, on streams whose true share of good requests is known."""

import math
import pickle
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import LoadPoint, RequestRecord
from autotuner.experiment import Slo
from autotuner.scoring.reasons import (
    MEETS_TARGETS,
    MISSES_TARGETS,
    PRECISE_ENOUGH,
    SINGLE_CHUNK_ANSWERS,
    TIME_LIMIT_REACHED,
    TOO_MANY_FAILURES,
)
from autotuner.scoring.sequential import (
    MIN_REQUESTS,
    RELATIVE_PRECISION,
    Decision,
    WaldSprt,
    decision_stop_rule,
    normal_share_lower_bound,
    precision_stop_rule,
    variance_ratio,
)
from tests.factories import failed, record

STREAMS = 250
STREAM_LENGTH = 600
TOLERANCE = 0.028
"""Two standard errors of a 5% error rate over that many streams."""


def margins(share: float, correlation: float, seed: int) -> np.ndarray:
    """AR(1) streams of margins, of which `share` is at most 0."""
    draw = np.random.default_rng(seed)
    noise = draw.standard_normal((STREAMS, STREAM_LENGTH))
    streams = np.empty_like(noise)
    streams[:, 0] = noise[:, 0]
    for i in range(1, STREAM_LENGTH):
        streams[:, i] = correlation * streams[:, i - 1] + math.sqrt(1 - correlation**2) * noise[:, i]
    return streams - NormalDist().inv_cdf(share)


def decisions(share: float, correlation: float) -> tuple[list[Decision], list[int]]:
    """What is decided of each stream when it is looked at as it grows, and after how many requests."""
    test, decided, lengths = WaldSprt(0.95), [], []
    for stream in margins(share, correlation, seed=int(100 * share)):
        n = MIN_REQUESTS
        while (decision := test.decide(stream[:n])) == "undecided" and n < STREAM_LENGTH:
            n += max(1, n // 10)
        decided.append(decision)
        lengths.append(n)
    return decided, lengths


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("share", [0.93, 0.97])
def test_at_most_one_decision_in_twenty_is_wrong_outside_the_band(share, correlation):
    decided, _ = decisions(share, correlation)
    wrong = decided.count("meets" if share < 0.95 else "misses")
    assert wrong / STREAMS <= 0.05 + TOLERANCE


@pytest.mark.parametrize(("share", "most"), [(0.6, 20), (0.85, 60), (0.99, 120), (0.999, 100)])
def test_a_clear_answer_takes_few_requests(share, most):
    decided, lengths = decisions(share, 0.0)
    assert decided.count("undecided") <= STREAMS / 50
    assert np.median(lengths) <= most


def test_requests_far_from_their_targets_need_not_be_independent():
    test = WaldSprt(0.95)
    for stream in margins(1 - 1e-9, 0.95, seed=3)[:50]:
        assert test.decide(stream[:100]) == "meets"


def test_a_share_that_margins_alone_promise_is_not_enough():
    rare = np.where(np.arange(400) % 20 == 0, 0.01, -0.5)
    assert normal_share_lower_bound(rare, ratio=1.0) > WaldSprt(0.95).indifference_bounds[1]
    assert WaldSprt(0.95).decide(rare) == "undecided"


@given(st.floats(-3, 3), st.floats(0.1, 2.0), st.floats(1.0, 20.0))
def test_the_share_that_margins_promise_falls_with_dependence_and_is_below_what_a_normal_has(mean, spread, ratio):
    values = mean + spread * np.random.default_rng(0).standard_normal(200)
    whole = NormalDist().cdf(-values.mean() / max(values.std(ddof=1), 0.05))
    assert normal_share_lower_bound(values, ratio) <= normal_share_lower_bound(values, 1.0) <= whole


def test_equal_margins_promise_what_lies_beyond_a_spread_they_may_still_have():
    assert normal_share_lower_bound(np.full(50, -0.5), 1.0) > 0.999
    assert normal_share_lower_bound(np.full(50, -0.05), 1.0) < 0.8
    assert WaldSprt(0.95).decide(np.full(20, -0.5)) == "meets"
    assert WaldSprt(0.95).decide(np.full(20, -0.05)) == "undecided"


def test_correlated_requests_count_for_less():
    plain, related = (np.mean([variance_ratio(s) for s in margins(0.9, c, 1)]) for c in (0.0, 0.6))
    assert plain < 1.3
    assert 2.5 < related < 4.5  # (1 + 0.6) / (1 - 0.6) = 4 for an endless stream


def test_equal_margins_are_taken_for_independent():
    assert variance_ratio(np.full(50, -0.5)) == 1.0


@given(st.floats(0.02, 0.995), st.integers(0, 300), st.integers(0, 300))
def test_evidence_has_the_sign_of_the_share_seen(target, good, bad):
    test = WaldSprt(target)
    low, high = test.indifference_bounds
    assert 0 < low < target < high < 1
    if good and bad == 0:
        assert test.log_likelihood_ratio(good, good) > 0
    if bad and good == 0:
        assert test.log_likelihood_ratio(0, bad) < 0


SLO = Slo.model_validate({"ttft": 0.2, "attainment": 0.95})


POINT = LoadPoint("D(100,11)", concurrency=1)


def rule(slo=SLO):
    return decision_stop_rule(slo, POINT, min_seconds=0.0, max_seconds=math.inf)


def test_requests_that_all_meet_the_targets_end_the_load_point():
    requests = [record(float(i), ttft=0.195, index=i) for i in range(200)]
    stop = rule()
    ends = [n for n in range(1, 201) if stop(requests[:n])]
    assert 60 <= ends[0] <= 100


def test_requests_that_miss_end_it_soon_and_errors_count_as_misses():
    slow = [record(float(i), ttft=0.5, index=i) for i in range(20)]
    assert rule()(slow) == "clearly misses the targets"
    assert rule()([failed(float(i), index=i) for i in range(20)]) == "clearly misses the targets"


def test_too_few_requests_say_nothing():
    assert rule()([record(float(i), ttft=0.5, index=i) for i in range(MIN_REQUESTS - 1)]) is None


def test_what_ended_ahead_of_a_request_that_still_runs_is_not_counted():
    """Of those that have ended first, more than their share is fast."""
    fast = [record(float(i), ttft=0.1, index=i) for i in range(200) if i % 12]
    assert rule()([record(0.0, ttft=0.1, index=0), *fast]) is None


def test_a_rule_can_be_sent_to_another_process():
    stop = pickle.loads(pickle.dumps(rule()))
    assert stop([record(float(i), ttft=0.5, index=i) for i in range(20)])


def streamed(ttft: float, seconds: int) -> list[RequestRecord]:
    return [record(float(i), ttft=ttft, index=i) for i in range(seconds)]


def test_targets_that_are_met_are_met_for_a_while_and_missed_ones_for_half_of_it():
    good, bad = streamed(0.1, 400), streamed(0.5, 400)
    ends = {}
    for name, requests in (("good", good), ("bad", bad)):
        stop = decision_stop_rule(SLO, POINT, min_seconds=200.0, max_seconds=1000.0)
        ends[name] = next((n, reason) for n in range(1, 401) if (reason := stop(requests[:n])))
    assert [reason for _, reason in ends.values()] == [MEETS_TARGETS, MISSES_TARGETS]
    assert ends["good"][0] == pytest.approx(200, abs=12)
    assert ends["bad"][0] == pytest.approx(100, abs=8)


def test_without_a_clear_answer_time_ends_it():
    mixed = [record(float(i), ttft=0.1 if i % 20 else 0.5, index=i) for i in range(500)]
    stop = decision_stop_rule(SLO, POINT, min_seconds=30.0, max_seconds=90.0)
    assert next((n, reason) for n in range(1, 500) if (reason := stop(mixed[:n]))) == (91, TIME_LIMIT_REACHED)


def test_without_targets_on_requests_a_load_point_lasts_its_seconds():
    stop = decision_stop_rule(
        Slo.model_validate({"output_throughput": 10.0}), POINT, min_seconds=30.0, max_seconds=90.0
    )
    assert stop([]) is None
    assert stop(streamed(0.1, 20)) is None
    assert stop(streamed(0.1, 40)) == PRECISE_ENOUGH


@pytest.mark.parametrize(
    ("slo", "ttft", "answer"),
    [
        ({"ttft": 0.032, "attainment": 0.95, "latency": {"p50": 5.0}}, 0.05, MISSES_TARGETS),
        ({"latency": {"p50": 0.15}}, 0.1, MISSES_TARGETS),
        ({"latency": {"p50": 0.25}}, 0.1, MEETS_TARGETS),
        ({"ttft": {"mean": 0.09}}, 0.1, MISSES_TARGETS),
        ({"ttft": {"mean": 0.11}, "latency": 0.3}, 0.1, MEETS_TARGETS),
    ],
)
def test_every_target_is_tested_by_itself(slo, ttft, answer):
    requests = [record(float(i), ttft=ttft + 0.001 * (i % 3), index=i) for i in range(300)]
    stop = rule(Slo.model_validate(slo))
    assert next(reason for n in range(MIN_REQUESTS, 301) if (reason := stop(requests[:n]))) == answer


def noisy(sd: float, count: int = 3000) -> list[RequestRecord]:
    draw = np.random.default_rng(5)
    return [record(float(i), ttft=float(max(0.01, 0.5 + sd * draw.standard_normal())), index=i) for i in range(count)]


def ends(stop, requests):
    return next((n, reason) for n in range(1, len(requests)) if (reason := stop(requests[:n])))


def test_a_window_goes_on_until_the_objective_is_known_to_three_percent(make):
    experiment = make.experiment("minimize_ttft", duration=20.0)
    steady, rough = (precision_stop_rule(experiment, POINT) for _ in range(2))
    assert ends(steady, noisy(0.0)) == (pytest.approx(21, abs=1), PRECISE_ENOUGH)
    # 1.96 x 0.1 / 0.5 / sqrt(n) <= 0.03 takes 171 requests
    n, why = ends(rough, noisy(0.1))
    assert why == PRECISE_ENOUGH
    assert 120 < n < 300
    values = [r.ttft for r in noisy(0.1)[:n] if r.ttft is not None]
    assert 1.96 * np.std(values) / math.sqrt(n) <= 1.3 * RELATIVE_PRECISION * np.mean(values)


def test_a_window_that_clearly_misses_ends_at_its_duration_and_one_that_fails_too(make):
    experiment = make.experiment("minimize_ttft", duration=50.0, slo={"ttft": 0.2})
    assert ends(precision_stop_rule(experiment, POINT), noisy(0.1)) == (pytest.approx(51, abs=3), MISSES_TARGETS)
    failing = [failed(float(i), index=i) if i % 5 == 0 else record(float(i), index=i) for i in range(300)]
    free = make.experiment("minimize_ttft", duration=50.0)
    assert ends(precision_stop_rule(free, POINT), failing) == (pytest.approx(51, abs=3), TOO_MANY_FAILURES)


def test_a_window_is_not_ended_before_its_targets_are_decided(make):
    """25 good requests in 20 s do not show 95%."""
    experiment = make.experiment("minimize_ttft", duration=20.0, slo={"ttft": 0.6})
    requests = [record(0.8 * i, ttft=0.5 + 0.01 * (i % 7), index=i) for i in range(400)]
    n, why = ends(precision_stop_rule(experiment, POINT), requests)
    assert why == MEETS_TARGETS
    assert 26 <= n <= 110


def test_a_window_that_can_only_be_invalid_ends_at_its_duration(make):
    """No longer one tells the time per token of answers that come in one chunk."""
    lumps = [record(float(i), tokens=1, index=i) for i in range(300)]
    for slo in ({"tpot": 0.02}, {"tpot": {"p90": 0.02}}, {"ttft": 1.0, "tpot": {"mean": 0.02}}):
        experiment = make.experiment("maximize_throughput", duration=30.0, slo=slo)
        assert ends(precision_stop_rule(experiment, POINT), lumps) == (pytest.approx(31, abs=3), SINGLE_CHUNK_ANSWERS)
