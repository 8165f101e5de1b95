"""`--fail-on`: which verdicts make a command exit with 1, for CI gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotuner.cli.load_options import OUTPUT, option

if TYPE_CHECKING:
    from autotuner.errors import AutotuneError
    from autotuner.report.bench.result import BenchResult
    from autotuner.report.run_view import RunView

FAIL_ON_VALUES = ("undecided", "infeasible", "none")
FAIL_ON_OPTION = option(
    "--fail-on",
    metavar="|".join(FAIL_ON_VALUES),
    help="Verdict that exits with 1: infeasible (no result meets the targets), undecided (no result is proven to"
    " meet them), or none.",
    panel=OUTPUT,
)

LONGER_WINDOWS_REMEDY = (
    "Allow longer windows: raise --duration or --max-duration, or --max-requests where that ended them."
)


@dataclass(frozen=True)
class Gate:
    """Which verdicts of a run or load test are failures; having no measurement always is one."""

    fails_on_infeasible: bool = True
    fails_on_undecided: bool = False

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Parse the value of --fail-on; `infeasible` is always included unless it is `none`."""
        from autotuner.errors import UsageError, unknown_name_message

        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in FAIL_ON_VALUES:
                raise UsageError(
                    unknown_name_message("value of --fail-on", name, FAIL_ON_VALUES),
                    remedy=f"Give one of: {', '.join(FAIL_ON_VALUES)}.",
                )
        if "none" in names and len(set(names)) > 1:
            raise UsageError(
                "--fail-on none cannot be combined with other values.",
                why=f"It was given with {', '.join(name for name in names if name != 'none')}.",
                remedy="Keep one of them.",
            )
        return cls(fails_on_infeasible="none" not in names, fails_on_undecided="undecided" in names)

    def check_run(self, view: RunView) -> None:
        """Raise if the winner of a run fails the gate, else warn."""
        from autotuner.cli.results import no_winner_error
        from autotuner.core import Verdict
        from autotuner.errors import UndecidedError

        winner = view.ranking.winner
        if winner is None:
            has_measurement = any(standing.value is not None for standing in view.ranking.standings)
            _raise_or_warn(no_winner_error(view), fails=self.fails_on_infeasible or not has_measurement)
        elif winner.verdict is Verdict.UNDECIDED:
            targets_met = "The winner's targets are met, but not proven."
            too_short = "The winner was measured too briefly to be relied on."
            message = targets_met if view.experiment.slo.terms else too_short
            error = UndecidedError(message, why=winner.reason, remedy=LONGER_WINDOWS_REMEDY)
            _raise_or_warn(error, fails=self.fails_on_undecided)

    def check_load_test(self, result: BenchResult) -> None:
        """Raise if the best load point of a load test fails the gate, else warn."""
        from autotuner.cli.results import VERDICT_REMEDIES
        from autotuner.core import Verdict
        from autotuner.errors import NoFeasibleError, UndecidedError

        points = {point.verdict: point for point in reversed(result.load_points)}
        if Verdict.FEASIBLE in points:
            return
        if (undecided_point := points.get(Verdict.UNDECIDED)) is not None:
            targets_met = "A load point met the targets, and none is proven to."
            undecided_error = UndecidedError(
                targets_met if result.slo.terms else "No load point was measured long enough to be relied on.",
                why=f"{undecided_point.load_point}: {result.reason(undecided_point)}",
                remedy=LONGER_WINDOWS_REMEDY,
            )
            _raise_or_warn(undecided_error, fails=self.fails_on_undecided)
            return
        last = result.load_points[-1]
        no_valid_points = "No load point gave a valid measurement."
        error = NoFeasibleError(
            "No load point met the targets." if result.slo.terms else no_valid_points,
            why=f"The last, {last.load_point}, is {last.verdict}: {result.reason(last)}",
            remedy=VERDICT_REMEDIES.get(last.verdict, ""),
        )
        _raise_or_warn(error, fails=self.fails_on_infeasible)


def _raise_or_warn(error: AutotuneError, *, fails: bool) -> None:
    from autotuner.cli import display

    if fails:
        raise error
    display.warning(str(error))
