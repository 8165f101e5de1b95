"""`autotune predict rank` and `autotune predict size`: ranked ways to serve a load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.cli.predict_export import option_json, options_table, write_csv
from autotuner.cli.predict_point import (
    calibration_text,
    format_interval,
    format_latency,
    warn_of_rough_model,
    weights_line,
)
from autotuner.report.formatting import format_number

if TYPE_CHECKING:
    from autotuner.cli.predict_options import RankingOptions
    from autotuner.errors import NoFeasibleError
    from autotuner.planning.question import Question
    from autotuner.planning.serving_option import ServingOption

SHOWN_ROWS, SHOWN_ROWS_INFEASIBLE = 20, 5
"""Rows shown if the target is met, and if nothing meets it; --json has all of them."""
PER_GPU_COLUMN, PER_HOUR_COLUMN, PER_MILLION_COLUMN = (
    "output tokens/s/GPU",
    "currency / hour",
    "currency / 1M output tokens",
)
COLUMN_PRIORITIES = {
    "in flight": 4,
    "TTFT": 0,
    "TPOT": 0,
    "tokens/s/user": 2,
    PER_GPU_COLUMN: 0,
    "requests/s": 3,
    "GPUs": 0,
    PER_HOUR_COLUMN: 1,
    PER_MILLION_COLUMN: 0,
}
"""Numeric columns; on a narrow terminal those with the highest number are dropped first."""


@dataclass(frozen=True)
class RankingReport:
    """All options, best first, those on the frontier, and those shown in a table under its heading and order."""

    question: Question
    gpus: Sequence[str]
    heading: str
    options: Sequence[ServingOption]
    frontier: Sequence[ServingOption]
    shown: Sequence[ServingOption]
    order_text: str
    remarks: Sequence[str] = ()


def show_ranking(question: Question, gpu: str, total_gpus: int, ranking_options: RankingOptions) -> None:
    """Rank all layouts and loads on a number of GPUs."""
    from autotuner.planning.ranking import rank_options
    from autotuner.planning.serving_option import best_per_layout, pareto_frontier

    warn_of_rough_model(question)
    options = rank_options(question, gpu, total_gpus)
    frontier = pareto_frontier(options)
    if question.target.is_set:
        shown, order_text = best_per_layout(options), "each layout at its best load, best first"
    else:
        shown, order_text = frontier, "no --slo: the frontier, from lowest latency to highest throughput"
    heading = f"{_heading(question)} on {total_gpus} {gpu}"
    _output_ranking(RankingReport(question, (gpu,), heading, options, frontier, shown, order_text), ranking_options)


def show_sizing(
    question: Question, gpus: Sequence[str], rate: float, total_gpus: int | None, ranking_options: RankingOptions
) -> None:
    """Find the fewest GPUs that sustain a request rate."""
    from autotuner.errors import NoFeasibleError
    from autotuner.planning.serving_option import best_per_layout, pareto_frontier
    from autotuner.planning.sizing import fewest_gpus

    warn_of_rough_model(question)
    options = fewest_gpus(question, gpus, rate, total_gpus)
    best = options[0]
    order_text = "cheapest first" if all(option.price is not None for option in options) else "fewest GPUs first"
    shown = best_per_layout(options)
    if len(gpus) > 1:
        shown, order_text = _best_per_gpu_type(options), f"the best of each GPU type, {order_text}"
    frontier = pareto_frontier(option for option in options if option.meets_target)
    remarks = _excluded_gpu_remarks(question, gpus, options) if best.meets_target else []
    if best.meets_target:
        shown = [option for option in shown if option.meets_target]
    heading = f"{_heading(question)}, {rate:g} requests/s, Poisson arrivals"
    _output_ranking(
        RankingReport(question, gpus, heading, options, frontier, shown, order_text, remarks), ranking_options
    )
    if total_gpus and best.gpus > total_gpus:
        raise NoFeasibleError(
            f"{total_gpus} GPUs do not sustain {rate:g} requests/s.",
            why=f"The fewest that do are {best.gpus}: {best}.",
            remedy=f"Give --total-gpus {best.gpus}, or a lower --rate.",
        )


def _excluded_gpu_remarks(question: Question, gpus: Sequence[str], options: Sequence[ServingOption]) -> list[str]:
    """Sentences about GPU types that are not in the table, and why."""
    fitting = {option.serving.gpu.name for option in options}
    meeting = {option.serving.gpu.name for option in options if option.meets_target}
    failing = [name for name in gpus if name in fitting - meeting]
    not_fitting = [] if question.decode_gpu else [name for name in gpus if name not in fitting]
    remarks = [f"No layout meets the targets on: {', '.join(failing)}."] if failing else []
    if not_fitting:
        remarks.append(f"The model does not fit, or does not run, on: {', '.join(not_fitting)}.")
    return remarks


def _best_per_gpu_type(options: Sequence[ServingOption]) -> list[ServingOption]:
    best_by_type: dict[str, ServingOption] = {}
    for option in options:
        best_by_type.setdefault(option.serving.gpu.name, option)
    return list(best_by_type.values())


def _heading(question: Question) -> str:
    return f"{question.model}, {question.software.engine}: {question.traffic.isl} + {question.traffic.osl} tokens"


def _output_ranking(ranking: RankingReport, ranking_options: RankingOptions) -> None:
    """Print the options, write CSV and plot, and raise NoFeasibleError if nothing meets the target."""
    from autotuner.cli import display

    options, output, plot = ranking.options, ranking_options.output, ranking_options.plot
    if ranking_options.as_json:
        frontier_ids = set(map(id, ranking.frontier))
        display.json([{**option_json(option), "on_frontier": id(option) in frontier_ids} for option in options])
    else:
        _print_ranking(ranking)
    if output is not None:
        write_csv(options_table(options), output / "options.csv")
        display.note(f"Table: {output / 'options.csv'}")
        plot = plot or output / "pareto.png"
    if plot is not None:
        _write_plot(ranking, plot)
    if not options[0].meets_target:
        raise _infeasible_error(ranking.question, options)


def _write_plot(ranking: RankingReport, path: Path) -> None:
    from autotuner.cli import display
    from autotuner.errors import UsageError, file_error_reason
    from autotuner.report.predicted_plot import draw_options

    try:
        draw_options(ranking.options, ranking.question.target, ranking.heading, path)
    except OSError as error:
        raise UsageError(
            f"Cannot write {path}.", why=file_error_reason(error), remedy="Choose another --plot."
        ) from error
    display.note(f"Plot: {path}")


def _print_ranking(ranking: RankingReport) -> None:
    from autotuner.cli import display

    question, options, target = ranking.question, ranking.options, ranking.question.target
    display.sentence(ranking.heading + (f", targets {target}" if target.is_set else ""))
    display.sentence(weights_line(question))
    best = options[0]
    if best.meets_target and target.is_set:
        _print_option(f"best, {best.mode}", best)
        other_mode_best = next((option for option in options if option.mode != best.mode and option.meets_target), None)
        if other_mode_best is not None:
            _print_option(other_mode_best.mode, other_mode_best)
    limit = SHOWN_ROWS if best.meets_target else SHOWN_ROWS_INFEASIBLE
    rows = [_row(place, option) for place, option in enumerate(ranking.shown[:limit], start=1)]
    numeric_columns = {
        name: priority for name, priority in COLUMN_PRIORITIES.items() if any(row.get(name) for row in rows)
    }
    columns = ["", "workers", *numeric_columns]
    if any(row["source"] != "predicted" for row in rows):
        columns.append("source")
    if target.is_set:
        columns.append("target")
    display.line(f"\npredicted; {ranking.order_text if best.meets_target else 'nearest first'}")
    display.table(rows, columns, numeric=["", *numeric_columns], priorities=numeric_columns)
    if len(ranking.shown) > limit:
        display.sentence(f"{len(ranking.shown) - limit} more layouts, and all loads, with --json or --output FOLDER.")
    for remark in ranking.remarks:
        display.sentence(remark)
    _print_calibrations(question, ranking.gpus)
    _print_next_steps(question, best)


def _print_calibrations(question: Question, gpus: Sequence[str]) -> None:
    from autotuner.cli import display
    from autotuner.predict.layout import Layout
    from autotuner.predict.local_ratios import ratios_for

    for name in dict.fromkeys((*gpus, *([question.decode_gpu] if question.decode_gpu else []))):
        local = None if question.bundled_only else ratios_for(question.software.deploy(question.model, name, Layout()))
        if local is not None:
            display.sentence(calibration_text(local, question.software.engine, name))


def _print_option(name: str, option: ServingOption) -> None:
    """Print an option on two lines: hardware and cost, then performance."""
    from autotuner.cli import display

    performance = option.performance
    price = "" if option.price is None else f", {option.price:.2f} per hour"
    cost = "" if option.cost is None else f", {option.cost:.2f} per million output tokens"
    indent = " " * 20
    display.sentence(f"{name:<20}{option}: {option.gpus} GPUs{price}{cost}", indent)
    display.sentence(
        f"{indent}{format_number(performance.requests)} requests/s, "
        f"{format_number(option.throughput_per_gpu)} output tokens/s per GPU, "
        f"TTFT {format_latency(performance.ttft)} ({format_interval(performance.ttft_interval)}), "
        f"TPOT {format_latency(performance.tpot)} ({format_interval(performance.tpot_interval)})",
        indent,
    )


def _print_next_steps(question: Question, best: ServingOption) -> None:
    """Suggest next commands on stderr."""
    from autotuner.cli import display
    from autotuner.escaping import for_shell

    missing = [pool.gpu.name for pool in best.pools if pool.gpu.name not in question.prices and pool.gpu.price is None]
    if missing:
        display.note(f"For cost, give the price per GPU-hour: --price {missing[0]}=2.5")
    if best.meets_target and best.prefill is None:
        pool, traffic = best.serving, question.traffic
        display.note(
            f"Measure it with: autotune run --model {for_shell(question.model)} --runtime {question.software.engine} "
            f"--scenario 'D({traffic.isl},{traffic.osl})' --concurrency {max(1, round(pool.batch))} "
            f"--set 'parameters.tp-size=[{pool.layout.tp}]'"
        )


def _row(rank: int, option: ServingOption) -> dict[str, Any]:
    performance = option.performance
    return {
        "": rank,
        "workers": str(option),
        "in flight": f"{option.in_flight:.0f}",
        "TTFT": format_latency(performance.ttft),
        "TPOT": format_latency(performance.tpot),
        "tokens/s/user": format_number(performance.interactivity),
        PER_GPU_COLUMN: format_number(option.throughput_per_gpu),
        "requests/s": format_number(performance.requests),
        "GPUs": option.gpus,
        PER_HOUR_COLUMN: None if option.price is None else f"{option.price:.2f}",
        PER_MILLION_COLUMN: None if option.cost is None else f"{option.cost:.2f}",
        "source": option.source,
        "target": "met" if option.meets_target else f"{option.binding} x{option.target_ratio:.2f}",
    }


def _infeasible_error(question: Question, options: Sequence[ServingOption]) -> NoFeasibleError:
    """The error of a target that nothing meets, with the binding term and a reachable target."""
    from autotuner.errors import NoFeasibleError

    best, target = options[0], question.target
    latency, limit = getattr(best.performance, best.binding), getattr(target, best.binding)
    reachable = {
        name: max(limit, _round_up(getattr(best.performance, name)))
        for name, limit in (("ttft", target.ttft), ("tpot", target.tpot))
        if limit is not None
    }
    return NoFeasibleError(
        f"Nothing meets {target}: {best.binding} binds.",
        why=f"The nearest is {best}, whose {best.binding} is {format_latency(latency)}, not {format_latency(limit)}.",
        remedy="It meets --slo " + ",".join(f"{name}={value:g}" for name, value in reachable.items()) + ".",
    )


def _round_up(seconds: float) -> float:
    """Round up to two significant digits."""
    step = 10 ** (math.floor(math.log10(seconds)) - 1)
    return float(f"{math.ceil(seconds / step) * step:.3g}")
