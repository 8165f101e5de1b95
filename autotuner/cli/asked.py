"""The options that compose a configuration, shared by every command that needs one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from autotuner.cli.load_options import (
    LAYERS,
    LOAD,
    Concurrency,
    Duration,
    MaxRequests,
    Rate,
    Scenario,
    SloTerms,
    Warmup,
    numbers,
    option,
    rates_of,
    scenarios_of,
    slo_of,
)

if TYPE_CHECKING:
    from autotuner.config import Composition, Overrides, TaskContext

SEARCH = "Search"


@dataclass(frozen=True)
class Asked:
    """What the command line says about the configuration; None where it says nothing."""

    profile: Annotated[
        list[str] | None,
        option("--profile", "-p", help="Profile name or file; several apply in order.", panel=LAYERS),
    ] = None
    model: Annotated[str | None, option("--model", "-m", help="Model folder or Hugging Face id.", panel=LAYERS)] = None
    runtime: Annotated[
        str | None, option("--runtime", "-r", help="Engine: sim, vllm, sglang, trtllm.", panel=LAYERS)
    ] = None
    deployment: Annotated[
        str | None, option("--deployment", help="Where it runs: process, docker, external.", panel=LAYERS)
    ] = None
    url: Annotated[
        str | None, option("--url", help="Measure this running endpoint; implies --deployment external.", panel=LAYERS)
    ] = None
    layer: Annotated[
        list[str] | None, option("--layer", help="Preset layer to add, such as fp8-default.", panel=LAYERS)
    ] = None
    slo: SloTerms = None
    config: Annotated[
        list[Path] | None,
        option("--config", "-c", help="YAML file of overrides; several apply in order.", panel=LAYERS),
    ] = None
    set: Annotated[
        list[str] | None,
        option("--set", help="One override: optimization.max_iterations=5.", panel=LAYERS, metavar="KEY=VALUE"),
    ] = None
    override_mode: Annotated[
        str, option("--override-mode", help="patch merges overrides in; replace drops the layers.", panel=LAYERS)
    ] = "patch"
    gpu: Annotated[
        str | None, option("--gpu", help="GPU type, such as H100; detected where there is one.", panel=LAYERS)
    ] = None
    gpus: Annotated[
        str | None, option("--gpus", help="Use these GPUs of this machine, by index: 0,1.", panel=LAYERS)
    ] = None
    total_gpus: Annotated[int | None, option("--total-gpus", help="Use at most this many GPUs.", panel=LAYERS)] = None
    allow_unknown_profiles: Annotated[
        bool, option("--allow-unknown-profiles", help="Skip unknown profiles with a warning.", panel=LAYERS)
    ] = False
    scenario: Scenario = None
    concurrency: Concurrency = None
    rate: Rate = None
    duration: Duration = None
    max_requests: MaxRequests = None
    warmup: Warmup = None
    seed: Annotated[int | None, option("--seed", help="Seed of lengths, arrivals and search.", panel=LOAD)] = None
    objective: Annotated[
        str | None, option("--objective", help="What is best, such as maximize_throughput.", panel=SEARCH)
    ] = None
    strategy: Annotated[
        str | None,
        option("--strategy", help="How candidates are chosen: racing, grid_search, random, bayesian.", panel=SEARCH),
    ] = None
    evaluator: Annotated[
        str | None,
        option("--evaluator", help="Who answers: measured, or simulated in virtual time.", panel=SEARCH),
    ] = None
    find_capacity: Annotated[
        bool,
        option(
            "--find-capacity",
            help="Find each candidate's highest load inside the SLO, between the loads given or 1 and 1024.",
            panel=SEARCH,
        ),
    ] = False
    max_iterations: Annotated[
        int | None, option("--max-iterations", help="Launch at most this many candidates.", panel=SEARCH)
    ] = None

    def compose(self) -> Composition:
        """Compose and validate the configuration asked for."""
        from autotuner.config import compose

        return compose(self.context())

    def context(self) -> TaskContext:
        """The composition's inputs, with this machine's GPUs where none are named."""
        from autotuner.config import TaskContext

        deployment = self.deployment or ("external" if self.url else None)
        gpu_type, total_gpus = self._gpus(deployment)
        return TaskContext(
            model_name=self.model,
            base_runtime=self.runtime,
            deployment_mode=deployment,
            profiles=[name for text in self.profile or [] for name in text.split(",")],
            layers=list(self.layer or []),
            slo_config=slo_of(self.slo),
            user_overrides=self._overrides(),
            override_mode=self.override_mode,  # type: ignore[arg-type]
            gpu_type=gpu_type,
            total_gpus=total_gpus,
            allow_unknown_profiles=self.allow_unknown_profiles,
        )

    def _gpus(self, deployment: str | None) -> tuple[str | None, int | None]:
        """GPU type and count: as asked for, else what a real engine launched here would find."""
        if deployment == "external" or self.runtime in (None, "sim") or (self.gpu and self.total_gpus):
            return self.gpu, self.total_gpus
        from autotuner.launchers import gpus

        found = gpus.inventory()
        if not len(found):
            return self.gpu, self.total_gpus
        return self.gpu or found.gpus[0].name, self.total_gpus or len(found)

    def _overrides(self) -> Overrides:
        from autotuner.config import Overrides, leaves, merge, read_overrides

        read = read_overrides(self.config or [], self.set or [])
        load = read.get("benchmark")
        flags = self._flags(load if isinstance(load, Mapping) else {})
        return Overrides(merge(read, flags), {**read.places, **dict.fromkeys(leaves(flags), "the command line")})

    def _rates(self, said: Mapping[str, Any]) -> list[float | str] | None:
        """The rates asked for, else a trace's own where nothing names a load; `said` is the overrides' benchmark."""
        from autotuner.experiment import RECORDED
        from autotuner.workload import arrivals

        named = self.concurrency or self.find_capacity or said.get("num_concurrency") or said.get("request_rates")
        if self.rate or named or not arrivals.recorded(scenarios_of(self.scenario) or [], said.get("arrival")):
            return rates_of(self.rate)
        return [RECORDED]

    def _flags(self, said: Mapping[str, Any]) -> dict[str, Any]:
        rates = self._rates(said)
        benchmark = {
            "traffic_scenarios": scenarios_of(self.scenario),
            "num_concurrency": numbers("--concurrency", self.concurrency, int) or ([] if rates else None),
            "request_rates": rates,
            "duration": self.duration,
            "warmup": self.warmup,
            "max_requests": self.max_requests,
            "seed": self.seed,
        }
        if self.find_capacity:
            from autotuner.experiment import CAPACITIES

            benchmark["find_capacity"] = True
            if not self.concurrency and not self.rate:
                benchmark["num_concurrency"] = list(CAPACITIES)
        optimization = {
            "objective": self.objective,
            "strategy": self.strategy,
            "evaluator": self.evaluator,
            "max_iterations": self.max_iterations,
            "seed": self.seed,
        }
        sections: dict[str, dict[str, Any]] = {
            "benchmark": benchmark,
            "optimization": optimization,
            "deployment": {"url": self.url},
            "hardware": {"gpus": numbers("--gpus", self.gpus, int)},
        }
        said = {name: {k: v for k, v in body.items() if v is not None} for name, body in sections.items()}
        return {name: body for name, body in said.items() if body}


def asks(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options of `Asked`; it receives them as its first argument."""
    shared = get_type_hints(Asked, include_extras=True)
    own = get_type_hints(function, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=shared[field.name])
        for field in dataclasses.fields(Asked)
    ]
    rest = [
        parameter.replace(kind=keyword, annotation=own[name])
        for name, parameter in list(inspect.signature(function).parameters.items())[1:]
    ]
    names = {option.name for option in options}

    @functools.wraps(function)
    def call(**values: Any) -> None:
        asked = Asked(**{name: values.pop(name) for name in names})
        function(asked, **values)

    call.__signature__ = inspect.Signature([*options, *rest])  # type: ignore[attr-defined]
    call.__annotations__ = {**shared, **own}
    return call
