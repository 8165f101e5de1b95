"""`autotune export`: a run in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autotuner.cli.load_options import DEFAULT_RUNS_FOLDER, OUTPUT, RUN_ARGUMENT, RUNS_FOLDER_OPTION, option

if TYPE_CHECKING:
    from autotuner.runs.store import RunStore

FORMAT_NAMES = ("llm-d", "bencher", "github-action-benchmark", "openmetrics", "trace")


def export(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    format: Annotated[
        str,
        option("--format", metavar="|".join(FORMAT_NAMES), help="Format to write.", panel=OUTPUT),
    ] = "llm-d",
    to: Annotated[
        Path | None,
        option("--to", metavar="FOLDER", help="Folder to write to.", panel=OUTPUT, default="RUN/export/FORMAT"),
    ] = None,
    trial: Annotated[
        int, option("--trial", metavar="N", help="Trial of a trace.", panel=OUTPUT, default="the winner's")
    ] = 0,
    load_point: Annotated[
        int,
        option("--load-point", metavar="N", help="Load point of a trace: first, second, ...", panel=OUTPUT),
    ] = 1,
    output: Annotated[Path, RUNS_FOLDER_OPTION] = DEFAULT_RUNS_FOLDER,
) -> None:
    """Write a run for llm-d, Bencher, github-action-benchmark or Prometheus, or a load point for Perfetto."""
    from autotuner.cli import display
    from autotuner.errors import UsageError, unknown_name_message
    from autotuner.redaction import write_redacted
    from autotuner.report.exports import FORMATS
    from autotuner.report.run_view import RunView
    from autotuner.runs.store import RunStore, explain_write_errors, find_run

    if format not in FORMAT_NAMES:
        raise UsageError(unknown_name_message("format", format, FORMAT_NAMES))
    store = RunStore.open(find_run(run, output))
    if format == "trace":
        files = _trace_file(store, trial, load_point)
    else:
        view = RunView.from_store(store)
        files = FORMATS[format](view, store.path.name)
        if not any(trial.results for trial in view.trials):
            raise UsageError(
                f"The run '{store.path}' has no figures to write.", why="None of its load points was measured."
            )
    folder = to or store.path / "export" / format
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_redacted(folder / name, text)
            display.line(str(folder / name))


def _trace_file(store: RunStore, trial_number: int, position: int) -> dict[str, str]:
    from autotuner.errors import UsageError
    from autotuner.load import records
    from autotuner.report.exports.chrome_trace import chrome_trace
    from autotuner.report.run_view import RunView

    if not trial_number:
        winner = RunView.from_store(store).ranking.winner
        if winner is None:
            raise UsageError("The run has no winner to trace.", remedy="Name a trial: --trial N.")
        trial_number = winner.trial_number
    path = store.path / "trials" / f"{trial_number:03d}" / f"records-{position}.npz"
    if not path.is_file():
        available = sorted(str(each.relative_to(store.path)) for each in store.path.glob("trials/*/records-*.npz"))
        raise UsageError(
            f"Trial {trial_number} has no records of load point {position}.",
            why=f"There are: {', '.join(available[:6]) or 'none'}{' ...' if len(available) > 6 else ''}.",
            remedy="Choose with --trial and --load-point; a simulation in virtual time keeps no records.",
        )
    observation = records.read(path)
    title = f"{store.path.name} trial {trial_number}: {observation.load_point}"
    return {f"trial-{trial_number:03d}-{position}.trace.json": chrome_trace(observation, title)}
