"""The simulated engine in another engine's place: the same candidate, in its flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.core import Candidate, Value
from autotuner.engines.parameters import CanonicalParameter, canonical_parameters
from autotuner.engines.sim import Sim

UNSUPPORTED_ABOVE_ONE = ("dp-size",)
"""What the simulated engine has no word for and that changes everything where it is above 1."""


@dataclass(frozen=True)
class SimulatedStandIn:
    """A candidate of the simulated engine, and the parameters that it knows nothing of."""

    candidate: Candidate
    ignored_parameters: tuple[str, ...] = ()


def simulated_stand_in(candidate: Candidate) -> SimulatedStandIn:
    """The candidate with the simulated engine's parameters, whichever engine it is of.

    An engine's own flag counts as the canonical parameter it is the flag of; what the simulated
    engine has no parameter for is left out and named.
    """
    if candidate.runtime == Sim.name:
        return SimulatedStandIn(candidate)
    rows, own = canonical_parameters(), _parameters_by_flag(candidate.runtime)
    kept: dict[str, Value] = {}
    ignored: list[str] = []
    for name, value in candidate.parameters.items():
        row = rows.get(name) or own.get("--" + name.replace("_", "-"))
        form = row.by_engine.get(Sim.name) if row else None
        if row is None or form is None or form.lacks is not None:
            ignored.append(name)
        else:
            kept[row.name] = value
    return SimulatedStandIn(Candidate(Sim.name, kept), tuple(ignored))


def rejection_reason(candidate: Candidate) -> str | None:
    """Why the simulated engine cannot stand in for the candidate, or None."""
    for name in UNSUPPORTED_ABOVE_ONE:
        size = candidate.parameters.get(name)
        if isinstance(size, int) and size > 1:
            return f"the simulated engine has no {name}; simulate one replica and multiply"
    return None


def _parameters_by_flag(engine: str) -> Mapping[str, CanonicalParameter]:
    """The canonical parameters by the flag of an engine that takes their value as it is."""
    return {
        form.flag: row
        for row in canonical_parameters().values()
        if (form := row.by_engine.get(engine)) is not None and form.flag is not None and not form.values
    }
