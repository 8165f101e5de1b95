"""A plan's launches, load and cost in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotuner.cli.pace import clock

if TYPE_CHECKING:
    from autotuner.core import Purpose
    from autotuner.search.plan import Plan

_PURPOSES: dict[Purpose, str] = {
    "baseline": "{} with the engine's own defaults",
    "search": "{} to search",
    "confirmation": "{} to confirm the winner",
}


def lines(plan: Plan) -> list[tuple[str, str]]:
    """Label and text: how many launches and why, what each takes, what all take."""
    usual, most = plan.usual, plan.most
    virtual = " of virtual time" if plan.virtual else ""
    time = f"{clock(usual.seconds)}{virtual}"
    hours = f"{usual.gpu_hours:.2f}"
    if most.seconds > usual.seconds:
        time += f"; at most {clock(most.seconds)}{virtual} where windows go on until the answer is sure"
    if most.gpu_hours > usual.gpu_hours:
        hours += f"; at most {most.gpu_hours:.2f}"
    return [
        ("launches", _launches(plan)),
        ("each", _each(plan)),
        ("estimate", time),
        ("GPU-hours", hours if any(plan.gpus) else "none, no GPU is taken"),
    ]


def _launches(plan: Plan) -> str:
    counts = plan.purposes
    parts = [text.format(counts[purpose]) for purpose, text in _PURPOSES.items() if counts[purpose]]
    return f"{'at most ' if plan.may_end_early else ''}{plan.total}: {', '.join(parts)}"


def _each(plan: Plan) -> str:
    from autotuner.search.plan import longest_window

    load, workload = plan.load, plan.workload
    points = f"{load.points} load point{'' if load.points == 1 else 's'}"
    if load.most_points > load.points:
        points = f"about {points}, at most {load.most_points},"
    warmup = f"{clock(workload.warmup)} of warm-up and " if workload.warmup else ""
    window = f"{clock(workload.duration)} to {clock(longest_window(plan.experiment))}"
    return f"{clock(plan.start_seconds)} to start, then {points} of {warmup}a window of {window}"
