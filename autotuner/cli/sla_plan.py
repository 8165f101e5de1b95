"""`autotune sla plan`, `check` and `compare`: questions to the curves of profiles, also of Dynamo's own profiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.cli import display
from autotuner.cli.sla_view import print_plan
from autotuner.errors import ConfigError, NoFeasibleError, UsageError, pluralize, unknown_name_message

if TYPE_CHECKING:
    from autotuner.profiling.plan import PlannedLoad, WorkerCurves
    from autotuner.profiling.planner_profile import PlannerProfile
    from autotuner.profiling.request import SlaRequest

ARITHMETICS = ("autotune", "dynamo-0.9", "dynamo-1.6")
MAX_LISTED_POINTS = 8


@dataclass(frozen=True)
class PlanValues:
    """The options of a plan, None where the profile's own value holds; milliseconds."""

    rate: float | None
    concurrency: int | None
    isl: float | None
    osl: float | None
    ttft: float | None
    itl: float | None
    total_gpus: int | None
    prefill_gpus: int | None
    decode_gpus: int | None


def show_plan(
    folder: Path, decode_folder: Path | None, values: PlanValues, prices: Sequence[str], like: str, *, as_json: bool
) -> None:
    """Plan workers for a load from one profile, or from the prefill of one and the decode of another."""
    if like not in ARITHMETICS:
        raise UsageError(unknown_name_message("arithmetic of --like", like, ARITHMETICS))
    profile = _usable_profile(folder, decode_folder)
    request = _request(folder)
    prefill_gpus = values.prefill_gpus or _worker_gpus(folder, "prefill") or 1
    decode_gpus = values.decode_gpus or _worker_gpus(decode_folder or folder, "decode") or 1
    from autotuner.profiling.plan import WorkerCurves

    curves = WorkerCurves(profile, prefill_gpus, decode_gpus)
    load = _load(values, request, curves)

    def hourly_cost(prefill_workers: int, decode_workers: int) -> float | None:
        gpus = prefill_workers * prefill_gpus, decode_workers * decode_gpus
        return _hourly_cost(*gpus, folder, decode_folder, prices)

    show = _show_own_plan if like == "autotune" else partial(_show_planner_replicas, like=like)
    show(curves, load, hourly_cost, as_json=as_json)


HourlyCost = Callable[[int, int], float | None]
"""Price per hour of so many prefill and decode workers, None where it is not known."""


def _show_own_plan(curves: WorkerCurves, load: PlannedLoad, hourly_cost: HourlyCost, *, as_json: bool) -> None:
    from autotuner.profiling.outcome import plan_json
    from autotuner.profiling.plan import plan_workers

    plan = plan_workers(curves, load)
    cost = hourly_cost(plan.prefill_workers, plan.decode_workers)
    if as_json:
        display.json({**(plan_json(plan) or {}), "price_per_hour": cost})
    else:
        print_plan(plan)
        _print_cost(cost, plan.served_rate * load.osl)
    if plan.is_short:
        raise NoFeasibleError(
            f"{load.max_gpus} GPUs do not sustain {load.rate:,.4g} requests/s within the targets.",
            why=f"They sustain {plan.served_rate:,.4g}.",
            remedy="Give more --total-gpus, or a lower --rate.",
        )
    if plan.missed_targets:
        options = " and ".join(f"--{name.lower()}" for name in plan.missed_targets)
        raise NoFeasibleError(
            f"No number of these workers meets the target on {' and '.join(plan.missed_targets)}.",
            why="One idle worker misses it already.",
            remedy=f"Raise {options}, or profile faster workers.",
        )


def _show_planner_replicas(
    curves: WorkerCurves, load: PlannedLoad, hourly_cost: HourlyCost, *, like: str, as_json: bool
) -> None:
    from autotuner.cli.planner_replicas import planner_answer, print_planner_answer

    answer = planner_answer(curves, load, like)
    cost = hourly_cost(answer.prefill_workers, answer.decode_workers)
    if as_json:
        display.json({**answer.to_json(), "price_per_hour": cost})
    else:
        print_planner_answer(answer, load, like)
        _print_cost(cost, load.rate * load.osl)


