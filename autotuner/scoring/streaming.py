"""Whether responses were streamed: how their tokens' arrival times are spread.

A proxy that buffers responses passes many events on together: then TTFT is the time to fill the buffer, up to
the end-to-end latency, and TPOT what is left of it, down to nothing. An engine sends the first token alone, and
puts the tokens of later steps (speculative decoding, multi-step scheduling) into one event or few.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from autotuner.core import RequestRecord

_MIN_SECONDS = 0.020
"""Of a shorter response nobody could tell whether something kept it back."""
_TOGETHER_SECONDS = 0.001
_MAX_EVENTS_TOGETHER = 8
_MAX_EVENTS_AT_ONCE, _MAX_TOKENS_AT_ONCE = 4, 8
"""Of a whole response that arrives at one instant."""
_MIN_EVENT_SECONDS = 0.00025
"""No engine sends 4,000 events a second of one response; a proxy that kept them may write them one by one."""
_MAX_WAITED_SHARE = 0.25
_MIN_LATER_SHARE = 0.05
_MAX_LAST_SHARE = 0.5


def clumped_share(records: Sequence[RequestRecord]) -> float | None:
    """The share of responses whose tokens arrived together; None where none is long enough to tell."""
    judged = [record for record in records if record.output_token_count > 1 and (record.e2e or 0.0) >= _MIN_SECONDS]
    return sum(map(_is_clumped, judged)) / len(judged) if judged else None


def _is_clumped(record: RequestRecord) -> bool:
    """Whether the response arrived at once, or so many events with the first or last token that something kept them.

    Events that came with the first token count only if the engine must have taken a part of the TTFT for
    them, at the pace of the later ones, or if all later ones came in next to no time.
    """
    times = record.chunk_times
    events, first_time, last_time = len(times), times[0], times[-1]
    with_first = bisect_right(times, first_time + _TOGETHER_SECONDS)
    if with_first == events:
        return events > _MAX_EVENTS_AT_ONCE or sum(record.chunk_tokens) > _MAX_TOKENS_AT_ONCE
    is_short = last_time - first_time < _MIN_LATER_SHARE * (last_time - record.sent)
    if is_short and events > _MAX_EVENTS_AT_ONCE and last_time - first_time < _MIN_EVENT_SECONDS * (events - 1):
        return True
    with_last = events - bisect_left(times, last_time - _TOGETHER_SECONDS)
    if with_last > _MAX_EVENTS_TOGETHER and with_last >= _MAX_LAST_SHARE * events:
        return True
    if with_first <= _MAX_EVENTS_TOGETHER:
        return False
    waited = (with_first - 1) * (last_time - first_time) / (events - with_first)
    return is_short or waited > _MAX_WAITED_SHARE * (first_time - record.sent)
