"""What parameters have to do with one another: conditions under which one exists, and constraints between them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter

from autotuner.core import Value
from autotuner.errors import ConfigError, unknown
from autotuner.experiment import Experiment
from autotuner.expression import Expression, Look, parse

WORDS = ("runtime", "deployment", "gpus")
"""What an expression may speak of beside parameters; `gpus` is how many may be used."""

SIZES = ("tp-size", "pp-size", "dp-size", "ep-size")
"""Parameters that are 1 where they are not set."""


Parameters = Mapping[str, Sequence[Value]]


@dataclass(frozen=True)
class Rules:
    """Conditions by the parameter that exists only where they hold, and constraints by name."""

    words: Mapping[str, Value] = field(default_factory=dict)
    conditions: Mapping[str, Expression] = field(default_factory=dict)
    constraints: Mapping[str, Expression] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment) -> Rules:
        """The rules of an experiment."""
        words = (experiment.base_runtime, experiment.deployment.mode, experiment.hardware.usable)
        return cls(
            dict(zip(WORDS, words, strict=True)),
            {name: parse(text) for name, text in experiment.only_when.items()},
            {name: parse(text) for name, text in experiment.constraints.items()},
        )

    def look(self, given: Mapping[str, Value]) -> Look:
        """The value of a name where parameters are set as given."""

        def value(name: str) -> Value:
            if name in self.words:
                return self.words[name]
            found = given.get(name)
            return 1 if found is None and name in SIZES else found

        return value

    def allowed(self, name: str, values: Iterable[Value], given: Mapping[str, Value]) -> tuple[Value, ...]:
        """The values a parameter can have beside those given; none where it does not exist."""
        condition = self.conditions.get(name)
        if condition is None:
            return tuple(values)
        return tuple(value for value in values if condition.holds(self.look({**given, name: value})))

    def broken(self, given: Mapping[str, Value]) -> str | None:
        """The first constraint that parameters set as given break, as a reason; None where they break none."""
        for name, constraint in self.constraints.items():
            if constraint.holds(self.look(given)) is False:
                return f"breaks the constraint {name}: {constraint.text}"
        return None

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names, each after those that its condition speaks of."""
        among = list(names)
        known = set(among)
        graph = {name: sorted((self._named(name) & known) - {name}) for name in among}
        return tuple(TopologicalSorter(graph).static_order())

    def groups(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The names, together where a condition or a constraint ties them."""
        groups = [{name} for name in names]
        ties = [{name} | self._named(name) for name in self.conditions]
        ties += [set(constraint.names) for constraint in self.constraints.values()]
        for tie in ties:
            tied = [group for group in groups if group & tie]
            if len(tied) > 1:
                position = groups.index(tied[0])
                groups = [group for group in groups if group not in tied]
                groups.insert(position, set().union(*tied))
        return [self.ordered(name for name in names if name in group) for group in groups]

    def within(self, group: Collection[str], names: Collection[str]) -> Rules:
        """The rules that speak of no other of the names than those of the group."""
        others = set(names) - set(group)
        kept = {name: rule for name, rule in self.constraints.items() if not rule.names & others}
        return replace(self, constraints=kept)

    def check(self, parameters: Parameters, knows: Callable[[str], bool], names: Collection[str]) -> None:
        """ConfigError for a name that means nothing, and for a number of GPUs that is not known; see `check_names`."""
        self.check_names(parameters, knows, names)
        for place, rule in self._placed():
            if "gpus" in rule.names and self.words.get("gpus") is None:
                raise ConfigError(
                    f"{place} speaks of gpus, and it is not known how many there are.",
                    why=_said(rule),
                    remedy="Give --total-gpus.",
                )

    def check_names(self, parameters: Parameters, knows: Callable[[str], bool], names: Collection[str]) -> None:
        """ConfigError for a name that is no word, no parameter and not known, with the nearest of `names` and those."""
        for name in self.conditions:
            if name not in parameters and not knows(name):
                raise ConfigError(
                    unknown("parameter in only_when", name, {*parameters, *names}), remedy="Correct the name."
                )
        for place, rule in self._placed():
            for name in sorted(rule.names):
                if name not in WORDS and name not in parameters and not knows(name):
                    raise ConfigError(
                        unknown(f"name in {place}", name, {*WORDS, *parameters, *names}),
                        why=_said(rule),
                        remedy="Correct the name; text goes in quotes, and a minus has spaces around it.",
                    )

    def check_switches(self, parameters: Parameters) -> None:
        """ConfigError where a rule takes for true or false what can be something else."""
        for place, rule in self._placed():
            for name in sorted(rule.switches):
                values = (self.words[name],) if name in self.words else parameters.get(name, ())
                other = next((value for value in values if not isinstance(value, bool | None)), None)
                if other is not None:
                    raise ConfigError(
                        f"{place} asks whether {name} is true, and it can be {other}.",
                        why=_said(rule),
                        remedy=f"Compare it, for example with {name} != null.",
                    )

    def _placed(self) -> Iterator[tuple[str, Expression]]:
        """Every rule, with where it stands."""
        for section, rules in (("only_when", self.conditions), ("constraints", self.constraints)):
            yield from ((f"{section}.{name}", rule) for name, rule in rules.items())

    def _named(self, name: str) -> frozenset[str]:
        condition = self.conditions.get(name)
        return condition.names if condition else frozenset()


def _said(rule: Expression) -> str:
    return f"It says: {rule.text}."
