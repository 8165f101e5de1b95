"""The baseline: the engine with its own defaults, to which every gain is relative."""

from __future__ import annotations

from autotuner.core import PARALLEL_SIZES, Candidate, Value
from autotuner.search.space import Space

STARTUP_PARAMETERS = ("trust-remote-code", "max-model-len", "load-format", "tokenizer-mode")
"""Parameters without which some models do not start: set in the baseline if the space has a single value."""


def default_candidate(space: Space) -> Candidate | None:
    """The runtime with nothing set but what the model needs to start; None if no such candidate may run.

    That includes the smallest tensor-parallel size of the space that is not refused, else the parallel sizes of a
    candidate with the fewest GPUs.
    """
    required: dict[str, Value] = {
        name: values[0]
        for name, values in space.parameters.items()
        if name in STARTUP_PARAMETERS and len(values) == 1 and space.rules.allowed_values(name, values, {})
    }
    sizes = sorted(value for value in space.parameters.get("tp-size", ()) if isinstance(value, int))
    layouts: list[dict[str, Value]] = [{}] if not sizes or 1 in sizes else []
    layouts += [{"tp-size": size} for size in sizes]
    by_gpus = sorted(space.candidates, key=lambda candidate: candidate.gpus)
    own_sizes = (tuple(item for item in one.parameters.items() if item[0] in PARALLEL_SIZES) for one in by_gpus)
    layouts += [dict(items) for items in dict.fromkeys(own_sizes)]
    for layout in layouts:
        candidate = Candidate(space.runtime, {**layout, **required})
        if space.refusal_reason(candidate) is None:
            return candidate
    return None
