"""What the log of a server means: the cause of its failure, by rules with a kind and a remedy, and what it says."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autotuner.core import Failure, FailureKind
from autotuner.engines.failure_rules import COMMON_RULES, FailureRule
from autotuner.engines.log_errors import (
    BENIGN,
    CONSEQUENCE_RANK,
    ENDS_PROCESS,
    HANDLED,
    WRAPPED,
    LoggedError,
    RaisedError,
    last_words,
    plain_lines,
    read_errors,
)
from autotuner.engines.origin_rules import origin_rule
from autotuner.engines.protocol import Phase

MAX_MESSAGE_CHARACTERS = 400
"""Length at which the engine's message is cut in a failure."""

PYDANTIC_INPUT_SUFFIX = re.compile(r"\s*\[type=\w+, input_value=.*$")
HINT = re.compile(
    r"^(?:If you are trying to access a private|If this is a private|Please make sure you specified|For more"
    r"|For debugging|Compile with|Set TORCH|CUDA kernel errors|Search for|See https?:|You can suppress)"
)
"""Starts of the lines that advise, and do not tell what failed."""

SELF_KILL = re.compile(r"Received sigquit from a child process|Triggering SIGQUIT for cleanup")
"""What SGLang logs before it ends itself with SIGKILL, since one of its processes has failed."""

SILENT_END = "One of the engine's processes ended without an error of its own in the log."
"""What is said where the log has but the errors of others that its end was the cause of."""

WORKER_WORDS = re.compile(r"^RuntimeError: Worker failed with error ['\"](.*)['\"], please check the stack trace.*$")
"""The report of a worker's error, with the words of that error."""

COMMAND_END = re.compile(r"(?:subprocess\.)?CalledProcessError: ")
"""The exception that a command has failed, without its output."""

DRAFT_MODEL = re.compile(
    r"speculative[_-](?:draft[_-])?(?:model|config)\w*'?[=:] ?(?:\{[^}]*?['\"]model['\"]: )?['\"](?P<model>[^'\"]+)"
)

MODEL_FAILURES = (FailureKind.MODEL_NOT_FOUND, FailureKind.GATED_MODEL)
"""Failures that every candidate would have, so that an exception must prove them."""

LAUNCHER_INFO_PATTERNS = {
    "image": r"(?m)^autotune: image (\S+)",
    "image_digest": r"(?m)^autotune: image \S+ is (\S+)",
    "node": r"(?m)^autotune: pod \S+ runs on node (\S+)",
    "gpu_product": r"(?m)^autotune: pod \S+ runs on node \S+ with (\S+)",
}
"""Patterns of the lines that a launcher writes to the log before the engine starts."""

CANNOT_RUN_STATUSES = (126, 127)
"""Exit statuses of a command that could not be run at all."""


