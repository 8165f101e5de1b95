import dataclasses
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import LoadPoint
from autotuner.experiment import Slo
from autotuner.scoring.metrics import summarize

NO_SLO = Slo()


@pytest.fixture
def five_requests(make):
    """Five requests around a window from 10 s to 20 s."""

    def request(sent, times, tokens, **changes):
        return make.record(
            sent, chunk_times=times, chunk_tokens=tokens, output_tokens=sum(tokens), finished=times[-1], **changes
        )

    return make.observation(
        [
            request(9.0, (9.5, 10.5, 11.0), (1, 2, 1)),  # started before the window
            request(12.0, (12.2, 12.4, 12.5), (1, 2, 1)),
            request(19.0, (19.4, 20.6), (1, 1)),  # ends after the window
            request(15.0, (15.1,), (1,), error="timeout"),  # died after one token
            request(20.5, (20.9,), (1,)),  # started after the window
        ],
        window=(10.0, 20.0),
    )


def test_latencies_are_of_requests_that_started_in_the_window(five_requests):
    metrics = summarize(five_requests, NO_SLO)
    assert metrics.requests == 3  # sent at 12, 19 and 15
    assert metrics.errors == {"timeout": 1}
    assert (metrics.ttft.n, metrics.ttft.min, metrics.ttft.max) == pytest.approx((2, 0.2, 0.4))
    assert (metrics.e2e.n, metrics.e2e.min, metrics.e2e.max) == pytest.approx((2, 0.5, 1.6))
    # (12.5 - 12.2) / (4 - 1) and (20.6 - 19.4) / (2 - 1)
    assert (metrics.tpot.min, metrics.tpot.max) == pytest.approx((0.1, 1.2))
    assert metrics.interactivity == pytest.approx(1 / 0.65)


def test_a_load_point_that_was_given_up_counts_the_tokens_received_in_its_window(five_requests):
    metrics = summarize(dataclasses.replace(five_requests, abort_reason="nothing works"), NO_SLO)
    # 2 + 1 of the first, 4 of the second, 1 of the third, 1 of the one that died
    assert metrics.output_throughput == pytest.approx(9 / 10)
    # and the 100 prompt tokens of each of the three whose first token came in the window
    assert metrics.throughput == pytest.approx((9 + 300) / 10)
    # the first and the second end in the window
    assert metrics.request_throughput == pytest.approx(2 / 10)
    assert metrics.intervals == {}


def test_goodput_and_attainment_count_requests_that_met_every_term(five_requests):
    given_up = dataclasses.replace(five_requests, abort_reason="nothing works")
    metrics = summarize(given_up, Slo.model_validate({"latency": 1.0}))
    # 2.0 s and 1.6 s miss, 0.5 s is good, the time-out misses
    assert metrics.goodput == pytest.approx(1 / 10)
    assert metrics.token_goodput == pytest.approx(4 / 10)
    assert (metrics.attainment.value, metrics.attainment.n) == (pytest.approx(1 / 3), 3)


def test_gaps_are_spread_over_the_tokens_of_the_later_chunk(make):
    times, tokens = (1.0, 1.3, 1.4), (1, 3, 1)
    metrics = summarize(
        make.observation([make.record(0.0, chunk_times=times, chunk_tokens=tokens, output_tokens=5)]), NO_SLO
    )
    assert (metrics.itl.n, metrics.itl.min, metrics.itl.max) == (4, pytest.approx(0.1), pytest.approx(0.1))
    assert (metrics.chunk_gap.n, metrics.chunk_gap.min, metrics.chunk_gap.max) == pytest.approx((2, 0.1, 0.3))
    assert metrics.tpot.mean == pytest.approx(0.4 / 4)


def test_a_request_of_one_chunk_has_no_tpot_and_is_in_no_share_of_a_tpot_target(make):
    lone, whole = make.record(0.0, tokens=1), make.record(1.0)
    metrics = summarize(make.observation([lone]), Slo.model_validate({"tpot": 0.001}))
    assert metrics.tpot is None
    assert metrics.itl is None
    assert metrics.interactivity is None
    assert metrics.attainment is None
    assert (metrics.without_tpot, metrics.ttft.n) == (1, 1)
    both = summarize(make.observation([lone, whole]), Slo.model_validate({"tpot": 0.02}))
    assert (both.attainment.value, both.attainment.n, both.without_tpot) == (1.0, 1, 1)
    assert summarize(make.observation([lone]), Slo.model_validate({"ttft": 1.0})).attainment.n == 1


