"""What `autotune sla` prints of a profile: its workers, curves, plan, and what was left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.cli import display
from autotuner.cli.time_left import format_duration
from autotuner.errors import NoFeasibleError, pluralize

if TYPE_CHECKING:
    from autotuner.profiling.fitting import LeaveOneOut
    from autotuner.profiling.outcome import ProfileOutcome
    from autotuner.profiling.plan import ServingPlan
    from autotuner.profiling.record import ProfileRecord
    from autotuner.profiling.workers import WorkerSetup

CHOSEN_MARK = "*"
SHOWN_REJECTIONS = 5


def print_outcome(outcome: ProfileOutcome) -> NoFeasibleError | None:
    """Print the ranked workers of both phases, the curves' errors, the plan, and where the files are.

    Returns why there is no plan where the GPU budget holds no worker of each kind.
    """
    from autotuner.profiling.pick import PICKED_FILE
    from autotuner.profiling.pick_page import picked_text
    from autotuner.profiling.select import best_per_mapping

    record, selection = outcome.record, outcome.selection
    request = record.request
    engine = request.url or request.runtime
    display.sentence(
        f"{request.model} on {engine}, {', '.join(outcome.sources) or 'nothing measured yet'}: "
        f"{request.isl:,} prompt and {request.osl:,} output tokens, "
        f"TTFT {1000 * request.ttft:g} ms, ITL {1000 * request.itl:g} ms"
    )
    prefill_rows = [
        {
            "": CHOSEN_MARK if worker is selection.prefill_pick else "",
            "prefill worker": worker.mapping.label,
            "GPUs": str(worker.mapping.gpus),
            "TTFT ms": f"{1000 * worker.point.ttft:,.1f}",
            "prompt tokens/s/GPU": f"{worker.point.throughput_per_gpu:,.0f}",
            "target": _target_text(worker.target_ratio),
        }
        for worker in best_per_mapping(selection.prefill)
    ]
    decode_rows = [
        {
            "": CHOSEN_MARK if worker is selection.decode_pick else "",
            "decode worker": worker.mapping.label,
            "GPUs": str(worker.mapping.gpus),
            "requests": f"{worker.point.concurrency:,}",
            "ITL ms": f"{1000 * worker.point.itl:,.2f}",
            "output tokens/s/GPU": f"{worker.point.throughput_per_gpu:,.0f}",
            "target": _target_text(worker.target_ratio),
        }
        for worker in best_per_mapping(selection.decode)
    ]
    for rows in (prefill_rows, decode_rows):
        if rows:
            columns = list(rows[0])
            display.table(rows, columns, numeric=[name for name in columns[2:] if name != "target"])
    _print_left_out(outcome)
    _print_errors("TTFT curve", outcome.ttft_errors, len(outcome.prefill_curve_points))
    _print_errors("ITL surface", outcome.itl_errors, len(outcome.decode_curve_points))
    no_plan = None
    try:
        if outcome.plan is not None:
            print_plan(outcome.plan)
    except NoFeasibleError as error:
        no_plan = error
    _print_ending(outcome)
    if (record.path / PICKED_FILE).exists():
        display.sentence(picked_text(outcome))
    return no_plan


def _target_text(ratio: float) -> str:
    if ratio <= 1:
        return "met"
    return f"missed by {ratio - 1:.0%}" if ratio < 2 else f"{ratio:,.1f} x the target"


def _print_left_out(outcome: ProfileOutcome) -> None:
    """Mappings that were not launched or failed, and points that entered no file, with the reasons."""
    for forbidden in outcome.sweep.forbidden:
        display.sentence(f"{forbidden.mapping.label} cannot run: {forbidden.reason}.", indent="    ")
    for skipped in outcome.sweep.skipped:
        display.sentence(f"{skipped.mapping.label} was skipped: {skipped.reason}.", indent="    ")
    for launch in outcome.record.launches:
        if launch.failure is not None:
            display.sentence(
                f"{launch.mapping.label} failed ({launch.failure.kind.value}): {launch.failure.message} "
                f"{launch.failure.remedy}",
                indent="    ",
            )
    reasons = Counter(
        point.rejection
        for points in outcome.record.points.values()
        for point in points.values()
        if point.rejection is not None
    )
    for reason, count in reasons.most_common(SHOWN_REJECTIONS):
        display.sentence(f"{pluralize(count, 'point')} left out: {reason}.", indent="    ")
    if len(reasons) > SHOWN_REJECTIONS:
        display.sentence(f"{len(reasons) - SHOWN_REJECTIONS} more reasons are in sla.json.")


def _print_errors(name: str, errors: LeaveOneOut[Any], points: int) -> None:
    if errors.median is None or errors.worst is None:
        return
    where = " x ".join(f"{number:,}" for number in errors.worst[0].key[1:])
    display.sentence(
        f"{name}: {points} points; a left-out point is missed by {errors.median:.1%} in the median, "
        f"{abs(errors.worst[1]):.1%} at most (at {where})."
    )


def print_plan(plan: ServingPlan) -> None:
    """Print the workers of a plan with the arithmetic behind them."""
    load = plan.load
    display.line()
    display.sentence(
        f"For {load.rate:,.4g} requests/s: {pluralize(plan.prefill_workers, 'prefill worker')} of "
        f"{pluralize(plan.prefill_gpus, 'GPU')} and {pluralize(plan.decode_workers, 'decode worker')} of "
        f"{pluralize(plan.decode_gpus, 'GPU')}, {pluralize(plan.gpus, 'GPU')} together."
    )
    display.sentence(
        f"prefill: a worker takes {1000 * plan.ttft:,.1f} ms for a prompt, {plan.prefill_rate_per_worker:,.2f} "
        f"prompts/s at most; {plan.prefill_utilization:.0%} busy, prompts wait {1000 * plan.prefill_wait:,.1f} ms, "
        f"TTFT {1000 * (plan.ttft + plan.prefill_wait):,.1f} of {1000 * load.ttft:g} ms",
        indent="    ",
    )
    display.sentence(
        f"decode: a worker completes {plan.decode_rate_per_worker:,.2f} requests/s within the target; "
        f"{plan.requests_per_worker:,.1f} requests in flight on each, "
        f"ITL {1000 * plan.itl:,.2f} of {1000 * load.itl:g} ms",
        indent="    ",
    )
    if plan.is_short:
        display.warning(
            f"{load.max_gpus} GPUs sustain {plan.served_rate:,.4g} of {load.rate:,.4g} requests/s within the targets."
        )
    if plan.missed_targets:
        display.warning(
            f"One idle worker misses the target on {' and '.join(plan.missed_targets)} already: more do not help."
        )


def _print_ending(outcome: ProfileOutcome) -> None:
    record = outcome.record
    time = format_duration(record.seconds)
    virtual = " of virtual time" if outcome.sources == ["simulated"] and record.request.evaluator == "simulated" else ""
    display.line()
    points = pluralize(sum(len(points) for points in record.points.values()), "point")
    if record.request.evaluator == "predicted":
        display.sentence(f"{pluralize(len(record.points), 'mapping')} predicted, {points}: {record.path}")
    else:
        launches = pluralize(len(record.launches), "launch", "launches")
        display.sentence(f"{launches}, {points}, {time}{virtual}, {record.gpu_hours:,.2f} GPU-hours: {record.path}")
    if outcome.sweep.stop_reason:
        display.warning(f"The profile is not complete: {outcome.sweep.stop_reason}. Repeat the command to go on.")
    elif not outcome.is_complete and not outcome.selection.missed_targets:  # else an error says why
        display.warning(f"The planner's files are not written: {'; '.join(outcome.profile_problems)}.")


def print_dry_run(setup: WorkerSetup, output: Path, *, as_json: bool) -> None:
    """Print the launches of a profile in their order with what is predicted, and what cannot run."""
    from autotuner.profiling.expectations import Expectations
    from autotuner.profiling.record import ProfileRecord
    from autotuner.profiling.sweep import Sweep

    record = ProfileRecord(output, setup.request)
    sweep = Sweep(setup, record)
    expectations = Expectations(record, sweep.forecasts, list(sweep.mappings))
    rows = [_planned_row(expectations, setup, record, mapping) for mapping in expectations.in_order()]
    if as_json:
        forbidden = [{"mapping": item.mapping.name, "reason": item.reason} for item in sweep.result.forbidden]
        display.json({"request": setup.request.to_json(), "launches": rows, "forbidden": forbidden})
        return
    columns = list(rows[0])
    display.table(rows, columns, title=f"{pluralize(len(rows), 'launch', 'launches')} at most", numeric=columns[1:])
    for item in sweep.result.forbidden:
        display.sentence(f"{item.mapping.label} cannot run: {item.reason}.", indent="    ")
    display.sentence(
        "Each launch serves the prefill and decode points of its mapping, and the curves where it leads; predicted "
        "figures order the launches, and mappings that cannot win any more are skipped."
    )


def _planned_row(expectations: Any, setup: WorkerSetup, record: ProfileRecord, mapping: Any) -> dict[str, str]:
    prefill = expectations.expected("prefill", mapping)
    decode = expectations.expected("decode", mapping)
    return {
        "mapping": mapping.label,
        "GPUs": str(mapping.gpus),
        "TTFT ms": f"{1000 * prefill.latency:,.1f}" if prefill else "-",
        "prompt tokens/s/GPU": f"{prefill.throughput_per_gpu:,.0f}" if prefill else "-",
        "ITL ms": f"{1000 * decode.latency:,.2f}" if decode else "-",
        "output tokens/s/GPU": f"{decode.throughput_per_gpu:,.0f}" if decode else "-",
    }
