"""Whether a load point's figures say what they claim: client, load, lengths, errors, steadiness."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from statistics import fmean, variance

from autotuner.core import Check, Metrics, Observation, RequestRecord, Verdict
from autotuner.experiment import Slo
from autotuner.scoring.intervals import percentile_rank
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
"""What a check that did not hold makes of the load point."""

MIN_REQUESTS = 10
MAX_CLIENT_DELAY_SECONDS = 0.003
MAX_CLIENT_DELAY_SHARE = 0.05
"""What the client may add to the mean TTFT, the larger of the two."""
MAX_CLIENT_CPU = 0.9
"""Real-time threads get 0.95 of a core together; near that, what waits to be read grows without bound."""
MAX_ERROR_SHARE = 0.01
MIN_MATCHING_SHARE = 0.95
MAX_CACHED_SHARE = 0.05
ALLOWED_CACHED_TOKENS = 32
"""Per request: two blocks of 16 tokens, as much as the head of a chat template that all prompts begin with."""
CACHED_SHARE_CEILING = 0.5
"""Where prompts are hardly longer than such a head, the share that may be cached all the same."""
MAX_SHARE_WITHOUT_TPOT = 0.01
SHARED_PREFIX_SCENARIOS = ("P(", "C(", "file:")


def check_validity(observation: Observation, metrics: Metrics, slo: Slo) -> tuple[Check, ...]:
    """Every validity check that applies to the load point, each with its figure and limit."""
    started = records_in_window(observation)
    answered = [record for record in started if error_class(record) is None]
    checks = [
        Check("completed", len(answered), ">= 1 request", bool(answered)),
        Check("sample-size", len(started), f">= {MIN_REQUESTS} requests", len(started) >= MIN_REQUESTS),
        _error_check(metrics),
        *_client_checks(observation, answered, metrics, slo),
        _length_check(
            "output-length", answered, lambda r: (r.output_token_count, r.requested_output), slack=1, ratio=0.02
        ),
        _length_check("prompt-length", answered, lambda r: (r.prompt_tokens, r.requested_prompt), slack=4, ratio=0.05),
        _cache_check(observation, answered),
        *_tpot_checks(answered, slo),
    ]
    if observation.load_point.rate is None:
        return (*checks, _littles_law_check(observation, started), _stationarity_check(observation, answered))
    return (*checks, *_open_loop_checks(observation, started, slo))


def max_client_seconds(slo: Slo) -> float:
    """Seconds the client itself may add to one request: 10 ms, or 5% of the TTFT target where that is more."""
    targets = [term.threshold for term in slo.terms if term.metric == "ttft"]
    return max(0.010, MAX_CLIENT_DELAY_SHARE * min(targets, default=0.0))


def _client_checks(
    observation: Observation, answered: Sequence[RequestRecord], metrics: Metrics, slo: Slo
) -> tuple[Check, ...]:
    """What the client adds to TTFT, from the kernel having a first token's bytes to its stamp, and why it may.

    It is measured on some connections. Where the client is later than the next token, the kernel
    knows only when that came: then the lag of the event loop, which is measured at all times and
    is less than what bursts of tokens meet, is the better figure.
    """
    delays = sorted(record.client_delay for record in answered if record.client_delay is not None)
    means = [*([fmean(delays)] if delays else []), observation.loop_lag_mean]
    mean = max((figure for figure in means if figure is not None), default=None)
    mean_limit = max(MAX_CLIENT_DELAY_SECONDS, MAX_CLIENT_DELAY_SHARE * metrics.ttft.mean if metrics.ttft else 0.0)
    p99 = delays[percentile_rank(len(delays), 99) - 1] if delays else None
    p99_limit = max(max_client_seconds(slo), MAX_CLIENT_DELAY_SHARE * metrics.ttft.p99 if metrics.ttft else 0.0)
    late = sum(delay > p99_limit for delay in delays)
    lag, lag_limit, cpu = observation.loop_lag_p99, max_client_seconds(slo), observation.client_cpu
    return (
        Check("client-delay", mean, f"<= {mean_limit:.3g} s", mean is None or mean <= mean_limit),
        Check("client-delay-p99", p99, f"<= {p99_limit:.3g} s", p99 is None or p99 <= p99_limit or late <= 1),
        Check("client-cpu", cpu, f"<= {MAX_CLIENT_CPU:g} of a core", cpu is None or cpu <= MAX_CLIENT_CPU),
        Check("loop-lag-p99", lag, f"<= {lag_limit:g} s", lag <= lag_limit),
    )


def _error_check(metrics: Metrics) -> Check:
    if not metrics.requests:
        return Check("error-share", None, f"<= {MAX_ERROR_SHARE:g}", True)
    value = sum(metrics.errors.values()) / metrics.requests
    return Check("error-share", value, f"<= {MAX_ERROR_SHARE:g}", value <= MAX_ERROR_SHARE)


def _length_check(
    name: str,
    answered: Sequence[RequestRecord],
    lengths: Callable[[RequestRecord], tuple[int | None, int]],
    *,
    slack: int,
    ratio: float,
) -> Check:
    """The share of requests whose length is what was asked, give or take `slack` tokens or `ratio`."""
    pairs = [(got, asked) for record in answered for got, asked in (lengths(record),) if got is not None and asked > 0]
    limit = f">= {MIN_MATCHING_SHARE:g} of requests within {slack} tokens or {ratio:.0%}"
    if not pairs:
        return Check(name, None, limit, True)
    value = fmean(abs(got - asked) <= max(slack, ratio * asked) for got, asked in pairs)
    return Check(name, value, limit, value >= MIN_MATCHING_SHARE)


def _cache_check(observation: Observation, answered: Sequence[RequestRecord]) -> Check:
    """The share of prompt tokens that came from the engine's prefix cache.

    It is what the answers say of themselves. Only where none says anything it is the difference of
    the engine's counters, which also count the requests of other clients. A server that says it of
    some answers leaves it out where nothing was cached.
    """
    if observation.load_point.scenario.startswith(SHARED_PREFIX_SCENARIOS):
        return Check("cache-hits", None, "prefixes are shared on purpose", True)
    prompts = [prompt_tokens(record) for record in answered]
    head = ALLOWED_CACHED_TOKENS * len(prompts) / sum(prompts) if any(prompts) else 0.0
    most = min(max(MAX_CACHED_SHARE, head), CACHED_SHARE_CEILING)
    limit = f"<= {most:.3g} of prompt tokens" + (f", {ALLOWED_CACHED_TOKENS} a request" if most == head else "")
    if any(record.cached_tokens is not None for record in answered):
        hits, total = float(sum(record.cached_tokens or 0 for record in answered)), float(sum(prompts))
    else:
        hits, total = (observation.counters.get(f"prefix_cache_{name}", 0.0) for name in ("hits", "queries"))
    if total <= 0:
        return Check("cache-hits", None, limit, True)
    return Check("cache-hits", hits / total, limit, hits / total <= most)


def prompt_tokens(record: RequestRecord) -> int:
    """The length of a request's prompt: the server's count, else the length asked for."""
    return record.requested_prompt if record.prompt_tokens is None else record.prompt_tokens


def _tpot_checks(answered: Sequence[RequestRecord], slo: Slo) -> list[Check]:
    """The share of answers that came in one chunk or are one token: they cannot meet a TPOT target."""
    if not any(term.metric == "tpot" for term in slo.terms):
        return []
    limit = f"<= {MAX_SHARE_WITHOUT_TPOT:g} of answers without a TPOT"
    if not answered:
        return [Check("tpot-defined", None, limit, True)]
    value = fmean(record.tpot is None for record in answered)
    return [Check("tpot-defined", value, limit, value <= MAX_SHARE_WITHOUT_TPOT)]


def _littles_law_check(observation: Observation, started: Sequence[RequestRecord]) -> Check:
    """Rate x time in the system against the concurrency; each stream is cut at both window ends."""
    concurrency = observation.load_point.concurrency or 1
    if not started:
        return Check("littles-law", None, "no requests", True)
    seconds = fmean(record.finished - record.sent for record in started)
    value = len(started) / window_seconds(observation) * seconds / concurrency
    slack = 0.10 + concurrency / len(started)
    return Check("littles-law", value, f"within {slack:.0%} of 1", abs(value - 1) <= slack)


def _stationarity_check(observation: Observation, answered: Sequence[RequestRecord]) -> Check:
    """Mean latency of the second half over the first: flagged when large and beyond chance."""
    middle = sum(observation.window) / 2
    first = [record.chunk_times[-1] - record.sent for record in answered if record.sent < middle]
    second = [record.chunk_times[-1] - record.sent for record in answered if record.sent >= middle]
    if min(len(first), len(second)) < MIN_REQUESTS:
        return Check("stationarity", None, f"asked of {MIN_REQUESTS} requests in each half", True)
    change = fmean(second) - fmean(first)
    error = math.sqrt(variance(first) / len(first) + variance(second) / len(second))
    limit = max(0.25 * fmean(first), 4 * error)
    return Check(
        "stationarity",
        1 + change / fmean(first),
        f"within {limit / fmean(first):.0%} of 1",
        abs(change) <= limit,
    )


def _open_loop_checks(observation: Observation, started: Sequence[RequestRecord], slo: Slo) -> list[Check]:
    saturation = _saturation_checks(observation)
    return [
        *_rate_cap_checks(observation),
        _dispatch_delay_check(started, slo),
        _sent_rate_check(observation, started),
        *saturation,
        _open_littles_law_check(observation, started, saturated=not all(found.ok for found in saturation)),
    ]


def _rate_cap_checks(observation: Observation) -> list[Check]:
    """Requests that waited for another to end: the server saw less load than the rate asked for."""
    held_back = observation.held_back_requests
    if held_back is None:
        return []
    return [Check("rate-capped", held_back, "0 requests held back", held_back == 0)]


def _sent_rate_check(observation: Observation, started: Sequence[RequestRecord]) -> Check:
    """Requests that went out over those the schedule put into the window."""
    if observation.due_requests is None:
        return _sent_rate_by_time(observation, started)
    if not observation.due_requests:
        return Check("sent-rate", None, "asked of 1 request", True)
    end = observation.window[1]
    value = (sum(record.sent <= end for record in started) + _cut_off_in_window(observation)) / observation.due_requests
    least = 1 - max(0.10, 2 / observation.due_requests)
    return Check("sent-rate", value, f">= {max(0.0, least):.2f} of the schedule", value >= least)


def _sent_rate_by_time(observation: Observation, started: Sequence[RequestRecord]) -> Check:
    """The rate at which requests went out, over the requested one; Poisson arrivals vary by themselves."""
    rate = observation.load_point.rate or 0.0
    span = _last_send_time(observation) - min((record.sent for record in started), default=0.0)
    if len(started) < 2 or span <= 0:
        return Check("sent-rate", None, "asked of 2 requests", True)
    value = (len(started) - 1) / span / rate
    least = 1 - max(0.10, 3 / math.sqrt(len(started)))
    return Check("sent-rate", value, f">= {max(0.0, least):.2f} of the requested rate", value >= least)


def _cut_off_in_window(observation: Observation) -> int:
    """Requests due in the window that were cut off; a decided window ends before the first of them."""
    return 0 if observation.stop_reason else observation.cut_off_requests


def _last_send_time(observation: Observation) -> float:
    """When the last request of the window went out: with a request limit, the window ends later."""
    start, end = observation.window
    return max((record.sent for record in observation.records if start <= record.sent <= end), default=end)


def _dispatch_delay_check(started: Sequence[RequestRecord], slo: Slo) -> Check:
    """p99 of sent - scheduled; one late request among a few is not yet a slow client."""
    limit = max_client_seconds(slo)
    if not started:
        return Check("dispatch-delay-p99", None, f"<= {limit:g} s", True)
    delays = sorted(record.sent - record.scheduled for record in started)
    value = delays[percentile_rank(len(delays), 99) - 1]
    late = sum(delay > limit for delay in delays)
    return Check("dispatch-delay-p99", value, f"<= {limit:g} s", value <= limit or late <= 1)


def is_saturated(observation: Observation) -> bool:
    """Whether an open loop's requests arrive faster than the server completes them."""
    return observation.load_point.rate is not None and not all(check.ok for check in _saturation_checks(observation))


