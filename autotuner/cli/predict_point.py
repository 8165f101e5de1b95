"""`autotune predict point`: one deployment at one load, its latency, throughput, time per operator, memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from autotuner.cli.predict_export import performance_json
from autotuner.errors import pluralize
from autotuner.report.formatting import format_number

if TYPE_CHECKING:
    from autotuner.planning.question import LatencyTarget, Question
    from autotuner.predict.load_curve import LoadCurve
    from autotuner.predict.local_ratios import LocalRatios
    from autotuner.predict.memory import MemoryPlan
    from autotuner.predict.performance import Performance
    from autotuner.predict.predict import Prediction

OPERATOR_LABELS = {"attention_proj": "attention projections", "mlp": "MLP", "launch": "kernel launches", "step": "step"}


def show_closed_loop(question: Question, load_curve: LoadCurve, concurrency: int, *, as_json: bool) -> None:
    """Predict one deployment under a closed loop, and check it against the target."""
    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.experiment import MAX_CONCURRENCY
    from autotuner.predict.measured_lookup import MeasuredLookup

    if not 1 <= concurrency <= MAX_CONCURRENCY:
        raise UsageError(
            f"--concurrency {concurrency} is not between 1 and {MAX_CONCURRENCY:,}.",
            why="A closed loop keeps at least one request in flight, and at most as many as a host has ports.",
            remedy="Give one in between, or the load of many hosts as --rate in requests per second.",
        )
    lookup = MeasuredLookup(load_curve).at_concurrency(concurrency)
    prediction = lookup.prediction
    cost = _token_cost(question, load_curve, prediction)
    if as_json:
        measured_rows = [{"run": row.run, "trial": row.trial, "load": row.load} for row in lookup.rows]
        source_json = {"source": lookup.source, "rests_on": measured_rows}
        display.json(_point_json(prediction, prediction, question, load_curve, cost) | source_json)
    else:
        display.sentence(f"{_heading(load_curve)}, {pluralize(concurrency, 'request')} in flight")
        display.sentence(weights_line(question))
        rows = [
            *_latency_rows(prediction),
            {"": "requests", "mean": f"{format_number(prediction.requests)} requests/s"},
            *_throughput_rows(prediction, prediction.gpus, cost),
            {"": "max in flight", "mean": f"{prediction.max_in_flight:.0f} requests"},
        ]
        if lookup.source != "predicted":
            predicted = load_curve.at_concurrency(concurrency)
            rows[0]["predicted"], rows[1]["predicted"] = format_latency(predicted.ttft), format_latency(predicted.tpot)
        _print_tables(rows, prediction, load_curve, lookup.explanation if lookup.source != "predicted" else "")
    _check_target(prediction, question.target)


def show_open_loop(question: Question, load_curve: LoadCurve, rate: float, *, as_json: bool) -> None:
    """Predict one deployment under an open loop, and check it against the target."""
    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.predict.open_loop import OpenLoopModel

    if not 0 < rate < math.inf:
        raise UsageError(f"--rate must be above 0, not {rate:g}.", remedy="Give it in requests per second.")
    prediction = OpenLoopModel(load_curve).at_rate(rate)
    cost = _token_cost(question, load_curve, prediction)
    if as_json:
        queue_json = {
            "queueing": prediction.wait,
            "requests_in_flight": prediction.in_flight,
            "sustainable_rate": prediction.max_rate,
        }
        display.json(_point_json(prediction, prediction.closed_loop, question, load_curve, cost) | queue_json)
    else:
        display.sentence(f"{_heading(load_curve)}, {rate:g} requests/s, Poisson arrivals")
        display.sentence(weights_line(question))
        rows = [
            *_latency_rows(prediction),
            {"": "TTFT: queueing", "mean": format_latency(prediction.wait)},
            {"": "requests in flight", "mean": format_number(prediction.in_flight)},
            *_throughput_rows(prediction, prediction.closed_loop.gpus, cost),
            {"": "maximum rate", "mean": f"{format_number(prediction.max_rate)} requests/s"},
        ]
        _print_tables(rows, prediction.closed_loop, load_curve)
        display.line()
        display.sentence(
            "The intervals propagate the uncertainty of step times through the queue, and widen near saturation."
        )
    _check_target(prediction, question.target)


def weights_line(question: Question) -> str:
    """Bits of the model's weights, where they were read, and their size over all GPUs."""
    from autotuner.predict.layout import resolve_dtypes
    from autotuner.predict.memory import weights_text
    from autotuner.predict.shape import model_shape

    shape, dtype = model_shape(question.model), question.software.dtype
    dtypes = resolve_dtypes(shape, gemm_dtype=dtype, moe_dtype=dtype)
    return f"weights: {weights_text(shape, dtypes, f'--dtype {dtype}' if dtype else '')}"


