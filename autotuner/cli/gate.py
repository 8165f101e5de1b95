"""`--fail-on`: which verdicts end a command with exit code 1, so that a pipeline can be gated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotuner.cli.load_options import OUTPUT, option

if TYPE_CHECKING:
    from autotuner.errors import AutotuneError
    from autotuner.report.bench.result import BenchResult
    from autotuner.scoring.rank import Ranking

VALUES = ("undecided", "infeasible", "none")
FAIL_ON = option(
    "--fail-on",
    metavar="|".join(VALUES),
    help="Verdict that exits with 1: infeasible (nothing meets the targets), undecided (nothing is proven to meet"
    " them), or none.",
    panel=OUTPUT,
)

LONGER = "Let windows go on longer: --max-duration, or --max-requests where that ended them."


@dataclass(frozen=True)
class Gate:
    """What fails: nothing that meets the targets, and a winner whose targets are met but not proven.

    Where nothing could be measured there is nothing to judge, and every gate fails.
    """

    infeasible: bool = True
    undecided: bool = False

    @classmethod
    def read(cls, text: str) -> Gate:
        """The gate of `undecided,infeasible`; one that asks for proof does not accept a miss either."""
        from autotuner.errors import UsageError, unknown

        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in VALUES:
                raise UsageError(
                    unknown("value of --fail-on", name, VALUES), remedy=f"Give one of: {', '.join(VALUES)}."
                )
        if "none" in names and len(set(names)) > 1:
            raise UsageError(
                "--fail-on none says that nothing fails.",
                why=f"It stands beside {', '.join(name for name in names if name != 'none')}.",
                remedy="Keep one of them.",
            )
        return cls(infeasible="none" not in names, undecided="undecided" in names)

    def judge(self, ranking: Ranking) -> None:
        """Raise what fails; what does not is a warning."""
        from autotuner.cli.results import no_winner
        from autotuner.core import Verdict
        from autotuner.errors import UndecidedError

        winner = ranking.winner
        if winner is None:
            measured = any(standing.value is not None for standing in ranking.standings)
            _end(no_winner(ranking), fails=self.infeasible or not measured)
        elif winner.verdict is Verdict.UNDECIDED:
            error = UndecidedError("The winner's targets are met, but not proven.", why=winner.reason, remedy=LONGER)
            _end(error, fails=self.undecided)

    def judge_load_test(self, result: BenchResult) -> None:
        """The same for a load test, whose best load point counts."""
        from autotuner.cli.results import REMEDIES
        from autotuner.core import Verdict
        from autotuner.errors import NoFeasibleError, UndecidedError

        points = {point.result.verdict: point for point in reversed(result.load_points)}
        if Verdict.FEASIBLE in points:
            return
        if (open_one := points.get(Verdict.UNDECIDED)) is not None:
            undecided = UndecidedError(
                "A load point met the targets, and none is proven to.",
                why=f"{open_one.result.load_point}: {result.reason(open_one)}",
                remedy=LONGER,
            )
            _end(undecided, fails=self.undecided)
            return
        last = result.load_points[-1]
        nothing = "No load point gave figures that can be trusted."
        error = NoFeasibleError(
            "No load point met the targets." if result.slo.terms else nothing,
            why=f"The last, {last.result.load_point}, is {last.result.verdict}: {result.reason(last)}",
            remedy=REMEDIES.get(last.result.verdict, ""),
        )
        _end(error, fails=self.infeasible)


def _end(error: AutotuneError, *, fails: bool) -> None:
    from autotuner.cli import display

    if fails:
        raise error
    display.warning(str(error))
