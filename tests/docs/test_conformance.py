"""Every behaviour in the tables of conformance and of real servers is held by a test that exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def behaviours(page: str) -> list[str]:
    """The rows of the tables whose last column is a test."""
    rows: list[str] = []
    is_held = False
    for line in (ROOT / "docs/reference" / page).read_text(encoding="utf-8").splitlines():
        if line.endswith("| test |"):
            is_held = True
        elif not line.startswith("|"):
            is_held = False
        elif is_held and not line.startswith("| ---"):
            rows.append(line)
    return rows


@pytest.mark.parametrize("page", ["conformance.md", "gateways.md"])
def test_every_row_names_a_test_that_exists(page):
    rows = behaviours(page)
    assert rows
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert tests, row
        for path, name in tests:
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), row
