"""How many tokens each event of a response carried, by the count that can be believed.

Servers report usage that is zero until the end, constant, behind the text, of the prompt alone, or without
the reasoning. A count is believed where the events that show text bear it out; else the events are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from itertools import pairwise
from typing import Any, Literal

TokenCounts = Literal["usage", "running usage", "listed tokens", "events"]
"""What counted a response's tokens: its usage, the usage of every event, ids or log probabilities, or its events."""

_MAX_TOKENS = 1 << 20
"""A larger count is not believed."""


@dataclass(slots=True)
class TokenEvent:
    """One event with choices: characters per channel, and the server's own token counts where it gives them."""

    time: float
    output_chars: int = 0
    reasoning_chars: int = 0
    listed_tokens: int | None = None
    running_total: int | None = None
    role_only: bool = False
    is_last: bool = False

    @property
    def visible_chars(self) -> int:
        return self.output_chars + self.reasoning_chars


@dataclass(frozen=True, slots=True)
class Usage:
    """The counts of a usage object; None where one is missing or unreadable, or a prompt has no tokens."""

    prompt: int | None = None
    completion: int | None = None
    total: int | None = None
    reasoning: int | None = None
    cached: int | None = None

    @property
    def tokens_outside_completion(self) -> int:
        """Output tokens in `total` but not in `completion`: some servers leave the reasoning out of it."""
        if self.total is None or self.prompt is None:
            return 0
        difference = max(0, self.total - self.prompt - (self.completion or 0))
        if self.completion is None:
            return difference
        if self.reasoning:
            return difference if difference == self.reasoning else 0
        return 0 if difference == self.cached else difference  # a prompt without its cached tokens

    def output_tokens(self, text_events: int) -> int | None:
        """All output tokens, with those that the completion leaves out; `text_events` carried text."""
        if self.tokens_outside_completion:
            return (self.completion or 0) + self.tokens_outside_completion
        if self.completion is None or not self.reasoning:
            return self.completion
        left_out = self.completion < self.reasoning or (self.total is None and self.completion < text_events)
        return self.completion + self.reasoning if left_out else self.completion


@dataclass(frozen=True, slots=True)
class CountedTokens:
    """`tokens[i]` is the number of tokens of event i, `total` the server's own number, None if not believed."""

    tokens: list[int]
    total: int | None
    source: TokenCounts


def read_usage(reported: object) -> Usage | None:
    """The counts of a usage object under the names of the OpenAI and the Responses API; None without any."""
    if not isinstance(reported, Mapping):
        return None
    prompt_details = reported.get("prompt_tokens_details") or reported.get("input_tokens_details")
    output_details = reported.get("completion_tokens_details") or reported.get("output_tokens_details")
    usage = Usage(
        prompt=_first_count(reported, "prompt_tokens", "input_tokens") or None,
        completion=_first_count(reported, "completion_tokens", "output_tokens"),
        total=_first_count(reported, "total_tokens"),
        reasoning=_first_count(output_details, "reasoning_tokens"),
        cached=_first_count(prompt_details, "cached_tokens"),
    )
    return None if usage == Usage() else usage


def count_tokens(
    events: Sequence[TokenEvent],
    usages: Sequence[Usage],
    requested: int | None = None,
    *,
    reached_limit: bool = False,
) -> CountedTokens:
    """Count the tokens of each event by the server's running usage, else its listed tokens, else visible text.

    `usages` are those of the response in order, `requested` is the greatest number of tokens asked for, and
    `reached_limit` says that the server stopped there.
    """
    text_events = sum(1 for event in events if event.visible_chars)
    total, usage = _believed_total(events, usages, text_events, requested, reached_limit=reached_limit)
    if total is not None and (running := _running_tokens(events, total)) is not None:
        return CountedTokens(running, total, "running usage")
    if _lists_all_tokens(events):
        listed = [event.listed_tokens or 0 for event in events]
        return CountedTokens(listed, total, "listed tokens" if total is None else "usage")
    tokens = [1 if event.visible_chars else 0 for event in events]
    if total is None:
        return CountedTokens(tokens, None, "events")
    if total < text_events:
        return CountedTokens(_spread_evenly(events, total), total, "usage")
    if usage is not None and not any(event.reasoning_chars for event in events):
        _add_hidden_reasoning(
            tokens, events, min(usage.reasoning or usage.tokens_outside_completion, total - text_events)
        )
    _distribute_missing(tokens, events, total)
    return CountedTokens(tokens, total, "usage")


