"""`autotune predict`: what-if questions, without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from autotuner.predict.memory import MemoryPlan
    from autotuner.predict.predict import Prediction
    from autotuner.predict.sweep import Option, Target

SHOWN = 20
"""Rows of a sweep that are shown; --json has them all."""


def predict(
    model: Annotated[str, typer.Option("--model", help="Bundled name, or a path to a config.json.")] = "",
    gpu: Annotated[str, typer.Option("--gpu", help="GPU type, as in `H100`.")] = "",
    runtime: Annotated[str, typer.Option("--runtime", help="Engine.")] = "vllm",
    engine_version: Annotated[str, typer.Option("--engine-version", help="Version of the engine.")] = "",
    tp: Annotated[int, typer.Option("--tp", min=1, help="Tensor-parallel size.")] = 1,
    pp: Annotated[int, typer.Option("--pp", min=1, help="Pipeline stages.")] = 1,
    dp: Annotated[int, typer.Option("--dp", min=1, help="Data-parallel attention replicas.")] = 1,
    ep: Annotated[int, typer.Option("--ep", min=1, help="Groups the experts are dealt to.")] = 1,
    isl: Annotated[int, typer.Option("--isl", min=1, help="Prompt tokens.")] = 1024,
    osl: Annotated[int, typer.Option("--osl", min=1, help="Output tokens.")] = 1024,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests in flight.")] = 16,
    dtype: Annotated[str, typer.Option("--dtype", help="Type of the weights; default: the checkpoint's.")] = "",
    kv_dtype: Annotated[str, typer.Option("--kv-dtype", help="Type of the KV cache.")] = "",
    prefix_hit: Annotated[float, typer.Option("--prefix-hit", help="Share of prompt tokens in the prefix cache.")] = 0,
    draft_tokens: Annotated[int, typer.Option("--draft-tokens", min=0, help="Tokens a draft proposes per step.")] = 0,
    acceptance: Annotated[float, typer.Option("--acceptance", help="Chance that a proposed token is kept.")] = 0.7,
    sweep: Annotated[bool, typer.Option("--sweep", help="Rank all parallelisms and loads.")] = False,
    total_gpus: Annotated[int, typer.Option("--total-gpus", min=1, help="GPUs a sweep may use.")] = 8,
    slo: Annotated[str | None, typer.Option("--slo", help="Targets on the means: ttft=1.0,tpot=0.05.")] = None,
    table: Annotated[Path | None, typer.Option("--table", help="Predict every row of this CSV.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where --table writes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Predict TTFT, TPOT, throughput and memory without a GPU."""
    from autotuner.errors import UsageError
    from autotuner.predict.sweep import Target

    if table is not None:
        _table(table, output)
        return
    if not model or not gpu:
        raise UsageError("predict needs --model and --gpu.", remedy="Or give --table FILE.csv --output FILE.csv.")
    target = Target(*_limits(slo))
    if sweep:
        wanted = {"isl": isl, "osl": osl, "total_gpus": total_gpus, "engine": runtime, "dtype": dtype or None}
        _sweep(model, gpu, {**wanted, "kv_dtype": kv_dtype or None}, target, as_json)
        return
    from autotuner.predict.predict import predict as predicted

    found = predicted(
        model,
        gpu,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        engine=runtime,
        version=engine_version or None,
        tp=tp,
        pp=pp,
        dp=dp,
        ep=ep,
        gemm_dtype=dtype or None,
        moe_dtype=dtype or None,
        kv_dtype=kv_dtype or None,
        prefix_hit=prefix_hit,
        draft_tokens=draft_tokens,
        acceptance=acceptance,
    )
    _show(found, as_json)
    _judge(found, target)


def _limits(slo: str | None) -> tuple[float | None, float | None]:
    """The most that mean TTFT and mean TPOT may be, in seconds."""
    from autotuner.cli.asked import slo_of
    from autotuner.errors import UsageError

    terms = slo_of(slo) or {}
    if (
        not isinstance(terms, dict)
        or terms.keys() - {"ttft", "tpot"}
        or any("threshold" not in t for t in terms.values())
    ):
        raise UsageError(
            f"--slo '{slo}' is not a target that can be predicted.",
            why="Means of TTFT and TPOT are.",
            remedy="Write it as ttft=1.0,tpot=0.05, in seconds.",
        )
    return terms.get("ttft", {}).get("threshold"), terms.get("tpot", {}).get("threshold")


