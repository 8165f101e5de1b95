"""Which responses were streamed: times are those of a server that sends a token every 20 ms after the first."""

from array import array

import pytest

from autotuner.core import LoadPoint, Verdict
from autotuner.experiment import Slo
from autotuner.scoring.judge import decide_verdict
from autotuner.scoring.metrics import summarize
from autotuner.scoring.streaming import clumped_share
from autotuner.scoring.validity import CHECK_VERDICTS, check_validity

FIRST, GAP = 0.1, 0.02


def token_times(tokens, first=FIRST, gap=GAP):
    return [first + gap * number for number in range(tokens)]


def whole(times):
    """A proxy that keeps the response until its end."""
    return [times[-1]] * len(times)


def filled(size, times):
    """A proxy that passes on `size` events at once, and the rest at the end."""
    return [times[min(number // size * size + size, len(times)) - 1] for number in range(len(times))]


def flushed(period, times):
    """A proxy that passes on what it has every `period` seconds."""
    return [-(-time // period) * period for time in times]


def first_then_rest(times):
    """A proxy that passes the first event on and then keeps the rest."""
    return [times[0], *[times[-1]] * (len(times) - 1)]


def response(make, times, chunk_tokens=None, sent=0.0, **changes):
    counts = array("I", chunk_tokens or [1] * len(times))
    return make.record(
        sent,
        chunk_times=[sent + time for time in times],
        chunk_tokens=counts,
        finished=sent + times[-1],
        output_tokens=sum(counts),
        requested_output=sum(counts),
        **changes,
    )


def load_point(make, times, chunk_tokens=None, slo=None, **changes):
    """Twenty such responses of one stream, their checks by name, and the verdict."""
    records = [
        response(make, times, chunk_tokens, (times[-1] + 0.001) * number, client_delay=0.0001) for number in range(20)
    ]
    point = LoadPoint("D(100,100)", concurrency=1)
    observation = make.observation(records, window=(0.0, records[-1].finished), point=point, **changes)
    slo = slo or Slo()
    metrics = summarize(observation, slo)
    checks = check_validity(observation, metrics, slo)
    result = make.result(validity=checks)
    return {check.name: check for check in checks}, decide_verdict(result, slo), metrics


BUFFERED = {
    "whole": whole(token_times(20)),
    "whole, in reads of one moment": [0.48 + 0.0001 * number for number in range(20)],
    "whole, written one by one": [0.48 + 0.0002 * number for number in range(20)],
    "whole, over a network": [4.0 + 0.03 * (number // 70) for number in range(200)],
    "8 kB at a time": filled(43, token_times(64, 0.014, 0.0035)),
    "4 kB at a time": filled(22, token_times(100)),
    "4 kB and a little rest": filled(19, token_times(20)),
    "many in a flush": flushed(0.5, token_times(100, gap=0.005)),
    "all but the first": first_then_rest(token_times(40)),
    "five at once": whole(token_times(5)),
}


@pytest.mark.parametrize("way", BUFFERED)
def test_a_buffered_stream_is_invalid_and_says_why(make, way):
    checks, verdict, _ = load_point(make, BUFFERED[way])
    assert (checks["streamed"].value, checks["streamed"].ok) == (0.0, False)
    assert verdict is CHECK_VERDICTS["streamed"] is Verdict.INVALID


def test_an_answer_that_is_one_event_of_many_tokens_is_not_streamed(make):
    assert load_point(make, [0.48], [20])[0]["streamed"].ok is False


GENUINE = {
    "a token each": (token_times(20), None),
    "four tokens an event": (token_times(5), [4] * 5),
    "one token, then four an event": (token_times(6), [1, 4, 4, 4, 4, 3]),
    "one token, then thirty-two an event": (token_times(4, gap=0.6), [1, 32, 32, 32]),
    "four events every 20 ms": ([FIRST + GAP * (number // 4) for number in range(40)], None),
    "eight events every 80 ms": ([FIRST + 4 * GAP * (number // 8) for number in range(40)], None),
    "one event, then four every 20 ms": ([FIRST + GAP * ((number + 3) // 4) for number in range(41)], None),
    "2,500 tokens/s": (token_times(100, gap=0.0004), None),
    "20 tokens of 2,500/s after a long prompt": (token_times(20, 5.0, 0.0004), None),
    "20 tokens of 3,300/s after a long prompt": (token_times(20, 5.0, 0.0003), None),
    "2,500 tokens/s over a network": ([0.1 + 0.004 * (number // 10) for number in range(200)], None),
    "one token": ([0.5], None),
    "four tokens at once": ([0.5], [4]),
    "answers of a test server": ([0.004] * 20, None),
}


@pytest.mark.parametrize("way", GENUINE)
def test_a_fast_engine_is_not_taken_for_a_buffering_proxy(make, way):
    assert load_point(make, *GENUINE[way])[0]["streamed"].ok


@pytest.mark.parametrize("late", [{"loop_lag_mean": 0.05}, {"loop_lag_p99": 0.2}, {"client_cpu": 0.97}])
def test_tokens_that_the_client_read_late_are_the_clients_fault(make, late):
    checks, verdict, _ = load_point(make, BUFFERED["4 kB at a time"], **late)
    assert (checks["streamed"].value, checks["streamed"].ok) == (0.0, True)
    assert verdict is Verdict.CLIENT_LIMITED


@pytest.mark.parametrize(("clumped", "ok"), [(0, True), (9, True), (11, False)])
def test_a_few_responses_may_have_been_held_up(make, clumped, ok):
    streamed = [response(make, token_times(20), sent=number) for number in range(20 - clumped)]
    held = [response(make, whole(token_times(20)), sent=number) for number in range(clumped)]
    assert clumped_share(streamed + held) == clumped / 20
    observation = make.observation(streamed + held)
    checks = check_validity(observation, summarize(observation, Slo()), Slo())
    assert next(check.ok for check in checks if check.name == "streamed") is ok


@pytest.mark.parametrize("metric", ["tpot", "itl"])
@pytest.mark.parametrize("way", ["whole", "whole, in reads of one moment", "five at once"])
def test_no_time_per_token_through_buffering_meets_no_target(make, metric, way):
    times = whole(BUFFERED[way]) if way != "whole, in reads of one moment" else [0.48 + 1e-6 * n for n in range(20)]
    _, verdict, metrics = load_point(make, times, slo=Slo.model_validate({metric: 0.05}))
    assert (metrics.tpot, metrics.itl, metrics.attainment, metrics.without_tpot) == (None, None, None, 20)
    assert verdict is Verdict.INVALID
