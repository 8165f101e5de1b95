"""The gate of a pipeline: which gated figures are worse beyond doubt, and whether that is enough to fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autotuner.compare.changes import Change, holm_rejections
from autotuner.compare.comparison import Comparison, GatedFigure


class GateState(StrEnum):
    """Whether a gated figure, or the gate as a whole, passes."""

    PASSES = "passes"
    WORSE = "worse"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class GateDecision:
    """The state of every gated figure, in the order of the comparison's."""

    figures: tuple[tuple[GatedFigure, GateState], ...]

    @property
    def state(self) -> GateState:
        """Worse if a figure is, else unclear if one is."""
        states = [state for _, state in self.figures]
        return next((s for s in (GateState.WORSE, GateState.UNCLEAR) if s in states), GateState.PASSES)

    def in_state(self, state: GateState) -> list[GatedFigure]:
        return [figure for figure, each in self.figures if each is state]


def decide(comparison: Comparison) -> GateDecision:
    """Each gated figure's state: worse by Holm's method over all of them, passing if at most the tolerance worse."""
    figures = comparison.gated
    p_values = [_worse_p_value(figure, comparison.tolerance) for figure in figures]
    return GateDecision(
        tuple(
            (figure, _state(figure, is_worse, comparison.tolerance))
            for figure, is_worse in zip(figures, holm_rejections(p_values), strict=True)
        )
    )


def _worse_p_value(figure: GatedFigure, tolerance: float) -> float:
    if figure.ratio is None:
        return 0.0 if figure.change is Change.WORSE else 1.0
    return figure.ratio.worse_p_value(tolerance)


def _state(figure: GatedFigure, is_worse: bool, tolerance: float) -> GateState:
    if is_worse:
        return GateState.WORSE
    if figure.ratio is not None and figure.ratio.excludes_worse(tolerance):
        return GateState.PASSES
    return GateState.UNCLEAR


def failed_figures_text(comparison: Comparison, decision: GateDecision) -> str:
    """The gated figures in the state of the gate, in one clause: `attainment of after is unclear`."""
    names = [figure.name for figure in decision.in_state(decision.state)]
    verb = "is" if len(names) == 1 else "are"
    return f"{' and '.join(names)} {verb} {decision.state} in {comparison.new.name}"


def needs_another_pair(decisions: Sequence[GateDecision]) -> bool:
    """Whether fresh pairs go on, after the decisions so far: while unclear, and until *worse* survived a fresh pair."""
    if not decisions or decisions[-1].state is GateState.UNCLEAR:
        return True
    if decisions[-1].state is GateState.PASSES:
        return False
    return len(decisions) < 2 or decisions[-2].state is not GateState.WORSE