def _judge(found: Prediction, target: Target) -> None:
    from autotuner.errors import NoFeasibleError

    excess, binding = target.excess(found)
    if excess > 1:
        time, limit = getattr(found, binding), getattr(target, binding)
        raise NoFeasibleError(f"The target is not met: {binding} is {1000 * time:.0f} ms, not {1000 * limit:.0f} ms.")


def _show(found: Prediction, as_json: bool) -> None:
    from autotuner.cli import display

    if as_json:
        display.json(_plain(found))
        return
    rows = [
        {"": "TTFT", "mean": _ms(found.ttft), "80% interval": _between(found.ttft_interval)},
        {"": "TPOT", "mean": _ms(found.tpot), "80% interval": _between(found.tpot_interval)},
        {"": "throughput", "mean": f"{found.throughput:.0f} tokens/s"},
        {"": "per GPU", "mean": f"{found.throughput / found.gpus:.0f} tokens/s"},
        {"": "in flight at most", "mean": f"{found.running:.0f} requests"},
    ]
    title = "predicted, constants of this model" if found.measured else "predicted, model never measured"
    display.table(rows, ["", "mean", "80% interval"], title=title, right=["mean"])
    parts = [
        {"operator": name, "prefill": _ms(found.prefill[name]), "decode": _ms(found.decode[name])}
        for name in found.decode
    ]
    display.table(parts, ["operator", "prefill", "decode"], title="one iteration", right=["prefill", "decode"])
    display.table(_memory(found.memory), ["memory of one GPU", "GiB"], right=["GiB"])


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


def _sweep(model: str, gpu: str, wanted: dict[str, Any], target: Target, as_json: bool) -> None:
    from autotuner.cli import display
    from autotuner.errors import NoFeasibleError
    from autotuner.predict.sweep import options

    found = options(model, gpu, target=target, **wanted)
    if as_json:
        display.json([{**_option(option), "prediction": _plain(option.prediction)} for option in found])
    else:
        columns = ["tp", "dp", "ep", "replicas", "concurrency", "TTFT", "TPOT", "tokens/s per GPU"]
        display.table([_option(option) for option in found[:SHOWN]], columns, title="predicted", right=columns)
    best = found[0]
    if best.excess > 1:
        time, limit = getattr(best.prediction, best.binding), getattr(target, best.binding)
        raise NoFeasibleError(
            f"No layout meets the target; the nearest is held back by {best.binding}: "
            f"{1000 * time:.0f} ms, not {1000 * limit:.0f} ms."
        )


def _option(option: Option) -> dict[str, Any]:
    layout, found = option.layout, option.prediction
    return {
        "tp": layout.tp,
        "dp": layout.dp,
        "ep": layout.ep or 1,
        "replicas": option.replicas,
        "concurrency": option.concurrency,
        "TTFT": _ms(found.ttft),
        "TPOT": _ms(found.tpot),
        "tokens/s per GPU": f"{option.per_gpu:.0f}",
    }


def _table(path: Path, output: Path | None) -> None:
    import csv

    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.predict.table import PREDICTED, predicted

    if output is None:
        raise UsageError("--table needs --output FILE.csv.")
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file, restval="")
            columns, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Cannot read {path}.", why=str(error)) from error
    answered = [predicted(row) for row in rows]
    names = [*columns, *(name for name in PREDICTED if name not in columns)]
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(answered)
    failed = sum(bool(row["pred_error"]) for row in answered)
    display.note(f"{output}: {len(rows) - failed} rows predicted, {failed} not.")


def _plain(found: Prediction) -> dict[str, Any]:
    return {
        "ttft": found.ttft,
        "tpot": found.tpot,
        "ttft_interval": list(found.ttft_interval),
        "tpot_interval": list(found.tpot_interval),
        "output_throughput": found.throughput,
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


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _between(edges: tuple[float, float]) -> str:
    return f"{_ms(edges[0])} to {_ms(edges[1])}"
