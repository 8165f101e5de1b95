"""Rules over parameters: conditions under which one exists, and constraints between them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter

from autotuner.core import Parallelism, Value
from autotuner.errors import ConfigError, unknown_name_message
from autotuner.experiment import Experiment
from autotuner.expression import Expression, Lookup, parse

CONTEXT_NAMES = ("runtime", "deployment", "gpus")
"""Names that an expression may use besides parameters; `gpus` is the number of usable GPUs."""

ParameterChoices = Mapping[str, Sequence[Value]]


@dataclass(frozen=True)
class Rules:
    """The rules of an experiment: `conditions` by the parameter that each makes exist, `constraints` by name.

    `context` holds the values of CONTEXT_NAMES.
    """

    context: Mapping[str, Value] = field(default_factory=dict)
    conditions: Mapping[str, Expression] = field(default_factory=dict)
    constraints: Mapping[str, Expression] = field(default_factory=dict)

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Rules:
        values = (experiment.base_runtime, experiment.deployment.mode, experiment.hardware.usable_gpu_count)
        return cls(
            dict(zip(CONTEXT_NAMES, values, strict=True)),
            {name: parse(text) for name, text in experiment.only_when.items()},
            {name: parse(text) for name, text in experiment.constraints.items()},
        )

    def lookup(self, parameters: Mapping[str, Value]) -> Lookup:
        """A function from a name in an expression to its value, for these parameters."""

        return {**parameters, **Parallelism.of(parameters).by_parameter, **self.context}.get

    def allowed_values(self, name: str, values: Iterable[Value], parameters: Mapping[str, Value]) -> tuple[Value, ...]:
        """The values that a parameter can take beside the others in `parameters`; none where it does not exist."""
        condition = self.conditions.get(name)
        if condition is None:
            return tuple(values)
        return tuple(value for value in values if condition.holds(self.lookup({**parameters, name: value})))

    def violation(self, parameters: Mapping[str, Value]) -> str | None:
        """The first constraint that the parameters violate, as a sentence; None where they violate none."""
        for name, constraint in self.constraints.items():
            if constraint.holds(self.lookup(parameters)) is False:
                return f"breaks the constraint {name}: {constraint.text}"
        return None

    def dependency_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names, each after those in its condition."""
        nodes = dict.fromkeys(names)
        graph = {
            name: sorted(other for other in self._condition_names(name) if other in nodes and other != name)
            for name in nodes
        }
        return tuple(TopologicalSorter(graph).static_order())

    def coupled_groups(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The names partitioned into groups that no condition and no constraint connects."""
        groups = [{name} for name in names]
        ties = [{name} | self._condition_names(name) for name in self.conditions]
        ties += [set(constraint.names) for constraint in self.constraints.values()]
        for tie in ties:
            tied = [group for group in groups if group & tie]
            if len(tied) > 1:
                position = groups.index(tied[0])
                groups = [group for group in groups if group not in tied]
                groups.insert(position, set().union(*tied))
        positions = {name: position for position, name in enumerate(names)}
        return [
            self.dependency_order(sorted((name for name in group if name in positions), key=positions.__getitem__))
            for group in groups
        ]

    def restricted_to(self, group: Collection[str], names: Collection[str]) -> Rules:
        """The rules without the constraints on any of `names` outside the group."""
        inside = set(group)
        kept = {
            name: rule
            for name, rule in self.constraints.items()
            if not any(other in names and other not in inside for other in rule.names)
        }
        return replace(self, constraints=kept)

    def check(
        self, parameters: ParameterChoices, is_known: Callable[[str], bool], suggestions: Collection[str]
    ) -> None:
        """ConfigError as of `check_names`, and for a rule on `gpus` where their number is not known."""
        self.check_names(parameters, is_known, suggestions)
        for key, rule in self._located_rules():
            if "gpus" in rule.names and self.context.get("gpus") is None:
                raise ConfigError(
                    f"{key} uses gpus, and the number of GPUs is not known.",
                    why=_quote_rule(rule),
                    remedy="Give --total-gpus.",
                )

    def check_names(
        self, parameters: ParameterChoices, is_known: Callable[[str], bool], suggestions: Collection[str]
    ) -> None:
        """ConfigError for a name in a rule that is neither a parameter nor known, with the nearest valid name.

        `is_known` accepts the names of engine parameters, and `suggestions` lists some of them.
        """
        for name in self.conditions:
            if name not in parameters and not is_known(name):
                raise ConfigError(
                    unknown_name_message("parameter in only_when", name, {*parameters, *suggestions}),
                    remedy="Correct the name.",
                )
        for key, rule in self._located_rules():
            for name in sorted(rule.names):
                if name not in CONTEXT_NAMES and name not in parameters and not is_known(name):
                    raise ConfigError(
                        unknown_name_message(f"name in {key}", name, {*CONTEXT_NAMES, *parameters, *suggestions}),
                        why=_quote_rule(rule),
                        remedy="Correct the name; text goes in quotes, and a minus has spaces around it.",
                    )

    def check_switches(self, parameters: ParameterChoices) -> None:
        """ConfigError if a rule uses a name as true or false that can have another value."""
        for key, rule in self._located_rules():
            for name in sorted(rule.boolean_names):
                values = (self.context[name],) if name in self.context else parameters.get(name, ())
                non_boolean = next((value for value in values if not isinstance(value, bool | None)), None)
                if non_boolean is not None:
                    raise ConfigError(
                        f"{key} uses {name} as true or false, and it can be {non_boolean}.",
                        why=_quote_rule(rule),
                        remedy=f"Compare it, for example with {name} != null.",
                    )

    def _located_rules(self) -> Iterator[tuple[str, Expression]]:
        """Every rule with its configuration key, such as constraints.all-gpus."""
        for section, rules in (("only_when", self.conditions), ("constraints", self.constraints)):
            yield from ((f"{section}.{name}", rule) for name, rule in rules.items())

    def _condition_names(self, name: str) -> frozenset[str]:
        condition = self.conditions.get(name)
        return condition.names if condition else frozenset()


def _quote_rule(rule: Expression) -> str:
    return f"It says: {rule.text}."
