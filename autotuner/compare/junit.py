"""A gate's decisions as a JUnit file: worse is a failure, unclear is skipped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from autotuner.compare.comparison import Comparison
from autotuner.compare.gate import GateDecision, GateState
from autotuner.output_files import write_whole
from autotuner.redaction import redact
from autotuner.runs.store import explain_write_errors

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, even escaped."""


def write_junit(path: Path, comparisons: Sequence[Comparison], decisions: Sequence[GateDecision]) -> None:
    """One suite for each comparison, one case for each gated figure; properties are what was changed."""
    root = ElementTree.Element("testsuites", name="autotune gate")
    for comparison, decision in zip(comparisons, decisions, strict=True):
        root.append(_suite(comparison, decision))
    ElementTree.indent(root)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _suite(comparison: Comparison, decision: GateDecision) -> ElementTree.Element:
    counts = {state: len(decision.in_state(state)) for state in GateState}
    suite = ElementTree.Element(
        "testsuite",
        name=_text(f"{comparison.new.name} against {comparison.baseline.name}"),
        tests=str(len(decision.figures)),
        failures=str(counts[GateState.WORSE]),
        skipped=str(counts[GateState.UNCLEAR]),
        errors="0",
    )
    properties = ElementTree.SubElement(suite, "properties")
    facts = {"sources": ", ".join(comparison.new.sources), **comparison.new.environment}
    for name, value in {
        **facts,
        **{each.name: f"{each.baseline} -> {each.new}" for each in comparison.changed},
    }.items():
        ElementTree.SubElement(properties, "property", name=_text(name), value=_text(value))
    for figure, state in decision.figures:
        case = ElementTree.SubElement(suite, "testcase", classname="autotune.gate", name=_text(figure.name), time="0")
        if state is GateState.WORSE:
            ElementTree.SubElement(case, "failure", message=_text(f"worse: {figure.change_text}"))
        elif state is GateState.UNCLEAR:
            ElementTree.SubElement(case, "skipped", message=_text(f"unclear: {figure.change_text}"))
    return suite


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", redact(text))