def _saturation_checks(observation: Observation) -> list[Check]:
    """Requests completed for each one that arrived, and how fast the backlog grows.

    A stable server's backlog wanders by about its square root, and grows at first until the
    first requests are through: both are allowed for.
    """
    start, end = observation.window[0], _last_send_time(observation)
    records = observation.records
    began = min((record.sent for record in records), default=start)
    first = sorted(records, key=lambda record: record.sent)[:5]
    begin = max(start, began + min((record.finished - record.sent for record in first), default=0.0))
    span = end - begin
    sent, finished = sorted(record.sent for record in records), sorted(record.finished for record in records)
    arrived = bisect_right(sent, end) - bisect_right(sent, begin) + _cut_off_in_window(observation)
    completed = bisect_right(finished, end) - bisect_right(finished, begin)
    if span <= 0.25 * (end - start) or not arrived:
        unknown = "asked of windows longer than a request"
        return [Check("completed-rate", None, unknown, True), Check("backlog-slope", None, unknown, True)]
    backlog = bisect_right(sent, begin) - bisect_right(finished, begin)
    # On M/M/5 over 20 s: a false alarm in 1 of 75 at 80% load, found in 19 of 20 at 140%.
    slack = max(0.10 * arrived, 3 * math.sqrt(2 * max(backlog, 1)), 1.25 * math.sqrt(arrived + completed))
    holds = arrived - completed <= slack
    return [
        Check("completed-rate", completed / arrived, f">= {max(0.0, 1 - slack / arrived):.2f} of arrivals", holds),
        Check("backlog-slope", (arrived - completed) / span, f"<= {slack / span:.3g} requests/s", holds),
    ]


def _open_littles_law_check(observation: Observation, started: Sequence[RequestRecord], *, saturated: bool) -> Check:
    """Requests in flight, averaged over the window, against requested rate x time in the system."""
    start, end = observation.window[0], _last_send_time(observation)
    if not started or saturated or end <= start:
        return Check("littles-law", None, "asked below capacity", True)
    window = end - start
    in_flight = sum(max(0.0, min(r.finished, end) - max(r.sent, start)) for r in observation.records) / window
    seconds = fmean(record.finished - record.sent for record in started)
    due = observation.due_requests
    rate = (observation.load_point.rate or 0.0) if due is None else due / window_seconds(observation)
    expected = rate * seconds
    if expected <= 0:
        return Check("littles-law", None, "asked of requests that take time", True)
    slack = 0.10 + 3 / math.sqrt(len(started)) + seconds / window
    return Check(
        "littles-law", in_flight / expected, f"within {slack:.0%} of 1", abs(in_flight / expected - 1) <= slack
    )
