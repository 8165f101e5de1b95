"""The files of a trial: launch command, server log, environment, and the raw records of each load point."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuner.core import Observation, ServerSpec
from autotuner.load import records

MAX_LOG_BYTES = 1 << 20
"""Only the end of a longer log is read."""


class TrialFolder:
    """The folder of one trial; `read_log` reads from the position of the last `mark_log`."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.log = path / "server.log"
        self._log_start = 0
        self._secrets: tuple[str, ...] = ()

    def save_command(self, spec: ServerSpec, command: str) -> None:
        """Write the launch command as a script that reads secrets from the environment."""
        self._secrets = tuple(value for name in spec.secrets if (value := os.environ.get(name)))
        comment = [f"# reads from the environment: {' '.join(spec.secrets)}"] if spec.secrets else []
        script = self.path / "command.sh"
        script.write_text("\n".join(["#!/bin/sh", *comment, command]))
        script.chmod(0o755)

    def save_environment(self, environment: Mapping[str, Any]) -> None:
        """Write what the launch ran on: engine, image, model revision, GPUs."""
        (self.path / "environment.json").write_text(json.dumps(environment, indent=1) + "\n")

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
                return self._mask_secrets(file.read()).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def redact_log(self) -> None:
        """Mask secrets in the log, in case the server has printed them."""
        if not self._secrets or not self.log.exists():
            return
        log = self.log.read_bytes()
        masked_log = self._mask_secrets(log)
        if masked_log != log:
            self.log.write_bytes(masked_log)

    def set_log_aside(self) -> None:
        """Rename the log of the first attempt before a second one."""
        if self.log.exists():
            self.log.replace(self.path / "server-first.log")

    def _mask_secrets(self, text: bytes) -> bytes:
        for value in self._secrets:
            text = text.replace(value.encode(), b"*****")
        return text
