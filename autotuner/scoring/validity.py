"""Validity checks of a load point: client, load, lengths, errors, steady state."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from statistics import fmean, variance

from autotuner.core import Check, Metrics, Observation, RequestRecord, Verdict
from autotuner.experiment import Slo
from autotuner.scoring.intervals import percentile_rank
from autotuner.scoring.streaming import clumped_share
from autotuner.scoring.window import error_class, records_in_window, window_seconds

CHECK_VERDICTS: dict[str, Verdict] = {
    "completed": Verdict.INVALID,
    "error-share": Verdict.INVALID,
    "output-length": Verdict.INVALID,
    "prompt-length": Verdict.INVALID,
    "cache-hits": Verdict.INVALID,
    "littles-law": Verdict.INVALID,
    "stationarity": Verdict.INVALID,
    "tpot-defined": Verdict.INVALID,
    "streamed": Verdict.INVALID,
    "client-delay": Verdict.CLIENT_LIMITED,
    "client-delay-p99": Verdict.CLIENT_LIMITED,
    "client-cpu": Verdict.CLIENT_LIMITED,
    "loop-lag-p99": Verdict.CLIENT_LIMITED,
    "dispatch-delay-p99": Verdict.CLIENT_LIMITED,
    "sent-rate": Verdict.CLIENT_LIMITED,
    "rate-capped": Verdict.CLIENT_LIMITED,
    "completed-rate": Verdict.SATURATED,
    "backlog-slope": Verdict.SATURATED,
    "sample-size": Verdict.UNDECIDED,
}
"""The verdict of a load point that fails a check; a check that is not listed makes it invalid."""

MIN_REQUESTS = 10
MAX_CLIENT_DELAY_SECONDS = 0.003
MAX_CLIENT_DELAY_SHARE = 0.05
"""What the client may add to the mean TTFT, the larger of the two; the share applies to p99 too."""
MAX_CLIENT_SECONDS = 0.010
"""What the client may add to one request, unless a TTFT target is so long that the share of it is more."""
MAX_CLIENT_CPU = 0.9
"""Linux gives real-time threads 0.95 of a core together; near that, the backlog of unread data grows without bound."""
MAX_ERROR_SHARE = 0.01
MIN_MATCHING_SHARE = 0.95
MAX_CACHED_SHARE = 0.05
ALLOWED_CACHED_TOKENS = 32
"""Per request: two blocks of 16 tokens, about the head of a chat template that all prompts share."""
CACHED_SHARE_CEILING = 0.5
"""Upper bound on the allowed share, where prompts are hardly longer than such a head."""
MAX_SHARE_WITHOUT_TPOT = 0.01
MIN_STREAMED_SHARE = 0.5
"""A proxy buffers every response; some arrive in clumps when a server or a network stalls."""
MAX_LATENCY_CHANGE = 0.25
"""Relative change of the mean latency from the first half of a steady window to the second."""
SHARED_PREFIX_SCENARIOS = ("P(", "C(", "file:")


def check_validity(observation: Observation, metrics: Metrics, slo: Slo) -> tuple[Check, ...]:
    """Every validity check that applies to the load point, each with its value and limit."""
    records = records_in_window(observation)
    successes = [record for record in records if error_class(record) is None]
    client_checks = _client_checks(observation, successes, metrics, slo)
    checks = [
        Check("completed", len(successes), ">= 1 request", bool(successes)),
        Check("sample-size", len(records), f">= {MIN_REQUESTS} requests", len(records) >= MIN_REQUESTS),
        _error_check(metrics),
        *client_checks,
        _length_check(
            "output-length", successes, lambda r: (r.output_token_count, r.requested_output), slack=1, ratio=0.02
        ),
        _length_check("prompt-length", successes, lambda r: (r.prompt_tokens, r.requested_prompt), slack=4, ratio=0.05),
        _cache_check(observation, successes),
        _streamed_check(successes, client_limited=not all(check.ok for check in client_checks)),
        *_tpot_checks(successes, slo),
    ]
    if observation.load_point.rate is None:
        return (*checks, _littles_law_check(observation, records), _stationarity_check(observation, successes))
    return (*checks, *_open_loop_checks(observation, records, slo))


def max_client_seconds(slo: Slo) -> float:
    """Seconds the client itself may add to one request: 10 ms, or 5% of the TTFT target where that is more."""
    targets = [term.threshold for term in slo.terms if term.metric == "ttft"]
    return max(MAX_CLIENT_SECONDS, MAX_CLIENT_DELAY_SHARE * min(targets, default=0.0))


def _client_checks(
    observation: Observation, successes: Sequence[RequestRecord], metrics: Metrics, slo: Slo
) -> tuple[Check, ...]:
    """Checks on what the client adds to TTFT: from the arrival of a first token in the kernel to its timestamp.

    It is measured on some connections. Where the client reads after the next token came, the kernel
    reports only that token's arrival; then the lag of the event loop, which is always measured and
    underestimates the delay of bursts of tokens, is the better value.
    """
    delays = sorted(record.client_delay for record in successes if record.client_delay is not None)
    means = [*([fmean(delays)] if delays else []), observation.loop_lag_mean]
    mean_delay = max((mean for mean in means if mean is not None), default=None)
    mean_limit = max(MAX_CLIENT_DELAY_SECONDS, MAX_CLIENT_DELAY_SHARE * metrics.ttft.mean if metrics.ttft else 0.0)
    p99 = delays[percentile_rank(len(delays), 99) - 1] if delays else None
    p99_limit = max(max_client_seconds(slo), MAX_CLIENT_DELAY_SHARE * metrics.ttft.p99 if metrics.ttft else 0.0)
    late_count = sum(delay > p99_limit for delay in delays)
    loop_lag, lag_limit, cpu_share = observation.loop_lag_p99, max_client_seconds(slo), observation.client_cpu
    return (
        Check("client-delay", mean_delay, f"<= {mean_limit:.3g} s", mean_delay is None or mean_delay <= mean_limit),
        Check("client-delay-p99", p99, f"<= {p99_limit:.3g} s", p99 is None or p99 <= p99_limit or late_count <= 1),
        Check(
            "client-cpu",
            cpu_share,
            f"<= {MAX_CLIENT_CPU:g} of a core",
            cpu_share is None or cpu_share <= MAX_CLIENT_CPU,
        ),
        Check("loop-lag-p99", loop_lag, f"<= {lag_limit:g} s", loop_lag <= lag_limit),
    )


def _error_check(metrics: Metrics) -> Check:
    if not metrics.requests:
        return Check("error-share", None, f"<= {MAX_ERROR_SHARE:g}", True)
    value = sum(metrics.errors.values()) / metrics.requests
    return Check("error-share", value, f"<= {MAX_ERROR_SHARE:g}", value <= MAX_ERROR_SHARE)


def _length_check(
    name: str,
    successes: Sequence[RequestRecord],
    lengths: Callable[[RequestRecord], tuple[int | None, int]],
    *,
    slack: int,
    ratio: float,
) -> Check:
    """The share of requests whose actual length is the requested one, to within `slack` tokens or `ratio`."""
    pairs = [
        (actual, requested)
        for record in successes
        for actual, requested in (lengths(record),)
        if actual is not None and requested > 0
    ]
    limit = f">= {MIN_MATCHING_SHARE:g} of requests within {slack} tokens or {ratio:.0%}"
    if not pairs:
        return Check(name, None, limit, True)
    value = fmean(abs(actual - requested) <= max(slack, ratio * requested) for actual, requested in pairs)
    return Check(name, value, limit, value >= MIN_MATCHING_SHARE)


def _cache_check(observation: Observation, successes: Sequence[RequestRecord]) -> Check:
    """The share of prompt tokens that came from the engine's prefix cache.

    It is computed from the responses' own counts, and only without any from the engine's counters, which
    include the requests of other clients. Servers leave the count out of responses with no cached tokens.
    """
    if observation.load_point.scenario.startswith(SHARED_PREFIX_SCENARIOS):
        return Check("cache-hits", None, "prefixes are shared on purpose", True)
    prompts = [record.prompt_token_count for record in successes]
    template_share = ALLOWED_CACHED_TOKENS * len(prompts) / sum(prompts) if any(prompts) else 0.0
    max_share = min(max(MAX_CACHED_SHARE, template_share), CACHED_SHARE_CEILING)
    limit = f"<= {max_share:.3g} of prompt tokens" + (
        f", {ALLOWED_CACHED_TOKENS} a request" if max_share == template_share else ""
    )
    if any(record.cached_tokens is not None for record in successes):
        hits, total = float(sum(record.cached_tokens or 0 for record in successes)), float(sum(prompts))
    else:
        hits, total = (observation.counters.get(f"prefix_cache_{name}", 0.0) for name in ("hits", "queries"))
    if total <= 0:
        return Check("cache-hits", None, limit, True)
    return Check("cache-hits", hits / total, limit, hits / total <= max_share)


def _tpot_checks(successes: Sequence[RequestRecord], slo: Slo) -> list[Check]:
    """The share of responses without a TPOT, of one chunk or token or all at once, where there is a target for it."""
    if not any(term.metric in ("tpot", "itl") for term in slo.terms):
        return []
    limit = f"<= {MAX_SHARE_WITHOUT_TPOT:g} of answers without a TPOT"
    if not successes:
        return [Check("tpot-defined", None, limit, True)]
    value = fmean(record.tpot is None for record in successes)
    return [Check("tpot-defined", value, limit, value <= MAX_SHARE_WITHOUT_TPOT)]


def _streamed_check(successes: Sequence[RequestRecord], *, client_limited: bool) -> Check:
    """The share of responses whose tokens arrived one after another, unless the client read them late itself."""
    limit = f">= {MIN_STREAMED_SHARE:g} of answers token by token"
    clumped = clumped_share(successes)
    if clumped is None:
        return Check("streamed", None, limit, True)
    return Check("streamed", 1 - clumped, limit, client_limited or 1 - clumped >= MIN_STREAMED_SHARE)


def _littles_law_check(observation: Observation, records: Sequence[RequestRecord]) -> Check:
    """Little's law in a closed loop: request rate x residence time over the concurrency, which should be 1."""
    concurrency = observation.load_point.concurrency or 1
    if not records:
        return Check("littles-law", None, "no requests", True)
    seconds = fmean(record.finished - record.sent for record in records)
    value = len(records) / window_seconds(observation) * seconds / concurrency
    slack = 0.10 + concurrency / len(records)
    return Check("littles-law", value, f"within {slack:.0%} of 1", abs(value - 1) <= slack)


