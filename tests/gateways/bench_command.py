"""Load tests by the command line, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AUTOTUNE = str(Path(sys.executable).parent / "autotune")
FEW_REQUESTS = [
    "--concurrency",
    "2",
    "--max-requests",
    "6",
    "--warmup",
    "0",
    "--duration",
    "240",
    "--max-duration",
    "240",
    "--fail-on",
    "none",
]
"""A window that ends after six requests, however long they take, whatever the verdict on a busy machine."""


@dataclass(frozen=True)
class LoadTestOutcome:
    """What a load test left behind: exit code, both outputs, and its JSON, empty where it wrote none."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def record(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.stdout) if self.stdout.startswith("{") else {}
        return parsed

    @property
    def load_point(self) -> dict[str, Any]:
        (point,) = self.record["load_points"]
        return dict(point)

    @property
    def checks(self) -> dict[str, Any]:
        """The validity checks by name."""
        return dict(self.load_point["validity"])

    @property
    def remarks(self) -> str:
        return " ".join(self.record["request"]["remarks"])

    def assert_all_answered(self) -> None:
        """Six requests without errors, with the lengths that were asked for by the server's own count."""
        metrics = self.load_point["metrics"]
        assert (metrics["requests"], metrics["errors"]) == (6, {}), self.stderr
        assert metrics["token_counts"] == {"usage": 6}
        assert (self.checks["prompt-length"]["value"], self.checks["output-length"]["value"]) == (1, 1)

    @property
    def words(self) -> str:
        """What was written for the user, on one line."""
        return " ".join(self.stderr.split())


def run_autotune(*arguments: str, folder: Path, env: dict[str, str] | None = None) -> LoadTestOutcome:
    """Run a command of the command line in a folder."""
    process = subprocess.run(
        [AUTOTUNE, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
        capture_output=True,
        text=True,
        timeout=500,
    )
    return LoadTestOutcome(process.returncode, process.stdout, process.stderr)
