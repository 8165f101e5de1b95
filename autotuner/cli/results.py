"""The printed results of a run: ranking, winner, launch command, errors without a winner; tables of a load test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotuner.cli import display
from autotuner.core import Verdict
from autotuner.errors import NoFeasibleError, UsageError, as_sentence, pluralize
from autotuner.escaping import for_shell

if TYPE_CHECKING:
    from autotuner.core import Trial
    from autotuner.report.bench.result import BenchResult
    from autotuner.report.refused import RefusedCandidates
    from autotuner.report.run_view import RunView
    from autotuner.run_report import Result
    from autotuner.runs.store import RunStore
    from autotuner.scoring.rank import Ranking

SHOWN_CANDIDATES = 20
"""Candidates in the table at the end of a run; `autotune report` has more."""

REPORTED_CANDIDATES = 100
"""Candidates in the table of `autotune report`; its other formats have all."""

MAX_TABLE_ROWS = 200
"""Rows of a table in the terminal: one for each load point that a candidate is ranked by."""

SHOWN_REFUSALS = 20
"""Reasons for refused combinations in the terminal; report.md has more."""

SHOWN_REASONS = 2
"""Reasons for skipped candidates in the terminal; report.md has all."""


def print_result(result: Result, as_json: bool) -> None:
    """Print the ranking and the winner's launch command, or all results as JSON."""
    if as_json:
        from autotuner.report.record import is_brief, run_record

        insecure = result.view.experiment.deployment.insecure
        data = {"run": str(result.path), "command": result.command, "command_note": result.remark or None}
        display.json(run_record(result.view) | {"insecure": insecure} | data, compact=is_brief(result.view))
    else:
        print_ranking(result.view, SHOWN_CANDIDATES)
        display.sentence(f"run folder  {result.path}  (report.html, report.md, pareto.png, trials.jsonl)")
        if result.command:
            display.line("\nLaunch command of the winner:\n")
            if result.remark:
                display.line(f"{result.remark}\n")
            display.text(result.command)


def print_ranking(view: RunView, limit: int = REPORTED_CANDIDATES) -> None:
    """Print the ranking with notes, refused candidates, the Pareto frontier, and sentences about winner and search."""
    from autotuner.report.environment_text import environment_sentence
    from autotuner.report.forecast_table import FORECAST_TITLE, forecast_table
    from autotuner.report.frontier import frontier_table, frontier_title
    from autotuner.report.objective_text import objective_line
    from autotuner.report.refused import reason_lines, refusal_heading
    from autotuner.report.search_summary import search_sentences
    from autotuner.report.summary import common_failure_sentence, winner_sentence
    from autotuner.report.table import ranking_table

    experiment, refused, skipped = view.experiment, view.refused, view.search_report.skipped
    candidates, launches = len(view.ranking.standings), len(view.trials)
    title = (
        f"{experiment.model.id_or_path}: {candidates} candidate{'' if candidates == 1 else 's'}, "
        f"{launches} launch{'' if launches == 1 else 'es'}, best first"
        f"{'; certificate not checked' if experiment.deployment.insecure else ''}"
    )
    if headline := common_failure_sentence(view):
        display.sentence(headline)
    printed_lines = display.report_table(ranking_table(view, limit, MAX_TABLE_ROWS), title)
    display.sentence(objective_line(experiment))
    if refused:
        display.line(refusal_heading(refused))
        for line in reason_lines(refused, experiment, SHOWN_REFUSALS):
            display.sentence(f"  {line}", indent="    ")
    frontier = frontier_table(view)
    if frontier.rows:
        display.line()
        display.report_table(frontier, frontier_title(experiment), printed_lines)
        display.line()
    forecasts = forecast_table(view)
    if forecasts.rows:
        display.report_table(forecasts, FORECAST_TITLE)
        display.line()
    skipped_sentences = [skipped_text(skipped)] if skipped else []
    for text in (winner_sentence(view), *search_sentences(view), *skipped_sentences, environment_sentence(view)):
        if text:
            display.sentence(text)


def print_load_test(result: BenchResult, output_format: str) -> None:
    """Print a load test as tables, JSON or CSV."""
    from autotuner.report.bench.record import bench_csv, bench_record

    if output_format == "json":
        display.json(bench_record(result))
    elif output_format == "csv":
        display.text(bench_csv(result))
    else:
        _print_load_test_tables(result)