def _stationarity_check(observation: Observation, successes: Sequence[RequestRecord]) -> Check:
    """Mean latency of the window's second half over the first; fails beyond 25% and 4 standard errors."""
    midpoint = sum(observation.window) / 2
    first = [record.chunk_times[-1] - record.sent for record in successes if record.sent < midpoint]
    second = [record.chunk_times[-1] - record.sent for record in successes if record.sent >= midpoint]
    if min(len(first), len(second)) < MIN_REQUESTS:
        return Check("stationarity", None, f"needs {MIN_REQUESTS} requests in each half", True)
    change = fmean(second) - fmean(first)
    standard_error = math.sqrt(variance(first) / len(first) + variance(second) / len(second))
    limit = max(MAX_LATENCY_CHANGE * fmean(first), 4 * standard_error)
    return Check(
        "stationarity",
        1 + change / fmean(first),
        f"within {limit / fmean(first):.0%} of 1",
        abs(change) <= limit,
    )


def _open_loop_checks(observation: Observation, records: Sequence[RequestRecord], slo: Slo) -> list[Check]:
    saturation_checks = _saturation_checks(observation)
    return [
        *_rate_cap_checks(observation),
        _dispatch_delay_check(records, slo),
        _sent_rate_check(observation, records),
        *saturation_checks,
        _open_littles_law_check(observation, records, saturated=not all(check.ok for check in saturation_checks)),
    ]