def test_failed_requests_give_no_latency_sample_and_count_as_infinitely_slow(make):
    answered = [make.record(float(i)) for i in range(9)]
    metrics = summarize(make.observation([*answered, make.failed(9.0)]), NO_SLO)
    assert metrics.ttft.n == metrics.e2e.n == metrics.tpot.n == 9
    assert metrics.ttft.p99 == pytest.approx(0.1)
    assert metrics.ttft.adjusted["p90"] == pytest.approx(0.1)
    assert metrics.ttft.adjusted["p95"] is None


def test_an_answer_without_a_token_is_a_failure(make):
    metrics = summarize(make.observation([make.record(0.0, tokens=0)]), NO_SLO)
    assert metrics.errors == {"no-tokens": 1}
    assert metrics.ttft is None
    assert metrics.attainment.value == 0


def test_an_open_loop_counts_from_the_schedule_and_holds_the_slo_against_it(make):
    late = make.record(1.0, scheduled=0.0, ttft=0.1, gap=0.0, tokens=2)
    slo = Slo.model_validate({"ttft": 0.5})
    opened = summarize(make.observation([late], point=LoadPoint("D(1,2)", rate=1.0)), slo)
    assert opened.ttft.mean == pytest.approx(0.1)
    assert opened.ttft_from_schedule.mean == opened.e2e_from_schedule.mean == pytest.approx(1.1)
    assert opened.attainment.value == 0
    assert opened.goodput == 0
    closed = summarize(make.observation([late]), slo)
    assert closed.ttft_from_schedule is None
    assert closed.attainment.value == 1


def test_reasoning_is_in_ttft_and_not_in_ttfo(make):
    metrics = summarize(make.observation([make.record(0.0, ttft=0.1, first_output=0.7)]), NO_SLO)
    assert (metrics.ttft.mean, metrics.ttfo.mean) == pytest.approx((0.1, 0.7))


def test_the_servers_own_count_wins_where_chunks_hide_tokens(make):
    # two chunks of "one" token each, and a server that says there were eight
    hiding = make.record(0.0, tokens=2, output_tokens=8)
    assert summarize(make.observation([hiding]), NO_SLO).output_throughput == pytest.approx(8 / 10)


def test_without_the_servers_count_the_requested_prompt_counts(make):
    uncounted = make.record(0.0, tokens=2, prompt_tokens=None)
    assert summarize(make.observation([uncounted]), NO_SLO).throughput == pytest.approx((100 + 2) / 10)


def test_nothing_sent_is_all_empty(make):
    metrics = summarize(make.observation([]), NO_SLO)
    assert (metrics.requests, metrics.ttft, metrics.attainment, metrics.throughput) == (0, None, None, 0)


def test_an_empty_window_has_no_rates(make):
    metrics = summarize(make.observation([make.record(0.0)], window=(0.0, 0.0)), NO_SLO)
    assert metrics.requests == 1
    assert metrics.throughput == metrics.request_throughput == 0


@given(
    st.lists(
        st.tuples(st.floats(-5, 15), st.floats(0.001, 3), st.floats(0, 0.5), st.integers(1, 20), st.booleans()),
        max_size=30,
    )
)
def test_any_container_of_chunks_gives_the_same_figures(make, drawn):
    def records(hold_times, hold_tokens):
        return [
            make.record(
                sent,
                chunk_times=hold_times(sent + ttft + gap * i for i in range(tokens)),
                chunk_tokens=hold_tokens(1 for _ in range(tokens)),
                output_tokens=None,
                error="reset" if fails else None,
            )
            for sent, ttft, gap, tokens, fails in drawn
        ]

    slo = Slo.model_validate({"latency": 2.0, "itl": 0.1})
    plain = summarize(make.observation(records(tuple, tuple)), slo)
    packed = summarize(make.observation(records(lambda v: array("d", v), lambda v: array("I", v))), slo)
    assert plain == packed


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.001, 3), st.booleans()), min_size=1, max_size=30))
def test_good_is_never_more_than_all(make, drawn):
    records = [make.failed(sent) if fails else make.record(sent, ttft) for sent, ttft, fails in drawn]
    metrics = summarize(make.observation(records), Slo.model_validate({"ttft": 1.0}))
    assert metrics.goodput <= metrics.request_throughput + 1e-12
    assert metrics.token_goodput <= metrics.output_throughput + 1e-12
    good = sum(not fails and (sent + ttft) - sent <= 1.0 for sent, ttft, fails in drawn)
    assert metrics.attainment.value == pytest.approx(good / len(drawn))
    assert sum(metrics.errors.values()) + (metrics.ttft.n if metrics.ttft else 0) == metrics.requests


