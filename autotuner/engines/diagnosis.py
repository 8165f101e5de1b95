"""What the log of a server means: regular expressions over it, those of failures with a kind and a remedy."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from autotuner.core import Failure, FailureKind
from autotuner.engines.protocol import Phase

MAX_MESSAGE_CHARACTERS = 400
"""Length at which the engine's message is cut in a failure."""

PROCESS_PREFIX = re.compile(r"^\([^()]*\bpid=\d+[^()]*\)\s*")
LOGGER_PREFIX = re.compile(
    r"^(?:\[[\d\- :.,]+(?: \w+)*\]\s*)?"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+[\d\-]+ [\d:.,]+\s*(?:[\w.-]+:|\[[\w.]+:\d+\])?\s*)?"
)
PYDANTIC_INPUT_SUFFIX = re.compile(r"\s*\[type=\w+, input_value=.*$")
ERROR_LINE = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|error:)|\b\w*(?:Error|Exception)\b: ")
TRACEBACK_LINE = re.compile(r"^(?:raise |File \"|\^+$|~*\^+~*$|Traceback \(most recent)")
SHUTDOWN_NOISE = re.compile(r"See root cause above|See stack trace|nanobind|resource_tracker")

LAUNCHER_INFO_PATTERNS = {
    "image": r"(?m)^autotune: image (\S+)",
    "image_digest": r"(?m)^autotune: image \S+ is (\S+)",
}
"""Patterns of the lines that a launcher writes to the log before the engine starts."""

CANNOT_RUN_STATUSES = (126, 127)
"""Exit statuses of a command that could not be run at all."""


@dataclass(frozen=True)
class FailureRule:
    """A regular expression, searched line by line, and the failure it means at start-up and under load.

    The rule does not apply in a phase whose kind is None.
    """

    pattern: str
    start_kind: FailureKind | None
    load_kind: FailureKind | None
    remedy: str

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def kind(self, phase: Phase) -> FailureKind | None:
        return self.start_kind if phase == "start" else self.load_kind


COMMON_RULES = (
    FailureRule(
        r"\(OOMKilled\)",
        FailureKind.OUT_OF_MEMORY_AT_START,
        FailureKind.OUT_OF_MEMORY_UNDER_LOAD,
        "Raise runtime.memory or leave the host more memory, or lower what the engine keeps in host memory.",
    ),
    FailureRule(
        r"docker: .*([Nn]o such image|manifest unknown|pull access denied|repository does not exist)",
        FailureKind.IMAGE_MISSING,
        None,
        "Correct runtime.image, or log in to its registry with `docker login`.",
    ),
    FailureRule(
        r"docker: .*(could not select device driver|nvidia-container-cli|unresolvable CDI devices|unknown device)",
        FailureKind.DRIVER_FAULT,
        None,
        "Docker cannot give this container a GPU: install the NVIDIA Container Toolkit, and see `autotune doctor`.",
    ),
    FailureRule(
        r"error: (unrecognized arguments|argument |the following arguments are required|ambiguous option)"
        r"|No such option",
        FailureKind.BAD_FLAG,
        None,
        "Correct the flag in the parameters or in runtime.extra_args; `--help` of the engine lists what it takes.",
    ),
    FailureRule(
        r"OutOfMemoryError|CUDA out of memory|HIP out of memory|CUDA error: out of memory|cudaErrorMemoryAllocation"
        r"|\bMemoryError\b|std::bad_alloc|DefaultCPUAllocator: can't allocate|Out of memory:",
        FailureKind.OUT_OF_MEMORY_AT_START,
        FailureKind.OUT_OF_MEMORY_UNDER_LOAD,
        "Lower mem-fraction-static, max-running-requests or max-batched-tokens, or spread over more GPUs with tp-size.",
    ),
    FailureRule(
        r"\bnccl(System|UnhandledCuda|Internal|Remote|InvalidUsage)Error|NCCL (error|failure)|DistBackendError"
        r"|ProcessGroupNCCL.*(timeout|timed out)",
        FailureKind.DRIVER_FAULT,
        FailureKind.DRIVER_FAULT,
        "The GPUs could not talk to one another: give the container shared memory, see `nvidia-smi topo -m`, and run"
        " with NCCL_DEBUG=INFO in runtime.env.",
    ),
    FailureRule(
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old|No CUDA GPUs are available"
        r"|no CUDA-capable device|Found no NVIDIA driver|Failed to infer device type|system not yet initialized"
        r"|uncorrectable ECC error|GPU is lost|fallen off the bus|libcuda\.so\.1: cannot open|[Dd]river/library version"
        r" mismatch|CUDA error: (unknown error|unspecified launch failure|an illegal memory access|device-side assert)",
        FailureKind.DRIVER_FAULT,
        FailureKind.DRIVER_FAULT,
        "See `nvidia-smi` and `dmesg`: update the driver for this engine's CUDA version, or reset the GPU.",
    ),
    FailureRule(
        r"(?i)address already in use|port is already allocated|only one usage of each socket address|\bEADDRINUSE\b",
        FailureKind.PORT_IN_USE,
        None,
        "Another process listens on this port; run again to have another free one chosen.",
    ),
    FailureRule(
        r"(?i)gated repo|GatedRepoError|awaiting a review from the repo authors",
        FailureKind.GATED_MODEL,
        None,
        "Ask for access on the model's page, and export HF_TOKEN before running autotune.",
    ),
    FailureRule(
        r"is not a local folder and is not a valid model identifier|Repo id must (be in the form|use alphanumeric)"
        r"|RepositoryNotFoundError|does not appear to have a file named|does not appear to have files named"
        r"|is not a valid git identifier|LocalEntryNotFoundError|couldn't connect to 'https?://"
        r"|Cannot find the requested files in the (local|disk) cache|Cannot load model",
        FailureKind.MODEL_NOT_FOUND,
        None,
        "Check the model's name or folder, and, for a model on the Hugging Face hub, the network and its access.",
    ),
    FailureRule(
        r"(?i)heads.*\b(must be|not|is not|are not) divisible by|heads .*do not divide one another"
        r"|\bis not divisible by\b.*(tp|tensor)|assert \w*heads\w* % \w+ == 0",
        FailureKind.NOT_DIVISIBLE,
        None,
        "Choose a tp-size that divides the model's number of attention heads.",
    ),
    FailureRule(
        r"Model architectures .* are not supported|No model architectures are specified|Unrecognized model in "
        r"|does not recognize this architecture|Unsupported architectures?\b|Tokenizer class .* does not exist"
        r"|Can't load tokenizer|instantiate the backend tokenizer|tokenizer .*not supported",
        FailureKind.UNSUPPORTED_MODEL,
        None,
        "Use an engine version that knows this model, or another runtime.",
    ),
)