def _rate_cap_checks(observation: Observation) -> list[Check]:
    """Requests sent late because `max_in_flight` was reached: the server saw less load than the request rate."""
    held_back = observation.held_back_requests
    if held_back is None:
        return []
    return [Check("rate-capped", held_back, "0 requests held back", held_back == 0)]


def _sent_rate_check(observation: Observation, records: Sequence[RequestRecord]) -> Check:
    """Requests sent over requests scheduled in the window."""
    if observation.due_requests is None:
        return _sent_rate_by_time(observation, records)
    if not observation.due_requests:
        return Check("sent-rate", None, "needs 1 request", True)
    end = observation.window[1]
    value = (sum(record.sent <= end for record in records) + _cut_off_in_window(observation)) / observation.due_requests
    minimum = 1 - max(0.10, 2 / observation.due_requests)
    return Check("sent-rate", value, f">= {max(0.0, minimum):.2f} of the schedule", value >= minimum)


def _sent_rate_by_time(observation: Observation, records: Sequence[RequestRecord]) -> Check:
    """The rate of sending over the requested rate; 3 / sqrt(n) allows for the variance of Poisson arrivals."""
    rate = observation.load_point.rate or 0.0
    span = _last_send_time(observation) - min((record.sent for record in records), default=0.0)
    if len(records) < 2 or span <= 0:
        return Check("sent-rate", None, "needs 2 requests", True)
    value = (len(records) - 1) / span / rate
    minimum = 1 - max(0.10, 3 / math.sqrt(len(records)))
    return Check("sent-rate", value, f">= {max(0.0, minimum):.2f} of the requested rate", value >= minimum)


