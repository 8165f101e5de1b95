"""What a trace file says: lengths, times, shared prefixes and conversations."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from autotuner.errors import ConfigError, pluralize
from autotuner.traces.time_units import UNITS_PER_SECOND, TimeUnit

MOONCAKE_BLOCK_TOKENS = 512

Turn = tuple[int, int]
"""(new prompt tokens, output tokens) of a turn of a conversation."""


@dataclass(frozen=True)
class TraceDescription:
    """What was found in a trace file, in the order in which one would tell it.

    `time_unit` is "date" for dates; `seconds` is None without times that can be replayed. `block_tokens` is the
    length of the prefix blocks that `hash_ids` name, `conversations` how many there are, each None without any.
    """

    path: str
    format: str
    requests: int
    conversations: int | None
    seconds: float | None
    time_unit: TimeUnit | Literal["date"] | None
    untimed_place: str | None
    skipped_rows: int
    block_tokens: int | None
    estimated_lengths: bool

    def __str__(self) -> str:
        parts = [pluralize(self.requests, "request")]
        if self.conversations is not None:
            parts = [f"{pluralize(self.conversations, 'conversation')} of {parts[0]}"]
        if self.seconds is not None:
            stamps = "dates" if self.time_unit == "date" else f"timestamps in {self.time_unit}"
            parts[0] += f" in {self.seconds:,.6g} s ({stamps})"
        elif self.untimed_place:
            parts.append(f"no times, because {self.untimed_place} has no timestamp")
        if self.block_tokens is not None:
            parts.append(f"prefixes shared in blocks of {self.block_tokens} tokens")
        if self.estimated_lengths:
            parts.append("lengths estimated at 4 characters a token")
        if self.skipped_rows:
            parts.append(f"{pluralize(self.skipped_rows, 'row')} without tokens skipped")
        return f"{self.path}: {self.format}, {'; '.join(parts)}"


@dataclass(frozen=True)
class RecordedTrace:
    """The (prompt tokens, output tokens) of each request of a trace file.

    `timestamps` are seconds since the first request, empty unless every row has one; `time_unit` is what they
    were in, "date" for dates, and `untimed_place` the first row without one. `block_ids` are those of the blocks
    of `block_tokens` tokens that each prompt begins with, empty without any; equal ids stand for equal tokens.
    `conversations` are the turns of each conversation; their requests are then the turns one after the other.
    """

    path: str
    request_lengths: tuple[tuple[int, int], ...]
    timestamps: tuple[float, ...] = ()
    format: str = "lengths"
    time_unit: TimeUnit | Literal["date"] | None = None
    untimed_place: str | None = None
    skipped_rows: int = 0
    block_ids: tuple[tuple[int, ...], ...] = ()
    block_tokens: int = MOONCAKE_BLOCK_TOKENS
    conversations: tuple[tuple[Turn, ...], ...] = ()
    estimated_lengths: bool = False

    @property
    def seconds(self) -> float:
        """Seconds from the first request to the last; ConfigError if the timestamps cannot be replayed."""
        if not self.is_replayable:
            raise ConfigError(
                f"The trace '{self.path}' has no times that can be replayed.",
                why="Every row needs a timestamp, none may be before the one above it, and they must not all be equal.",
                remedy="Correct them, or drive its requests at a concurrency or with another arrival.",
            )
        return self.timestamps[-1]

    @property
    def is_replayable(self) -> bool:
        """Whether its requests can be sent at the recorded times."""
        times = self.timestamps
        return bool(times) and times[-1] > 0 and all(after >= before for before, after in pairwise(times))

    @property
    def rate(self) -> float:
        """Mean arrival rate in 1/s; ConfigError if the timestamps cannot be replayed."""
        return (len(self.request_lengths) - 1) / self.seconds

    def seconds_in(self, unit: TimeUnit) -> float:
        """`seconds` if the timestamps are in `unit`, whatever was detected; ConfigError if they are dates."""
        if self.time_unit is None or self.time_unit == "date":
            has = "dates" if self.time_unit else "no timestamps"
            raise ConfigError(
                f"The trace '{self.path}' has {has}, which have no unit.", remedy="Leave --time-unit out."
            )
        return self.seconds * UNITS_PER_SECOND[self.time_unit] / UNITS_PER_SECOND[unit]

    def describe(self, time_unit: TimeUnit | None = None) -> TraceDescription:
        """What was found in the file; `time_unit` replaces the detected one."""
        seconds = self.seconds if self.is_replayable else None
        if seconds is not None and time_unit is not None:
            seconds = self.seconds_in(time_unit)
        return TraceDescription(
            path=self.path,
            format=self.format,
            requests=len(self.request_lengths),
            conversations=len(self.conversations) or None,
            seconds=seconds,
            time_unit=(time_unit or self.time_unit) if self.timestamps else None,
            untimed_place=self.untimed_place,
            skipped_rows=self.skipped_rows,
            block_tokens=self.block_tokens if self.block_ids else None,
            estimated_lengths=self.estimated_lengths,
        )


def block_length(lengths: Sequence[int], block_counts: Sequence[int]) -> int:
    """Tokens of each prefix block, from the prompt lengths and numbers of blocks of all rows with blocks.

    The last block of a row may be cut short. 512, or where that does not fit all rows, the smallest power of two
    that does, or failing that the smallest length; 512 where none fits: further blocks are then left out.
    """
    rows = list(zip(lengths, block_counts, strict=True))
    low = max(-(-length // count) for length, count in rows)
    high = min((-(-length // (count - 1)) - 1 for length, count in rows if count > 1), default=sys.maxsize)
    if low > high or low <= MOONCAKE_BLOCK_TOKENS <= high:
        return MOONCAKE_BLOCK_TOKENS
    power = 1 << (low - 1).bit_length()
    return power if power <= high else low
