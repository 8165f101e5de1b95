"""The page on which somebody looks at the workers of a profile and picks a pair: charts, tables, and a manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from autotuner import __version__
from autotuner.errors import AutotuneError, pluralize
from autotuner.input_files import read_json
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.pick import (
    PICKED_FILE,
    WorkerPair,
    chosen_pair,
    gpu_hours_per_1000_requests,
    pair_manifest,
    worker_counts,
)
from autotuner.profiling.select import RankedWorker
from autotuner.report.page.document import html_document
from autotuner.report.page.elements import Element, element
from autotuner.report.page.verdict import BADGES

SCRIPTS = ("dom.js", "charts.js", "pick.js")


def pick_page(outcome: ProfileOutcome, token: str) -> str:
    """The document; its scripts may ask the server it comes from, and change something there with the token."""
    request = outcome.record.request
    pair = chosen_pair(outcome)
    charts, tables = _sections(outcome)
    engine = request.url or request.runtime
    title = f"Workers for {request.model} on {engine}"
    body = [
        _head(outcome, title),
        element(
            "main",
            element(
                "noscript",
                element(
                    "p",
                    "Scripts are blocked here: no charts, and nothing can be picked. The tables are complete.",
                    class_="note",
                ),
            ),
            element("p", picked_text(outcome), id="picked", class_="note", role="status"),
            *charts,
            element(
                "section",
                element("h2", "The selected workers"),
                pair_element(outcome, pair) if pair else element("p", "There is no good point of both phases yet."),
                element("div", id="actions"),
                id="selected",
            ),
            *tables,
        ),
        element("footer", element("p", f"autotune {__version__}, profile {outcome.record.path.name}", class_="muted")),
    ]
    return html_document(f"{title} - autotune", body, _content(outcome, pair, token), scripts=SCRIPTS, connects=True)


def _head(outcome: ProfileOutcome, title: str) -> Element:
    request, sources = outcome.record.request, outcome.sources
    load = f"{request.rate:g} requests/s" if request.rate else None
    if request.concurrency:
        load = f"{request.concurrency:,} requests in flight"
    facts = [
        f"{request.isl:,} prompt and {request.osl:,} output tokens",
        f"TTFT {1000 * request.ttft:g} ms, ITL {1000 * request.itl:g} ms",
        load,
        f"at most {pluralize(request.total_gpus, 'GPU')}" if request.total_gpus else None,
        pluralize(len(outcome.record.launches), "launch", "launches"),
    ]
    badges = [BADGES[source] for source in ("measured", "simulated", "predicted") if source in sources]
    text = " / ".join(badges) or "NOTHING MEASURED YET"
    return element(
        "header",
        element(
            "div",
            element("h1", title),
            element("p", " · ".join(fact for fact in facts if fact), class_="muted"),
        ),
        element("p", text, class_=f"badge {'measured' if sources == ['measured'] else 'not-measured'}"),
    )


def _sections(outcome: ProfileOutcome) -> tuple[list[Element], list[Element]]:
    """The charts of the page, and its tables."""
    selection = outcome.selection
    prefill = [
        (worker, [worker.mapping.label, str(worker.mapping.gpus), f"{1000 * worker.point.ttft:,.1f}"])
        for worker in selection.prefill
    ]
    decode = [
        (
            worker,
            [
                worker.mapping.label,
                str(worker.mapping.gpus),
                f"{worker.point.concurrency:,}",
                f"{1000 * worker.point.itl:,.2f}",
            ],
        )
        for worker in selection.decode
    ]
    return [
        element("p", "Choose a point of a chart or a row of a table. Looking picks nothing.", class_="muted"),
        element(
            "section",
            _chart("prefill", "Prefill", "up: prompt tokens/s per GPU"),
            _chart("decode", "Decode", "up: output tokens/s per GPU"),
            _chart("cost", "Cost of both", "up: GPU-hours per 1,000 requests, lower is better"),
            class_="chart-grid",
        ),
    ], [
        element(
            "section",
            element("h2", "Prefill workers"),
            _workers_table("prefill", ["worker", "GPUs", "TTFT ms", "prompt tokens/s/GPU", "target"], prefill),
        ),
        element(
            "section",
            element("h2", "Decode workers"),
            _workers_table("decode", ["worker", "GPUs", "requests", "ITL ms", "output tokens/s/GPU", "target"], decode),
        ),
    ]


def _chart(name: str, title: str, heading: str) -> Element:
    """Room for a chart under its title."""
    return element(
        "div",
        element("h2", title),
        element("h3", heading),
        element("div", id=f"{name}-chart", class_="chart"),
        element("p", "", id=f"{name}-note", class_="muted"),
    )


def _workers_table(phase: str, columns: Sequence[str], rows: Sequence[tuple[RankedWorker[Any], list[str]]]) -> Element:
    """A row for each worker; scripts make each row choose its worker."""
    head = element(
        "tr",
        *(
            element("th", name, scope="col", class_="number" if 0 < at < len(columns) - 1 else None)
            for at, name in enumerate(columns)
        ),
    )
    body = []
    for at, (worker, texts) in enumerate(rows):
        cells = [element("th", texts[0], scope="row")]
        cells += [
            element("td", text, class_="number") for text in (*texts[1:], f"{worker.point.throughput_per_gpu:,.0f}")
        ]
        met = worker.meets_target
        cells.append(
            element(
                "td", "met" if met else f"missed, {worker.target_ratio:.2f} x", class_="passed" if met else "not-passed"
            )
        )
        body.append(element("tr", *cells, data_worker=str(at)))
    table = element("table", element("thead", head), element("tbody", *body), id=f"{phase}-table", class_="workers")
    return element("div", table, class_="scroll")


def pair_element(outcome: ProfileOutcome, pair: WorkerPair) -> Element:
    """The figures of a pair, and the manifest or the commands that start it."""
    request, prefill, decode = outcome.record.request, pair.prefill, pair.decode
    facts = [
        ("prefill worker", f"{prefill.mapping.label}, {pluralize(prefill.mapping.gpus, 'GPU')}"),
        ("TTFT", _against_target(1000 * prefill.point.ttft, 1000 * request.ttft)),
        ("decode worker", f"{decode.mapping.label}, {pluralize(decode.mapping.gpus, 'GPU')}"),
        ("requests in flight on it", f"{decode.point.concurrency:,}"),
        ("ITL", _against_target(1000 * decode.point.itl, 1000 * request.itl)),
        ("GPU-hours per 1,000 requests", f"{gpu_hours_per_1000_requests(outcome, pair):,.3g}"),
    ]
    try:
        counts = worker_counts(outcome, pair)
    except AutotuneError as error:
        counts, reason = None, str(error)
        facts.append(("workers", reason))
    if counts is not None:
        gpus = counts[0] * prefill.mapping.gpus + counts[1] * decode.mapping.gpus
        over = request.total_gpus is not None and gpus > request.total_gpus
        text = f"{counts[0]} prefill, {counts[1]} decode, {pluralize(gpus, 'GPU')} together"
        facts.append(("workers for the load", f"{text}; the budget is {request.total_gpus}" if over else text))
    rows = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in facts]
    return element(
        "div",
        element("div", element("table", element("tbody", *rows), class_="wrap"), class_="scroll"),
        *_manifest_elements(outcome, pair),
        id="pair",
        aria_live="polite",
    )


def _against_target(value: float, target: float) -> str:
    verdict = "within" if value <= target else "beyond"
    return f"{value:,.1f} ms, {verdict} the target of {target:g} ms"


def _manifest_elements(outcome: ProfileOutcome, pair: WorkerPair) -> list[Element]:
    try:
        manifest = pair_manifest(outcome, pair)
    except AutotuneError as error:
        return [element("p", str(error), class_="muted")]
    return [
        element("h3", manifest.name),
        element("pre", manifest.text, tabindex="0", aria_label=manifest.name, data_copy=True),
    ]


def picked_text(outcome: ProfileOutcome) -> str:
    """What was picked before, of picked.json; that nothing was if there is none."""
    try:
        data = read_json(outcome.record.path / PICKED_FILE)
        prefill, decode = data["prefill"]["mapping"], data["decode"]["mapping"]
        return (
            f"Picked at {data['picked_at']}: {prefill} for prefill and {decode} for decode with "
            f"{data['decode']['requests']} requests in flight, in {PICKED_FILE}."
        )
    except FileNotFoundError:
        return "Nothing is picked yet."
    except (OSError, ValueError, KeyError, TypeError):
        return f"{PICKED_FILE} cannot be read. Pick again to replace it."


def _content(outcome: ProfileOutcome, pair: WorkerPair | None, token: str) -> dict[str, Any]:
    """What the scripts draw: the workers in the order of the tables; seconds and tokens/s per GPU."""
    request, selection = outcome.record.request, outcome.selection
    return {
        "token": token,
        "isl": request.isl,
        "osl": request.osl,
        "ttft": request.ttft,
        "itl": request.itl,
        "folder": str(outcome.record.path),
        "prefill": [
            _worker_data(worker) | {"latency": worker.point.ttft, "interval": list(worker.point.interval)}
            for worker in selection.prefill
        ],
        "decode": [
            _worker_data(worker) | {"latency": worker.point.itl, "requests": worker.point.concurrency}
            for worker in selection.decode
        ],
        "complete": pair is not None,
    }


def _worker_data(worker: RankedWorker[Any]) -> dict[str, Any]:
    return {
        "name": worker.mapping.name,
        "label": worker.mapping.label,
        "gpus": worker.mapping.gpus,
        "throughput": worker.point.throughput_per_gpu,
        "meets": worker.meets_target,
    }


def pair_data(outcome: ProfileOutcome, pair: WorkerPair) -> bytes:
    """The element of a pair as JSON, for a page that is open."""
    return json.dumps(pair_element(outcome, pair).to_data()).encode()