def test_a_request_that_was_due_in_the_window_counts_though_it_was_sent_after_it(make):
    late = make.record(10.5, ttft=0.3, scheduled=9.5)
    observation = make.observation([make.record(1.0), late], window=(0.0, 10.0), point=LoadPoint("D(100,11)", rate=1.0))
    assert summarize(observation, Slo()).requests == 2


@pytest.mark.parametrize("seconds", [2.0, 2.5, 3.3, 40.0])
def test_throughput_has_no_edges_however_few_waves_a_window_holds(make, seconds):
    """Equal requests come in waves: tokens counted in a window are those of one wave too many or too few."""
    point, each = LoadPoint("D(100,11)", concurrency=4), 0.1 + 10 * 0.01
    records = [
        make.record(wave * each, index=4 * wave + lane) for wave in range(int(seconds / each) + 1) for lane in range(4)
    ]
    metrics = summarize(make.observation(records, (0.0, seconds), point), Slo())
    assert metrics.request_throughput == pytest.approx(4 / each)
    assert metrics.output_throughput == pytest.approx(11 * 4 / each)
    assert metrics.throughput == pytest.approx(111 * 4 / each)
    assert metrics.goodput == metrics.request_throughput
    assert metrics.intervals["throughput"] == pytest.approx((metrics.throughput, metrics.throughput))


def test_failures_take_part_in_littles_law_without_adding_tokens(make):
    point = LoadPoint("D(100,11)", concurrency=2)
    records = [make.record(0.0), make.failed(0.0, seconds=1.0)]
    metrics = summarize(make.observation(records, (0.0, 1.0), point), Slo())
    # 0.2 and 1 s in flight within a second: 1.2 at once, of which each second one brings an answer
    assert metrics.request_throughput == pytest.approx(1.2 * 1 / 1.2)
    assert metrics.output_throughput == pytest.approx(11.0)


def test_an_open_loop_that_keeps_up_yields_what_arrives(make):
    point = LoadPoint("D(100,11)", rate=2.0)
    records = [make.record(0.45 * i, index=i) for i in range(20)]
    metrics = summarize(make.observation(records, (0.0, 9.0), point), Slo.model_validate({"ttft": 0.05}))
    assert metrics.request_throughput == pytest.approx(2.0)
    assert metrics.output_throughput == pytest.approx(22.0)
    assert metrics.goodput == 0
    ramp = dataclasses.replace(make.observation(records, (0.0, 9.0), point), nonstationary_arrivals=True)
    assert summarize(ramp, Slo()).output_throughput == pytest.approx(20 * 11 / 9, rel=0.03)
    assert summarize(ramp, Slo()).intervals == {}


def test_requests_that_only_keep_up_the_load_are_counted_in_no_latency(make):
    before, behind = make.record(-0.5, index=-1, ttft=5.0), make.record(8.0, index=-2, ttft=5.0)
    metrics = summarize(make.observation([before, make.record(1.0), behind], (0.0, 10.0)), Slo())
    assert (metrics.requests, metrics.ttft.n, metrics.ttft.max) == (1, 1, pytest.approx(0.1))


def test_requests_served_together_say_less_than_independent_ones(make):
    """Every second wave is slow: the interval of the mean is that of a few waves, not of all requests."""
    point = LoadPoint("D(100,11)", concurrency=10)
    slow = [0.1, 0.3, 0.3, 0.1, 0.3, 0.1]
    records = [
        make.record(wave + lane / 100, ttft=slow[wave], index=10 * wave + lane)
        for wave in range(6)
        for lane in range(10)
    ]
    low, high = summarize(make.observation(records, (0.0, 6.0), point), Slo()).ttft.intervals["mean"]
    # six waves, five degrees of freedom: 2.5706 x 0.1095 / sqrt(6)
    assert (low, high) == (pytest.approx(0.2 - 0.115, abs=2e-3), pytest.approx(0.2 + 0.115, abs=2e-3))
