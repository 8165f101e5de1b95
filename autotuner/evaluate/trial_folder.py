"""The files of a trial: launch command, server log, environment, and the raw records of each load point."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuner.core import Observation, ServerSpec
from autotuner.load import records
from autotuner.redaction import redact, redact_bytes, remember_secret, write_redacted, write_redacted_json

MAX_LOG_BYTES = 1 << 20
"""Only the end of a longer log is read."""


class TrialFolder:
    """The folder of one trial; `read_log` reads from the position of the last `mark_log`."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.log = path / "server.log"
        self._log_start = 0

    def save_command(self, spec: ServerSpec, command: str) -> None:
        """Write the launch command as a script that reads secrets from the environment."""
        for name in spec.secrets:
            remember_secret(os.environ.get(name, ""))
        comment = [f"# reads from the environment: {' '.join(spec.secrets)}"] if spec.secrets else []
        script = self.path / "command.sh"
        write_redacted(script, "\n".join(["#!/bin/sh", *comment, command]), "surrogateescape")
        script.chmod(0o755)

    def save_environment(self, environment: Mapping[str, Any]) -> None:
        """Write what the launch ran on: engine, image, model revision, GPUs."""
        write_redacted_json(self.path / "environment.json", environment)

    def save_records(self, position: int, observation: Observation) -> None:
        """Write the raw records of one load point; RunStoreError if they cannot be written."""
        records.save(self.path / f"records-{position}.npz", observation)

    def mark_log(self) -> None:
        """Let the next `read_log` start at the current end of the log."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0

    def read_log(self) -> str:
        """Return the log since the mark, at most its last MiB; empty without a log."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, 2)
                file.seek(max(self._log_start, end - MAX_LOG_BYTES))
                return redact(file.read().decode("utf-8", "replace"))
        except FileNotFoundError:
            return ""

    def redact_log(self) -> None:
        """Mask secrets in the log, in case the server has printed them."""
        if not self.log.exists():
            return
        masked = self.log.with_name(f"{self.log.name}.masked")
        with self.log.open("rb") as log, masked.open("wb") as target:
            # a line at a time: an engine may have printed gigabytes
            changed = False
            while line := log.readline(MAX_LOG_BYTES):
                masked_line = redact_bytes(line)
                changed |= masked_line != line
                target.write(masked_line)
        if changed:
            masked.replace(self.log)
        else:
            masked.unlink()

    def set_log_aside(self) -> None:
        """Rename the log of the first attempt before a second one."""
        if self.log.exists():
            self.log.replace(self.path / "server-first.log")
