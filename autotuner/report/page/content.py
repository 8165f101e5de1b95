"""What the charts of the page are drawn from, as JSON-ready data computed once from the view of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from autotuner.core import Distribution, LoadPoint, LoadPointResult, Trial
from autotuner.experiment import SloTerm
from autotuner.report.page.launch_details import Launches, launch_details
from autotuner.report.page.request_samples import latencies, pack_requests, records_file
from autotuner.report.pooling import PooledCandidate
from autotuner.report.run_view import RunView
from autotuner.report.setting_effects import setting_effects
from autotuner.runs.store import RunStore
from autotuner.scoring.objective import COST, OBJECTIVES, THROUGHPUT, output_throughput_per_gpu
from autotuner.scoring.pareto import UNSTEADY_VERDICTS
from autotuner.scoring.pool import STEADY_STATE_VERDICTS, UNTRUSTED_VERDICTS
from autotuner.scoring.rank import Standing
from autotuner.scoring.slo import ATTAINMENT, request_terms, slo_statements

SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True)
class Detail:
    """How much of a run goes into its page.

    `points_with_requests` load points carry up to `requests` single requests each. Of launches with a
    detail page, those of the winner and the defaults and failed ones have `log_lines` of their logs, others
    `other_log_lines`. `timelines` and `launches` say whether there are timelines and details of launches.
    """

    requests: int = 256
    points_with_requests: int = 320
    log_lines: int = 40
    other_log_lines: int = 10
    timelines: bool = True
    launches: bool = True


POINT_COLUMNS = (
    "candidate", "scenario", "load", "verdict", "trusted", "launches", "n", "output", "total", "cost",
    "interactivity", "ttft", "ttft_low", "ttft_high", "ttft_p50", "ttft_p99", "ttft_p99_low", "ttft_p99_high",
    "tpot", "tpot_low", "tpot_high", "tpot_p99", "e2e", "e2e_p99", "good", "good_low", "good_high", "good_n",
    "good_effective", "output_low", "output_high", "utility", "watts", "open", "others", "at",
)  # fmt: skip
"""One row for each load point of each candidate: seconds, tokens/s per GPU, shares."""


MAX_LOAD_POINTS = 5_000
"""Load points in the charts; of candidates after these the run folder has all."""

MAX_EFFECTS = 100
"""Effects of settings in the chart, the largest."""


def shown_standings(view: RunView) -> tuple[Standing, ...]:
    """The first candidates of the ranking whose load points are at most MAX_LOAD_POINTS, and always the defaults."""
    sizes = (max(1, len(view.pooled[each.trial_number].trial.results)) for each in view.ranking.standings)
    count = sum(1 for _ in takewhile(lambda total: total <= MAX_LOAD_POINTS, accumulate(sizes)))
    first, others = view.ranking.standings[: max(1, count)], view.ranking.standings[max(1, count) :]
    return (*first, *(each for each in others if each.trial_number == view.ranking.baseline_trial_number))


def page_figures(view: RunView) -> dict[str, Any]:
    """The candidates that are shown, their load points, and the effects of settings."""
    standings = shown_standings(view)
    positions = {standing.trial_number: position for position, standing in enumerate(standings)}
    launches = {each.candidate.key: each.trials for each in view.launches}
    objective = OBJECTIVES[view.ranking.objective]
    return {
        "targets": _targets(view),
        "objective": {
            "label": objective.label,
            "unit": view.ranking.unit,
            "equalLoad": objective.at_equal_load,
            "lower": objective.direction == "min",
        },
        "priced": view.experiment.hardware.price_per_gpu_hour is not None,
        "scenarios": list(view.experiment.benchmark.traffic_scenarios),
        "candidates": [_candidate(standing, launches[standing.candidate.key], view) for standing in standings],
        "columns": list(POINT_COLUMNS),
        "points": [_point(positions[number], result, view.pooled[number], view) for number, result in _rows(view)],
        "effects": [
            {
                "name": effect.parameter,
                "from": _text(effect.before),
                "to": _text(effect.after),
                "ratios": [_rounded(ratio) for ratio in effect.ratios],
            }
            for effect in setting_effects(view)[:MAX_EFFECTS]
            if effect.ratios
        ],
        "hasTerms": bool(view.experiment.slo.terms),
    }


def shown_launches(view: RunView, store: RunStore) -> Launches:
    """The launches of the candidates that are shown, judged, with all that was recorded of them."""
    keys = {standing.candidate.key for standing in shown_standings(view)}
    trials = [trial for trial in view.trials if trial.candidate.key in keys]
    if not store.is_large:
        return Launches.of(trials)
    return Launches.of(store.trials_numbered({trial.number for trial in trials}))


def page_details(view: RunView, shown: Launches, folder: Path, detail: Detail) -> dict[str, Any]:
    """Single requests, and these launches, as many as `detail` says; `folder` has the records and logs of the run."""
    launches = {}
    if detail.launches:
        launches = launch_details(
            shown, view, folder, detail.log_lines, detail.other_log_lines, timelines=detail.timelines
        )
    return {"requests": _requests(_rows(view), view, folder, detail), "launches": launches}


def _rows(view: RunView) -> list[tuple[int, LoadPointResult]]:
    """Each load point of the candidates shown, by rank: the number of the candidate's trial and the pooled result."""
    scenarios = view.experiment.benchmark.traffic_scenarios
    return [
        (standing.trial_number, result)
        for standing in shown_standings(view)
        for result in view.pooled[standing.trial_number].trial.results
        if result.load_point.scenario in scenarios
    ]


