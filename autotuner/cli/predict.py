"""`autotune predict`: performance predictions without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from autotuner.cli.help_page import HelpGroup
from autotuner.cli.load_options import HARDWARE, JSON_OPTION, LOAD, OUTPUT, option
from autotuner.cli.option_sets import with_option_sets
from autotuner.cli.predict_options import QuestionOptions, RankingOptions, SizingQuestionOptions
from autotuner.errors import UsageError

DEFAULT_COMMANDS = ("rank", "point")
"""What is meant without the name of a command: the first of these that has all the options given, else the first."""
_POINT = "`autotune predict point` predicts one deployment at one load."
_RANKING = "`autotune predict rank` and `autotune predict size` compare deployments."
OPTION_HOMES = {
    **dict.fromkeys(("--tp", "--pp", "--dp", "--ep", "--concurrency"), _POINT),
    **dict.fromkeys(("--decode-gpu", "--total-gpus", "--plot", "--output"), _RANKING),
    "--rate": f"`autotune predict size` finds the fewest GPUs for a rate. {_POINT}",
    "--target-rate": "`autotune predict size --rate R` finds the fewest GPUs for a rate.",
    "--sweep": "`autotune predict rank` ranks all layouts and loads.",
    "--table": "`autotune predict table FILE` predicts the rows of a CSV file.",
}
"""For options that only other commands of the group have, or had under another name, what those commands do."""


class PredictGroup(HelpGroup):
    """A group that takes options without the name of a command: those of a ranking, or of one deployment."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add the name of the default command, and name the command that has an option where this one has not."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            fitting = [name for name in DEFAULT_COMMANDS if not self._foreign_option(name, args)]
            args = [*(fitting or DEFAULT_COMMANDS)[:1], *args]
        if args and args[0] in self.commands and (foreign := self._foreign_option(args[0], args[1:])):
            raise UsageError(f"`autotune predict {args[0]}` has no {foreign}.", remedy=OPTION_HOMES[foreign])
        return super().parse_args(ctx, args)

    def _foreign_option(self, name: str, args: Sequence[str]) -> str | None:
        """The first option that command `name` has not, and another one has; None if there is none."""
        known = {option_name for parameter in self.commands[name].params for option_name in parameter.opts}
        given = (argument.partition("=")[0] for argument in args)
        return next((option_name for option_name in given if option_name in OPTION_HOMES.keys() - known), None)


app = typer.Typer(
    help="Predict TTFT, TPOT, throughput, memory and cost without a GPU.\n\n"
    "Without a command it is `rank`, or `point` where a layout or a load is given.",
    no_args_is_help=True,
)


@app.command()
@with_option_sets
def rank(
    options: QuestionOptions,
    ranking_options: RankingOptions,
    total_gpus: Annotated[
        int, option("--total-gpus", metavar="N", min=1, help="Number of GPUs to use.", panel=HARDWARE)
    ] = 8,
) -> None:
    """Rank all parallel layouts and loads on a number of GPUs."""
    from autotuner.cli.predict_ranking import show_ranking

    show_ranking(options.question(ranking_options.decode_gpu), options.gpu_type(), total_gpus, ranking_options)


@app.command()
@with_option_sets
def size(
    options: SizingQuestionOptions,
    rate: Annotated[
        float,
        option("--rate", metavar="R", help="Open loop: requests per second with Poisson arrivals.", panel=LOAD),
    ],
    ranking_options: RankingOptions,
    total_gpus: Annotated[
        int | None,
        option("--total-gpus", metavar="N", min=1, help="Number of GPUs at most.", panel=HARDWARE, default="no limit"),
    ] = None,
) -> None:
    """Find the fewest GPUs that sustain a request rate, their type and layout."""
    from autotuner.cli.predict_ranking import show_sizing

    question = options.question(ranking_options.decode_gpu)
    show_sizing(question, options.gpu_types(), rate, total_gpus, ranking_options)


@app.command()
@with_option_sets
def point(
    options: QuestionOptions,
    tp: Annotated[int, option("--tp", metavar="N", min=1, help="Tensor-parallel size.", panel=HARDWARE)] = 1,
    pp: Annotated[int, option("--pp", metavar="N", min=1, help="Pipeline-parallel size.", panel=HARDWARE)] = 1,
    dp: Annotated[int, option("--dp", metavar="N", min=1, help="Data-parallel size (attention).", panel=HARDWARE)] = 1,
    ep: Annotated[
        int,
        option("--ep", metavar="N", min=1, help="Expert-parallel size (mixture-of-experts models).", panel=HARDWARE),
    ] = 1,
    concurrency: Annotated[
        int | None,
        option(
            "--concurrency",
            metavar="N",
            help="Closed loop: requests in flight across the deployment.",
            panel=LOAD,
            default="16",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        option(
            "--rate",
            metavar="R",
            help="Open loop: requests per second with Poisson arrivals, instead of --concurrency.",
            panel=LOAD,
            default="none",
        ),
    ] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Predict one deployment at one load: latency, throughput, time per operator, memory."""
    from autotuner.cli.predict_point import show_closed_loop, show_open_loop, warn_of_rough_model
    from autotuner.predict.layout import Layout

    question = options.question()
    warn_of_rough_model(question)
    load_curve = question.load_curve(options.gpu_type(), Layout(tp=tp, pp=pp, dp=dp, ep=ep))
    if rate is None:
        show_closed_loop(question, load_curve, 16 if concurrency is None else concurrency, as_json=as_json)
    elif concurrency is None:
        show_open_loop(question, load_curve, rate, as_json=as_json)
    else:
        raise UsageError(
            "--rate and --concurrency cannot be combined.",
            why="--rate is an open loop, --concurrency a closed loop.",
            remedy="Give one of them.",
        )


@app.command()
def table(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="CSV file with a deployment and a load in each row.")],
    output: Annotated[
        Path,
        option("--output", "-o", metavar="FILE", help="CSV file for the rows with their predictions.", panel=OUTPUT),
    ],
) -> None:
    """Predict every row of a CSV file."""
    from autotuner.cli import display
    from autotuner.cli.predict_export import read_csv, write_csv
    from autotuner.planning.table import misnamed_columns, with_predictions

    rows = read_csv(path)
    for name, column in misnamed_columns(rows.columns).items():
        display.warning(f"Column '{name}' is not read; if it is the {column}, name it so.")
    predicted = with_predictions(rows)
    write_csv(predicted, output)
    failed = int((predicted["pred_error"] != "").sum())
    display.note(f"{output}: {len(predicted) - failed} rows predicted, {failed} not.")
