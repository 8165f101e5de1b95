"""Warnings about experiments that are valid but probably not intended."""

from __future__ import annotations

import math
from collections.abc import Iterator

from autotuner.core import PARALLEL_SIZES
from autotuner.errors import pluralize
from autotuner.experiment import MILLISECOND_LIMITS, TRACE_RATE, Experiment, Slo
from autotuner.expression import parse
from autotuner.predict import hardware
from autotuner.rules import CONTEXT_NAMES
from autotuner.scoring.objective import OBJECTIVES


def experiment_warnings(experiment: Experiment) -> list[str]:
    return [
        *_grid_warnings(experiment),
        *_rule_warnings(experiment),
        *_load_warnings(experiment),
        *_objective_warnings(experiment),
        *slo_warnings(experiment.slo),
        *_node_warnings(experiment),
    ]


def _grid_warnings(experiment: Experiment) -> Iterator[str]:
    for name, values in experiment.parameters.items():
        if len({(type(value), value) for value in values}) < len(values):
            yield f"{name} holds the same value twice"
    grid_size = math.prod(len(values) for values in experiment.parameters.values())
    limit = experiment.optimization.max_iterations
    has_rules = experiment.only_when or experiment.constraints
    if not has_rules and experiment.optimization.strategy == "grid_search" and grid_size > limit:
        yield (
            f"the grid has {grid_size} candidates and max_iterations is {limit}: "
            f"{limit} of them, spread evenly, are tried"
        )
    fractions = [
        value for value in experiment.parameters.get("mem-fraction-static", ()) if isinstance(value, int | float)
    ]
    if fractions and max(fractions) > 0.95:
        yield f"mem-fraction-static {max(fractions)} leaves little memory for anything but weights and KV cache"


def _rule_warnings(experiment: Experiment) -> Iterator[str]:
    for name, text in experiment.constraints.items():
        missing = parse(text).required_names - {*experiment.parameters, *CONTEXT_NAMES, *PARALLEL_SIZES}
        if missing:
            names = ", ".join(sorted(missing))
            yield f"the constraint {name} refuses nothing where it depends on {names}, which no layer sets"


def _load_warnings(experiment: Experiment) -> Iterator[str]:
    load = experiment.benchmark
    limits = [value for value in experiment.parameters.get("max-running-requests", ()) if isinstance(value, int)]
    if limits and load.num_concurrency and max(load.num_concurrency) > min(limits):
        yield (
            f"concurrency {max(load.num_concurrency)} is above max-running-requests {min(limits)}: "
            "the requests above it wait in the server's queue"
        )
    for name, trace in zip(load.traffic_scenarios, load.recorded, strict=False):
        if TRACE_RATE in load.request_rates and trace.seconds >= load.duration:
            yield (
                f"{name} is replayed for {load.duration:g} s of its {trace.seconds:,.0f} s: "
                f"a duration of {math.floor(trace.seconds) + 1} replays it whole"
            )
    points = len(experiment.workload().load_points)
    seconds = points * (load.duration + load.warmup)
    if seconds > experiment.optimization.timeout_per_iteration:
        yield (
            f"{pluralize(points, 'load point')} of {load.duration + load.warmup:g} s "
            f"{'takes' if points == 1 else 'take'} {seconds:g} s, more than "
            f"timeout_per_iteration ({experiment.optimization.timeout_per_iteration:g} s) allows"
        )


def _objective_warnings(experiment: Experiment) -> Iterator[str]:
    objective = OBJECTIVES[experiment.optimization.objective]
    if objective.needs_slo and not experiment.slo.terms:
        yield f"objective {objective.name} has no SLO, so every request counts as good; give one with --slo"
    if objective.uses_price and experiment.hardware.price_per_gpu_hour is None:
        yield f"objective {objective.name} has no price; give what one GPU costs for an hour with --price"


def slo_warnings(slo: Slo) -> Iterator[str]:
    """Warnings about targets in what are probably milliseconds, or that are swapped."""
    targets = {(term.metric, term.statistic): term.threshold for term in slo.terms}
    for term in slo.terms:
        if hint := millisecond_hint(term.metric, term.threshold):
            yield f"the target {term.name} is {hint}"
    for (metric, statistic), threshold in targets.items():
        tpot_limit = targets.get(("tpot", statistic))
        if metric == "ttft" and tpot_limit is not None and threshold < tpot_limit:
            yield (
                f"the TTFT target ({threshold:g} s) is below the TPOT target ({tpot_limit:g} s), but a first token "
                "takes at least as long as one that follows; are the two swapped?"
            )


def millisecond_hint(metric: str, seconds: float) -> str | None:
    """`500 s; write 500ms or 0.5 if milliseconds are meant`, for a latency target so long that they probably are."""
    if seconds < MILLISECOND_LIMITS.get(metric, math.inf):
        return None
    return f"{seconds:g} s; write {seconds:g}ms or {seconds / 1000:g} if milliseconds are meant"


def _node_warnings(experiment: Experiment) -> Iterator[str]:
    sizes = [value for value in experiment.parameters.get("tp-size", ()) if isinstance(value, int)]
    gpu = experiment.hardware.gpu_type or (experiment.simulate.gpu if experiment.base_runtime == "sim" else "")
    is_known = hardware.is_known(gpu)
    gpus_per_node = hardware.find_gpu(gpu).gpus_per_node if is_known else hardware.DEFAULT_GPUS_PER_NODE
    if sizes and max(sizes) > gpus_per_node:
        node_text = f"a node of {gpu} has" if is_known else "a node usually has"
        yield f"tp-size {max(sizes)} may need several nodes: {node_text} {gpus_per_node} GPUs"
