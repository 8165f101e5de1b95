"""The engine as it comes: the candidate every gain refers to."""

from __future__ import annotations

from autotuner.core import Candidate, Value
from autotuner.rules import PARALLEL_SIZES
from autotuner.search.space import Space

STARTUP_PARAMETERS = ("trust-remote-code", "max-model-len", "load-format", "tokenizer-mode")
"""Parameters without which a model may not start at all: kept where they have one value only."""


def default_candidate(space: Space) -> Candidate | None:
    """The runtime with nothing set but what the model needs; None where nothing fits, or breaks no constraint.

    That includes the lowest tensor-parallel size of the space on which the model fits, else the
    parallel sizes of a candidate with the fewest GPUs.
    """
    kept: dict[str, Value] = {
        name: values[0]
        for name, values in space.parameters.items()
        if name in STARTUP_PARAMETERS and len(values) == 1 and space.rules.allowed_values(name, values, {})
    }
    sizes = sorted(value for value in space.parameters.get("tp-size", ()) if isinstance(value, int))
    tried: list[dict[str, Value]] = [{}] if not sizes or 1 in sizes else []
    tried += [{"tp-size": size} for size in sizes]
    fewest = sorted(space.candidates, key=lambda candidate: candidate.gpus)
    layouts = (
        tuple(item for item in candidate.parameters.items() if item[0] in PARALLEL_SIZES) for candidate in fewest
    )
    tried += [dict(layout) for layout in dict.fromkeys(layouts)]
    for given in tried:
        candidate = Candidate(space.runtime, {**given, **kept})
        if space.refusal_reason(candidate) is None:
            return candidate
    return None
