"""`autotune predict` for one deployment: latency, throughput, time per operator, memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autotuner.errors import pluralize
from autotuner.report.formatting import format_number

if TYPE_CHECKING:
    from autotuner.cli.predict import Question
    from autotuner.predict.layout import Layout
    from autotuner.predict.load_curve import LoadCurve
    from autotuner.predict.local_factors import Factors
    from autotuner.predict.memory import MemoryPlan
    from autotuner.predict.open_loop import OpenLoopPrediction
    from autotuner.predict.predict import Prediction
    from autotuner.predict.traffic import LatencyTarget, MeanLatencies

OPERATOR_LABELS = {"attention_proj": "attention projections", "mlp": "MLP"}


def predict_point(question: Question, layout: Layout, concurrency: int, rate: float | None, *, as_json: bool) -> None:
    """Predict one deployment under a closed or an open loop, and check it against the target."""
    from autotuner.predict.load_curve import LoadCurve

    deployment = question.software.deploy(question.model, question.gpus[0], layout)
    load_curve = LoadCurve(deployment, question.traffic, bundled_only=question.bundled_only)
    if rate is None:
        _predict_closed_loop(load_curve, concurrency, question, as_json)
    else:
        _predict_open_loop(load_curve, rate, question, as_json)


def _predict_closed_loop(load_curve: LoadCurve, concurrency: int, question: Question, as_json: bool) -> None:
    from autotuner.cli import display
    from autotuner.predict.measured_lookup import MeasuredLookup

    lookup = MeasuredLookup(load_curve).at_concurrency(concurrency)
    prediction = lookup.prediction
    cost = _cost_per_million_tokens(load_curve, prediction.throughput, question)
    if as_json:
        measured_rows = [{"run": row.run, "trial": row.trial, "load": row.load} for row in lookup.rows]
        source_json = {"source": lookup.source, "rests_on": measured_rows}
        display.json(
            {
                **prediction_json(prediction),
                **source_json,
                **calibration_json(load_curve),
                "cost_per_million_output_tokens": cost,
            }
        )
    else:
        display.sentence(f"{_heading(load_curve)}, {pluralize(concurrency, 'request')} in flight")
        rows = [
            *_latency_rows(prediction.ttft, prediction.tpot, prediction.ttft_interval, prediction.tpot_interval),
            {"": "requests", "mean": f"{format_number(prediction.requests)} requests/s"},
            *_throughput_rows(prediction.throughput, prediction.gpus, cost),
            {"": "max in flight", "mean": f"{prediction.max_in_flight:.0f} requests"},
        ]
        if lookup.source != "predicted":
            predicted = load_curve.at_concurrency(concurrency)
            rows[0]["predicted"], rows[1]["predicted"] = format_latency(predicted.ttft), format_latency(predicted.tpot)
        _print_tables(rows, prediction, load_curve, lookup.explanation if lookup.source != "predicted" else "")
    _check_target(prediction, question.target)


def _predict_open_loop(load_curve: LoadCurve, rate: float, question: Question, as_json: bool) -> None:
    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.predict.open_loop import OpenLoopModel

    if not 0 < rate < math.inf:
        raise UsageError(f"--rate must be above 0, not {rate:g}.", remedy="Give it in requests per second.")
    prediction = OpenLoopModel(load_curve).at_rate(rate)
    cost = _cost_per_million_tokens(load_curve, prediction.throughput, question)
    if as_json:
        display.json(
            {**_open_loop_json(prediction), **calibration_json(load_curve), "cost_per_million_output_tokens": cost}
        )
    else:
        display.sentence(f"{_heading(load_curve)}, {rate:g} requests/s, Poisson arrivals")
        rows = [
            *_latency_rows(prediction.ttft, prediction.tpot, prediction.ttft_interval, prediction.tpot_interval),
            {"": "TTFT: queueing", "mean": format_latency(prediction.wait)},
            {"": "requests in flight", "mean": format_number(prediction.in_flight)},
            *_throughput_rows(prediction.throughput, prediction.closed_loop.gpus, cost),
            {"": "maximum rate", "mean": f"{format_number(prediction.max_rate)} requests/s"},
        ]
        _print_tables(rows, prediction.closed_loop, load_curve)
        display.line()
        display.sentence(
            "The intervals propagate the uncertainty of step times through the queue, and widen near saturation."
        )
    _check_target(prediction, question.target)


def _heading(load_curve: LoadCurve) -> str:
    from autotuner.predict.serving_option import layout_label

    deployment, traffic = load_curve.deployment, load_curve.traffic
    dtypes = sorted(
        {deployment.dtypes.mlp, deployment.dtypes.expert} if deployment.shape.experts else {deployment.dtypes.mlp}
    )
    gpus = f"{deployment.layout.gpus} x {deployment.gpu.name} ({layout_label(deployment.layout)})"
    model = f"{deployment.shape.name} ({'/'.join(dtypes)})"
    return f"{model} on {gpus}, {deployment.engine}: {traffic.isl} + {traffic.osl} tokens"


def _latency_rows(
    ttft: float, tpot: float, ttft_interval: tuple[float, float], tpot_interval: tuple[float, float]
) -> list[dict[str, str]]:
    return [
        {"": "TTFT", "mean": format_latency(ttft), "80% interval": format_interval(ttft_interval)},
        {"": "TPOT", "mean": format_latency(tpot), "80% interval": format_interval(tpot_interval)},
        {"": "per-user speed", "mean": f"{1 / tpot:.1f} output tokens/s"},
    ]


def _throughput_rows(throughput: float, gpus: int, cost: float | None) -> list[dict[str, str]]:
    rows = [
        {"": "output", "mean": f"{format_number(throughput)} tokens/s"},
        {"": "output per GPU", "mean": f"{format_number(throughput / gpus)} tokens/s"},
    ]
    return rows if cost is None else [*rows, {"": "currency / 1M output tokens", "mean": f"{cost:.2f}"}]


def _cost_per_million_tokens(load_curve: LoadCurve, throughput: float, question: Question) -> float | None:
    from autotuner.predict.serving_option import WorkerPool, hourly_price

    hourly_cost = hourly_price(
        (WorkerPool(load_curve.deployment.gpu, load_curve.deployment.layout, 1, 0.0),), question.prices
    )
    return None if hourly_cost is None else hourly_cost / (throughput * 3600) * 1e6


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
    if load_curve.factors is not None:
        display.line()
        display.sentence(
            calibration_text(load_curve.factors, load_curve.deployment.engine, load_curve.deployment.gpu.name)
        )
    operator_rows = [
        {
            "operator": OPERATOR_LABELS.get(name, name),
            "prefill": format_latency(prediction.prefill[name]),
            "decode": format_latency(prediction.decode[name]),
        }
        for name in prediction.decode
        if prediction.prefill[name] or prediction.decode[name]
    ]
    totals = (sum(prediction.prefill.values()), sum(prediction.decode.values()))
    operator_rows.append(
        {"operator": "total", "prefill": format_latency(totals[0]), "decode": format_latency(totals[1])}
    )
    display.line("\none iteration: prefill of one prompt, and a decode step of all requests in flight")
    display.table(
        operator_rows,
        ["operator", "prefill", "decode"],
        numeric=["prefill", "decode"],
        bold_row=len(operator_rows) - 1,
    )
    display.line()
    display.table(_memory_rows(prediction.memory), ["memory of one GPU", "GiB"], numeric=["GiB"])


def calibration_text(factors: Factors, engine: str, gpu: str) -> str:
    """The sentence that tells which local calibration the predictions use."""
    runs = "SIMULATED runs" if factors.source == "simulated" else "runs"
    return (
        f"Calibrated on {pluralize(factors.launches, 'launch', 'launches')} of your own {runs} ({engine} on {gpu}): "
        f"prefill x{factors.prefill:.2f}, decode x{factors.decode:.2f}, overhead x{factors.overhead:.2f}. "
        "`autotune calibrate --forget` undoes it."
    )


def calibration_json(load_curve: LoadCurve) -> dict[str, Any]:
    """The local calibration factors for JSON; None if there are none."""
    from dataclasses import asdict

    return {"calibrated": None if load_curve.factors is None else asdict(load_curve.factors)}


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


def _check_target(prediction: MeanLatencies, target: LatencyTarget) -> None:
    from autotuner.errors import NoFeasibleError

    target_ratio, binding = target.largest_ratio(prediction)
    if target_ratio > 1:
        latency, limit = getattr(prediction, binding), getattr(target, binding)
        raise NoFeasibleError(
            f"The target is not met: {binding} is {format_latency(latency)}, not {format_latency(limit)}.",
            remedy="Add --total-gpus N to rank other layouts, or --target-rate R to find enough GPUs.",
        )


def prediction_json(prediction: Prediction) -> dict[str, Any]:
    """A closed-loop prediction for JSON, in seconds, tokens/s, requests/s and bytes."""
    return {
        "ttft": prediction.ttft,
        "tpot": prediction.tpot,
        "ttft_interval": list(prediction.ttft_interval),
        "tpot_interval": list(prediction.tpot_interval),
        "output_throughput": prediction.throughput,
        "output_throughput_per_gpu": prediction.throughput / prediction.gpus,
        "request_throughput": prediction.requests,
        "gpus": prediction.gpus,
        "requests_in_flight_at_most": prediction.max_in_flight,
        "weight_bytes": prediction.memory.weights,
        "kv_pool_bytes": max(0, prediction.memory.kv_pool),
        "prefill": _json_operators(prediction.prefill),
        "decode": _json_operators(prediction.decode),
        "model_was_measured": prediction.model_measured,
        "source": "predicted",
    }


def _open_loop_json(prediction: OpenLoopPrediction) -> dict[str, Any]:
    return {
        **prediction_json(prediction.closed_loop),
        "ttft": prediction.ttft,
        "tpot": prediction.tpot,
        "ttft_interval": [_finite_or_none(bound) for bound in prediction.ttft_interval],
        "tpot_interval": [_finite_or_none(bound) for bound in prediction.tpot_interval],
        "output_throughput": prediction.throughput,
        "output_throughput_per_gpu": prediction.throughput / prediction.closed_loop.gpus,
        "request_throughput": prediction.rate,
        "queueing": prediction.wait,
        "requests_in_flight": prediction.in_flight,
        "sustainable_rate": prediction.max_rate,
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def format_latency(seconds: float) -> str:
    """Format a latency in s or ms; `saturates` if it is infinite."""
    if math.isinf(seconds):
        return "saturates"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.{0 if seconds >= 0.1 else 1}f} ms"


def format_interval(interval: tuple[float, float]) -> str:
    """Format an interval of latencies."""
    return f"{format_latency(interval[0])} to {format_latency(interval[1])}"


def _json_operators(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by operator, under the keys that the JSON has always had."""
    keys = {"attention_proj": "mixer", "mlp": "dense"}
    return {keys.get(name, name): value for name, value in seconds.items()}
