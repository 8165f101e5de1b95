"""Formats numbers, intervals, loads and candidates as short text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from autotuner.core import Candidate, Distribution, Failure, LoadPoint, Share, Source, Value
from autotuner.errors import as_sentence, shorten_middle
from autotuner.scoring.rank import Ranking

SOURCE_NOTES: dict[Source, str] = {
    "simulated": "Simulated: the figures come from the simulated engine, not from a measured server.",
    "predicted": "Predicted: the figures come from an analytical model; no server ran.",
}


MIN_EXPONENT, MAX_EXPONENT = -4, 15
"""Decimal exponents between which a number is written out."""

MAX_VALUE_CHARACTERS = 40
"""Maximum length of a parameter's value in a candidate's name; longer ones lose their middle."""


def format_number(value: float | None, digits: int = 3) -> str:
    """Number with `digits` significant figures and thousands separators; tiny values as `<0.0001`."""
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.split("e")[1])
    if exponent < MIN_EXPONENT:
        return f"<{10.0**MIN_EXPONENT:.4f}" if value > 0 else f">-{10.0**MIN_EXPONENT:.4f}"
    if exponent > MAX_EXPONENT:
        return scientific
    return f"{float(scientific):,.{max(0, digits - 1 - exponent)}f}"


def format_statistic(distribution: Distribution | None, statistic: str, scale: float = 1.0) -> str:
    """A statistic with its 95% confidence interval; `209 (204-)` has no upper limit: too few samples."""
    if distribution is None:
        return ""
    text = format_number(getattr(distribution, statistic) * scale)
    if statistic not in distribution.intervals:
        return text
    low, high = distribution.intervals[statistic]
    if high is None and not low:
        return text
    return f"{text} ({format_number(low * scale)}-{'' if high is None else format_number(high * scale)})"


def format_estimate(value: float | None, interval: tuple[float, float] | None, scale: float = 1.0) -> str:
    """A value with its 95% confidence interval, if it has one."""
    if value is None:
        return ""
    if interval is None:
        return format_number(value * scale)
    return f"{format_number(value * scale)} ({format_number(interval[0] * scale)}-{format_number(interval[1] * scale)})"


_INTERVAL_PATTERN = re.compile(r"[\d,.<]+%? \([\d,.<]+-([\d,.]*)\)")


def interval_legend(cells: Iterable[str]) -> str:
    """Explanation of the intervals and open ends in these cells; empty if there are none."""
    intervals = [(cell, match[1]) for cell in cells if (match := _INTERVAL_PATTERN.fullmatch(cell))]
    if not intervals:
        return ""
    unbounded = next((cell for cell, high in intervals if not high), None)
    open_end_text = f"; an open end, as in {unbounded}, means too few requests for a limit" if unbounded else ""
    return f"95% confidence intervals in parentheses{open_end_text}."


def format_share(value: Share | None) -> str:
    """A share in percent with its 95% confidence interval."""
    if value is None:
        return ""
    return f"{value.value:.0%} ({value.low * 100:.0f}-{value.high * 100:.0f})"


def format_load(point: LoadPoint) -> str:
    """The load of a load point: its concurrency, or its rate as `4/s`."""
    return f"{point.rate:g}/s" if point.concurrency is None else f"{point.concurrency}"


def candidate_label(candidate: Candidate, names: Sequence[str], *, runtime: bool = False) -> str:
    """The candidate's values of these parameters; with its runtime on request or if it has none of them."""
    settings = ((name, candidate.parameters[name]) for name in names if name in candidate.parameters)
    parts = [f"{name}={shorten(format_setting(value))}" for name, value in settings]
    return " ".join([candidate.runtime, *parts] if runtime or not parts else parts)


def format_setting(value: Value) -> str:
    """A parameter's value as written in YAML."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def shorten(text: str, max_characters: int = MAX_VALUE_CHARACTERS) -> str:
    """Cut the middle out of text longer than `max_characters`."""
    return shorten_middle(text, max_characters)


def source_note(ranking: Ranking) -> str:
    """Note on figures that were not measured, and on mixed sources; empty if all were measured."""
    notes = [SOURCE_NOTES[source] for source in ranking.sources if source in SOURCE_NOTES]
    if len(ranking.sources) > 1:
        notes.append("Figures of different sources are not comparable.")
    return " ".join(notes)


def failure_text(failure: Failure) -> str:
    """A failure in sentences: its class, the engine's own words, and what to do."""
    words = as_sentence(f"{failure.kind.value}: {failure.message}")
    return f"{words} {as_sentence(failure.remedy)}" if failure.remedy else words