def _cut_off_in_window(observation: Observation) -> int:
    """Number of cancelled requests due in the window; a window ended by a stop rule closes before the first."""
    return 0 if observation.stop_reason else observation.cut_off_requests


def _last_send_time(observation: Observation) -> float:
    """When the window's last request was sent; with a request limit the window ends later."""
    start, end = observation.window
    return max((record.sent for record in observation.records if start <= record.sent <= end), default=end)


def _dispatch_delay_check(records: Sequence[RequestRecord], slo: Slo) -> Check:
    """p99 of sent - scheduled; a single late request passes."""
    limit = max_client_seconds(slo)
    if not records:
        return Check("dispatch-delay-p99", None, f"<= {limit:g} s", True)
    delays = sorted(record.sent - record.scheduled for record in records)
    value = delays[percentile_rank(len(delays), 99) - 1]
    late_count = sum(delay > limit for delay in delays)
    return Check("dispatch-delay-p99", value, f"<= {limit:g} s", value <= limit or late_count <= 1)


def is_saturated(observation: Observation) -> bool:
    """Whether an open loop's requests arrive faster than the server completes them."""
    return observation.load_point.rate is not None and not all(check.ok for check in _saturation_checks(observation))


def _saturation_checks(observation: Observation) -> list[Check]:
    """Completions per arrival, and the growth rate of the backlog.

    A stable server's backlog fluctuates by about its square root, and grows until the first requests
    complete: the limits allow for both.
    """
    start, end = observation.window[0], _last_send_time(observation)
    records = observation.records
    first_sent = min((record.sent for record in records), default=start)
    first_records = sorted(records, key=lambda record: record.sent)[:5]
    span_start = max(start, first_sent + min((record.finished - record.sent for record in first_records), default=0.0))
    seconds = end - span_start
    send_times, finish_times = sorted(record.sent for record in records), sorted(record.finished for record in records)
    arrived = bisect_right(send_times, end) - bisect_right(send_times, span_start) + _cut_off_in_window(observation)
    completed = bisect_right(finish_times, end) - bisect_right(finish_times, span_start)
    if seconds <= 0.25 * (end - start) or not arrived:
        limit = "needs a window longer than a request"
        return [Check("completed-rate", None, limit, True), Check("backlog-slope", None, limit, True)]
    backlog = bisect_right(send_times, span_start) - bisect_right(finish_times, span_start)
    # On M/M/5 over 20 s: a false alarm in 1 of 75 runs at 80% load, detection in 19 of 20 at 140%.
    slack = max(0.10 * arrived, 3 * math.sqrt(2 * max(backlog, 1)), 1.25 * math.sqrt(arrived + completed))
    ok = arrived - completed <= slack
    return [
        Check("completed-rate", completed / arrived, f">= {max(0.0, 1 - slack / arrived):.2f} of arrivals", ok),
        Check("backlog-slope", (arrived - completed) / seconds, f"<= {slack / seconds:.3g} requests/s", ok),
    ]


def _open_littles_law_check(observation: Observation, records: Sequence[RequestRecord], *, saturated: bool) -> Check:
    """Little's law in an open loop: mean requests in flight over arrival rate x residence time."""
    start, end = observation.window[0], _last_send_time(observation)
    if not records or saturated or end <= start:
        return Check("littles-law", None, "needs a load below capacity", True)
    duration = end - start
    in_flight = sum(max(0.0, min(r.finished, end) - max(r.sent, start)) for r in observation.records) / duration
    residence = fmean(record.finished - record.sent for record in records)
    due_requests = observation.due_requests
    rate = (observation.load_point.rate or 0.0) if due_requests is None else due_requests / window_seconds(observation)
    expected_in_flight = rate * residence
    if expected_in_flight <= 0:
        return Check("littles-law", None, "needs requests that take time", True)
    slack = 0.10 + 3 / math.sqrt(len(records)) + residence / duration
    return Check(
        "littles-law",
        in_flight / expected_in_flight,
        f"within {slack:.0%} of 1",
        abs(in_flight / expected_in_flight - 1) <= slack,
    )
