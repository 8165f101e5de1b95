"""Every behaviour in the table of conformance is held by a test that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    row
    for row in (ROOT / "docs/reference/conformance.md").read_text(encoding="utf-8").splitlines()
    if row.startswith("| ") and not row.startswith(("| behaviour", "| ---"))
]


def test_every_row_names_a_test_that_exists():
    assert ROWS
    for row in ROWS:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert tests, row
        for path, name in tests:
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), row
