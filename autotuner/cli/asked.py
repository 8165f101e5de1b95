"""The options that compose a configuration, shared by every command that needs one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from autotuner.errors import UsageError

if TYPE_CHECKING:
    from autotuner.config import Composition, Overrides, TaskContext

LAYERS = "Layers"
LOAD = "Load"
SEARCH = "Search"


def _option(*names: str, help: str, panel: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar)


@dataclass(frozen=True)
class Asked:
    """What the command line says about the configuration; None where it says nothing."""

    profile: Annotated[
        list[str] | None,
        _option("--profile", "-p", help="Profile name or file; several apply in order.", panel=LAYERS),
    ] = None
    model: Annotated[str | None, _option("--model", "-m", help="Model folder or Hugging Face id.", panel=LAYERS)] = None
    runtime: Annotated[
        str | None, _option("--runtime", "-r", help="Engine: sim, vllm, sglang, trtllm.", panel=LAYERS)
    ] = None
    deployment: Annotated[
        str | None, _option("--deployment", help="Where it runs: process, docker, external.", panel=LAYERS)
    ] = None
    url: Annotated[
        str | None, _option("--url", help="Measure this running endpoint; implies --deployment external.", panel=LAYERS)
    ] = None
    layer: Annotated[
        list[str] | None, _option("--layer", help="Preset layer to add, such as fp8-default.", panel=LAYERS)
    ] = None
    slo: Annotated[
        str | None, _option("--slo", help="SLO name, file, or terms: ttft=1.0,latency.p90=5.", panel=LAYERS)
    ] = None
    config: Annotated[
        list[Path] | None,
        _option("--config", "-c", help="YAML file of overrides; several apply in order.", panel=LAYERS),
    ] = None
    set: Annotated[
        list[str] | None,
        _option("--set", help="One override: optimization.max_iterations=5.", panel=LAYERS, metavar="KEY=VALUE"),
    ] = None
    override_mode: Annotated[
        str, _option("--override-mode", help="patch merges overrides in; replace drops the layers.", panel=LAYERS)
    ] = "patch"
    gpu: Annotated[
        str | None, _option("--gpu", help="GPU type, such as H100; detected where there is one.", panel=LAYERS)
    ] = None
    gpus: Annotated[
        str | None, _option("--gpus", help="Use these GPUs of this machine, by index: 0,1.", panel=LAYERS)
    ] = None
    total_gpus: Annotated[int | None, _option("--total-gpus", help="Use at most this many GPUs.", panel=LAYERS)] = None
    allow_unknown_profiles: Annotated[
        bool, _option("--allow-unknown-profiles", help="Skip unknown profiles with a warning.", panel=LAYERS)
    ] = False
    scenario: Annotated[
        list[str] | None, _option("--scenario", help="Traffic scenario, such as D(1000,200).", panel=LOAD)
    ] = None
    concurrency: Annotated[
        str | None, _option("--concurrency", help="Requests in flight, such as 1,8,64.", panel=LOAD)
    ] = None
    rate: Annotated[str | None, _option("--rate", help="Requests per second (open loop), such as 2,4.", panel=LOAD)] = (
        None
    )
    duration: Annotated[
        float | None, _option("--duration", help="Seconds of each load point's window.", panel=LOAD)
    ] = None
    max_requests: Annotated[
        int | None, _option("--max-requests", help="End a window after this many requests.", panel=LOAD)
    ] = None
    warmup: Annotated[float | None, _option("--warmup", help="Seconds of warm-up before each window.", panel=LOAD)] = (
        None
    )
    seed: Annotated[int | None, _option("--seed", help="Seed of lengths, arrivals and search.", panel=LOAD)] = None
    objective: Annotated[
        str | None, _option("--objective", help="What is best, such as maximize_throughput.", panel=SEARCH)
    ] = None
    strategy: Annotated[
        str | None, _option("--strategy", help="How candidates are chosen: grid_search, random.", panel=SEARCH)
    ] = None
    evaluator: Annotated[
        str | None,
        _option("--evaluator", help="Who answers: measured, or simulated in virtual time.", panel=SEARCH),
    ] = None
    max_iterations: Annotated[
        int | None, _option("--max-iterations", help="Launch at most this many candidates.", panel=SEARCH)
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
        flags = self._flags()
        return Overrides(merge(read, flags), {**read.places, **dict.fromkeys(leaves(flags), "the command line")})

    def _flags(self) -> dict[str, Any]:
        benchmark = {
            "traffic_scenarios": self.scenario,
            "num_concurrency": _numbers("--concurrency", self.concurrency, int) or ([] if self.rate else None),
            "request_rates": _numbers("--rate", self.rate, float),
            "duration": self.duration,
            "warmup": self.warmup,
            "max_requests": self.max_requests,
            "seed": self.seed,
        }
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
            "hardware": {"gpus": _numbers("--gpus", self.gpus, int)},
        }
        said = {name: {k: v for k, v in body.items() if v is not None} for name, body in sections.items()}
        return {name: body for name, body in said.items() if body}


def _numbers(option: str, text: str | None, kind: type[int] | type[float]) -> list[Any] | None:
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{option} '{text}' is not a list of numbers.", remedy=f"Write it as {option} 1,8,64."
        ) from error


def slo_of(text: str | None) -> Any:
    """An SLO layer's name, an SLO file, or the mapping that `ttft=1.0,latency.p90=5` says."""
    if text is None or "=" not in text:
        return text
    terms: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        metric, _, statistic = name.strip().partition(".")
        try:
            limit = float(value)
        except ValueError as error:
            raise UsageError(
                f"--slo term '{part}' has no number.", remedy="Write it as ttft=1.0 or latency.p90=5, in seconds."
            ) from error
        if metric == "attainment":
            terms[metric] = limit
        elif statistic:
            terms.setdefault(metric, {})[statistic] = {"threshold": limit}
        else:
            terms.setdefault(metric, {})["threshold"] = limit
    return terms


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
