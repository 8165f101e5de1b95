"""What the gated figures say, in words."""

from __future__ import annotations

from autotuner.compare.changes import Change
from autotuner.compare.compared_run import ComparedRun, RunWords
from autotuner.compare.comparison import Comparison
from autotuner.compare.gate import GateDecision, GateState
from autotuner.compare.gated_figures import GatedFigure, objective_reader, winner_logs

_STATES = {Change.WORSE: GateState.WORSE, Change.UNCLEAR: GateState.UNCLEAR}


def headline(comparison: Comparison, decision: GateDecision | None = None) -> str:
    """The verdict with the figures that decide it: those of the gate's decision, else those that changed."""
    figures = comparison.gated
    baseline, new, words = comparison.baseline, comparison.new, comparison.words
    if not figures:
        lacks = f"no {words.best}" if baseline.winner is None else f"no trusted figures of its {words.best}"
        return f"{baseline.name} has {lacks}, so that there is nothing to compare with."
    if new.winner is None:
        return f"{new.name} has no {words.best} to compare, where {baseline.name} has one."
    states = decision.figures if decision else [(each, _STATES.get(each.change, GateState.PASSES)) for each in figures]
    worse = [figure for figure, state in states if state is GateState.WORSE]
    unclear = [figure for figure, state in states if state is GateState.UNCLEAR]
    if worse:
        return f"{new.name} is worse: {_listed(worse, words)}."
    objective = figures[0]
    if unclear:
        sentences = _unclear_sentences(unclear, words)
        if objective not in unclear and objective.change is Change.BETTER:
            sentences.append(f"Better in {_sized(objective, words)}.")
        return " ".join(sentences)
    return _passing_text(comparison, objective)


def _unclear_sentences(figures: list[GatedFigure], words: RunWords) -> list[str]:
    """One sentence for each reason, with the figures that have it."""
    by_reason: dict[str, list[str]] = {}
    for figure in figures:
        by_reason.setdefault(_unclear_reason(figure, words), []).append(_sized(figure, words))
    return [f"Unclear in {'; '.join(sized)}{reason}." for reason, sized in by_reason.items()]


def _passing_text(comparison: Comparison, objective: GatedFigure) -> str:
    size = _size(objective, comparison.words)
    if objective.change is Change.BETTER:
        return f"{comparison.new.name} is better: {objective.name} {size}."
    if objective.change is Change.SAME:
        return f"No difference beyond {comparison.tolerance:.0%} in {objective.name}: {size}."
    return f"{comparison.new.name} is at most {comparison.tolerance:.0%} worse: {objective.name} {size}."


def _unclear_reason(figure: GatedFigure, words: RunWords) -> str:
    """Why an interval does not decide; empty where there is no ratio, whose reason is in place of its size."""
    if figure.ratio is None:
        return ""
    smallest = figure.ratio.smallest_detectable_change
    if smallest is None:
        return f"; one {words.repetition} a side, and none that was repeated, decides nothing"
    return f"; a change below about {smallest:.1%} could not be told from noise"


def _listed(figures: list[GatedFigure], words: RunWords) -> str:
    sizes = (_size(figure, words) if figure.ratio else f"({figure.change_text})" for figure in figures)
    return "; ".join(f"{figure.name} {size}" for figure, size in zip(figures, sizes, strict=True))


def _sized(figure: GatedFigure, words: RunWords) -> str:
    return f"{figure.name}: {_size(figure, words)}"


def _size(figure: GatedFigure, words: RunWords) -> str:
    if figure.ratio is None:
        return figure.change_text
    counts = figure.ratio.baseline_launches, figure.ratio.new_launches
    launches = (
        f"one {words.repetition} each" if counts == (1, 1) else f"{counts[0]} and {counts[1]} {words.repetitions}"
    )
    return f"{figure.change_text}, {launches}"


def pairs_text(comparison: Comparison) -> str:
    """How many fresh pairs there were, and how many launches of each side gave no objective."""
    words, count = comparison.words, len(comparison.pairs)
    text = f"Decided by {count} fresh pairs of {words.repetitions}."
    sides = (comparison.baseline, comparison.new)
    for side, launches in zip(sides, zip(*comparison.pairs, strict=True), strict=True):
        without = [launch for launch in launches if not winner_logs(launch, objective_reader(comparison))]
        if without:
            text += f" {len(without)} of {count} {words.repetitions} of {side.name} gave no objective{_kinds(without)}."
    return text


def _kinds(launches: list[ComparedRun]) -> str:
    """The kinds of failure of failed launches, in parentheses; empty where none failed."""
    failures = [each.failure for launch in launches for each in launch.candidates.values() if each.failure]
    return f" ({', '.join(dict.fromkeys(failure.partition(':')[0] for failure in failures))})" if failures else ""
