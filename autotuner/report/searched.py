"""What a search spent, what it left out, why it stopped, and what its gain is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autotuner.core import Trial
from autotuner.experiment import Experiment
from autotuner.report.figures import number
from autotuner.report.refused import Refused, reasons, records
from autotuner.scoring.confirm import gain
from autotuner.scoring.rank import Ranking
from autotuner.search.account import Account


def sentences(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, account: Account) -> list[str]:
    """Launches and load points against the whole grid, the baseline, the gain, why it stopped."""
    return [
        *_spent(trials, experiment, account),
        *_baseline(ranking, trials),
        *_gain(ranking, trials, experiment),
        *([f"The search stopped: {account.stopped}."] if account.stopped else []),
    ]


def left_out(account: Account, experiment: Experiment) -> list[str]:
    """One line for each reason for which candidates were not launched."""
    skipped: Refused = account.skipped
    return reasons(skipped, experiment)


def search_record(
    ranking: Ranking, trials: Sequence[Trial], experiment: Experiment, account: Account
) -> dict[str, Any]:
    """The same as JSON-ready data; `gain` is None where nothing was confirmed."""
    found = gain(ranking, trials, experiment)
    searching = [trial for trial in trials if trial.purpose != "confirmation"]
    return {
        "strategy": experiment.optimization.strategy,
        "launches": len(searching),
        "confirmations": len(trials) - len(searching),
        "load_points": _load_points(searching),
        "gain": {**asdict(found), "reliable": found.reliable} if found else None,
        "stopped": account.stopped,
        "skipped": records(account.skipped),
    }


def _spent(trials: Sequence[Trial], experiment: Experiment, account: Account) -> list[str]:
    searching = [trial for trial in trials if trial.purpose != "confirmation"]
    again = len(trials) - len(searching)
    candidates = sum(trial.purpose == "search" for trial in searching) + len(account.skipped)
    more = f", and {again} launches to confirm the winner" if again else ""
    used = f"The search took {_count(len(searching), 'launch', 'launches')} and "
    used += f"{_count(_load_points(searching), 'load point', 'load points')}{more}"
    if experiment.benchmark.find_capacity:
        return [f"{used}; a grid over the same candidates takes {_count(candidates, 'launch', 'launches')}."]
    grid = candidates * len(experiment.workload().load_points)
    takes = f"{_count(candidates, 'launch', 'launches')} and {_count(grid, 'load point', 'load points')}"
    return [f"{used}; a grid over the same candidates takes {takes}."]


def _baseline(ranking: Ranking, trials: Sequence[Trial]) -> list[str]:
    first = next((trial for trial in trials if trial.purpose == "baseline"), None)
    standing = next((s for s in ranking.standings if first and s.trial == first.number), None)
    if standing is None:
        return []
    if standing.value is None:
        return [f"The engine's own defaults, trial {standing.trial}, gave no figure: {standing.reason}."]
    return [
        f"The engine's own defaults, trial {standing.trial}, gave {number(standing.value)} {ranking.unit}: "
        f"{standing.reason}."
    ]


def _gain(ranking: Ranking, trials: Sequence[Trial], experiment: Experiment) -> list[str]:
    if ranking.winner is None or not any(trial.purpose == "baseline" for trial in trials):
        return []
    if any(trial.number == ranking.winner.trial and trial.purpose == "baseline" for trial in trials):
        return ["Nothing that was tried is better than the engine's own defaults."]
    found = gain(ranking, trials, experiment)
    if found is None:
        return ["The gain over the engine's own defaults was not confirmed on fresh launches."]
    said = (
        f"{found.value:.2f} times the engine's own defaults (95% interval {found.low:.2f} to {found.high:.2f}; "
        f"{found.winner} and {found.baseline} launches)"
    )
    return [f"Confirmed: {said}." if found.reliable else f"No reliable gain: {said}."]


def _load_points(trials: Sequence[Trial]) -> int:
    return sum(len(trial.measurement.load_points) for trial in trials)


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
