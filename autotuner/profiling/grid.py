"""Which points to measure: prompt lengths, context lengths, and numbers of requests in flight."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from autotuner.profiling.points import DecodePoint

SHORTEST_PROMPT = 100
"""Below, TTFT is the engine's fixed cost, whatever the length."""
SHORTEST_CACHED_PROMPT = 256
"""A prefix cache holds whole blocks and computes the last one of a prompt anew: of fewer tokens little is cached."""
DECODE_WINDOW_TOKENS = 128
"""Output tokens of a decode point: enough for a steady window, few enough that the context hardly grows."""
MAX_REQUESTS_IN_FLIGHT = 2000
"""Engines run fewer requests at once than this, whatever their KV cache holds."""
MIN_BEND, MAX_REFINEMENTS = 0.1, 2
"""A relative deviation of ITL from the chord of its neighbours that asks for another point, and most such points."""


def geometric_lengths(shortest: int, longest: int, count: int, included: int) -> list[int]:
    """`count` lengths from `shortest` to `longest` in equal ratios, ascending; the nearest inner one is `included`."""
    longest = max(longest, included)
    shortest = min(shortest, included)
    if count <= 2 or longest == shortest:
        return sorted({shortest, included, longest})
    ratio = (longest / shortest) ** (1 / (count - 1))
    lengths = [round(shortest * ratio**step) for step in range(count)]
    lengths[0], lengths[-1] = shortest, longest
    if included not in lengths:
        lengths[min(range(1, count - 1), key=lambda step: abs(lengths[step] - included))] = included
    return sorted(set(lengths))


def decode_shape(context_length: int, max_output: int = DECODE_WINDOW_TOKENS) -> tuple[int, int]:
    """(Prompt tokens, output tokens) of requests whose mean context while they decode is `context_length`."""
    output = max(2, min(max_output, context_length)) // 2 * 2
    return max(1, context_length - output // 2), output


def requests_that_fit(kv_tokens: int, prompt_tokens: int, output_tokens: int, running_limit: int | None) -> int:
    """How many requests a KV cache holds at their full length, within the limit of running requests; may be 0."""
    fitting = kv_tokens // (prompt_tokens + output_tokens)
    return min(fitting, MAX_REQUESTS_IN_FLIGHT, running_limit or MAX_REQUESTS_IN_FLIGHT)


def batch_sizes(most: int, count: int, step: int = 1) -> list[int]:
    """At most `count` numbers of requests from `step` to `most`, descending, closer together where they are few.

    All are multiples of `step`, the replicas of data-parallel attention, so that these have equally many.
    """
    steps = most // step
    if steps < 1:
        return []
    if steps <= count:
        return [number * step for number in range(steps, 0, -1)]
    shares = [(number / (count - 1)) ** 1.5 for number in range(count)]
    return sorted({step * (1 + round(share * (steps - 1))) for share in shares}, reverse=True)


def refined_batch_sizes(points: Sequence[DecodePoint], itl_target: float, step: int = 1) -> list[int]:
    """Numbers of requests between measured ones: where ITL crosses the target, and where it bends most."""
    ordered = sorted((point for point in points if point.rejection is None), key=lambda point: point.concurrency)
    wanted = []
    for before, after in pairwise(ordered):
        if before.itl <= itl_target < after.itl:
            share = (itl_target - before.itl) / (after.itl - before.itl)
            wanted.append(before.concurrency + share * (after.concurrency - before.concurrency))
    bends = []
    for before, middle, after in zip(ordered, ordered[1:], ordered[2:], strict=False):
        share = (middle.concurrency - before.concurrency) / (after.concurrency - before.concurrency)
        chord = before.itl + share * (after.itl - before.itl)
        left, right = middle.concurrency - before.concurrency, after.concurrency - middle.concurrency
        other = before if left > right else after
        bends.append((abs(middle.itl - chord) / middle.itl, (middle.concurrency + other.concurrency) / 2))
    wanted += [size for bend, size in sorted(bends, reverse=True) if bend >= MIN_BEND]
    measured = {point.concurrency for point in points}
    sizes = [max(step, int(size) // step * step) for size in wanted]
    return [size for size in dict.fromkeys(sizes) if size not in measured][:MAX_REFINEMENTS]
