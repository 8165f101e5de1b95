"""Translates a candidate of any engine into one of the simulated engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.core import Candidate, Value
from autotuner.engines.parameters import CanonicalParameter, canonical_parameters
from autotuner.engines.sim import Sim


@dataclass(frozen=True)
class SimulatedStandIn:
    """A candidate of the simulated engine, and the parameters that were dropped because it lacks them."""

    candidate: Candidate
    ignored_parameters: tuple[str, ...] = ()


def simulated_stand_in(candidate: Candidate) -> SimulatedStandIn:
    """Translate a candidate of any engine to the simulated engine.

    An engine's own flag is translated by way of the canonical parameter that sets it. Parameters that
    the simulated engine lacks are dropped and listed.
    """
    if candidate.runtime == Sim.name:
        return SimulatedStandIn(candidate)
    by_name, by_flag = canonical_parameters(), _parameters_by_flag(candidate.runtime)
    translated: dict[str, Value] = {}
    ignored: list[str] = []
    for name, value in candidate.parameters.items():
        parameter = by_name.get(name) or by_flag.get("--" + name.replace("_", "-"))
        option = parameter.by_engine.get(Sim.name) if parameter else None
        if parameter is None or option is None or option.lacks is not None:
            ignored.append(name)
        else:
            translated[parameter.name] = value
    return SimulatedStandIn(Candidate(Sim.name, translated), tuple(ignored))


def rejection_reason(candidate: Candidate) -> str | None:
    """Why the candidate cannot be simulated; None if it can."""
    if candidate.parallelism.dp > 1:
        return "the simulated engine has no dp-size; simulate one replica and multiply"
    return None


def _parameters_by_flag(engine: str) -> Mapping[str, CanonicalParameter]:
    """Canonical parameters by their flag on `engine`, of those whose value the flag takes unchanged."""
    return {
        option.flag: parameter
        for parameter in canonical_parameters().values()
        if (option := parameter.by_engine.get(engine)) is not None and option.flag is not None and not option.values
    }