def _print_load_test_tables(result: BenchResult) -> None:
    """Print latencies, verdicts and checks, and the capacities that were looked for."""
    from autotuner.report.bench import table as bench_tables

    if not result.load_points:
        return
    scenarios = ", ".join(dict.fromkeys(point.load_point.scenario for point in result.load_points))
    unchecked = ", certificate not checked" if result.experiment.deployment.insecure else ""
    heading = f"{result.model} at {result.url}{unchecked}, {result.source}, {scenarios}"
    tables = [(heading, bench_tables.latency_table(result)), ("", bench_tables.verdict_table(result))]
    tables += [(f"checks, {scenario}", checks) for scenario, checks in bench_tables.check_tables(result).items()]
    for title, contents in tables:
        display.report_table(contents, title)
        display.line()
    for sentence in bench_tables.capacity_sentences(result):
        display.sentence(sentence)


def skipped_text(skipped: RefusedCandidates) -> str:
    """How many candidates the search skipped, with the most frequent reasons."""
    from autotuner.report.refused import group_by_reason

    grouped = sorted(group_by_reason(skipped).items(), key=lambda item: -len(item[1]))
    has_several = len(grouped) > 1
    reasons = [
        f"{reason} ({len(candidates)})" if has_several else reason for reason, candidates in grouped[:SHOWN_REASONS]
    ]
    other_count = sum(len(candidates) for _, candidates in grouped[SHOWN_REASONS:])
    reasons += [f"{other_count} for other reasons"] if other_count else []
    verb, pronoun = ("was", "it") if len(skipped) == 1 else ("were", "them")
    count = pluralize(len(skipped), "candidate")
    return f"{count} {verb} not launched: {'; '.join(reasons)}. report.md names {pronoun}."


def no_winner_error(view: RunView) -> NoFeasibleError:
    """The error of a run without a winner, naming the closest candidate."""
    ranking = view.ranking
    if not ranking.standings or ranking.standings[0].value is None:
        return NoFeasibleError(
            "No configuration could be measured.", why=_no_measurement_reason(ranking), remedy=_failure_remedy(ranking)
        )
    best = ranking.standings[0]
    is_infeasible = best.verdict in (None, Verdict.INFEASIBLE)
    return NoFeasibleError(
        "No configuration met the targets." if is_infeasible else "No configuration gave a valid measurement.",
        why=f"The closest is {view.names.full_name(best.candidate)}: {best.reason}",
        remedy=VERDICT_REMEDIES.get(best.verdict, "Loosen the SLO, lower the load, or widen the parameters."),
    )


def _no_measurement_reason(ranking: Ranking) -> str:
    match len(ranking.standings):
        case 0:
            return "Nothing was launched."
        case 1:
            return f"The only candidate gave no figure: {ranking.standings[0].reason}"
        case count:
            return f"None of {count} candidates gave a figure; the first: {ranking.standings[0].reason}"


def _failure_remedy(ranking: Ranking) -> str:
    """The remedy of the first candidate's failure, and where its log is."""
    first = ranking.standings[0] if ranking.standings else None
    if first is None or first.failure is None:
        return "See its server.log."
    return f"{as_sentence(first.failure.remedy)} See {LOG_FILE.format(first.trial_number)} in the run folder.".strip()


LOG_FILE = "trials/{:03d}/server.log"

VERDICT_REMEDIES: dict[Verdict | None, str] = {
    Verdict.CLIENT_LIMITED: "The load generator was delayed: leave it a CPU core that nothing else uses.",
    Verdict.SATURATED: "The requested rate is above what the server can do: lower --rate.",
    Verdict.INVALID: "The measurement is invalid: see the checks in the report and the server's log.",
}


def find_trial(store: RunStore, number: int | None) -> Trial:
    """Trial `number` of a run, or its winner; UsageError if there is no such trial."""
    from autotuner.report.run_view import RunView

    trials = store.summaries()
    if number is None:
        if not trials:
            raise UsageError(
                f"The run '{store.path}' has no finished trial.",
                remedy=f"Resume it: autotune run --resume {for_shell(str(store.path))}",
            )
        view = RunView.of(trials, store.experiment, are_judged=True)
        if view.ranking.winner is None:
            raise no_winner_error(view)
        number = view.ranking.winner.trial_number
    if any(trial.number == number for trial in trials):
        return store.trials_numbered({number})[0]
    finished_numbers = ", ".join(str(trial.number) for trial in trials) or "none"
    raise UsageError(
        f"The run '{store.path}' has no finished trial {number}.", remedy=f"Finished trials: {finished_numbers}."
    )