@dataclass(frozen=True)
class LogDiagnosis:
    """A Diagnosis by the first of `rules` that matches, else by the exit status.

    `info_patterns` find what a healthy server says of itself; keys that end in `tokens` are counts, summed
    over engine cores.
    """

    rules: tuple[FailureRule, ...] = COMMON_RULES
    info_patterns: Mapping[str, str] = field(default_factory=dict)

    def startup_failure(self, log: str) -> Failure | None:
        """The failure of an error that ends the start for certain; see Diagnosis."""
        failure_and_error = self._find_failure(log, "start", is_alive=True)
        if failure_and_error is None:
            return None
        failure, error = failure_and_error
        return failure if _ends_start(error, failure) else None

    def failure(self, log: str, exit_status: int | None, phase: Phase) -> Failure:
        failure_and_error = self._find_failure(log, phase, is_alive=exit_status is None)
        return failure_and_error[0] if failure_and_error else failure_from_exit(log, exit_status, phase)

    def server_info(self, log: str) -> dict[str, Any]:
        info: dict[str, Any] = {}
        for key, pattern in (*self.info_patterns.items(), *LAUNCHER_INFO_PATTERNS.items()):
            matches = re.findall(pattern, log)
            if matches and key.endswith("tokens"):
                info[key] = sum(int(match.replace(",", "")) for match in matches)
            elif matches:
                info[key] = matches[0]
        return info

    def _find_failure(self, log: str, phase: Phase, *, is_alive: bool) -> tuple[Failure, LoggedError] | None:
        """The failure that the rules name for the likeliest cause in the log, and that cause; None if they name none.

        Of the errors of one process after another, each with the same standing, the first that a rule knows.
        The single lines of a server that lives count only where they tell that one of its processes has ended.
        """
        errors = read_errors(log)
        best = min((error.rank for error in errors), default=HANDLED)
        if best != HANDLED:
            for error in _candidates(errors, best, phase):
                if is_alive and not error.is_exception and best not in (ENDS_PROCESS, CONSEQUENCE_RANK):
                    continue
                if (failure := self._failure_of(error, phase, log)) is not None:
                    return failure, error
            return None
        if is_alive:
            return None
        plain = [line for line in plain_lines(log) if not BENIGN.search(line)]
        for line in reversed(plain):
            error = LoggedError([RaisedError([line])], "", "", is_exception=False)
            if (failure := self._failure_of(error, phase, log)) is not None and failure.kind not in MODEL_FAILURES:
                return failure, error
        return None

    def _failure_of(self, error: LoggedError, phase: Phase, log: str) -> Failure | None:
        """The failure of the innermost exception that a rule knows; of one raised while it was handled, that one.

        What fails a look-up and is handled proves nothing about the model: there the last exception decides.
        """
        raised_errors = _without_command_ends(error.exceptions)
        named = [failure for raised in raised_errors if (failure := self._rule_failure(raised, phase)) is not None]
        if not named:
            return _origin_failure(error, phase)
        failure = named[0]
        if error.rank == WRAPPED and not WORKER_WORDS.search(failure.message):
            return replace(failure, message=SILENT_END)
        if failure.kind in MODEL_FAILURES and error.last_chain_start:
            last = self._rule_failure(error.exceptions[-1], phase)
            if last is None:
                return None
            failure = failure if last.kind in MODEL_FAILURES else last
        if failure.kind in MODEL_FAILURES and (draft := _draft_model(log, error)):
            return Failure(FailureKind.BAD_FLAG, failure.message, f"Correct the draft model {draft}, or its access.")
        return failure

    def _rule_failure(self, raised: RaisedError, phase: Phase) -> Failure | None:
        lines = [line for line in raised.searched_lines if line and not HINT.match(line)]
        for rule in self.rules:
            kind = rule.kind(phase)
            match = kind and next((line for line in lines if rule.regex.search(line)), None)
            if kind and match:
                is_import = raised.lines[0].startswith("ImportError")  # its first line says more than the search paths
                is_summary = is_import or match in (raised.lines[0], raised.source_line) or match in raised.summary
                return Failure(kind, clean_message(raised.summary if is_summary else match), rule.remedy)
        return None


def _without_command_ends(exceptions: Sequence[RaisedError]) -> Sequence[RaisedError]:
    """The exceptions but those that say only that a command has failed, where others say with which words."""
    return [raised for raised in exceptions if not COMMAND_END.match(raised.lines[0])] or exceptions


def _origin_failure(error: LoggedError, phase: Phase) -> Failure | None:
    """The failure of the place that raised the innermost exception of the last chain."""
    if error.rank == WRAPPED:
        return None
    raised = _without_command_ends(error.exceptions[error.last_chain_start :])[0]
    rule = origin_rule(raised.lines[0], raised.frames, phase)
    kind = rule and rule.kind_in(phase)
    return Failure(kind, clean_message(raised.summary), rule.remedy) if rule and kind else None


