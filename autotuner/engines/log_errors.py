"""The errors in a server's log: its lines told apart by process and level, its tracebacks put together."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from autotuner.engines.origin_rules import Frame

Link = Literal["cause", "context"]
"""How an exception follows the one before it: raised from it, or while it was handled."""

MAX_MESSAGE_LINES = 40
"""Lines of an exception's message that are kept."""

MAX_LINE_CHARACTERS = 4000
"""Characters of a line that are read: engines log whole configurations on one."""

ANSI = re.compile(r"\x1b\[[0-9;]*m")
CONTAINER_TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)\s?")
PROCESS_PREFIX = re.compile(r"^\((?P<process>[^()]*\bpid=\d+[^()]*)\) ?")
RANK_PREFIX = re.compile(r"^\[(?P<process>rank\d+)\]: ?")
LEVEL = r"(?P<level>DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)"
LOGGER_PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        # vLLM: ERROR 09-20 10:00:02 [config.py:278] text; simulated engine: ERROR 2026-11-21 12:52:49,456 name: text
        rf"^{LEVEL} [\d-]+ [\d:.,]+ ?(?:\[[^\]]*\] ?|[\w./-]+:\d+\] ?|[\w.-]+: )?",
        # TensorRT-LLM: [01/15/2026-10:00:00] [TRT-LLM] [E] text, and [TensorRT-LLM][ERROR] text
        r"^\[[\d/]+-[\d:]+\] \[TRT-LLM\] (?:\[RANK (?P<process>\d+)\] ?)?\[(?P<level>[VDIWEF])\] ?",
        rf"^\[(?:TensorRT-LLM|TRT-LLM)\] ?\[{LEVEL}\] ?",
        # SGLang: [2026-11-29 23:46:20 TP0] text
        rf"^\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)?(?P<process>(?: \w+)*)\] (?:{LEVEL}:? *)?",
        # the logging module
        rf"^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)? ?(?:[-|] ?)?(?:[\w.]+ ?[-|] ?)?\[?{LEVEL}\]? ?(?:[-|:] ?)?",
        rf"^{LEVEL}:(?: +|[\w.]+:)",
        # PyTorch and glog: [E1121 13:33:57.46 file.cpp:68] text, E1121 13:33:57.46 12 file.cc:68] text
        r"^\[(?P<level>[IWEF])(?:\d{3,4} [\d:.]+)? ?[\w./]+:\d+\] ?",
        r"^(?P<level>[IWEF])\d{4} [\d:.]+ +\d+ [\w./]+:\d+\] ?",
    )
)
TRACEBACK = "Traceback (most recent call last)"
LINKS: dict[str, Link] = {
    "The above exception was the direct cause of the following exception:": "cause",
    "During handling of the above exception, another exception occurred:": "context",
}
FRAME = re.compile(r'^File "(?P<path>[^"]+)", line \d+, in (?P<function>.+)$')
EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Failed|Failure|Timeout|Unsupported)(?:\(\w+\))?(?=:|$)"
)
RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:\(\w+\))?(?::\s|:?$)")
NATIVE_EXCEPTION = re.compile(r"^\s*what\(\):\s*")

ENDS_PROCESS, RAISED_BY_ONE, LINE, CONSEQUENCE_RANK, WRAPPED, HANDLED = range(6)
"""Ranks of errors, the likeliest cause first."""

FATAL_HEADER = re.compile(
    r"failed to start|encountered a fatal error|hit an exception|Exception in worker|Error executing method"
    r"|Failed to initialize executor|Executor worker initialization|Engine loop|background task failed"
    r"|^Process [\w.\- ]+:$"
)
"""Headings that engines log over an exception that ends one of their processes."""

MAIN_FRAME = re.compile(r"sys\.exit\((?:main|cli|app)\(\)\)|_run_module_as_main|torch/distributed/run\.py")
"""Frames of a traceback that has reached the program's entry point, so that the program ends."""

UNRAISED_HEADER = re.compile(r"^Exception ignored in|^Exception in thread")

REQUEST_STATUS = re.compile(r"\d{3} (?:Client|Server) Error\. \(Request ID")
"""What the exceptions of huggingface_hub say before the words of the hub."""

