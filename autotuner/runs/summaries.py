"""Trials of a large run without what only their details show, and an index of them beside trials.jsonl.

A load point takes about 7 kB in trials.jsonl, and a quarter of that in memory without the figures that neither verdict,
ranking nor chart is made of. The index, trials.index, spares reading the whole: it holds the summaries of the first
lines of trials.jsonl, with the number and the checksum of their bytes. One whose checksum is another is made anew.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from autotuner import __version__
from autotuner.core import Distribution, LoadPoint, LoadPointResult, Metrics, Trial, Verdict
from autotuner.experiment import Experiment
from autotuner.output_files import write_whole
from autotuner.runs.trial_lines import trial_adapter
from autotuner.scoring.judge import judge
from autotuner.scoring.objective import OBJECTIVES

INDEX_FILE = "trials.index"

MIN_INDEXED_BYTES = 32 << 20
"""Size of trials.jsonl from which on its trials are summarized: about 4,500 load points."""

MAX_COMPLETE_LOAD_POINTS = 2_000
"""Load points of all trials together up to which no run is summarized: reports show all figures of each."""

MIN_ADDED_BYTES = 16 << 20
"""Bytes of trials.jsonl that an index may lack before it is written anew: a fifth of a second to read."""

INDEX_FORMAT = 1
SHOWN_INTERVALS: Mapping[str, Sequence[str]] = {
    "ttft": ("mean", "p99"),
    "tpot": ("mean",),
    **dict.fromkeys(("e2e", "ttft_from_schedule", "e2e_from_schedule"), ()),
}
"""The distributions that tables and charts show, with the statistics whose intervals they show."""

SHOWN_RATE = "output_throughput"
"""The rate whose interval is shown, besides those of targets and of the objective."""

CAPACITY_CHECKS = frozenset({"littles-law"})
"""Checks that a search for capacities looks at though they passed."""

_DISTRIBUTIONS = tuple(each.name for each in fields(Metrics) if "Distribution" in str(each.type))
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SummaryContent:
    """What a summary keeps, by name.

    `distributions` maps those of a load point to the statistics whose intervals are kept; `target_statistics` are kept
    with errors counted as well; then the intervals of `rates`, and of the checks that passed those in `checks`.
    """

    distributions: Mapping[str, frozenset[str]]
    target_statistics: frozenset[str]
    rates: frozenset[str]
    checks: frozenset[str]

    @classmethod
    def of(cls, experiment: Experiment) -> SummaryContent:
        """What verdicts, ranking, search and charts of this experiment are made of."""
        terms, objective = experiment.slo.terms, OBJECTIVES[experiment.optimization.objective]
        of_targets = {each for term in terms for each in (term.statistic, term.scored_statistic)}
        names = {*SHOWN_INTERVALS, *({"itl"} if any(term.metric == "itl" for term in terms) else ())}
        return cls(
            distributions={
                name: frozenset(
                    {*of_targets, *SHOWN_INTERVALS.get(name, ()), *(("mean",) if name == objective.metric else ())}
                )
                for name in sorted(names)
            },
            target_statistics=frozenset(of_targets),
            rates=frozenset({SHOWN_RATE, objective.metric, *(term.metric for term in terms)}),
            checks=CAPACITY_CHECKS if experiment.benchmark.find_capacity else frozenset(),
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "distributions": {name: sorted(statistics) for name, statistics in self.distributions.items()},
            **{name: sorted(getattr(self, name)) for name in ("target_statistics", "rates", "checks")},
        }


def summarize(trial: Trial, content: SummaryContent) -> Trial:
    """The trial without what only its details show, and without verdicts and scores, which `judge` gives it again."""
    points = tuple(_summarize_point(result, content) for result in trial.measurement.load_points)
    return replace(trial, measurement=replace(trial.measurement, load_points=points))


def _summarize_point(result: LoadPointResult, content: SummaryContent) -> LoadPointResult:
    metrics = result.metrics
    changes: dict[str, Any] = {
        name: _summarize_distribution(value, name, content) if name in content.distributions else None
        for name in _DISTRIBUTIONS
        if (value := getattr(metrics, name)) is not None
    }
    metrics = replace(
        metrics,
        **changes,
        intervals=_kept(metrics.intervals, content.rates),
        errors=metrics.errors or _NOTHING,
        token_counts=metrics.token_counts or _NOTHING,
    )
    return replace(
        result,
        metrics=metrics,
        validity=tuple(check for check in result.validity if not check.ok or check.name in content.checks),
        verdict=Verdict.UNDECIDED,
        score=None,
        error_messages=result.error_messages or _NOTHING,
    )


def _summarize_distribution(distribution: Distribution, name: str, content: SummaryContent) -> Distribution:
    return replace(
        distribution,
        intervals=_kept(distribution.intervals, content.distributions[name]),
        adjusted=_kept(distribution.adjusted, content.target_statistics),
        adjusted_intervals=_kept(distribution.adjusted_intervals, content.target_statistics),
    )


_NOTHING: Mapping[str, Any] = {}


def _kept(values: Mapping[str, Any], names: Container[str]) -> Mapping[str, Any]:
    return {name: value for name, value in values.items() if name in names} or _NOTHING


@dataclass
class Index:
    """Judged summaries of the first `covered` bytes of trials.jsonl, which are `lines` lines and have this CRC-32."""

    experiment: Experiment
    covered: int = 0
    lines: int = 0
    checksum: int = 0
    trials: list[Trial] = field(default_factory=list)
    _load_points: dict[LoadPoint, LoadPoint] = field(default_factory=dict)

    def start_of_rest(self) -> Index:
        """The same as a new one, to add the lines that come after it."""
        return replace(self, trials=list(self.trials))

    def add(self, line: bytes, summary: Trial | None) -> None:
        """Add the next line of trials.jsonl; None is one without a trial."""
        self.covered, self.lines = self.covered + len(line), self.lines + 1
        self.checksum = zlib.crc32(line, self.checksum)
        if summary is not None:
            self.trials.append(self._judged(summary))

    def _judged(self, trial: Trial) -> Trial:
        """The trial with its verdicts; its load points are the same objects as in others, which have equal ones."""
        for result in trial.measurement.load_points:
            point = self._load_points.setdefault(result.load_point, result.load_point)
            object.__setattr__(result, "load_point", point)
        return judge(trial, self.experiment)

    def add_summaries(self, rows: Iterable[bytes]) -> None:
        """Add the trials of rows of an index; ValidationError where one is none."""
        self.trials += [self._judged(trial_adapter().validate_json(row)) for row in rows]


def read_index(folder: Path, lines: BinaryIO, experiment: Experiment) -> Index:
    """The index of a run folder if it is that of these lines; an empty one where there is none, or another's.

    `lines` is trials.jsonl, and is left at the first byte that the index does not cover.
    """
    content = SummaryContent.of(experiment)
    try:
        with (folder / INDEX_FILE).open("rb") as file:
            head = json.loads(file.readline())
            index = Index(experiment, int(head["covered"]), int(head["lines"]), int(head["checksum"]))
            if _checksum(lines, index.covered) == index.checksum:
                index.add_summaries(file)
                if head == _head(index, content):
                    return index
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass  # missing, damaged, or of another version: all that it has is in trials.jsonl
    lines.seek(0)
    return Index(experiment)


def write_index(folder: Path, index: Index) -> None:
    """Write an index; nothing where the folder cannot be written: then all lines are read again next time."""
    content = SummaryContent.of(index.experiment)
    head = json.dumps(_head(index, content)).encode()
    summaries = (summarize(trial, content) for trial in index.trials)
    rows = (trial_adapter().dump_json(trial, exclude_defaults=True) for trial in summaries)
    with contextlib.suppress(OSError):
        write_whole(folder / INDEX_FILE, b"\n".join((head, *rows, b"")))


def _head(index: Index, content: SummaryContent) -> dict[str, Any]:
    return {
        "format": INDEX_FORMAT,
        "autotune": __version__,
        **content.as_json(),
        "covered": index.covered,
        "lines": index.lines,
        "checksum": index.checksum,
        "trials": len(index.trials),
    }


def _checksum(file: BinaryIO, count: int) -> int | None:
    """The CRC-32 of the first bytes of a file, which is left behind them; None where it has fewer."""
    checksum, bytes_left = 0, count
    file.seek(0)
    while bytes_left:
        chunk = file.read(min(bytes_left, _CHUNK_BYTES))
        if not chunk:
            return None
        checksum, bytes_left = zlib.crc32(chunk, checksum), bytes_left - len(chunk)
    return checksum