def _candidates(errors: Sequence[LoggedError], rank: int, phase: Phase) -> list[LoggedError]:
    """The errors of this rank that may be the cause, the likeliest first."""
    ranked = [error for error in errors if error.rank == rank]
    if rank in (ENDS_PROCESS, CONSEQUENCE_RANK, WRAPPED) or phase == "load":
        return ranked
    return ranked[-1:]


def _ends_start(error: LoggedError, failure: Failure) -> bool:
    """Whether a start cannot go on after this error."""
    return error.ends_process or (
        error.is_exception and not error.level and failure.kind is FailureKind.OUT_OF_MEMORY_AT_START
    )


def _draft_model(log: str, error: LoggedError) -> str:
    """The draft model of speculative decoding, where the error is about it; else empty."""
    match = DRAFT_MODEL.search(log)
    return match["model"] if match and match["model"] in error.text else ""


def failure_from_exit(log: str, exit_status: int | None, phase: Phase) -> Failure:
    """The failure by exit status and phase, for a log that matches no rule; None as status is a live process."""
    excerpt = error_excerpt(log, phase)
    if exit_status is None:
        if phase == "start":
            return Failure(
                FailureKind.START_TIMED_OUT,
                f"It was not ready in time and still running. {excerpt}",
                "Raise runtime.start_timeout if its log shows progress; look for what it waits for if not.",
            )
        return Failure(
            FailureKind.HUNG_UNDER_LOAD,
            f"It was running but no longer answered. {excerpt}",
            "Look at the end of the server's log; a lower load or max-running-requests may avoid it.",
        )
    if phase == "start" and exit_status in CANNOT_RUN_STATUSES:
        return Failure(FailureKind.ENGINE_MISSING, excerpt, "Install the engine, or correct runtime.executable.")
    kind = FailureKind.CRASHED_AT_START if phase == "start" else FailureKind.CRASHED_UNDER_LOAD
    return Failure(kind, f"It ended with {describe_exit(exit_status)}. {excerpt}", _exit_remedy(exit_status, log))


def _exit_remedy(exit_status: int, log: str) -> str:
    if SELF_KILL.search(log):
        return "One of the engine's processes failed, and the engine then ended itself: look for its error in the log."
    if exit_status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "SIGKILL mostly comes from the kernel when memory runs out: see `dmesg`, and leave the host more memory."
    return "Look at the end of the server's log in the trial's folder."


def describe_exit(exit_status: int) -> str:
    """An exit status as text; negative values, and those above 128, are signals."""
    number = -exit_status if exit_status < 0 else exit_status - 128
    try:
        return f"signal {signal.Signals(number).name}" if number > 0 else f"exit status {exit_status}"
    except ValueError:
        return f"exit status {exit_status}"


def error_excerpt(log: str, phase: Phase) -> str:
    """What the likeliest cause in the log says, or the last line of a log without errors."""
    errors = read_errors(log)
    rank = min((error.rank for error in errors), default=HANDLED)
    if rank == WRAPPED:
        return SILENT_END
    if rank != HANDLED:
        return f"It said: {clean_message(_candidates(errors, rank, phase)[0].summary)}"
    words = last_words(log)
    if words:
        return f"Its last line: {clean_message(words)}"
    return "Its log shows nothing but requests." if log.strip() else "Its log is empty."


def clean_message(text: str) -> str:
    """A message on one line, without the input that pydantic repeats, cut to MAX_MESSAGE_CHARACTERS."""
    text = PYDANTIC_INPUT_SUFFIX.sub("", " ".join(text.split())).removeprefix("Value error, ")
    return shorten(WORKER_WORDS.sub(r"\1", text).strip())


def shorten(line: str) -> str:
    """The line, cut to MAX_MESSAGE_CHARACTERS."""
    return line if len(line) <= MAX_MESSAGE_CHARACTERS else line[: MAX_MESSAGE_CHARACTERS - 3].rstrip() + "..."
