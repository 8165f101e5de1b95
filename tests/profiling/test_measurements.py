from dataclasses import replace

import pytest

from autotuner.profiling.measurements import decode_point, is_cached, median_interval, prefill_point
from autotuner.profiling.points import DecodeLoad, PrefillLoad
from tests.profiling.points import observed, streamed

LOAD = DecodeLoad(580, 40, 4)


def decoded(records, load=LOAD, **more):
    return decode_point(load, observed(records, load.concurrency, **more), gpus=2, kv_tokens=10_000, source="measured")


def at_once(count=4, gap=0.01, **more):
    return [streamed(index, 0.5 + 0.002 * index, gap, 40, **more) for index in range(count)]


def test_itl_and_throughput_are_those_of_the_window_in_which_all_decode():
    point = decoded(at_once())
    assert point.rejection is None
    assert point.itl == pytest.approx(0.01)
    assert point.throughput_per_gpu == pytest.approx(4 / 0.01 / 2, rel=0.03)
    assert point.running == 4
    assert point.kv_usage == pytest.approx(600 * 4 / 10_000)


def test_ramp_up_and_drain_do_not_count():
    """The others decode twice as fast before the last request starts."""
    records = at_once(3)
    late = streamed(3, 0.7, 0.01, 40)
    assert decoded([*records, late]).itl == pytest.approx(0.01)


def test_requests_that_queued_make_a_saturated_point():
    queued = [replace(record, index=record.index + 2) for record in at_once(2)]
    records = at_once(2) + [streamed(record.index, 1.5, 0.01, 40) for record in queued]
    point = decoded(records)
    assert point.is_saturated
    assert point.running == 2
    assert "2 of 4 requests ran at once" in (point.rejection or "")


@pytest.mark.parametrize(
    ("records", "counters", "words"),
    [
        (at_once(cached=0), {}, "held 0%"),
        (at_once(cached=None), {}, "does not tell"),
        (at_once(cached=None), {"prefix_cache_hits": 100.0, "prefix_cache_queries": 2320.0}, "held 4%"),
        (at_once(), {"preemptions": 2.0}, "2 preemptions"),
        (at_once(error="http-500"), {}, "4 of 4 requests failed: http-500"),
        ([streamed(index, 0.5, 0.01, 5) for index in range(4)], {}, "only 4 tokens"),
    ],
)
def test_a_point_that_says_something_else_than_its_numbers_is_rejected(records, counters, words):
    assert words in (decoded(records, counters=counters).rejection or "")


def test_counters_of_the_engine_tell_of_the_cache_where_requests_do_not():
    counters = {"prefix_cache_hits": 2300.0, "prefix_cache_queries": 2320.0}
    assert decoded(at_once(cached=None), counters=counters).rejection is None


def test_a_stall_of_some_requests_shows_in_the_consistency():
    """One request makes a token for three of the others': the mean ITL of four is then not that of the batch."""
    records = [*at_once(3), streamed(3, 0.506, 0.03, 20)]
    point = decoded(records)
    assert point.consistency != pytest.approx(1, abs=0.06)
    assert "throughput x ITL" in (point.rejection or "")


@pytest.mark.parametrize(
    ("prompt", "cached", "expected"),
    [(3000, 2944, True), (3000, 2600, False), (100, 64, True), (100, 0, False), (448, 384, True), (10_000, 9100, True)],
)
def test_a_prompt_counts_as_cached_without_its_last_blocks(prompt, cached, expected):
    assert is_cached(prompt, cached / prompt) is expected


def prefilled(ttfts, **more):
    records = [streamed(index, ttft, 0.01, 5, cached=0) for index, ttft in enumerate(ttfts)]
    return prefill_point(
        PrefillLoad(600, len(ttfts)), observed(records), gpus=2, attention_dp=1, source="measured", **more
    )


def test_ttft_is_the_median_of_at_least_three_requests():
    point = prefilled([0.2, 0.1, 0.9])
    assert point.rejection is None
    assert point.ttft == 0.2
    assert point.interval == (0.1, 0.9)
    assert point.throughput_per_gpu == pytest.approx(600 / 0.2 / 2)
    assert "at least 3" in (prefilled([0.2, 0.1]).rejection or "")


def test_earlier_requests_of_the_length_count_too():
    assert prefilled([0.2], earlier_samples=(0.1, 0.3)).samples == (0.1, 0.3, 0.2)


def test_a_prefill_from_the_cache_is_none():
    records = [streamed(index, 0.1, 0.01, 5, cached=500) for index in range(3)]
    point = prefill_point(PrefillLoad(600, 3), observed(records), gpus=1, attention_dp=1, source="measured")
    assert "prefix cache" in (point.rejection or "")


def test_the_interval_of_a_median_narrows_with_the_samples():
    assert median_interval([3, 1, 2]) == (1, 3)
    assert median_interval(list(range(5))) == (0, 4)
    low, high = median_interval(list(range(101)))
    assert 38 <= low <= 42
    assert 58 <= high <= 62