WRAPPER = re.compile(
    r"See root cause above|[Ss]ee (?:the )?stack trace|stack trace above|Engine core initialization failed"
    r"|initialization failed due to an exception in a background process|Engine process failed to start"
    r"|EngineCore encountered an issue|^RuntimeError: Executor failed|EngineDeadError|Background loop "
    r"|Executor worker (?:returned error|died)|[Ii]nitialization failed\. Please see|failed to be inspected"
    r"|MQLLMEngine|ChildFailedError|output_handler failed|Application startup failed"
    r"|Engine (?:loop )?(?:is )?(?:dead|not running)|AsyncEngineDeadError|[Ee]ngine is (?:dead|not running)"
    r"|Task finished unexpectedly|Exception in ASGI application|Failed to initialize executor on"
)
"""Words of the errors that only report another one."""

CONSEQUENCE = re.compile(
    r"died unexpectedly|remote process exited|ncclRemoteError|DistBackendError|NCCL (?:error|failure)"
    r"|ProcessGroupNCCL|BrokenPipeError|Broken pipe|ConnectionReset|Connection reset by peer|^EOFError"
    r"|CancelledError|KeyboardInterrupt|SystemExit|^RuntimeError: cancelled|^zmq\.|TCPStore|Connection closed by peer"
    r"|scheduler (?:is dead|died)|crashed with exit code"
    r"|[Gg]loo.*(?:connectFullMesh|Connection)|Received sigquit from a child process|terminated with -?\d+"
)
"""Words of the errors that follow when another process has ended, and are the cause only where no other error is."""

BENIGN = re.compile(
    r"[Rr]etrying\b|Error retrieving (?:safetensors|file list)|Error parsing config for"
    r"|Ignore import error|Error (?:in|during) (?:usage|stats?) (?:report|lib)|[Uu]sage (?:stats|report)"
    r"|resource_tracker|leaked |nanobind|Failed to (?:import|load) (?:from )?(?:vllm\.)?_C|No module named '?vllm\._"
    r"|Failed to get (?:the )?(?:IP|hostname)|falling back|[Ff]alls? back|[Ff]allback|is deprecated|will be ignored"
    r"|Dumping (?:input data|scheduler)"
    r"|libtcmalloc|libiomp|cuda graph.*disabled|ERROR: ld\.so: object|Failed to fetch .*(?:adapter"
    r"|processor|generation)"
)
"""Words of errors that engines log and go on from."""

SHUTDOWN = re.compile(
    r"(?i)shutdown|shutting down|finished server|kill_process_tree|sigquit|stopping|cleaning up|terminat|waiting for"
    r"|exit(?:ed|ing)|died|killed|exit code|manager stopped|draining|stack dump|watchdog|flight recorder|dump"
)
"""Words of the lines that a process logs while it ends."""

PLAIN_ERROR = re.compile(
    r"\b(?:ERROR|CRITICAL|FATAL|[Ee]rror:)|^Error\b|^Fatal Python error|\b\w+(?:Error|Exception): "
    r"|scheduler is dead|crashed with exit code"
)
WATCHDOG = re.compile(r"^Watchdog timeout \(")
"""What SGLang logs, without a level, before it ends a scheduler that hangs."""

ACCESS = re.compile(r"\"(?:GET|POST|HEAD|PUT|DELETE|OPTIONS) \S+ HTTP/[\d.]+\"")
PLAIN_NOISE = re.compile(r"Warning:|^\s*warnings\.warn|^usage: |^\s+\[--|^\s+\{")
LAUNCHER_ERROR = re.compile(r"^autotune: (?:docker: |Out of memory)|^docker: ")


@dataclass(frozen=True)
class Line:
    """One line of a log: the process, level and place of its prefix, and the text after it, with its indent.

    `level` is the first letter of the level in capitals; empty where the line has none.
    """

    text: str
    process: str = ""
    level: str = ""
    has_prefix: bool = False


