"""What a trial leaves on disk: the command, the server's log, the records of each load point."""

from __future__ import annotations

import shlex
from pathlib import Path

from autotuner.core import Observation, ServerSpec
from autotuner.load import records

LONGEST_LOG = 1 << 20
"""Bytes at the end of a log that are looked at."""


class TrialFolder:
    """The folder of one trial; `read_log` starts where `mark_log` was called last."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.log = path / "server.log"
        self._from = 0

    def save_command(self, spec: ServerSpec) -> None:
        """Write the exact command as a script; secrets are named, their values stay in the environment."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in sorted(spec.env.items())]
        words = [*(["env", *settings] if settings else []), shlex.join(spec.argv)]
        handed_on = [f"# reads from the environment: {' '.join(spec.secrets)}"] if spec.secrets else []
        script = self.path / "command.sh"
        script.write_text("\n".join(["#!/bin/sh", *handed_on, "exec " + " ".join(words), ""]))
        script.chmod(0o755)

    def save_records(self, position: int, observation: Observation) -> None:
        """Write the raw records of one load point; RunStoreError when they cannot be written."""
        records.save(self.path / f"records-{position}.npz", observation)

    def mark_log(self) -> None:
        """Let the next reading begin here."""
        self._from = self.log.stat().st_size if self.log.exists() else 0

    def read_log(self) -> str:
        """The log since the mark, at most its last MiB; empty when there is none."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, 2)
                file.seek(max(self._from, end - LONGEST_LOG))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