def _print_cost(cost: float | None, tokens_per_second: float) -> None:
    if cost is not None:
        per_million = cost / (tokens_per_second * 3600) * 1e6
        display.sentence(f"cost: {cost:,.2f} per hour, {per_million:,.3f} per million output tokens", indent="    ")


def _usable_profile(folder: Path, decode_folder: Path | None = None) -> PlannerProfile:
    """The arrays of a profile; ConfigError if a planner cannot use them."""
    from autotuner.profiling.planner_profile import PlannerProfile

    profile = PlannerProfile.read(folder, decode_folder)
    problems = profile.problems()
    if problems:
        raise ConfigError(
            "The profile cannot be planned with.",
            why=f"{'; '.join(problems)}.",
            remedy="Profile again with more points, or repair the files.",
        )
    return profile


def _request(folder: Path) -> SlaRequest | None:
    """The request of a profile of autotune; None of a folder that another profiler wrote."""
    from autotuner.profiling.record import REQUEST_FILE, ProfileRecord

    return ProfileRecord.open(folder).request if (folder / REQUEST_FILE).exists() else None


def _worker_gpus(folder: Path, phase: str) -> int | None:
    """GPUs of the selected worker of a profile of autotune; None of another."""
    from autotuner.profiling.session import open_profile

    if _request(folder) is None:
        return None
    selection = open_profile(folder).selection
    pick = selection.prefill_pick if phase == "prefill" else selection.decode_pick
    return pick.mapping.gpus if pick else None


def _load(values: PlanValues, request: SlaRequest | None, curves: WorkerCurves) -> PlannedLoad:
    from autotuner.profiling.plan import PlannedLoad, rate_of_concurrency

    if values.rate is not None and values.concurrency is not None:
        raise UsageError("--rate and --concurrency cannot be combined.", remedy="Give the load in one way.")
    given = {
        "isl": values.isl if request is None else values.isl or request.isl,
        "osl": values.osl if request is None else values.osl or request.osl,
        "ttft": values.ttft / 1000 if values.ttft else request.ttft if request else None,
        "itl": values.itl / 1000 if values.itl else request.itl if request else None,
    }
    missing = [f"--{name}" for name, value in given.items() if value is None]
    concurrency, rate = values.concurrency, values.rate
    if rate is None and concurrency is None and request is not None:
        rate, concurrency = request.rate, request.concurrency
    missing += ["--rate or --concurrency"] if rate is None and concurrency is None else []
    if missing:
        raise UsageError(
            f"The plan needs {', '.join(missing)}.", why="The profile does not say.", remedy="Give them as options."
        )
    numbers = [value for value in (*given.values(), rate) if value is not None]
    if min(numbers) <= 0:
        raise UsageError("Rates, lengths and targets of a plan must be above 0.")
    total = values.total_gpus or (request.total_gpus if request else None)
    load = PlannedLoad(rate or 0.0, **given, max_gpus=total)  # type: ignore[arg-type]
    return load if concurrency is None else replace(load, rate=rate_of_concurrency(curves, load, concurrency))


def _hourly_cost(
    prefill_gpus: int, decode_gpus: int, folder: Path, decode_folder: Path | None, texts: Sequence[str]
) -> float | None:
    """Price per hour of the planned GPUs; None where a type or its price is not known."""
    from autotuner.planning.cost import hourly_price, prices_by_gpu
    from autotuner.predict.hardware import find_gpu

    prices = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            prices[name] = float(number)
        except ValueError as error:
            raise UsageError(f"--price '{text}' is not TYPE=PRICE.", remedy="Write it as H100=2.5.") from error
    requests = (_request(folder), _request(decode_folder or folder))
    types = [request.gpu if request else None for request in requests]
    if len(prices) == 1 and None in types:
        types = [name or next(iter(prices)) for name in types]
    if None in types:
        return None
    counts = zip(types, (prefill_gpus, decode_gpus), strict=True)
    return hourly_price([(find_gpu(name or ""), count) for name, count in counts], prices_by_gpu(prices))