@dataclass(frozen=True)
class LogDiagnosis:
    """A Diagnosis by the first of `rules` that matches, else by the exit status.

    `info_patterns` find what a healthy server says of itself; keys that end in `tokens` are counts, summed
    over engine cores.
    """

    rules: tuple[FailureRule, ...] = COMMON_RULES
    info_patterns: Mapping[str, str] = field(default_factory=dict)

    def startup_failure(self, log: str) -> Failure | None:
        return self._match_rules(log, "start")

    def failure(self, log: str, exit_status: int | None, phase: Phase) -> Failure:
        return self._match_rules(log, phase) or failure_from_exit(log, exit_status, phase)

    def server_info(self, log: str) -> dict[str, Any]:
        info: dict[str, Any] = {}
        for key, pattern in (*self.info_patterns.items(), *LAUNCHER_INFO_PATTERNS.items()):
            matches = re.findall(pattern, log)
            if matches and key.endswith("tokens"):
                info[key] = sum(int(match.replace(",", "")) for match in matches)
            elif matches:
                info[key] = matches[0]
        return info

    def _match_rules(self, log: str, phase: Phase) -> Failure | None:
        """The failure of the first rule that matches a line of the log; None when none does."""
        stripped_lines = map(strip_log_prefix, log.splitlines())
        lines = [line for line in stripped_lines if line and not TRACEBACK_LINE.match(line)]
        for rule in self.rules:
            kind = rule.kind(phase)
            match = kind and next((line for line in lines if rule.regex.search(line)), None)
            if kind and match:
                return Failure(kind, shorten(match), rule.remedy)
        return None


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
    return Failure(kind, f"It ended with {describe_exit(exit_status)}. {excerpt}", _exit_remedy(exit_status))


def _exit_remedy(exit_status: int) -> str:
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
    """The log's first error under load, its last error at start-up, or its last line if there is no error."""
    lines = [line for line in log.splitlines() if not SHUTDOWN_NOISE.search(line)]
    lines = [line for line in lines if (text := strip_log_prefix(line)) and not TRACEBACK_LINE.match(text)]
    errors = [line for line in lines if ERROR_LINE.search(line)]
    if errors:
        return f"It said: {shorten(strip_log_prefix(errors[0 if phase == 'load' else -1]))}"
    return f"Its last line: {shorten(strip_log_prefix(lines[-1]))}" if lines else "Its log is empty."


def strip_log_prefix(line: str) -> str:
    """A log line without the process, level and time that loggers put before the message."""
    line = LOGGER_PREFIX.sub("", PROCESS_PREFIX.sub("", line.strip(), count=1), count=1)
    return PYDANTIC_INPUT_SUFFIX.sub("", line).strip()


def shorten(line: str) -> str:
    """The line, cut to MAX_MESSAGE_CHARACTERS."""
    return line if len(line) <= MAX_MESSAGE_CHARACTERS else line[: MAX_MESSAGE_CHARACTERS - 3].rstrip() + "..."