def _targets(view: RunView) -> dict[str, Any]:
    """The targets that can be changed on the page, on TTFT and TPOT of single requests, and the shares to meet."""
    slo = view.experiment.slo

    def threshold(metric: str) -> float | None:
        return min((term.threshold for term in request_terms(slo) if term.metric == metric), default=None)

    def shown(metric: str) -> dict[str, Any] | None:
        terms = [term for term in slo.terms if term.metric == metric]
        term = min(terms, key=lambda term: (term.scored_statistic != "mean", term.threshold), default=None)
        return None if term is None else {"seconds": term.threshold, "text": _target_text(term, view)}

    return {
        "attainment": slo.attainment,
        "ttft": threshold("ttft"),
        "tpot": threshold("tpot"),
        "shown": {metric: shown(metric) for metric in ("ttft", "tpot", "latency")},
        "fixedTerms": sum(term.metric not in ("ttft", "tpot") for term in request_terms(slo)),
        "otherTerms": len(slo.terms) - len(request_terms(slo)),
    }


def _target_text(term: SloTerm, view: RunView) -> str:
    name = {"ttft": "TTFT", "tpot": "TPOT", "latency": "E2E"}[term.metric]
    limit = f"≤ {term.threshold * 1e3:g} ms"
    if term.statistic == "each":
        return f"{name} {limit} for {100 * view.experiment.slo.attainment:g}% of requests"
    return f"{name} {term.statistic} {limit}"


def _candidate(standing: Standing, trials: Sequence[Trial], view: RunView) -> dict[str, Any]:
    winner = view.ranking.winner
    return {
        "rank": standing.rank,
        "trial": standing.trial_number,
        "name": view.names.short_name(standing.candidate),
        "gpus": standing.candidate.gpus,
        "parameters": {name: _text(value) for name, value in standing.candidate.parameters.items()},
        "launches": [trial.number for trial in trials],
        "value": _rounded(standing.value),
        "verdict": standing.verdict.value if standing.verdict else None,
        "failure": standing.failure.kind.value if standing.failure else None,
        "reason": standing.reason,
        "winner": winner is not None and winner.trial_number == standing.trial_number,
        "defaults": standing.trial_number == view.ranking.baseline_trial_number,
        "best": [str(point) for point in standing.load_points],
    }