@dataclass
class RaisedError:
    """One exception: the lines of its message, the source line that raised it, its link to the one before.

    `frames` are those of its traceback, the one that raised it last.
    """

    lines: list[str]
    source_line: str = ""
    link: Link | None = None
    frames: list[Frame] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The first line of the message that says something."""
        first = self.lines[0]
        more = [line for line in self.lines[1:] if line]
        if "validation error" in first and more:
            value = next((line for line in more if line.startswith("Value error, ")), ": ".join(more[:2]))
            return value.removeprefix("Value error, ")
        if first.rstrip().endswith(("raised:", "Error:", "Exception:", "exception:")) and more:
            return f"{first.rstrip()} {more[0]}"
        if re.fullmatch(r"[\w.]+", first) and self.source_line and not self.source_line.startswith("raise "):
            return f"{first}: {self.source_line}"
        return first

    @property
    def searched_lines(self) -> list[str]:
        """The lines that tell what failed; last the first one where that is but the status of a request."""
        first, *more = self.lines
        asserted = [self.source_line] if "assert " in self.source_line else []
        return [*more, first] if REQUEST_STATUS.search(first) else [first, *more, *asserted]


@dataclass
class LoggedError:
    """An error of a log: a chain of exceptions, the first raised first, or one line of level error.

    `ends_process` is set by what surrounds it: a heading or a frame that says that a process ended with
    it. A `handled` error was followed by the further work of its process. The message of a `bare` one
    has no prefix before its lines, even if its heading has one.
    """

    exceptions: list[RaisedError]
    process: str
    level: str
    header: str = ""
    is_exception: bool = True
    ends_process: bool = False
    handled: bool = False
    is_bare: bool = False
    frames: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(line for error in self.exceptions for line in error.lines)

    @property
    def own_words(self) -> str:
        """The first lines of its exceptions."""
        return "\n".join(error.lines[0] for error in self.exceptions)

    @property
    def rank(self) -> int:
        """How likely it is the cause: 0 where it ends a process, more where it follows from other errors."""
        last = self.exceptions[-1].lines[0]
        if self.handled:
            return HANDLED
        ends = (self.exceptions[0], self.exceptions[-1])
        if any(WRAPPER.search(text) for error in ends for text in (error.lines[0], error.summary)):
            return WRAPPED
        if not self.is_exception and FATAL_HEADER.search(last):
            return WRAPPED
        if CONSEQUENCE.search(last):
            return CONSEQUENCE_RANK
        if self.ends_process:
            return ENDS_PROCESS
        return RAISED_BY_ONE if self.is_exception else LINE

    @property
    def summary(self) -> str:
        """The first line of the innermost exception of its last chain."""
        return self.exceptions[self.last_chain_start].summary

    @property
    def last_chain_start(self) -> int:
        """Index of the exception from which, directly, the last one was raised."""
        links = [index for index, error in enumerate(self.exceptions) if error.link == "context"]
        return links[-1] if links else 0


def parse_line(line: str) -> Line:
    """A line of any engine's log, its prefixes read off."""
    text = CONTAINER_TIME.sub("", ANSI.sub("", line[:MAX_LINE_CHARACTERS].rstrip()), count=1)
    process, level, has_prefix = "", "", False
    while match := PROCESS_PREFIX.match(text) or RANK_PREFIX.match(text):
        process, text = match["process"], text[match.end() :]
    for pattern in LOGGER_PREFIXES:
        if match := pattern.match(text):
            groups = match.groupdict()
            level, has_prefix = (groups["level"] or "").upper()[:1], True
            process = process or (groups.get("process") or "").strip()
            text = text[match.end() :]
            break
    if not level and LAUNCHER_ERROR.match(text):
        level = "E"
    return Line(text, process, {"C": "E", "F": "E"}.get(level, level), has_prefix)


def read_errors(log: str) -> list[LoggedError]:
    """The errors of a log that may be the cause of a failure, in the order in which they appear."""
    reader = _ErrorReader()
    for text in log.splitlines():
        reader.add(parse_line(text))
    return [error for error in reader.errors if not _is_benign(error)]


def _is_benign(error: LoggedError) -> bool:
    if error.level in ("W", "I", "D", "V") and not error.ends_process:
        return True
    if UNRAISED_HEADER.search(error.header) and not error.ends_process:
        return error.header.startswith("Exception ignored")
    if error.ends_process:
        return False
    return bool(BENIGN.search(error.header) or BENIGN.search(error.own_words))


