"""Logs that were written after public reports once the rules were there: what they mean, by place, type and words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotuner.core import Failure
from autotuner.engines import engine
from autotuner.search.exclusions import UNIVERSAL_FAILURES

LOGS = Path(__file__).with_name("first_sight")
EXPECTED: Mapping[str, Mapping[str, Any]] = yaml.safe_load((LOGS / "expected.yaml").read_text())


def diagnosed(name: str) -> Failure:
    row = EXPECTED[name]
    log = (LOGS / f"{name}.log").read_text()
    return engine(row["engine"]).diagnosis.failure(log, row["exit"], row["phase"])


def test_nearly_every_log_is_named_rightly_by_now_and_in_the_engines_words() -> None:
    failures = {name: diagnosed(name) for name in EXPECTED}
    wrong = {name for name, failure in failures.items() if failure.kind != EXPECTED[name]["kind"]}
    assert len(wrong) <= 0.05 * len(EXPECTED), wrong
    assert not {name for name in wrong if failures[name].kind in UNIVERSAL_FAILURES}
    assert not [name for name, failure in failures.items() if EXPECTED[name]["words"] not in failure.message]
    assert all(failure.remedy for failure in failures.values())


def test_every_log_is_expected_to_mean_something() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == EXPECTED.keys()


@pytest.mark.parametrize("round_", sorted({row["round"] for row in EXPECTED.values()}))
def test_each_round_keeps_what_was_named_at_first_sight(round_: int) -> None:
    rows = [row for row in EXPECTED.values() if row["round"] == round_]
    assert len(rows) >= 20
    assert all(row["first"] for row in rows)
