"""What a trial leaves on disk: the command, the server's log, the records of each load point."""

from __future__ import annotations

import os
from pathlib import Path

from autotuner.core import Observation, ServerSpec
from autotuner.load import records

MAX_LOG_BYTES = 1 << 20
"""Bytes at the end of a log that are looked at."""


class TrialFolder:
    """The folder of one trial; `read_log` starts where `mark_log` was called last."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.log = path / "server.log"
        self._log_start = 0
        self._secrets: tuple[str, ...] = ()

    def save_command(self, spec: ServerSpec, command: str) -> None:
        """Write how the server is started as a script; secrets are named, their values stay in the environment."""
        self._secrets = tuple(value for name in spec.secrets if (value := os.environ.get(name)))
        handed_on = [f"# reads from the environment: {' '.join(spec.secrets)}"] if spec.secrets else []
        script = self.path / "command.sh"
        script.write_text("\n".join(["#!/bin/sh", *handed_on, command]))
        script.chmod(0o755)

    def save_records(self, position: int, observation: Observation) -> None:
        """Write the raw records of one load point; RunStoreError when they cannot be written."""
        records.save(self.path / f"records-{position}.npz", observation)

    def mark_log(self) -> None:
        """Let the next reading begin here."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0

    def read_log(self) -> str:
        """The log since the mark, at most its last MiB; empty when there is none."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, 2)
                file.seek(max(self._log_start, end - MAX_LOG_BYTES))
                return self._mask_secrets(file.read()).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def redact_log(self) -> None:
        """Take every secret that was handed on out of the log, should the server have printed it."""
        if not self._secrets or not self.log.exists():
            return
        said = self.log.read_bytes()
        kept = self._mask_secrets(said)
        if kept != said:
            self.log.write_bytes(kept)

    def set_log_aside(self) -> None:
        """Keep the log of a first attempt under another name, for a second one."""
        if self.log.exists():
            self.log.replace(self.path / "server-first.log")

    def _mask_secrets(self, text: bytes) -> bytes:
        for value in self._secrets:
            text = text.replace(value.encode(), b"*****")
        return text