def _believed_total(
    events: Sequence[TokenEvent],
    usages: Sequence[Usage],
    text_events: int,
    requested: int | None,
    *,
    reached_limit: bool,
) -> tuple[int | None, Usage | None]:
    """The largest number of output tokens that a usage reports, if the response bears it out, and that usage.

    A server that stopped at the limit produced as many tokens as were requested, however they were streamed.
    Otherwise every text took a token; and more tokens than were requested need events for them or, from a server
    that did not stop at a limit, text, of which a token has about four characters.
    """
    totals = [(total, usage) for usage in usages if (total := usage.output_tokens(text_events)) is not None]
    if not totals:
        return None, None
    total, usage = max(totals, key=lambda pair: pair[0])
    if total == requested and reached_limit:
        return total, usage
    if total < text_events or total >= _MAX_TOKENS or _is_constant(events, total):
        return None, None
    if requested is not None and total > requested:
        hidden = usage.reasoning or usage.tokens_outside_completion
        likely_chars = 0 if reached_limit else sum(event.visible_chars for event in events)
        if total > max(sum(not event.role_only for event in events), likely_chars // 2) + hidden:
            return None, None
    return total, usage


def _is_constant(events: Sequence[TokenEvent], total: int) -> bool:
    """Whether the count was there from the first text on, before the server could know it."""
    running = [event.running_total for event in events if event.visible_chars]
    return len(running) > 1 and all(count == total for count in running)


def _running_tokens(events: Sequence[TokenEvent], total: int) -> list[int] | None:
    """The growth of the usage at each event; None where it does not grow with the text up to the total."""
    tokens = []
    before = 0
    for event in events:
        now = event.running_total
        if now is None and not event.visible_chars:
            now = before
        if now is None or now < before or (now == before and event.visible_chars):
            return None
        tokens.append(now - before)
        before = now
    return tokens if before == total and len(tokens) > 1 else None


def _lists_all_tokens(events: Sequence[TokenEvent]) -> bool:
    with_text = all(event.listed_tokens for event in events if event.visible_chars)
    return with_text and any(event.listed_tokens for event in events)


def _spread_evenly(events: Sequence[TokenEvent], total: int) -> list[int]:
    """Spread fewer tokens than texts from the first text to the last, as where a proxy sends each word alone."""
    tokens = [0] * len(events)
    carriers = [index for index, event in enumerate(events) if event.visible_chars]
    for number in range(total):
        tokens[carriers[round(number * (len(carriers) - 1) / max(1, total - 1))]] += 1
    return tokens


def _add_hidden_reasoning(tokens: list[int], events: Sequence[TokenEvent], hidden: int) -> None:
    """Count reasoning for which no event came with the first text, which it preceded."""
    first = next((index for index, count in enumerate(tokens) if count), None)
    if first is not None:
        tokens[first] += max(0, hidden - sum(1 for event in events[:first] if not event.role_only))


def _distribute_missing(tokens: list[int], events: Sequence[TokenEvent], total: int) -> None:
    """Add to `tokens` those in the server's count `total` that no event's text accounts for.

    A token may have no visible text (half a character, a special token): events without text after
    the first one with text get one each, and those before it if the count then comes out exactly, with
    or without the event that only ends the response. The rest goes to the events with most text per token,
    as servers merge tokens into one event when the client reads slowly.
    """
    missing = total - sum(tokens)
    textless = [index for index, event in enumerate(events) if not tokens[index] and not event.role_only]
    within = [index for index in textless if not events[index].is_last]
    is_silent = 0 < sum(event.visible_chars for event in events) <= total
    if missing == len(within) or (is_silent and missing != len(textless)):
        textless = within
    if missing != len(textless):
        first = next((index for index, count in enumerate(tokens) if count), 0)
        textless = [index for index in textless if index >= first]
    for index in textless[: max(0, missing)]:
        tokens[index] = 1
    missing = total - sum(tokens)
    if missing <= 0 or not any(tokens):
        return
    if is_silent:
        timed = [(index, event.time) for index, event in enumerate(events) if tokens[index] or event.is_last]
        _place_silent_tokens(tokens, timed, missing)
    else:
        texts = [(index, event.visible_chars) for index, event in enumerate(events) if tokens[index]]
        _merge_into_longest(tokens, texts, missing)


def _merge_into_longest(tokens: list[int], carriers: Sequence[tuple[int, int]], missing: int) -> None:
    """Add tokens one by one to the event that has most characters per token."""
    chars = dict(carriers)
    heap = [(-count / (tokens[index] + 1), -index) for index, count in carriers]
    heapify(heap)
    for _ in range(missing):
        index = -heap[0][1]
        tokens[index] += 1
        heapreplace(heap, (-chars[index] / (tokens[index] + 1), -index))


def _place_silent_tokens(tokens: list[int], carriers: Sequence[tuple[int, float]], missing: int) -> None:
    """Add tokens for which there is too little text where events took longer than usual, and the rest at the start.

    Hidden reasoning precedes the first event; special tokens that are not shown leave a pause.
    """
    from statistics import median  # loads fractions and decimals, which few responses need

    gaps = [(index, time - before) for (_, before), (index, time) in pairwise(carriers)]
    usual = median(gap for _, gap in gaps) if gaps else 0.0
    for index, gap in gaps:
        silent = min(missing, max(0, round(gap / usual) - tokens[index])) if usual > 0 else 0
        tokens[index] += silent
        missing -= silent
    tokens[carriers[0][0]] += missing


def _first_count(counts: Any, *names: str) -> int | None:
    """The first readable count under one of the names; what is no whole number is not read."""
    if not isinstance(counts, Mapping):
        return None
    return next((count for name in names if (count := _read_count(counts.get(name))) is not None), None)


def _read_count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 31:
        return None
    return int(value) if value == int(value) else None
