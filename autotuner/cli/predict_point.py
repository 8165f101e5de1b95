"""`autotune predict` for one deployment: what requests see, where the time goes, what the memory holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from autotuner.errors import counted
from autotuner.report.formatting import number

if TYPE_CHECKING:
    from autotuner.cli.predict import Question
    from autotuner.predict.layout import Layout
    from autotuner.predict.load_curve import Served
    from autotuner.predict.local_factors import Factors
    from autotuner.predict.memory import MemoryPlan
    from autotuner.predict.open_loop import OpenLoop
    from autotuner.predict.predict import Prediction
    from autotuner.predict.traffic import Target, Timed


def point(asked: Question, layout: Layout, concurrency: int, rate: float | None, *, as_json: bool) -> None:
    """Predict one deployment under a closed or an open loop, and judge it."""
    from autotuner.predict.load_curve import Served

    of = asked.software.on(asked.model, asked.gpus[0], layout)
    served = Served(of, asked.traffic, bundled_only=asked.bundled_only)
    if rate is None:
        _closed(served, concurrency, asked, as_json)
    else:
        _open(served, rate, asked, as_json)


def _closed(served: Served, concurrency: int, asked: Question, as_json: bool) -> None:
    from autotuner.cli import display
    from autotuner.predict.measured_lookup import Memory

    answer = Memory(served).closed(concurrency)
    found = answer.found
    cost = _cost(served, found.throughput, asked)
    if as_json:
        rests = [{"run": row.run, "trial": row.trial, "load": row.load} for row in answer.rows]
        known = {"source": answer.source, "rests_on": rests}
        display.json({**plain(found), **known, **calibrated(served), "cost_per_million_output_tokens": cost})
    else:
        display.sentence(f"{_what(served)}, {counted(concurrency, 'request')} in flight")
        rows = [
            *_times(found.ttft, found.tpot, found.ttft_interval, found.tpot_interval),
            {"": "requests", "mean": f"{number(found.requests)} requests/s"},
            *_throughput(found.throughput, found.gpus, cost),
            {"": "in flight at most", "mean": f"{found.running:.0f} requests"},
        ]
        if answer.source != "predicted":
            alone = served.closed(concurrency)
            rows[0]["predicted"], rows[1]["predicted"] = duration(alone.ttft), duration(alone.tpot)
        _show(rows, found, served, answer.said if answer.source != "predicted" else "")
    _judge(found, asked.target)


def _open(served: Served, rate: float, asked: Question, as_json: bool) -> None:
    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.predict.open_loop import OpenService

    if not 0 < rate < math.inf:
        raise UsageError(f"--rate must be above 0, not {rate:g}.", remedy="Give it in requests per second.")
    found = OpenService(served).at(rate)
    cost = _cost(served, found.throughput, asked)
    if as_json:
        display.json({**_plain_open(found), **calibrated(served), "cost_per_million_output_tokens": cost})
    else:
        display.sentence(f"{_what(served)}, {rate:g} requests/s, Poisson arrivals")
        rows = [
            *_times(found.ttft, found.tpot, found.ttft_interval, found.tpot_interval),
            {"": "of TTFT in a queue", "mean": duration(found.wait)},
            {"": "requests in flight", "mean": number(found.in_flight)},
            *_throughput(found.throughput, found.closed.gpus, cost),
            {"": "sustains at most", "mean": f"{number(found.highest)} requests/s"},
        ]
        _show(rows, found.closed, served)
        display.line()
        display.sentence(
            "The intervals are those of the engine's times carried through the queue; wider near saturation."
        )
    _judge(found, asked.target)


def _what(served: Served) -> str:
    from autotuner.predict.serving_option import label

    of, asked = served.of, served.traffic
    types = sorted({of.dtypes.dense, of.dtypes.expert} if of.shape.experts else {of.dtypes.dense})
    gpus = f"{of.layout.gpus} x {of.gpu.name} ({label(of.layout)})"
    return f"{of.shape.name} ({'/'.join(types)}) on {gpus}, {of.engine}: {asked.isl} + {asked.osl} tokens"


def _times(
    ttft: float, tpot: float, ttft_interval: tuple[float, float], tpot_interval: tuple[float, float]
) -> list[dict[str, str]]:
    return [
        {"": "TTFT", "mean": duration(ttft), "80% interval": between(ttft_interval)},
        {"": "TPOT", "mean": duration(tpot), "80% interval": between(tpot_interval)},
        {"": "per-user speed", "mean": f"{1 / tpot:.1f} output tokens/s"},
    ]


def _throughput(throughput: float, gpus: int, cost: float | None) -> list[dict[str, str]]:
    rows = [
        {"": "output", "mean": f"{number(throughput)} tokens/s"},
        {"": "output per GPU", "mean": f"{number(throughput / gpus)} tokens/s"},
    ]
    return rows if cost is None else [*rows, {"": "currency / 1M output tokens", "mean": f"{cost:.2f}"}]


def _cost(served: Served, throughput: float, asked: Question) -> float | None:
    from autotuner.predict.serving_option import Pool, hourly

    hour = hourly((Pool(served.of.gpu, served.of.layout, 1, 0.0),), asked.prices)
    return None if hour is None else hour / (throughput * 3600) * 1e6


def _show(rows: list[dict[str, str]], found: Prediction, served: Served, origin: str = "") -> None:
    from autotuner.cli import display

    title = "predicted" if found.measured else "predicted; this model was never measured, so intervals are wide"
    display.line(f"\n{origin or title}")
    columns = ["", "mean", "80% interval", *(["predicted"] if origin else [])]
    display.table(rows, columns, right=["mean", "predicted"])
    if served.factors is not None:
        display.line()
        display.sentence(said(served.factors, served.of.engine, served.of.gpu.name))
    parts = [
        {"operator": name, "prefill": duration(found.prefill[name]), "decode": duration(found.decode[name])}
        for name in found.decode
        if found.prefill[name] or found.decode[name]
    ]
    total = (sum(found.prefill.values()), sum(found.decode.values()))
    parts.append({"operator": "total", "prefill": duration(total[0]), "decode": duration(total[1])})
    display.line("\none iteration: a prompt alone, and one token for all in flight")
    display.table(
        parts,
        ["operator", "prefill", "decode"],
        right=["prefill", "decode"],
        emphasise=len(parts) - 1,
    )
    display.line()
    display.table(_memory(found.memory), ["memory of one GPU", "GiB"], right=["GiB"])


def said(by: Factors, engine: str, gpu: str) -> str:
    """Say which factors, calibrated here, are in the figures."""
    loud = "SIMULATED runs" if by.source == "simulated" else "runs"
    return (
        f"Calibrated on {counted(by.launches, 'launch', 'launches')} of your own {loud} ({engine} on {gpu}): "
        f"prefill x{by.prefill:.2f}, decode x{by.decode:.2f}, overhead x{by.overhead:.2f}. "
        "`autotune calibrate --forget` undoes it."
    )


def calibrated(served: Served) -> dict[str, Any]:
    """The factors that were calibrated here, for JSON; None where there are none."""
    from dataclasses import asdict

    return {"calibrated": None if served.factors is None else asdict(served.factors)}


def _memory(plan: MemoryPlan) -> list[dict[str, Any]]:
    from autotuner.predict.memory import GIB

    parts = {
        "weights": plan.weights,
        "activations": plan.activations,
        "context, graphs, buffers": plan.overhead,
        "KV cache": max(0, plan.pool),
        "left to others": plan.memory - plan.budget,
    }
    return [{"memory of one GPU": name, "GiB": f"{size / GIB:.1f}"} for name, size in parts.items()]


def _judge(found: Timed, target: Target) -> None:
    from autotuner.errors import NoFeasibleError

    excess, binding = target.excess(found)
    if excess > 1:
        time, limit = getattr(found, binding), getattr(target, binding)
        raise NoFeasibleError(
            f"The target is not met: {binding} is {duration(time)}, not {duration(limit)}.",
            remedy="Add --total-gpus N to rank other layouts, or --target-rate R to find enough GPUs.",
        )


def plain(found: Prediction) -> dict[str, Any]:
    """A closed loop for JSON: seconds, tokens/s, requests/s, bytes."""
    return {
        "ttft": found.ttft,
        "tpot": found.tpot,
        "ttft_interval": list(found.ttft_interval),
        "tpot_interval": list(found.tpot_interval),
        "output_throughput": found.throughput,
        "output_throughput_per_gpu": found.throughput / found.gpus,
        "request_throughput": found.requests,
        "gpus": found.gpus,
        "requests_in_flight_at_most": found.running,
        "weight_bytes": found.memory.weights,
        "kv_pool_bytes": max(0, found.memory.pool),
        "prefill": dict(found.prefill),
        "decode": dict(found.decode),
        "model_was_measured": found.measured,
        "source": "predicted",
    }


def _plain_open(found: OpenLoop) -> dict[str, Any]:
    return {
        **plain(found.closed),
        "ttft": found.ttft,
        "tpot": found.tpot,
        "ttft_interval": [_finite(edge) for edge in found.ttft_interval],
        "tpot_interval": [_finite(edge) for edge in found.tpot_interval],
        "output_throughput": found.throughput,
        "output_throughput_per_gpu": found.throughput / found.closed.gpus,
        "request_throughput": found.rate,
        "queueing": found.wait,
        "requests_in_flight": found.in_flight,
        "sustainable_rate": found.highest,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if math.isinf(seconds):
        return "saturates"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.{0 if seconds >= 0.1 else 1}f} ms"


def between(edges: tuple[float, float]) -> str:
    """The edges of an interval."""
    return f"{duration(edges[0])} to {duration(edges[1])}"
