"""Write the tables of docs/reference/failures.md from rules and logs; `--check` fails when they are out of date."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from autotuner.core import FailureKind
from autotuner.engines import engine
from autotuner.engines.diagnosis import LogDiagnosis
from autotuner.engines.origin_rules import IMPORT_RULE, PLACE_RULES, PYTHON_RULES, WORD_RULES
from autotuner.search.exclusions import UNIVERSAL_FAILURES

PAGE = Path(__file__).absolute().parent / "reference" / "failures.md"
LOGS = PAGE.parents[2] / "tests" / "engines" / "logs"
FIRST_SIGHT = LOGS.with_name("first_sight")
ENGINES = ("vllm", "sglang", "trtllm", "sim")
HEALTHY = "healthy start"


def rule_rows() -> Iterator[str]:
    """Rows of the classes that rules name, with the remedies and the engines that have them."""
    engines: dict[tuple[str, str], list[str]] = {}
    for name in ENGINES:
        diagnosis = engine(name).diagnosis
        assert isinstance(diagnosis, LogDiagnosis)
        for rule in diagnosis.rules:
            kind = rule.start_kind or rule.load_kind
            names = engines.setdefault((kind.value if kind else "", rule.remedy), [])
            if name not in names:
                names.append(name)
    for place in (*PYTHON_RULES, IMPORT_RULE, *PLACE_RULES, *WORD_RULES):
        engines.setdefault((place.kind.value, place.remedy), list(ENGINES))
    yield "| class | remedy | engines |"
    yield "| --- | --- | --- |"
    order = [kind.value for kind in FailureKind]
    for (kind_name, remedy), names in sorted(engines.items(), key=lambda item: order.index(item[0][0])):
        mark = "\\*" if kind_name in UNIVERSAL_FAILURES else ""
        yield f"| `{kind_name}`{mark} | {remedy} | {'all' if len(names) == len(ENGINES) else ', '.join(names)} |"


def confusion_rows() -> Iterator[str]:
    """Rows of the logs by what they mean, with what they are named; and how many of all are named rightly."""
    named: dict[str, Counter[str]] = {}
    for name, row in yaml.safe_load((LOGS / "expected.yaml").read_text()).items():
        named.setdefault(row["kind"] or HEALTHY, Counter())[_named(name, row)] += 1
    yield "| what the log means | logs | named so | named otherwise |"
    yield "| --- | ---: | ---: | --- |"
    for kind in (*(kind.value for kind in FailureKind), HEALTHY):
        if counts := named.get(kind):
            others = ", ".join(f"`{other}` {count}" for other, count in sorted(counts.items()) if other != kind)
            label = kind if kind == HEALTHY else f"`{kind}`"
            yield f"| {label} | {counts.total()} | {counts[kind]} | {others or 'none'} |"
    total = sum(counts.total() for counts in named.values())
    right = sum(counts[kind] for kind, counts in named.items())
    yield f"| all | {total} | {right} | {total - right or 'none'} |"


def first_sight_rows() -> Iterator[str]:
    """Rows of the rounds of logs, with how many the rules named rightly when they first saw them, and name now."""
    yield "| round | logs | at first sight | without crashes | now |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    rows = yaml.safe_load((FIRST_SIGHT / "expected.yaml").read_text())
    for number in sorted({row["round"] for row in rows.values()}):
        members = {name: row for name, row in rows.items() if row["round"] == number}
        first = [row["first"] == row["kind"] for row in members.values()]
        named = [row["first"] == row["kind"] for row in members.values() if not row["kind"].startswith("crashed")]
        now = [_named(name, row, FIRST_SIGHT) == row["kind"] for name, row in members.items()]
        yield f"| {number} | {len(first)} | {_share(first)} | {_share(named)} | {_share(now)} |"


def _share(outcomes: list[bool]) -> str:
    return f"{sum(outcomes)} of {len(outcomes)} ({sum(outcomes) / len(outcomes):.0%})"


def _named(name: str, row: dict[str, Any], folder: Path = LOGS) -> str:
    """The class of a log; for a healthy start, what it would be aborted for."""
    log, diagnosis = (folder / f"{name}.log").read_text(), engine(row["engine"]).diagnosis
    if row["kind"] is None:
        failure = diagnosis.startup_failure(log)
        return failure.kind.value if failure else HEALTHY
    return diagnosis.failure(log, row["exit"], row["phase"]).kind.value


TABLES = {"rules": rule_rows, "confusion": confusion_rows, "first sight": first_sight_rows}


def with_tables(text: str) -> str:
    """The page with its tables replaced, each between the comments that name it."""
    for name, rows in TABLES.items():
        body = "\n".join(rows()).replace("\\", r"\\")
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        text, count = re.subn(pattern, rf"\g<1>{body}\n\g<2>", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{PAGE} has {count} tables of {name}, not one.")
    return text


def main() -> None:
    """Write the page, or check that it is current."""
    before = PAGE.read_text()
    after = with_tables(before)
    if "--check" in sys.argv:
        if before != after:
            raise SystemExit(f"{PAGE} is out of date: run python docs/make_failure_table.py")
    else:
        PAGE.write_text(after)


if __name__ == "__main__":
    main()
