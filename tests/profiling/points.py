"""Points, records of requests and requests of profiles, as several tests of this room need them."""

from array import array
from collections.abc import Mapping
from typing import Any

from autotuner.core import LoadPoint, Observation, RequestRecord
from autotuner.profiling.points import DecodePoint, PrefillPoint
from autotuner.profiling.request import SlaRequest


def sla_request(**changes: Any) -> SlaRequest:
    """A small request on the simulated engine."""
    defaults: dict[str, Any] = {
        "runtime": "vllm",
        "model": "llama-3.1-8b",
        "gpu": "h100",
        "isl": 600,
        "osl": 40,
        "gpus_per_engine": (1, 2),
        "evaluator": "predicted",
        "prefill_points": 5,
        "decode_points": 3,
    }
    return SlaRequest(**{**defaults, **changes})


def prefill(prompt_tokens: int, ttft: float, rejection: str | None = None) -> PrefillPoint:
    return PrefillPoint(
        prompt_tokens, ttft, (ttft, ttft), (ttft,) * 3, prompt_tokens / ttft, "measured", rejection=rejection
    )


def decode(concurrency: int, itl: float, prompt_tokens: int = 600, rejection: str | None = None) -> DecodePoint:
    return DecodePoint(
        prompt_tokens=prompt_tokens,
        output_tokens=40,
        concurrency=concurrency,
        kv_usage=(prompt_tokens + 20) * concurrency / 100_000,
        itl=itl,
        interval=(itl, itl),
        throughput_per_gpu=concurrency / itl,
        running=concurrency,
        cached_share=1.0,
        preemptions=0.0,
        consistency=1.0,
        source="measured",
        rejection=rejection,
    )


def streamed(
    index: int, first: float, gap: float, tokens: int, *, sent: float = 0.0, cached: int | None = 580, **more: Any
) -> RequestRecord:
    """A request whose first token comes at `first` and the others `gap` seconds apart."""
    times = array("d", [first + gap * number for number in range(tokens)])
    return RequestRecord(
        index=index,
        scheduled=sent,
        sent=sent,
        finished=times[-1],
        chunk_times=times,
        chunk_tokens=array("I", [1] * tokens),
        requested_prompt=600,
        requested_output=tokens,
        cached_tokens=cached,
        **more,
    )


def observed(
    records: list[RequestRecord], concurrency: int = 1, counters: Mapping[str, float] | None = None
) -> Observation:
    return Observation(
        load_point=LoadPoint("D(600,40)", concurrency=concurrency),
        records=tuple(records),
        window=(0.0, max(record.finished for record in records)),
        loop_lag_p99=0.0,
        counters=counters or {},
    )