def _point(index: int, result: LoadPointResult, pooled: PooledCandidate, view: RunView) -> list[Any]:
    """One row of POINT_COLUMNS."""
    metrics, gpus = result.metrics, pooled.trial.candidate.gpus
    point, share = result.load_point, metrics.attainment
    low, high = metrics.intervals.get("output_throughput", (None, None))
    scenarios = view.experiment.benchmark.traffic_scenarios
    values = {
        "cost": COST.value(metrics, gpus, view.experiment.hardware.price_per_gpu_hour),
        "output": output_throughput_per_gpu(metrics, gpus),
        "total": THROUGHPUT.value(metrics, gpus),
        "interactivity": metrics.interactivity,
        **_statistics("ttft", metrics.ttft),
        **_statistics("tpot", metrics.tpot),
        "e2e": metrics.e2e.mean if metrics.e2e else None,
        "e2e_p99": metrics.e2e.p99 if metrics.e2e else None,
        "good": share.value if share else None,
        "good_low": share.low if share else None,
        "good_high": share.high if share else None,
        "good_effective": share.effective if share else None,
        "output_low": low / gpus if low is not None else None,
        "output_high": high / gpus if high is not None else None,
        "utility": result.score.utility if result.score else None,
        "watts": result.gpu_use.mean_watts if result.gpu_use else None,
    }
    facts: dict[str, Any] = {
        "candidate": index,
        "scenario": scenarios.index(point.scenario),
        "load": _load(point),
        "verdict": result.verdict.value,
        "trusted": int(not pooled.trial.failed and result.verdict not in UNSTEADY_VERDICTS),
        "launches": pooled.launch_counts.get(point, 1),
        "n": metrics.requests,
        "good_n": share.n if share else 0,
        "open": int(point.rate is not None),
        "others": _other_statements(result, view),
        "at": str(point),
    }
    return [facts[name] if name in facts else _rounded(values.get(name)) for name in POINT_COLUMNS]


def _other_statements(result: LoadPointResult, view: RunView) -> str | None:
    """Whether the targets hold that no slider changes, on means, percentiles and rates; None without such targets."""
    statements = slo_statements(result.metrics, view.experiment.slo, open_loop=result.load_point.rate is not None)
    states = {statement.state for statement in statements if statement.name != ATTAINMENT}
    return next((state for state in ("fails", "open", "holds") if state in states), None)


def _statistics(name: str, distribution: Distribution | None) -> dict[str, float | None]:
    if distribution is None:
        return {}
    low, high = distribution.intervals.get("mean", (None, None))
    p99_low, p99_high = distribution.intervals.get("p99", (None, None))
    return {
        name: distribution.mean,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_p50": distribution.p50,
        f"{name}_p99": distribution.p99,
        f"{name}_p99_low": p99_low,
        f"{name}_p99_high": p99_high,
    }


def _requests(
    rows: list[tuple[int, LoadPointResult]], view: RunView, folder: Path, detail: Detail
) -> Mapping[str, dict[str, Any]]:
    """Row number -> packed requests, for the load points that matter most: those of the winner, of the defaults and of
    the frontier first, then by rank."""
    if not detail.requests:
        return {}
    ranking = view.ranking
    first = {ranking.winner.trial_number if ranking.winner else None, ranking.baseline_trial_number}

    def importance(index: int) -> tuple[bool, bool, int]:
        number, result = rows[index]
        pooled = view.pooled[number].trial
        return (number not in first, not view.is_on_frontier(pooled, result), index)

    packed = {}
    trials = {standing.trial_number: standing.candidate.key for standing in ranking.standings}
    by_key = {launches.candidate.key: launches.trials for launches in view.launches}
    for index in sorted(range(len(rows)), key=importance)[: detail.points_with_requests]:
        number, result = rows[index]
        used = [
            samples
            for trial, position in _pooled_positions(by_key[trials[number]], result.load_point)
            if (samples := latencies(records_file(folder, trial, position))) is not None
        ]
        if used:
            packed[str(index)] = pack_requests(used, view.experiment.slo, detail.requests)
    return packed


def _pooled_positions(trials: tuple[Trial, ...], point: LoadPoint) -> list[tuple[Trial, int]]:
    """The launches whose results at a load point are pooled, each with the position of its last result there."""
    positions = []
    for trial in trials:
        indices = [index for index, result in enumerate(trial.results) if result.load_point == point]
        if indices and (not trial.failed or len(trials) == 1):
            positions.append((trial, indices[-1] + 1))

    def verdicts_in(verdicts: Any) -> list[tuple[Trial, int]]:
        return [(trial, position) for trial, position in positions if trial.results[position - 1].verdict in verdicts]

    trusted = [each for each in positions if each not in verdicts_in(UNTRUSTED_VERDICTS)]
    return verdicts_in(STEADY_STATE_VERDICTS) or trusted or positions


def _load(point: LoadPoint) -> float:
    return point.concurrency if point.concurrency is not None else float(point.rate or 0.0)


def _text(value: Any) -> str:
    return (
        {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def _rounded(value: float | None) -> float | None:
    """The number with SIGNIFICANT_DIGITS."""
    if value is None:
        return None
    rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