class _ErrorReader:
    """Puts the lines of tracebacks together, for each process apart."""

    def __init__(self) -> None:
        self.errors: list[LoggedError] = []
        self._open: dict[str, LoggedError] = {}
        self._in_frames: dict[str, bool] = {}
        self._link: dict[str, Link | None] = {}
        self._source_line: dict[str, str] = {}
        self._frames: dict[str, list[Frame]] = {}
        self._last_line: dict[str, Line] = {}
        self._bare_stream = ""

    def add(self, line: Line) -> None:
        key = self._stream(line)
        text = line.text.strip()
        if TRACEBACK in line.text:
            self._start_traceback(key, line)
        elif self._in_frames.get(key):
            self._add_frame_or_exception(key, line)
        elif text in LINKS and key in self._open:
            self._link[key] = LINKS[text]
        elif self._starts_exception(key, line):
            self._add_exception(key, line)
        elif not self._continues(key, line):
            self._close(key)
            self._add_ordinary(key, line)

    def _stream(self, line: Line) -> str:
        """The process of a line; lines without any prefix continue an open traceback of the last prefixed one."""
        if line.process or line.has_prefix or "" in self._open:
            return line.process
        return self._bare_stream if self._bare_stream in self._open else ""

    def _start_traceback(self, key: str, line: Line) -> None:
        heading = line.text.partition(TRACEBACK)[0].strip()
        if not (key in self._open and self._link.get(key)):
            self._close(key)
            previous = self._last_line.get(key)
            if not heading and previous is not None and self._heads(previous, line):
                heading = previous.text.strip()
                self._take_back(previous)
            level = line.level or ("W" if previous and self._is_warned(previous, line) else "")
            self._open[key] = LoggedError([], line.process, level, heading)
        if line.has_prefix and not line.level:
            # SGLang's records have a prefix on their first line only
            self._bare_stream = key
        self._in_frames[key] = True
        self._source_line[key] = ""
        self._frames[key] = []

    def _heads(self, previous: Line, line: Line) -> bool:
        if UNRAISED_HEADER.search(previous.text) or re.match(r"Process [\w.\- ]+:$", previous.text.strip()):
            return True
        return previous.level == "E" or (
            previous.level == line.level and FATAL_HEADER.search(previous.text) is not None
        )

    def _is_warned(self, previous: Line, line: Line) -> bool:
        """Whether a traceback without prefix belongs to the warning before it."""
        return (
            previous.level == "W"
            and not line.has_prefix
            and bool(re.search(r"(?i)fail|error|exception|ignor|cannot", previous.text))
        )

    def _take_back(self, previous: Line) -> None:
        """Drop the error of a line that turned out to be a heading."""
        if self.errors and not self.errors[-1].is_exception and self.errors[-1].text == previous.text.strip():
            self.errors.pop()

    def _add_frame_or_exception(self, key: str, line: Line) -> None:
        text = line.text.strip()
        if line.text[:1] in (" ", "\t") or not text:
            self._open[key].frames.append(text)
            if match := FRAME.match(text):
                self._frames[key].append(Frame(match["path"], match["function"]))
            elif text and not re.match(r"File \"|[\^~]+$", text):
                self._source_line[key] = text
        elif RAISED.match(line.text) and (line.level in ("", self._open[key].level)):
            self._in_frames[key] = False
            self._add_exception(key, line)
        elif line.level in ("I", "D", "W"):
            self._note_progress(key, line)
        else:
            self._open[key].frames.append(text)

    def _starts_exception(self, key: str, line: Line) -> bool:
        if not (EXCEPTION.match(line.text) or NATIVE_EXCEPTION.match(line.text)):
            return False
        error = self._open.get(key)
        if error and error.exceptions and not self._link.get(key):
            # the cause in a message, as in "backend='inductor' raised:"
            return not (error.exceptions[-1].lines[-1].rstrip().endswith(":") and self._same_record(error, line))
        return True

    def _add_exception(self, key: str, line: Line) -> None:
        text = NATIVE_EXCEPTION.sub("", line.text).strip()
        error, link = self._open.get(key), self._link.pop(key, None)
        if error is None or (error.exceptions and link is None):
            self._close(key)
            previous = self._last_line.get(key)
            header = previous.text.strip() if previous is not None and self._heads(previous, line) else ""
            if header and previous is not None:
                self._take_back(previous)
            error = self._open[key] = LoggedError([], line.process, line.level, header)
        error.is_bare = not (line.level or line.has_prefix)
        frames = self._frames.pop(key, [])
        error.exceptions.append(RaisedError([text], self._source_line.pop(key, ""), link, frames))
        if len(error.exceptions) == 1:
            self.errors.append(error)
        error.ends_process = bool(
            error.ends_process
            or FATAL_HEADER.search(error.header)
            or any(MAIN_FRAME.search(frame) for frame in error.frames)
        )

    def _same_record(self, error: LoggedError, line: Line) -> bool:
        if error.is_bare:
            return not (line.level or line.has_prefix)
        return line.level == error.level and line.level != ""

    def _continues(self, key: str, line: Line) -> bool:
        """Whether a line goes on with the message of an exception; it is added if so."""
        error = self._open.get(key)
        if error is None or not error.exceptions or self._link.get(key):
            return bool(self._link.get(key)) and not line.text.strip()
        if not self._same_record(error, line) or ACCESS.search(line.text) or LAUNCHER_ERROR.match(line.text):
            return False
        if line.level and FATAL_HEADER.search(line.text):
            return False
        if re.match(r"^Process [\w.\- ]+:$|^Exception in thread", line.text):
            return False
        lines = error.exceptions[-1].lines
        if len(lines) < MAX_MESSAGE_LINES:
            lines.append(line.text.strip())
        return True

    def _add_ordinary(self, key: str, line: Line) -> None:
        text = line.text.strip()
        if not text:
            return
        is_error = (
            line.level == "E"
            or WATCHDOG.match(text) is not None
            or (
                not line.level
                and PLAIN_ERROR.search(text)
                and not PLAIN_NOISE.search(line.text)
                and not ACCESS.search(text)
            )
        )
        if is_error:
            ends = bool(LAUNCHER_ERROR.match(text) or re.match(r"[\w. -]+: error: ", text))
            self.errors.append(LoggedError([RaisedError([text])], line.process, "E", "", False, ends))
        else:
            self._note_progress(key, line)
        self._last_line[key] = line

    def _note_progress(self, key: str, line: Line) -> None:
        """Mark the errors of a process as handled when it goes on with its work."""
        if not (line.level in ("I", "D", "W") or (line.has_prefix and not line.level)):
            return
        if SHUTDOWN.search(line.text) or ACCESS.search(line.text):
            return
        for error in self.errors:
            if error.process == line.process and not error.ends_process:
                error.handled = True

    def _close(self, key: str) -> None:
        self._open.pop(key, None)
        self._in_frames.pop(key, None)
        self._link.pop(key, None)
        self._source_line.pop(key, None)
        self._frames.pop(key, None)


def plain_lines(log: str) -> list[str]:
    """The lines without a level that are not part of a warning or a usage text."""
    lines = (parse_line(text) for text in log.splitlines())
    return [
        line.text.strip()
        for line in lines
        if not line.level and not line.has_prefix and line.text.strip() and not PLAIN_NOISE.search(line.text)
    ]


def last_words(log: str) -> str:
    """The last line of a log that tells of the server itself; empty where there is none."""
    lines = [parse_line(text) for text in log.splitlines()]
    for line in reversed(lines):
        text = line.text.strip()
        if text and not (ACCESS.search(text) or BENIGN.search(text) or THROUGHPUT.search(text) or _is_frame(text)):
            return text
    return ""


THROUGHPUT = re.compile(r"Avg prompt throughput|(?:Prefill|Decode) batch|^- (?:leaked|\.\.\.)|^warnings\.warn|refleaks")


def _is_frame(text: str) -> bool:
    return bool(re.match(r"File \"|[\^~]+$|raise |Traceback \(most", text))