def warn_of_rough_model(question: Question) -> None:
    """Say what was read only roughly of the model, and where its files disagree; of what --dtype replaces, nothing."""
    from autotuner.cli import display
    from autotuner.predict.quantization import UNKNOWN_QUANTISATION
    from autotuner.predict.shape import model_shape

    for remark in model_shape(question.model).notes:
        if not (question.software.dtype and remark.startswith(UNKNOWN_QUANTISATION)):
            display.warning(remark)


def _heading(load_curve: LoadCurve) -> str:
    deployment, traffic = load_curve.deployment, load_curve.traffic
    dtypes = sorted(
        {deployment.dtypes.mlp, deployment.dtypes.expert} if deployment.shape.experts else {deployment.dtypes.mlp}
    )
    gpus = f"{deployment.layout.gpus} x {deployment.gpu.name} ({deployment.layout})"
    model = f"{deployment.shape.name} ({'/'.join(dtypes)})"
    return f"{model} on {gpus}, {deployment.engine}: {traffic.isl} + {traffic.osl} tokens"


def _latency_rows(performance: Performance) -> list[dict[str, str]]:
    ttft, tpot = performance.ttft_interval, performance.tpot_interval
    return [
        {"": "TTFT", "mean": format_latency(performance.ttft), "80% interval": format_interval(ttft)},
        {"": "TPOT", "mean": format_latency(performance.tpot), "80% interval": format_interval(tpot)},
        {"": "per-user speed", "mean": f"{performance.interactivity:.1f} output tokens/s"},
    ]


def _throughput_rows(performance: Performance, gpus: int, cost: float | None) -> list[dict[str, str]]:
    rows = [
        {"": "output", "mean": f"{format_number(performance.throughput)} tokens/s"},
        {"": "output per GPU", "mean": f"{format_number(performance.throughput / gpus)} tokens/s"},
    ]
    return rows if cost is None else [*rows, {"": "currency / 1M output tokens", "mean": f"{cost:.2f}"}]


def _token_cost(question: Question, load_curve: LoadCurve, performance: Performance) -> float | None:
    """Price of a million output tokens; None where the GPU has no price."""
    from autotuner.planning.cost import cost_per_million_tokens, hourly_price

    gpu, layout = load_curve.deployment.gpu, load_curve.deployment.layout
    return cost_per_million_tokens(hourly_price([(gpu, layout.gpus)], question.prices), performance.throughput)


def _print_tables(
    rows: list[dict[str, str]], prediction: Prediction, load_curve: LoadCurve, measurement_note: str = ""
) -> None:
    from autotuner.cli import display

    title = (
        "predicted" if prediction.model_measured else "predicted; no measurements of this model, so intervals are wide"
    )
    display.line(f"\n{measurement_note or title}")
    columns = ["", "mean", "80% interval", *(["predicted"] if measurement_note else [])]
    display.table(rows, columns, numeric=["mean", "predicted"])
    if load_curve.ratios is not None:
        display.line()
        display.sentence(
            calibration_text(load_curve.ratios, load_curve.deployment.engine, load_curve.deployment.gpu.name)
        )
    part_rows = _part_rows(prediction)
    display.line("\nwhat TTFT and TPOT add up from")
    display.table(part_rows, ["part", "TTFT", "TPOT"], numeric=["TTFT", "TPOT"], bold_row=len(part_rows) - 1)
    display.line()
    display.table(_memory_rows(prediction.memory), ["memory of one GPU", "GiB"], numeric=["GiB"])


