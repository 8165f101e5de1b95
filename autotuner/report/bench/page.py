"""A load test as one HTML page without scripts, and as Markdown: what it found, its tables, its pictures."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from autotuner import __version__
from autotuner.core import Verdict
from autotuner.errors import pluralize
from autotuner.escaping import for_markdown
from autotuner.report.bench.record import bench_record
from autotuner.report.bench.result import BenchResult
from autotuner.report.bench.table import capacity_sentences, check_tables, latency_table, verdict_table
from autotuner.report.formatting import SOURCE_NOTES, format_number
from autotuner.report.markdown import table_markdown
from autotuner.report.page.document import html_document
from autotuner.report.page.elements import Element, element
from autotuner.report.page.tables import report_table
from autotuner.report.page.verdict import BADGES, load_text, targets_text
from autotuner.report.table import Table

PAGE_FILE = "report.html"

PICTURES = {
    "load.png": "TTFT and TPOT against load",
    "tradeoff.png": "Output throughput against interactivity",
    "latencies.png": "Distributions of latencies",
    "timeline.png": "Throughput and requests in flight over time",
}
"""File in the folder of a load test -> what it shows."""


def best_load_sentence(bench: BenchResult) -> str:
    """The load point with the most output tokens/s among those within the targets."""
    accepted = [point for point in bench.load_points if point.verdict in (Verdict.FEASIBLE, Verdict.UNDECIDED)]
    if not accepted:
        return "No load point met the targets." if bench.slo.terms else "No load point gave a valid measurement."
    best = max(accepted, key=lambda point: point.metrics.output_throughput)
    where = "within the targets" if bench.slo.terms else "of the measured loads"
    proven = "" if best.verdict is Verdict.FEASIBLE else ", which is not proven: the window was short"
    speed = format_number(best.metrics.output_throughput)
    return f"{speed} output tokens/s at most {where}: {load_text(best.load_point)}{proven}."


def load_test_page(bench: BenchResult) -> str:
    """The page as one file; pictures are those of the folder, as far as they are there."""
    source = "" if bench.source == "measured" else f" ({bench.source})"
    badge_class = "badge measured" if bench.source == "measured" else "badge not-measured"
    when = datetime.fromtimestamp(bench.started, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = [f"load test of {bench.url}", pluralize(len(bench.load_points), "load point"), when]
    notes = [SOURCE_NOTES.get(bench.source, ""), bench.stopped or "", *bench.remarks, *capacity_sentences(bench)]
    body = [
        element(
            "header",
            element("div", element("h1", bench.model), element("p", " · ".join(facts), class_="muted")),
            element("p", BADGES[bench.source], class_=badge_class),
        ),
        element(
            "main",
            element(
                "section",
                element(
                    "div",
                    element("h2", best_load_sentence(bench)),
                    element("p", f"{_targets(bench)}."),
                    *(element("p", note) for note in notes if note),
                    class_="card compared",
                ),
            ),
            *(_table_section(title, table) for title, table in _tables(bench).items()),
            *_pictures(bench),
        ),
        element("footer", element("p", f"autotune {__version__}.", class_="muted")),
    ]
    return html_document(f"Load test of {bench.model}{source} - autotune", body, bench_record(bench), scripts=())


def load_test_markdown(bench: BenchResult) -> str:
    """The same sentences and tables as Markdown."""
    parts = [f"# Load test of {for_markdown(bench.model)}", f"**{for_markdown(best_load_sentence(bench))}**"]
    if bench.source in SOURCE_NOTES:
        parts.append(f"> **{SOURCE_NOTES[bench.source]}**")
    parts += map(for_markdown, capacity_sentences(bench))
    for title, table in _tables(bench).items():
        parts += [f"## {for_markdown(title)}", table_markdown(table)]
        if table.notes:
            parts.append("\n".join(f"- {for_markdown(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _targets(bench: BenchResult) -> str:
    text = targets_text(bench.slo)
    return text[0].upper() + text[1:]


def _tables(bench: BenchResult) -> dict[str, Table]:
    checks = {f"Can it be believed: {name}": table for name, table in check_tables(bench).items()}
    return {"Throughput and verdicts": verdict_table(bench), "Latencies": latency_table(bench), **checks}


def _table_section(title: str, table: Table) -> Element:
    scrolled = element("div", report_table(table), class_="scroll", tabindex="0", role="region", aria_label=title)
    notes = element("ul", *(element("li", note) for note in table.notes)) if table.notes else None
    return element("section", element("h2", title), scrolled, notes)


def _pictures(bench: BenchResult) -> list[Element]:
    sections = []
    for name, title in PICTURES.items():
        path = bench.path / name if bench.path is not None else None
        if path is not None and path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            image = element("img", src=f"data:image/png;base64,{data}", alt=title)
            sections.append(element("section", element("h2", title), image))
    return sections
