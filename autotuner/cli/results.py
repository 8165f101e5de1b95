"""The printed results of a run: ranking, winner, launch command, and errors without a winner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotuner.cli import display
from autotuner.core import Verdict
from autotuner.errors import NoFeasibleError, UsageError, pluralize

if TYPE_CHECKING:
    from autotuner.core import Trial
    from autotuner.experiment import Experiment
    from autotuner.report.refused import RefusedCandidates
    from autotuner.run_report import Result
    from autotuner.runs.store import RunStore
    from autotuner.scoring.rank import Ranking
    from autotuner.search.protocol import SearchReport

SHOWN_CANDIDATES = 20
"""Candidates in the table at the end of a run; `autotune report` has all."""

SHOWN_REASONS = 2
"""Reasons for skipped candidates in the terminal; report.md has all."""


def print_result(result: Result, experiment: Experiment, as_json: bool) -> None:
    """Print the ranking and the winner's launch command, or all results as JSON."""
    if as_json:
        from autotuner.report.record import run_record

        data = run_record(result.ranking, result.trials, experiment, result.refused, result.search_report)
        display.json(
            {
                **data,
                "insecure": experiment.deployment.insecure,
                "run": str(result.path),
                "command": result.command,
                "command_note": result.remark or None,
            }
        )
    else:
        print_ranking(result.ranking, result.trials, experiment, SHOWN_CANDIDATES, result.refused, result.search_report)
        display.sentence(f"run folder  {result.path}  (report.md, pareto.png, trials.jsonl)")
        if result.command:
            display.line("\nLaunch command of the winner:\n")
            if result.remark:
                display.line(f"{result.remark}\n")
            display.text(result.command)


def print_ranking(
    ranking: Ranking,
    trials: Sequence[Trial],
    experiment: Experiment,
    limit: int | None = None,
    refused: RefusedCandidates = (),
    search_report: SearchReport | None = None,
) -> None:
    """Print the ranking with notes, refused candidates, the Pareto frontier, and a sentence about the winner."""
    from autotuner.report.frontier import frontier_table, frontier_title
    from autotuner.report.objective_text import objective_line
    from autotuner.report.refused import reason_lines, refusal_heading
    from autotuner.report.search_summary import search_sentences
    from autotuner.report.summary import winner_sentence
    from autotuner.report.table import ranking_table

    candidates, launches = len(ranking.standings), len(trials)
    title = (
        f"{experiment.model.id_or_path}: {candidates} candidate{'' if candidates == 1 else 's'}, "
        f"{launches} launch{'' if launches == 1 else 'es'}, best first"
        f"{'; certificate not checked' if experiment.deployment.insecure else ''}"
    )
    printed_lines = display.report_table(ranking_table(ranking, trials, experiment, limit), title)
    display.sentence(objective_line(experiment))
    if refused:
        display.line(refusal_heading(refused))
        for line in reason_lines(refused, experiment):
            display.sentence(f"  {line}", indent="    ")
    frontier = frontier_table(trials, experiment)
    if frontier.rows:
        display.line()
        display.report_table(frontier, frontier_title(experiment), printed_lines)
        display.line()
    if ranking.winner:
        display.sentence(winner_sentence(ranking))
    if search_report is not None:
        for text in search_sentences(ranking, trials, experiment, search_report):
            display.sentence(text)
        if search_report.skipped:
            display.sentence(skipped_text(search_report.skipped))


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


def no_winner_error(ranking: Ranking) -> NoFeasibleError:
    """The error of a run without a winner, naming the closest candidate."""
    if not ranking.standings or ranking.standings[0].value is None:
        return NoFeasibleError(
            "No configuration could be measured.", why=_no_measurement_reason(ranking), remedy=LOG_REMEDY
        )
    from autotuner.report.candidate_names import CandidateNames

    best = ranking.standings[0]
    is_infeasible = best.verdict in (None, Verdict.INFEASIBLE)
    return NoFeasibleError(
        "No configuration met the targets." if is_infeasible else "No configuration gave a valid measurement.",
        why=f"The closest is {CandidateNames.from_ranking(ranking).full_name(best.candidate)}: {best.reason}.",
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


LOG_REMEDY = "See its server.log."

VERDICT_REMEDIES: dict[Verdict | None, str] = {
    Verdict.CLIENT_LIMITED: "The load generator was delayed: leave it a CPU core that nothing else uses.",
    Verdict.SATURATED: "The requested rate is above what the server can do: lower --rate.",
    Verdict.INVALID: "The measurement is invalid: see the checks in the report and the server's log.",
}


def find_trial(store: RunStore, number: int | None) -> Trial:
    """Trial `number` of a run, or its winner; UsageError if there is no such trial."""
    from autotuner.scoring.rank import rank

    trials = store.trials()
    if number is None:
        if not trials:
            raise UsageError(
                f"The run '{store.path}' has no finished trial.", remedy=f"autotune run --resume {store.path}"
            )
        ranking = rank(trials, store.experiment)
        if ranking.winner is None:
            raise no_winner_error(ranking)
        number = ranking.winner.trial_number
    for trial in trials:
        if trial.number == number:
            return trial
    finished_numbers = ", ".join(str(trial.number) for trial in trials) or "none"
    raise UsageError(
        f"The run '{store.path}' has no finished trial {number}.", remedy=f"Finished trials: {finished_numbers}."
    )
