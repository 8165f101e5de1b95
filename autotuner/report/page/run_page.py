"""The page of a run: its sections from the view, its charts from the content, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotuner import __version__
from autotuner.report.environment_text import environment_lines
from autotuner.report.launch_commands import launch_commands
from autotuner.report.page import tables, verdict
from autotuner.report.page.content import Detail, page_details, page_figures, shown_launches
from autotuner.report.page.document import html_document, inert_json
from autotuner.report.page.elements import Element, element
from autotuner.report.page.run_files import RunFiles, RunState, read_run_files
from autotuner.report.run_view import RunView
from autotuner.report.search_summary import search_sentences
from autotuner.runs.store import RunStore

PAGE_FILE = "report.html"
MAX_BYTES = 2_000_000
ASSET_BYTES = 80_000
"""Room for style, scripts and the frame of the document."""

REDUCTIONS: Sequence[tuple[str, Detail]] = (
    ("", Detail()),
    ("timelines of requests, and logs beyond 5 lines", Detail(timelines=False, log_lines=20, other_log_lines=5)),
    (
        "timelines of requests, logs beyond 5 lines, and single requests of all but the 120 most important load points",
        Detail(timelines=False, log_lines=10, other_log_lines=5, points_with_requests=120),
    ),
    (
        "logs, timelines, and single requests of all but the 40 most important load points",
        Detail(timelines=False, log_lines=0, other_log_lines=0, points_with_requests=40, requests=128),
    ),
    (
        "details of single launches, and single requests of all but the 40 most important load points",
        Detail(timelines=False, launches=False, points_with_requests=40, requests=128),
    ),
    ("details of single launches, and single requests", Detail(timelines=False, launches=False, requests=0)),
)
"""What the page leaves out until it is within its budget, and the detail that remains."""


@dataclass(frozen=True)
class RunPage:
    """The parts of a page: title, sections by id, and the content of its charts."""

    title: str
    sections: dict[str, Element]
    content: dict[str, Any]

    @property
    def html(self) -> str:
        """The page as one file."""
        return html_document(self.title, self.body(), self.content)

    def body(self) -> list[Element]:
        """The elements of the document's body; scripts fill those that are empty."""
        section = self.sections
        script_note = element(
            "noscript",
            element(
                "p",
                "Scripts are blocked here, so the charts are not drawn. The verdict, the command and all tables "
                "are complete.",
                class_="note",
            ),
        )
        return [
            section["head"],
            element(
                "main",
                script_note,
                element(
                    "section", element("h2", "Verdict"), section["verdict"], section["remarks"], id="verdict-section"
                ),
                _chart_section("frontier", "Frontier", section["frontier-table"]),
                _chart_section("loads", "Load"),
                element("section", id="detail", hidden=True, aria_live="polite", aria_label="Details of a candidate"),
                _chart_section("settings", "Which setting matters", section["settings-table"]),
                _chart_section("candidates", "Candidates", section["candidates-table"]),
                element("section", element("h2", "Not launched"), section["not-launched"]),
                element("section", element("h2", "To reproduce"), section["reproduce"]),
            ),
            section["foot"],
        ]


def _chart_section(name: str, title: str, *children: Element) -> Element:
    """A section with room for what scripts draw, above the children."""
    return element("section", element("h2", title), element("div", id=f"{name}-charts"), *children, id=name)


def run_page(
    store: RunStore, view: RunView | None = None, *, state: RunState | None = None, budget: int = MAX_BYTES
) -> RunPage:
    """The page of a run as it is in its folder now; `view` and `state` where they are known already."""
    view = view or RunView.from_store(store, summarized=True)
    files = read_run_files(store, state)
    commanded = view.ranking.winner or next(
        (standing for standing in view.ranking.standings if standing.value is not None), None
    )
    sections = {
        "head": verdict.head(view, files),
        "verdict": verdict.card(view, files.state, launch_commands(view, commanded)),
        "remarks": element(
            "div", *(element("p", text, class_="muted") for text in verdict.remarks(view)), id="remarks"
        ),
        "frontier-table": _named("frontier-table", tables.frontier(view)),
        "settings-table": _named("settings-table", tables.effects(view)),
        "candidates-table": _named("candidates-table", tables.candidates(view)),
        "not-launched": _named("not-launched", _search_notes(view, files), tables.not_launched(view)),
        "reproduce": _named("reproduce", *_reproduction(view, store, files)),
    }
    room = budget - ASSET_BYTES - sum(len(str(section).encode()) for section in sections.values())
    figures = page_figures(view)
    room -= len(inert_json(figures))
    launches = shown_launches(view, store)
    details: dict[str, Any] = {}
    for omitted, detail in REDUCTIONS:  # noqa: B007, the last one stays where even that is too much
        details = page_details(view, launches, store.path, detail)
        if len(inert_json(details)) <= room:
            break
    content = figures | details
    others = len(view.ranking.standings) - len(figures["candidates"])
    omitted = "; ".join(filter(None, (omitted, f"the last {others:,} candidates in its charts" if others else "")))
    sections["foot"] = _foot(omitted)
    content |= {"state": files.state, "run": files.name, "omitted": omitted}
    return RunPage(verdict.page_title(view), sections, content)


def write_page(store: RunStore, view: RunView | None = None) -> None:
    """Write the page of a run at its end, while its process still holds the lock of a run that goes on."""
    store.save(PAGE_FILE, run_page(store, view, state="finished").html)


def _named(name: str, *children: Element) -> Element:
    return element("div", *children, id=name)


def _search_notes(view: RunView, files: RunFiles) -> Element:
    """What the search took and why it stopped; of a run that is not finished only how far it is."""
    if files.state == "finished":
        sentences = search_sentences(view)
    else:
        running = f"; trials without a result yet: {', '.join(map(str, files.unfinished_trials))}"
        sentences = [f"{len(view.trials)} launches finished{running if files.unfinished_trials else ''}."]
    return element("ul", *(element("li", sentence) for sentence in sentences))


def _reproduction(view: RunView, store: RunStore, files: RunFiles) -> list[Element]:
    experiment, winner = view.experiment, view.ranking.winner
    trial = f" --trial {winner.trial_number}" if winner else ""
    commands = "\n".join(
        (f"autotune report {files.name}", f"autotune command {files.name}{trial}", f"autotune ui {files.name}")
    )
    seeds = f"Seeds: {experiment.optimization.seed} of the search, {experiment.benchmark.seed} of the load."
    rows = [element("tr", element("td", name), element("td", layer)) for name, layer in files.settings]
    head_row = element("tr", element("th", "setting", scope="col"), element("th", "layer", scope="col"))
    return [
        element("ul", *(element("li", line) for line in [*environment_lines(view), seeds])),
        element("p", "With the run folder, in the folder that holds it:", class_="muted"),
        element("pre", commands, tabindex="0", data_copy=True),
        element(
            "details",
            element("summary", f"Where each setting came from ({len(rows)})"),
            element("table", element("thead", head_row), element("tbody", *rows), class_="wrap"),
        ),
        element(
            "details",
            element("summary", "experiment.yaml, the composed configuration"),
            element("pre", files.experiment, tabindex="0", data_copy=True),
        ),
    ]


def _foot(omitted: str) -> Element:
    left_out = (
        f" To stay within {MAX_BYTES / 1e6:g} MB this page leaves out {omitted}; the run folder has all."
        if omitted
        else ""
    )
    return element("footer", element("p", f"autotune {__version__}.{left_out}", class_="muted"), id="foot")