def check_profile(folder: Path, decode_gpus: int | None, *, as_json: bool) -> None:
    """Report what makes a planner fail on a profile, and the points that no engine can have run."""
    from autotuner.profiling.measurements import CONSISTENCY_BOUNDS
    from autotuner.profiling.planner_profile import PlannerProfile

    profile = PlannerProfile.read(folder)
    problems = profile.problems()
    gpus = decode_gpus or _worker_gpus(folder, "decode")
    inconsistent = [] if problems else profile.inconsistent_points(gpus)
    low, high = CONSISTENCY_BOUNDS
    counts = {"prefill_points": len(profile.prefill_isl), "decode_points": len(profile.z_itl)}
    if as_json:
        points = [{"requests": requests, "consistency": value} for requests, value in inconsistent]
        display.json({**counts, "problems": problems, "inconsistent_points": points})
    else:
        display.sentence(
            f"{folder}: {pluralize(counts['prefill_points'], 'prefill point')}, "
            f"{pluralize(counts['decode_points'], 'decode point')}, KV cache of {profile.max_kv_tokens:,} tokens"
        )
        for requests, value in inconsistent[:MAX_LISTED_POINTS]:
            display.sentence(
                f"{pluralize(requests, 'request')} in flight: throughput x ITL / requests is {value:.3f}, "
                f"not {low:g} to {high:g}, so that fewer ran at once than the point says",
                indent="    ",
            )
        if not problems and not inconsistent:
            display.sentence("A planner can use it, and every point agrees with itself.")
    if problems or inconsistent:
        raise NoFeasibleError(
            "The profile is not sound.",
            why="; ".join(problems) if problems else f"{pluralize(len(inconsistent), 'decode point')} cannot be true.",
            remedy="Measure those points again, or leave them out.",
        )


def compare_profiles(first: Path, second: Path, *, as_json: bool) -> None:
    """Compare the curves of the second profile with the points of the first."""
    import statistics

    from autotuner.profiling.plan import WorkerCurves

    reference, other = _usable_profile(first), _usable_profile(second)
    curves = WorkerCurves(other, 1, 1)
    ttfts = [
        (isl, ttft, 1000 * curves.ttft(isl))
        for isl, ttft in zip(reference.prefill_isl, reference.prefill_ttft, strict=True)
        if other.prefill_isl.min() <= isl <= other.prefill_isl.max()
    ]
    itls = [
        (requests, context, itl, 1000 * curves.itl(requests, context))
        for requests, context, itl in zip(reference.requests, reference.y_context_length, reference.z_itl, strict=True)
        if requests <= other.requests.max() and context <= other.y_context_length.max()
    ]
    summary: dict[str, Any] = {}
    for name, pairs in (("TTFT", [row[-2:] for row in ttfts]), ("ITL", [row[-2:] for row in itls])):
        changes = [after / before - 1 for before, after in pairs]
        summary[name] = {
            "points": len(changes),
            "median_change": statistics.median(changes) if changes else None,
            "median_difference": statistics.median(map(abs, changes)) if changes else None,
            "largest_difference": max(map(abs, changes), default=None),
        }
    if as_json:
        display.json(summary)
        return
    rows = [
        {
            "": name,
            "points": str(row["points"]),
            "change (median)": _percent(row["median_change"], sign=True),
            "difference (median)": _percent(row["median_difference"]),
            "largest": _percent(row["largest_difference"]),
        }
        for name, row in summary.items()
    ]
    columns = list(rows[0])
    display.table(rows, columns, title=f"{second} against {first}", numeric=columns[1:])


def _percent(value: float | None, *, sign: bool = False) -> str:
    return "-" if value is None else f"{value:+.1%}" if sign else f"{value:.1%}"


def export_manifests(
    folder: Path, output: Path, api_version: str, release: str, name: str | None, image: str | None
) -> list[Path]:
    """Write the manifests of a finished profile for an API version and a release of Dynamo."""
    from autotuner.profiling.manifests import RELEASES, dynamo_deployment, write_manifests
    from autotuner.profiling.session import open_profile, prepare

    for kind, value, options in (
        ("API version", api_version, ("v1beta1", "v1alpha1")),
        ("release of Dynamo", release, RELEASES),
    ):
        if value not in options:
            raise UsageError(unknown_name_message(kind, value, options))
    outcome = open_profile(folder)
    deployment = dynamo_deployment(
        outcome,
        prepare(outcome.record.request),
        name=name,
        api_version=api_version,  # type: ignore[arg-type]
        release=release,
        image=image,
    )
    return write_manifests(output, deployment)
