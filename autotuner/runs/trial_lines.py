"""A line of trials.jsonl: one finished trial as JSON, without the secrets that are known."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from autotuner.core import Trial
from autotuner.redaction import redact_data

FORMAT_KEY, FORMAT = "format", 1
"""Version of experiment.yaml and of the lines of trials.jsonl, which have none in runs made before it."""

FREE_TEXTS_OF_LOAD_POINTS = ("decided", "error_messages", "ended_early")
FREE_TEXTS_OF_COMMANDS = ("image", "argv", "env", "mounts", "container_argv", "entrypoint")
"""Parts of a trial in which a secret may come back; others are numbers, and names that are read again."""


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """The trial as JSON-serialisable data: seconds, tokens/s, requests/s."""
    data: dict[str, Any] = json.loads(trial_adapter().dump_json(trial))
    return data


def trial_line(trial: Trial) -> bytes:
    """The line of a trial, with its line break."""
    data = {FORMAT_KEY: FORMAT, **_redacted_trial(trial_to_json(trial))}
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def line_format(line: bytes) -> int:
    """The format version at the start of a line of trials.jsonl; 0 of a line without one."""
    match = re.match(rb'\{"format": ?(\d{1,9})[,}]', line)
    return int(match.group(1)) if match else 0


def line_number(line: bytes) -> int | None:
    """The number of the trial of a line, without reading the whole of it; None where it does not begin with that."""
    match = re.match(rb'\{"format": ?\d{1,9}, ?"number": ?(\d{1,9})[,}]', line)
    return int(match.group(1)) if match else None


def parse_trial(line: bytes) -> Trial:
    """Read a line of trials.jsonl; runs of earlier versions call the `message` of a failure `said`."""
    if b'"said":' not in line:
        return trial_adapter().validate_json(line)
    return trial_adapter().validate_json(re.sub(rb'("failure":\{"kind":"[a-z-]+",)"said":', rb'\1"message":', line))


@cache
def trial_adapter() -> TypeAdapter[Trial]:
    """Reads and writes trials as JSON."""
    return TypeAdapter(Trial)


def _redacted_trial(data: dict[str, Any]) -> dict[str, Any]:
    """A trial without known secrets in the texts that are free; a word such as `measured` may be one's password."""
    measurement = data["measurement"]
    points = [
        {**point, **{name: redact_data(point[name]) for name in FREE_TEXTS_OF_LOAD_POINTS}}
        for point in measurement["load_points"]
    ]
    failure = measurement["failure"]
    if failure is not None:
        failure = {**redact_data(failure), "kind": failure["kind"]}
    spec = measurement["spec"]
    if spec is not None:
        spec = {**spec, **{name: redact_data(spec[name]) for name in FREE_TEXTS_OF_COMMANDS}}
    server, outcome = redact_data(measurement["server"]), measurement["outcome"]
    outcome = {**outcome, "gave_up": redact_data(outcome["gave_up"])}
    measurement = {**measurement, "load_points": points, "failure": failure, "spec": spec, "server": server}
    return {**data, "measurement": {**measurement, "outcome": outcome}}