def _part_rows(prediction: Prediction) -> list[dict[str, str]]:
    """Parts of TTFT and of TPOT, the prefill and the decode steps by operator, and their sums."""
    from autotuner.predict.loop_times import DECODE, PREFILL

    prefill_share = prediction.ttft_parts[PREFILL] / sum(prediction.prefill.values())
    decode_share = prediction.tpot_parts[DECODE] / sum(prediction.decode.values())
    rows = [
        {"part": name, "TTFT": format_latency(seconds)}
        for name, seconds in prediction.ttft_parts.items()
        if name != PREFILL
    ]
    rows += [
        {
            "part": OPERATOR_LABELS.get(name, name),
            "TTFT": format_latency(prediction.prefill[name] * prefill_share),
            "TPOT": format_latency(prediction.decode[name] * decode_share),
        }
        for name in prediction.decode
        if prediction.prefill[name] or prediction.decode[name]
    ]
    rows += [
        {"part": name, "TPOT": format_latency(seconds)}
        for name, seconds in prediction.tpot_parts.items()
        if name != DECODE
    ]
    return [*rows, {"part": "total", "TTFT": format_latency(prediction.ttft), "TPOT": format_latency(prediction.tpot)}]


def calibration_text(ratios: LocalRatios, engine: str, gpu: str) -> str:
    """The sentence that tells which local calibration the predictions use."""
    runs = "SIMULATED runs" if ratios.source == "simulated" else "runs"
    return (
        f"Calibrated on {pluralize(ratios.launches, 'launch', 'launches')} of your own {runs} ({engine} on {gpu}, "
        f"{pluralize(len(ratios.ratios), 'load point')}). `autotune calibrate --forget` undoes it."
    )


def _memory_rows(plan: MemoryPlan) -> list[dict[str, Any]]:
    from autotuner.predict.memory import GIB

    parts = {
        "weights": plan.weights,
        "activations": plan.activations,
        "context, graphs, buffers": plan.overhead,
        "KV cache": max(0, plan.kv_pool),
        "reserved": plan.memory - plan.budget,
    }
    return [{"memory of one GPU": name, "GiB": f"{size / GIB:.1f}"} for name, size in parts.items()]


def _check_target(performance: Performance, target: LatencyTarget) -> None:
    from autotuner.errors import NoFeasibleError

    target_ratio, binding = target.largest_ratio(performance)
    if target_ratio > 1:
        latency, limit = getattr(performance, binding), getattr(target, binding)
        raise NoFeasibleError(
            f"The target is not met: {binding} is {format_latency(latency)}, not {format_latency(limit)}.",
            remedy="Rank other layouts with `autotune predict rank`, or find enough GPUs with `autotune predict size`.",
        )


def _point_json(
    performance: Performance, closed_loop: Prediction, question: Question, load_curve: LoadCurve, cost: float | None
) -> dict[str, Any]:
    """A prediction for JSON, in seconds, tokens/s, requests/s and bytes; `calibrated` are the local factors."""
    return {
        **performance_json(performance, closed_loop.gpus),
        "gpus": closed_loop.gpus,
        "requests_in_flight_at_most": closed_loop.max_in_flight,
        "weights": weights_line(question).removeprefix("weights: "),
        "model_notes": list(load_curve.deployment.shape.notes),
        "weight_bytes": closed_loop.memory.weights,
        "kv_pool_bytes": max(0, closed_loop.memory.kv_pool),
        "prefill": _json_operators(closed_loop.prefill),
        "decode": _json_operators(closed_loop.decode),
        "ttft_parts": dict(closed_loop.ttft_parts),
        "tpot_parts": dict(closed_loop.tpot_parts),
        "model_was_measured": closed_loop.model_measured,
        "source": "predicted",
        "calibrated": None if load_curve.ratios is None else _calibration_json(load_curve.ratios),
        "cost_per_million_output_tokens": cost,
    }


def format_latency(seconds: float) -> str:
    """Format a latency in s or ms; `saturates` if it is infinite."""
    if math.isinf(seconds):
        return "saturates"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.{0 if seconds >= 0.1 else 1}f} ms"


def format_interval(interval: tuple[float, float]) -> str:
    """Format an interval of latencies; one without an upper bound is `87 ms or more`."""
    if math.isinf(interval[1]) and not math.isinf(interval[0]):
        return f"{format_latency(interval[0])} or more"
    return f"{format_latency(interval[0])} to {format_latency(interval[1])}"


def _calibration_json(ratios: LocalRatios) -> dict[str, Any]:
    """The calibration for JSON: how many load points, their source, errors before and after."""
    return {**asdict(ratios), "ratios": len(ratios.ratios), "launches": ratios.launches}


def _json_operators(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by operator, under the keys that the JSON has always had."""
    keys = {"attention_proj": "mixer", "mlp": "dense"}
    return {keys.get(name, name): value for name, value in seconds.items()}
