"""Why no combination of parameters can run, and what would let one run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autotuner.errors import ConfigError
from autotuner.search.space import Space

MAX_SUGGESTED_SIZE = 16
"""The largest parallel size that a remedy suggests."""

_REFUSAL_REMEDIES = (
    (r"breaks the constraint ([^:]+):", "remove the constraint with --set constraints.{0}=null"),
    (
        r"it needs \d+ GPUs and (\d+) may be used",
        "allow more GPUs with --total-gpus, or set sizes whose product is at most {0}",
    ),
    (r"pp-size \d+ is more than the (\d+) layers", "set a pp-size of at most {0}"),
    (r"(\d+) .* not divisible by ([a-z]+-size)", "set sizes that divide {0}: --set parameters.{1}=[{sizes}]"),
    (r"(\d+) key-value heads and (tp-size)", "set sizes that divide {0}: --set parameters.{1}=[{sizes}]"),
    (r"(\d+) (?:layers|experts) are fewer than ([a-z]+-size)", "set {1} to at most {0}"),
    (r"tp-size (\d+) is not a multiple of ([a-z]+-size)", "set sizes that divide {0}: --set parameters.{1}=[{sizes}]"),
    (r"it does not fit: the KV cache of one request", "lower max-model-len"),
    (
        r"it does not fit: (?!the KV)",
        "spread the model over more GPUs with a larger tp-size, or use a smaller model or a smaller dtype, such as "
        "with --layer fp8-default",
    ),
    (r"has no ([a-z]+-size)", "set {0} to 1: --set parameters.{0}=1"),
    (r"is above the (\d+) positions of the model", "lower max-model-len to at most {0}"),
    (
        r"is below max-model-len (\d+), and chunked prefill is off",
        "raise max-batched-tokens to {0}, lower max-model-len, or leave chunked prefill on",
    ),
    (r"is below max-running-requests (\d+)", "raise max-batched-tokens to {0}, or lower max-running-requests"),
    (r"(\S+) and (\S+) both set", "keep one of {0} and {1}"),
)
"""Remedies by a pattern of the rejection reason; groups of the match fill in the numbers and names."""


def check_candidates(space: Space) -> None:
    """ConfigError if every combination of parameters was rejected."""
    if space.candidates:
        return
    reasons = [reason for _, reason in space.refusals]
    first_reason = reasons[0] if reasons else "A parameter has an empty list of values."
    raise ConfigError(
        "No combination of the given parameters can run.",
        why=f"{len(reasons)} of {space.combination_count} were rejected; the first: {first_reason}",
        remedy=_refusal_remedy(reasons),
    )


def _refusal_remedy(reasons: Sequence[str]) -> str:
    """Suggest what would let a combination run, from the reasons why all were rejected."""
    if not reasons:
        return "Give every parameter at least one value."
    remedies = []
    for pattern, remedy in _REFUSAL_REMEDIES:
        match = next(filter(None, (re.search(pattern, reason) for reason in reasons)), None)
        if match is not None:
            remedies.append(remedy.format(*match.groups(), sizes=_divisors(match.groups())))
    text = "; or ".join(remedies) or "change the parameters that the reason names"
    return text[0].upper() + text[1:]


def _divisors(groups: Sequence[str]) -> str:
    """The sizes that divide the first number among the matched groups of a reason, as text."""
    count = next((int(group) for group in groups if group.isdigit()), 0)
    return ", ".join(str(size) for size in range(1, min(count, MAX_SUGGESTED_SIZE) + 1) if count % size == 0)
