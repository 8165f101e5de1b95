"""The head of the page and its verdict card: what was found, how sure it is, and what to type."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from autotuner.core import LoadPoint, LoadPointResult, Verdict
from autotuner.errors import as_sentence, pluralize
from autotuner.experiment import Slo, SloTerm
from autotuner.report.environment_text import ENGINE_NAMES, gpu_text
from autotuner.report.formatting import format_number, format_setting, format_share, source_note
from autotuner.report.objective_text import objective_line
from autotuner.report.page.elements import Element, element
from autotuner.report.page.run_files import RunFiles, RunState
from autotuner.report.run_view import RunView
from autotuner.report.search_summary import gain_sentences, tie_sentences
from autotuner.report.summary import common_failure_sentence
from autotuner.scoring.objective import OBJECTIVES, output_throughput_per_gpu
from autotuner.scoring.rank import Standing

BADGES = {
    "measured": "MEASURED",
    "simulated": "SIMULATED, NOT MEASURED",
    "predicted": "PREDICTED, NOT MEASURED",
}
COMMAND_LABELS = {"shell": "Shell", "docker": "docker run", "compose": "Compose file"}
STATE_TEXTS = {"running": "The run goes on.", "interrupted": "The run was interrupted before its end."}


def page_title(view: RunView) -> str:
    """Model, engine and, unless all was measured, the source: browsers print the title on every sheet."""
    sources = [source for source in view.ranking.sources if source != "measured"]
    source_text = f" ({' and '.join(sources)})" if sources else ""
    return f"{_model(view)} on {view.experiment.base_runtime}{source_text} - autotune"


def head(view: RunView, files: RunFiles) -> Element:
    """What was tuned, on what, for which targets, at what cost; and the badge of its source."""
    experiment = view.experiment
    gpu = gpu_text(view)
    facts = [
        ", ".join(experiment.benchmark.traffic_scenarios),
        targets_text(experiment.slo),
        f"objective {experiment.optimization.objective}",
        pluralize(len(view.trials), "launch", "launches"),
        _duration_text(view),
        f"run {files.name}",
    ]
    badges = [BADGES[source] for source in view.ranking.sources] or ["NOTHING MEASURED YET"]
    return element(
        "header",
        element(
            "div",
            element("h1", f"{_model(view)} on {_engine(view)}{f', {gpu}' if gpu else ''}"),
            element("p", " · ".join(fact for fact in facts if fact), class_="muted"),
            element("p", STATE_TEXTS.get(files.state, ""), class_="state") if files.state != "finished" else None,
        ),
        element("p", " / ".join(badges), class_=f"badge {'measured' if badges == ['MEASURED'] else 'not-measured'}"),
        id="head",
    )


def targets_text(slo: Slo) -> str:
    """All targets in one line: `targets: TTFT ≤ 250 ms, TPOT ≤ 15 ms for 95% of requests`."""
    each = [_term_text(term) for term in slo.terms if term.statistic == "each" and not term.is_minimum]
    others = [_term_text(term) for term in slo.terms if term.statistic != "each" or term.is_minimum]
    parts = [f"{', '.join(each)} for {100 * slo.attainment:g}% of requests"] if each else []
    return f"targets: {'; '.join([*parts, *others])}" if slo.terms else "no targets"


def _term_text(term: SloTerm) -> str:
    if term.is_minimum:
        unit = "requests/s" if term.metric != "output_throughput" else "tokens/s"
        return f"{term.metric.replace('_', ' ')} ≥ {term.threshold:g} {unit}"
    name = {"latency": "E2E"}.get(term.metric, term.metric.upper())
    statistic = "" if term.statistic == "each" else f" {term.statistic}"
    return f"{name}{statistic} ≤ {threshold_text(term.threshold)}"


def threshold_text(seconds: float) -> str:
    """A latency target in ms below a second, else in s, with all its digits."""
    return f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"


def seconds_text(seconds: float | None) -> str:
    """A duration in ms below a second, else in s."""
    if seconds is None:
        return ""
    return f"{format_number(seconds * 1e3)} ms" if seconds < 1 else f"{format_number(seconds)} s"


def _model(view: RunView) -> str:
    return view.experiment.model.id_or_path


def _engine(view: RunView) -> str:
    name = view.experiment.base_runtime
    versions = {
        str(trial.measurement.server["version"])
        for trial in view.trials
        if "version" in trial.measurement.server and trial.measurement.source == "measured"
    }
    return f"{ENGINE_NAMES.get(name, name)} {' and '.join(sorted(versions))}".strip()


def _duration_text(view: RunView) -> str:
    """When it ran, for how long, and the GPU-hours of its launches."""
    if not view.trials:
        return ""
    start, end = min(trial.started for trial in view.trials), max(trial.ended for trial in view.trials)
    hours = sum((trial.ended - trial.started) * trial.candidate.gpus for trial in view.trials) / 3600
    minutes = (end - start) / 60
    length = f"{format_number(minutes / 60)} h" if minutes >= 90 else f"{format_number(max(minutes, 0.1), 2)} min"
    simulated = " of virtual time" if view.ranking.sources == ("simulated",) else ""
    when = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{when}, {length}{simulated}, {format_number(hours, 2)} GPU-hours"


def card(view: RunView, state: RunState, commands: Mapping[str, str]) -> Element:
    """The verdict: the winner with its gain and its command, or the nearest candidate and what it misses."""
    winner = view.ranking.winner
    left = _winner_column(view, winner, state) if winner else _no_winner_column(view, state)
    return element("div", element("div", *left), _commands_column(commands, winner), class_="card", id="verdict")


def _winner_column(view: RunView, winner: Standing, state: RunState) -> list[Element | None]:
    count, so_far = len(view.ranking.standings), "" if state == "finished" else " so far"
    is_default = winner.trial_number == view.ranking.baseline_trial_number
    name = "the engine's own defaults" if is_default else f"trial {winner.trial_number}"
    undecided = winner.verdict is Verdict.UNDECIDED
    return [
        element("p", f"Best of {pluralize(count, 'candidate')}{so_far}: {name}, {winner.verdict}", class_="muted"),
        element("p", *_value_texts(view, winner), class_="value"),
        *(element("p", text, class_="gain") for text in _gain_texts(view, state)),
        *(element("p", text) for text in tie_sentences(view.ranking)),
        element("p", as_sentence(f"Undecided: {winner.reason}; longer windows (--max-duration) would tell"))
        if undecided
        else None,
        _chips(view, winner),
        _operating_points(view, winner),
    ]


def _value_texts(view: RunView, winner: Standing) -> list[Element | str]:
    objective = OBJECTIVES[view.ranking.objective]
    if view.ranking.unit == "s":
        value, unit = seconds_text(winner.value).split()
        interval = [seconds_text(limit) for limit in winner.interval or ()]
    else:
        value, unit = format_number(winner.value), view.ranking.unit
        interval = [format_number(limit) for limit in winner.interval or ()]
    unit_text = unit if objective.is_per_gpu else f"{unit} {objective.label}"
    interval_text = f" 95% confidence interval {interval[0]} to {interval[1]}" if interval else ""
    return [element("strong", value), f" {unit_text}", element("small", interval_text) if interval_text else ""]


def _gain_texts(view: RunView, state: RunState) -> list[str]:
    """What is known of the gain over the defaults; of a run that goes on nothing that only its end can tell."""
    if state == "finished" or view.conclusion.gain is not None:
        return gain_sentences(view.conclusion, view.experiment)
    return ["The gain over the engine's own defaults is not confirmed yet."]


def _chips(view: RunView, winner: Standing) -> Element | None:
    """The winner's settings: those that differ from the engine's own defaults first."""
    defaults = view.ranking.defaults
    if not winner.candidate.parameters:
        return None
    same = dict(defaults.candidate.parameters) if defaults else {}
    changed: list[Element] = []
    kept: list[Element] = []
    for name, value in winner.candidate.parameters.items():
        text = f"{name}={format_setting(value)}"
        is_same = name in same and repr(same[name]) == repr(value)
        (kept if is_same else changed).append(element("li", text, class_=None if is_same else "changed"))
    label = "Settings, changed from the engine's defaults" if defaults else "Settings"
    return element("div", element("p", f"{label}:", class_="muted"), element("ul", *changed, *kept, class_="chips"))


def _operating_points(view: RunView, winner: Standing) -> Element:
    """The winner at the load points that it is ranked by, against the targets."""
    pooled = view.pooled[winner.trial_number].trial
    results = [result for result in pooled.results if result.load_point in winner.load_points]
    gpus = winner.candidate.gpus
    has_targets = bool(view.experiment.slo.terms)
    titles = [
        "load point",
        "output tokens/s/GPU",
        "TTFT p99",
        "TPOT mean",
        *(["within targets"] if has_targets else []),
        "n",
    ]
    rows = [
        element(
            "tr",
            element("th", load_text(result.load_point), scope="row"),
            *(element("td", text, class_="number") for text in _operating_cells(result, gpus, has_targets)),
        )
        for result in results
    ]
    head_cells = (
        element("th", title, scope="col", class_="number" if index else None) for index, title in enumerate(titles)
    )
    table = element("table", element("thead", element("tr", *head_cells)), element("tbody", *rows))
    return element(
        "div",
        element("div", table, class_="scroll", tabindex="0", role="region", aria_label="the winner's load points"),
        element("p", f"T{targets_text(view.experiment.slo)[1:]}.", class_="muted") if has_targets else None,
    )


def _operating_cells(result: LoadPointResult, gpus: int, has_targets: bool) -> list[str]:
    metrics = result.metrics
    return [
        format_number(output_throughput_per_gpu(metrics, gpus)),
        seconds_text(metrics.ttft.p99 if metrics.ttft else None),
        seconds_text(metrics.tpot.mean if metrics.tpot else None),
        *([format_share(metrics.attainment)] if has_targets else []),
        f"{metrics.requests:,}",
    ]


def load_text(point: LoadPoint) -> str:
    """`D(100,100) at 16 in flight`, or `... at 4 requests/s`."""
    load = f"{point.rate:g} requests/s" if point.concurrency is None else f"{point.concurrency} in flight"
    return f"{point.scenario} at {load}"


def _no_winner_column(view: RunView, state: RunState) -> list[Element | None]:
    """Why there is no winner: the common failure, or the nearest candidate and the target that it misses."""
    if not view.trials:
        return [element("p", "No launch has finished yet.", class_="value")]
    so_far = "" if state == "finished" else " so far"
    if common := common_failure_sentence(view):
        return [element("p", element("strong", f"Nothing ran{so_far}"), class_="value"), element("p", common)]
    nearest = view.ranking.standings[0]
    if nearest.value is None:
        return [
            element("p", element("strong", f"Nothing could be measured{so_far}"), class_="value"),
            element("p", as_sentence(f"The first: {view.names.full_name(nearest.candidate)}: {nearest.reason}")),
        ]
    missed = nearest.verdict in (None, Verdict.INFEASIBLE)
    headline = "No candidate meets the targets" if missed else "No candidate gave a valid measurement"
    return [
        element("p", element("strong", f"{headline}{so_far}"), class_="value"),
        element("p", as_sentence(f"Nearest: {view.names.full_name(nearest.candidate)}: {nearest.reason}")),
        _chips(view, nearest),
        _operating_points(view, nearest),
    ]


def _commands_column(commands: Mapping[str, str], winner: Standing | None) -> Element | None:
    """The launch command in every format, the one that was measured open."""
    if not commands:
        return None
    blocks = [
        element(
            "details",
            element("summary", f"{COMMAND_LABELS.get(name, name)}{', as launched' if index == 0 else ''}"),
            element("pre", text.rstrip(), tabindex="0", data_copy=True),
            open=index == 0,
        )
        for index, (name, text) in enumerate(commands.items())
    ]
    owner = "winner" if winner else "nearest candidate"
    return element("div", element("h3", f"Launch command of the {owner}"), *blocks)


def remarks(view: RunView) -> list[str]:
    """What a reader must know before using a figure: its source, and what the objective means."""
    return [text for text in (source_note(view.ranking), objective_line(view.experiment)) if text]
