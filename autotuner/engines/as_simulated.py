"""The simulated engine in another engine's place: the same candidate, in its flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.core import Candidate, Value
from autotuner.engines.parameters import Parameter, canonical
from autotuner.engines.sim import Sim

ALONE = ("dp-size",)
"""What the simulated engine has no word for and that changes everything where it is above 1."""


@dataclass(frozen=True)
class StandIn:
    """A candidate of the simulated engine, and the parameters that it knows nothing of."""

    candidate: Candidate
    ignored: tuple[str, ...] = ()


def stand_in(candidate: Candidate) -> StandIn:
    """The candidate with the simulated engine's parameters, whichever engine it is of.

    An engine's own flag counts as the canonical parameter it is the flag of; what the simulated
    engine has no parameter for is left out and named.
    """
    if candidate.runtime == Sim.name:
        return StandIn(candidate)
    rows, own = canonical(), _own_flags(candidate.runtime)
    kept: dict[str, Value] = {}
    ignored: list[str] = []
    for name, value in candidate.parameters.items():
        row = rows.get(name) or own.get("--" + name.replace("_", "-"))
        form = row.forms.get(Sim.name) if row else None
        if row is None or form is None or form.lacks is not None:
            ignored.append(name)
        else:
            kept[row.name] = value
    return StandIn(Candidate(Sim.name, kept), tuple(ignored))


def refuse(candidate: Candidate) -> str | None:
    """Why the simulated engine cannot stand in for the candidate, or None."""
    for name in ALONE:
        size = candidate.parameters.get(name)
        if isinstance(size, int) and size > 1:
            return f"the simulated engine has no {name}; simulate one replica and multiply"
    return None


def _own_flags(engine: str) -> Mapping[str, Parameter]:
    """The canonical parameters by the flag of an engine that takes their value as it is."""
    return {
        form.flag: row
        for row in canonical().values()
        if (form := row.forms.get(engine)) is not None and form.flag is not None and not form.values
    }
