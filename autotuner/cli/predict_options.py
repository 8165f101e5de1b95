"""`autotune predict --sweep`, `--total-gpus` and `--target-rate`: ways to serve a load, ranked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.cli.predict_export import plain, write_csv
from autotuner.cli.predict_point import between, duration, said
from autotuner.report.formatting import number

if TYPE_CHECKING:
    from autotuner.cli.predict import Question
    from autotuner.errors import NoFeasibleError
    from autotuner.predict.serving_option import Option

SHOWN, FEW = 20, 5
"""Rows that are shown, and where nothing meets the target; --json has all of them."""
DEFAULT_GPUS = 8
PER_GPU, PER_HOUR, PER_MILLION = "output tokens/s/GPU", "currency / hour", "currency / 1M output tokens"
PRIORITIES = {
    "in flight": 4,
    "TTFT": 0,
    "TPOT": 0,
    "tokens/s/user": 2,
    PER_GPU: 0,
    "requests/s": 3,
    "GPUs": 0,
    PER_HOUR: 1,
    PER_MILLION: 0,
}
"""Columns of figures; where there is no room for all, those of the highest number go first."""


def rank(asked: Question, *, output: Path | None, plot: Path | None, as_json: bool) -> None:
    """Rank all ways to use a budget of GPUs."""
    from autotuner.predict.serving_option import best_of_each, frontier
    from autotuner.predict.sweep import options

    budget = asked.total_gpus or DEFAULT_GPUS
    found = options(
        asked.model,
        asked.gpus[0],
        total_gpus=budget,
        traffic=asked.traffic,
        software=asked.software,
        target=asked.target,
        decode_gpu=asked.decode_gpu,
        prices=asked.prices,
        bundled_only=asked.bundled_only,
    )
    edge = frontier(found)
    if asked.target.told:
        shown, order = best_of_each(found), "each layout at its best load, best first"
    else:
        shown, order = edge, "no --slo: the frontier, from the fastest answers to the most tokens"
    head = f"{_head(asked)} on {budget} {asked.gpus[0]}"
    _answer(asked, head, found, shown, edge, order, output=output, plot=plot, as_json=as_json)


def size(asked: Question, rate: float, *, output: Path | None, plot: Path | None, as_json: bool) -> None:
    """Find the fewest GPUs that carry a rate."""
    from autotuner.errors import NoFeasibleError
    from autotuner.predict.serving_option import best_of_each, frontier
    from autotuner.predict.sizing import fewest_gpus

    found = fewest_gpus(
        asked.model,
        asked.gpus,
        rate=rate,
        traffic=asked.traffic,
        software=asked.software,
        target=asked.target,
        decode_gpu=asked.decode_gpu,
        prices=asked.prices,
        total_gpus=asked.total_gpus,
        bundled_only=asked.bundled_only,
    )
    priced = all(option.price is not None for option in found)
    order = "cheapest first" if priced else "fewest GPUs first"
    shown = _best_per_type(found) if len(asked.gpus) > 1 else best_of_each(found)
    if len(asked.gpus) > 1:
        order = f"the best of each GPU type, {order}"
    head = f"{_head(asked)}, {rate:g} requests/s, Poisson arrivals"
    edge = frontier(option for option in found if option.meets)
    remarks = _left_out(asked, found) if found[0].meets else ()
    shown = [option for option in shown if option.meets] if found[0].meets else shown
    _answer(asked, head, found, shown, edge, order, output=output, plot=plot, as_json=as_json, remarks=remarks)
    if asked.total_gpus and found[0].gpus > asked.total_gpus:
        raise NoFeasibleError(
            f"{asked.total_gpus} GPUs do not carry {rate:g} requests/s.",
            why=f"The fewest that do are {found[0].gpus}: {found[0]}.",
            remedy=f"Give --total-gpus {found[0].gpus}, or a lower --target-rate.",
        )


def _left_out(asked: Question, found: Sequence[Option]) -> list[str]:
    """Which GPU types are not in the table, and why."""
    held = {option.serving.gpu.name for option in found}
    met = {option.serving.gpu.name for option in found if option.meets}
    failing = [name for name in asked.gpus if name in held - met]
    small = [] if asked.decode_gpu else [name for name in asked.gpus if name not in held]
    said = [f"No layout meets the targets on: {', '.join(failing)}."] if failing else []
    return [*said, f"The model does not fit, or does not run, on: {', '.join(small)}."] if small else said


def _best_per_type(found: Sequence[Option]) -> list[Option]:
    seen: dict[tuple[str, ...], Option] = {}
    for option in found:
        seen.setdefault(tuple(pool.gpu.name for pool in option.pools[-1:]), option)
    return list(seen.values())


def _head(asked: Question) -> str:
    return f"{asked.model}, {asked.software.engine}: {asked.traffic.isl} + {asked.traffic.osl} tokens"


def _answer(
    asked: Question,
    head: str,
    found: Sequence[Option],
    shown: Sequence[Option],
    edge: Sequence[Option],
    order: str,
    *,
    output: Path | None,
    plot: Path | None,
    as_json: bool,
    remarks: Sequence[str] = (),
) -> None:
    """Print, draw and write, and raise where nothing meets the target."""
    from autotuner.cli import display

    if as_json:
        members = set(map(id, edge))
        display.json([{**plain(option), "on_frontier": id(option) in members} for option in found])
    else:
        _show(asked, head, found, shown, order, remarks)
    if output is not None:
        write_csv(output, found)
        plot = plot or output / "pareto.png"
    if plot is not None:
        _draw(asked, head, found, plot)
    if not found[0].meets:
        raise _nearest(asked, found)


def _draw(asked: Question, head: str, found: Sequence[Option], path: Path) -> None:
    from autotuner.cli import display
    from autotuner.errors import UsageError
    from autotuner.report.predicted_plot import draw_options

    try:
        draw_options(found, asked.target, head, path)
    except OSError as error:
        raise UsageError(f"Cannot write {path}.", why=str(error), remedy="Choose another --plot.") from error
    display.note(f"Plot: {path}")


def _show(
    asked: Question,
    head: str,
    found: Sequence[Option],
    shown: Sequence[Option],
    order: str,
    remarks: Sequence[str],
) -> None:
    from autotuner.cli import display

    display.sentence(head + (f", targets {asked.target}" if asked.target.told else ""))
    best = found[0]
    if best.meets and asked.target.told:
        _answer_lines(f"best, {best.mode}", best)
        other = next((option for option in found if option.mode != best.mode and option.meets), None)
        if other is not None:
            _answer_lines(other.mode, other)
    limit = SHOWN if best.meets else FEW
    rows = [_row(place, option) for place, option in enumerate(shown[:limit], start=1)]
    figures = {name: priority for name, priority in PRIORITIES.items() if any(row.get(name) for row in rows)}
    columns = ["", "workers", *figures]
    if any(row["source"] != "predicted" for row in rows):
        columns.append("source")
    if asked.target.told:
        columns.append("target")
    display.line(f"\npredicted; {order if best.meets else 'nearest first'}")
    display.table(rows, columns, right=["", *figures], priorities=figures)
    if len(shown) > limit:
        display.sentence(f"{len(shown) - limit} more layouts, and all loads, with --json or --output FOLDER.")
    for remark in remarks:
        display.sentence(remark)
    _tell_calibrated(asked)
    _advise(asked, best)


def _tell_calibrated(asked: Question) -> None:
    from autotuner.cli import display
    from autotuner.predict.local_factors import factors_for

    for name in dict.fromkeys((*asked.gpus, *([asked.decode_gpu] if asked.decode_gpu else []))):
        by = None if asked.bundled_only else factors_for(asked.software.engine, name)
        if by is not None:
            display.sentence(said(by, asked.software.engine, name))


def _answer_lines(name: str, option: Option) -> None:
    """One option in two lines: what it takes, and what it gives."""
    from autotuner.cli import display

    price = "" if option.price is None else f", {option.price:.2f} per hour"
    cost = "" if option.cost is None else f", {option.cost:.2f} per million output tokens"
    indent = " " * 18
    display.sentence(f"{name:<18}{option}: {option.gpus} GPUs{price}{cost}", indent)
    display.sentence(
        f"{indent}{number(option.requests)} requests/s, {number(option.per_gpu)} output tokens/s per GPU, "
        f"TTFT {duration(option.ttft)} ({between(option.ttft_interval)}), "
        f"TPOT {duration(option.tpot)} ({between(option.tpot_interval)})",
        indent,
    )


def _advise(asked: Question, best: Option) -> None:
    """What to do next, on stderr."""
    from autotuner.cli import display

    missing = [pool.gpu.name for pool in best.pools if pool.gpu.name not in asked.prices and pool.gpu.price is None]
    if missing:
        display.note(f"For cost, give the price of a GPU for an hour: --price {missing[0]}=2.5")
    if best.meets and best.prefill is None:
        pool, traffic = best.serving, asked.traffic
        display.note(
            f"Check it by measuring: autotune run --model {asked.model} --runtime {asked.software.engine} "
            f"--scenario 'D({traffic.isl},{traffic.osl})' --concurrency {max(1, round(pool.batch))} "
            f"--set 'parameters.tp-size=[{pool.layout.tp}]'"
        )


def _row(place: int, option: Option) -> dict[str, Any]:
    return {
        "": place,
        "workers": str(option),
        "in flight": f"{option.in_flight:.0f}",
        "TTFT": duration(option.ttft),
        "TPOT": duration(option.tpot),
        "tokens/s/user": number(option.interactivity),
        PER_GPU: number(option.per_gpu),
        "requests/s": number(option.requests),
        "GPUs": option.gpus,
        PER_HOUR: None if option.price is None else f"{option.price:.2f}",
        PER_MILLION: None if option.cost is None else f"{option.cost:.2f}",
        "source": option.source,
        "target": "met" if option.meets else f"{option.binding} x{option.excess:.2f}",
    }


def _nearest(asked: Question, found: Sequence[Option]) -> NoFeasibleError:
    """Say which term binds, and the target that would be met."""
    from autotuner.errors import NoFeasibleError

    best, target = found[0], asked.target
    time, limit = getattr(best, best.binding), getattr(target, best.binding)
    reachable = {
        name: max(limit, _above(getattr(best, name)))
        for name, limit in (("ttft", target.ttft), ("tpot", target.tpot))
        if limit is not None
    }
    return NoFeasibleError(
        f"Nothing meets {target}: {best.binding} binds.",
        why=f"The nearest is {best}, whose {best.binding} is {duration(time)}, not {duration(limit)}.",
        remedy="It meets --slo " + ",".join(f"{name}={value:g}" for name, value in reachable.items()) + ".",
    )


def _above(seconds: float) -> float:
    """The next figure of two digits."""
    step = 10 ** (math.floor(math.log10(seconds)) - 1)
    return float(f"{math.ceil(seconds / step) * step:.3g}")
