"""The errors shown to users: what happened, why, what to do, and the exit code."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autotuner.core import Failure


class AutotuneError(Exception):
    """Base of every error shown to the user as one paragraph.

    `error_class` is its name for programs: of an engine's failure, the failure's kind.
    """

    exit_code = 2
    error_class = "usage"

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return " ".join(as_sentence(part) for part in (self.what, self.why, self.remedy) if part)

    def record(self) -> dict[str, str | int | None]:
        """The error as plain data, for `--json`."""
        return {
            "class": self.error_class,
            "message": " ".join(as_sentence(part) for part in (self.what, self.why) if part),
            "remedy": as_sentence(self.remedy) if self.remedy else None,
            "exit_code": self.exit_code,
        }


def as_sentence(text: str) -> str:
    """The text with one full stop at its end, unless it ends with ?, !, a colon or an ellipsis."""
    text = text.rstrip()
    if text.endswith(("?", "!", ":", " ...")):
        return text
    return text.rstrip(".,; ") + "."


def file_error_reason(error: Exception) -> str:
    """Why a file cannot be read or written, in words: without the number of the system's error."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "A part of that path is a file, not a folder."
    if isinstance(error, OSError):
        return as_sentence(error.strerror or str(error))
    return "It is not text in UTF-8." if isinstance(error, UnicodeDecodeError) else as_sentence(str(error))


def shorten_middle(text: str, max_characters: int) -> str:
    """Cut the middle out of text longer than `max_characters`."""
    if len(text) <= max_characters:
        return text
    end = max_characters - max_characters // 2 - 1
    return f"{text[: max_characters // 2 - 1]}..{text[len(text) - end :]}"


def mask_credentials(text: str) -> str:
    """The text with the user name and password of every address in it masked, and keys in its query."""
    text = re.sub(r"//\S+@", "//***@", text)
    text = re.sub(r"(^|[\s'\"])[^\s'\"/@]+:[^\s'\"/@]*@", r"\1***@", text)
    return re.sub(r"(?i)([?&][\w-]*(?:key|token|secret|passw|signature)[\w-]*=)[^&\s'\"]+", r"\1***", text)


def pluralize(number: float, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 trial`, `2 trials`; give `plural` where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


class UsageError(AutotuneError):
    """The command line asks for something that does not exist or does not fit together."""


class ConfigError(AutotuneError):
    """A configuration, a profile, a scenario or an SLO cannot be used as written."""

    error_class = "configuration"


class NoFeasibleError(AutotuneError):
    """Everything ran, and no candidate met the targets."""

    exit_code = 1
    error_class = "no-feasible-candidate"


class UndecidedError(AutotuneError):
    """The winner's verdict is undecided, and the user asked for that to fail."""

    exit_code = 1
    error_class = "undecided"


class GateWorseError(AutotuneError):
    """A gated figure of the new run is worse than the baseline's."""

    exit_code = 1


class GateUnclearError(AutotuneError):
    """Noise leaves open whether a gated figure is worse."""

    exit_code = 4


class MachineError(AutotuneError):
    """This machine lacks what the run needs: an engine, a GPU, a port, disk space."""

    exit_code = 3
    error_class = "machine"


class EndpointError(AutotuneError):
    """An endpoint that runs already does not answer, refuses, or serves another model."""

    exit_code = 3
    error_class = "endpoint"


class RunStoreError(AutotuneError):
    """A run folder is missing, is not a run, or cannot be written."""

    exit_code = 3
    error_class = "run-folder"


class FileError(AutotuneError):
    """A file or folder that a command needs cannot be used, as the operating system says; where nothing says more."""

    exit_code = 3
    error_class = "file"

    def __init__(self, error: OSError) -> None:
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        super().__init__(
            f"'{shorten_middle(path, MAX_PATH_CHARACTERS)}' cannot be used.",
            why=error.strerror or type(error).__name__,
            remedy="Check the name, and what may be read and written there.",
        )
        if error.errno == errno.ENAMETOOLONG:
            self.exit_code = UsageError.exit_code


EXHAUSTED_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""Errors of a machine that has no more files, memory or processes to give."""


def machine_fault(error: Exception) -> AutotuneError | None:
    """The error to show where the fault is the machine's or a file's, and not autotune's; None where it is not."""
    if isinstance(error, MemoryError):
        return OutOfMemoryError()
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.errno in EXHAUSTED_ERRNOS:
        return MachineError(
            "The operating system refuses what a run takes.",
            why=f"{error.strerror}.",
            remedy="Raise the limits of this shell, which `ulimit -a` shows, or end other programs.",
        )
    if error.filename is not None:
        return FileError(error)
    if isinstance(error, FileNotFoundError) and not _has_working_folder():
        return MachineError("The folder that autotune was started in is gone.", remedy="Start it in one that exists.")
    return None


def _has_working_folder() -> bool:
    try:
        return Path.cwd().is_dir()
    except OSError:
        return False


class OutOfMemoryError(MachineError):
    """The memory of this machine, or the limit of this process, does not hold what was asked for."""

    def __init__(self) -> None:
        super().__init__(
            "There is not enough memory for this.",
            why="What was measured before is kept in the run folder.",
            remedy="Ask for less at a time, or check the size of the files that are read.",
        )


class EngineError(AutotuneError):
    """A server did not start, died or stopped answering; `failure` is what the trial records."""

    exit_code = 3

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"The engine failed ({failure.kind.value}).", why=failure.message, remedy=failure.remedy)
        self.failure = failure
        self.error_class = failure.kind.value


MAX_PATH_CHARACTERS = 120

MAX_LISTED_OPTIONS = 12
MAX_SUGGESTIONS, SAMPLE_SIZE = 3, 3
"""Up to MAX_LISTED_OPTIONS valid names are listed in full; of more, a sample."""

MIN_SIMILARITY = 0.65
"""Similarity by difflib of a name that is suggested: a name of three letters with one wrong has 0.67, and names of
flags that share only letters up to 0.64."""


def unknown_name_message(kind: str, name: str, options: Iterable[str]) -> str:
    """Say that `name` is unknown, with the nearest of `options`, else all or a sample of them."""
    import difflib

    valid_names = sorted({option for option in options if option})
    # dashes that all flags begin with say nothing about what was meant
    by_plain_name = {option.lstrip("-"): option for option in valid_names}
    nearest = difflib.get_close_matches(name.lstrip("-"), by_plain_name, n=1, cutoff=MIN_SIMILARITY)
    suggestions = [by_plain_name[plain_name] for plain_name in nearest]
    suggestions = suggestions or [option for option in valid_names if name and name.lower() in option.lower()]
    if suggestions:
        *others, last = map(repr, suggestions[:MAX_SUGGESTIONS])
        return f"Unknown {kind} '{name}'; did you mean {', '.join(others) + ' or ' if others else ''}{last}?"
    if len(valid_names) > MAX_LISTED_OPTIONS:
        return f"Unknown {kind} '{name}'; there are {len(valid_names)}, such as {', '.join(valid_names[:SAMPLE_SIZE])}."
    return f"Unknown {kind} '{name}'; choose from: {', '.join(valid_names)}."
