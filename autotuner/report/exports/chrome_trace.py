"""The requests of one load point as a Chrome trace, which Perfetto opens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from autotuner.core import Observation, RequestRecord


def chrome_trace(observation: Observation, title: str) -> str:
    """Each request as a slice with its prefill and decode, each chunk of tokens as an instant; times from the first."""
    records = sorted(observation.records, key=lambda record: record.sent)
    origin = records[0].sent if records else 0.0
    events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name", "pid": 1, "args": {"name": title}}]
    for lane, lane_records in enumerate(_lanes(records)):
        for record in lane_records:
            events += _request_events(record, lane, origin)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, separators=(",", ":")) + "\n"


def _lanes(records: Sequence[RequestRecord]) -> list[list[RequestRecord]]:
    """Requests in rows in which none overlaps another."""
    lanes: list[list[RequestRecord]] = []
    for record in records:
        free = next((lane for lane in lanes if lane[-1].finished <= record.sent), None)
        if free is None:
            lanes.append([record])
        else:
            free.append(record)
    return lanes


def _request_events(record: RequestRecord, lane: int, origin: float) -> list[dict[str, Any]]:
    def microseconds(seconds: float) -> int:
        return round((seconds - origin) * 1e6)

    def slice_event(name: str, start: float, end: float, **arguments: Any) -> dict[str, Any]:
        duration = max(0, microseconds(end) - microseconds(start))
        return {
            "ph": "X", "name": name, "pid": 1, "tid": lane, "ts": microseconds(start), "dur": duration,
            "args": arguments,
        }  # fmt: skip

    arguments = {
        "prompt_tokens": record.prompt_token_count,
        "output_tokens": record.output_token_count,
        "error": record.error,
        "ttft_ms": None if record.ttft is None else record.ttft * 1000,
        "warm_up": record.index < 0,
    }
    events = [slice_event(f"request {record.index}", record.sent, record.finished, **arguments)]
    if record.chunk_times:
        first, last = record.chunk_times[0], record.chunk_times[-1]
        events += [slice_event("to first token", record.sent, first), slice_event("decode", first, last)]
        events += [
            {"ph": "i", "s": "t", "name": f"{tokens} tokens", "pid": 1, "tid": lane, "ts": microseconds(time)}
            for time, tokens in zip(record.chunk_times, record.chunk_tokens, strict=True)
        ]
    return events
