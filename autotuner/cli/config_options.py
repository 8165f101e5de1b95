"""The options that compose a configuration, shared by the commands that need one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from autotuner.cli.load_options import (
    CONFIGURATION,
    HARDWARE,
    LOAD,
    RATE_OPTION,
    SEARCH,
    SERVE,
    api_key_option,
    concurrency_option,
    duration_option,
    max_duration_option,
    max_requests_option,
    option,
    parse_numbers,
    parse_rates,
    parse_scenarios,
    parse_slo,
    profile_or,
    scenario_option,
    slo_option,
    warmup_option,
)

if TYPE_CHECKING:
    from autotuner.config import Composition, Overrides, TaskContext


@dataclass(frozen=True)
class ConfigOptions:
    """Configuration options of the command line; None where an option was not given."""

    model: Annotated[
        str | None,
        option(
            "--model",
            "-m",
            metavar="PATH|ID",
            help="Local folder or Hugging Face id of the model; for sim also a bundled name, such as llama-3.1-8b.",
            panel=SERVE,
            default="from the profile, else llama-3.1-8b for sim, the served model for --url",
        ),
    ] = None
    runtime: Annotated[
        str | None,
        option(
            "--runtime",
            "-r",
            metavar="ENGINE",
            help="Engine: sim (simulated), vllm, sglang or trtllm.",
            panel=SERVE,
            default=profile_or("sim"),
        ),
    ] = None
    deployment: Annotated[
        str | None,
        option(
            "--deployment",
            metavar="MODE",
            help="How the engine runs: process, docker, kubernetes, or external for a running server.",
            panel=SERVE,
            default=profile_or("docker for a real engine if a daemon answers, else process"),
        ),
    ] = None
    url: Annotated[
        str | None,
        option(
            "--url",
            metavar="URL",
            help="Measure the server at this address instead of launching one; implies --deployment external.",
            panel=SERVE,
            default=profile_or("none"),
        ),
    ] = None
    api_key_env: Annotated[str | None, api_key_option(SERVE, profile_or("none"))] = None
    file: Annotated[
        list[Path] | None,
        option(
            "--file",
            "-f",
            metavar="FILE",
            help="Request to start from, as a file: model_name, base_runtime, profiles, overrides, slo, ..., or several"
            " under `experiments:`; or a run's experiment.yaml. The other options come on top; repeatable.",
            panel=CONFIGURATION,
            default="none",
        ),
    ] = None
    profile: Annotated[
        list[str] | None,
        option(
            "--profile",
            "-p",
            metavar="NAME|FILE[,...]",
            help="Profiles to apply, in this order; repeatable. See `autotune profiles list`.",
            panel=CONFIGURATION,
            default="none",
        ),
    ] = None
    layer: Annotated[
        list[str] | None,
        option(
            "--layer",
            metavar="NAME|FILE",
            help="Preset layer to apply before the profiles, such as fp8-default; repeatable.",
            panel=CONFIGURATION,
            default="none",
        ),
    ] = None
    config: Annotated[
        list[Path] | None,
        option(
            "--config",
            "-c",
            metavar="FILE",
            help="YAML file of overrides; repeatable, applied in this order.",
            panel=CONFIGURATION,
            default="none",
        ),
    ] = None
    set: Annotated[
        list[str] | None,
        option(
            "--set",
            metavar="KEY=VALUE",
            help="One override, such as optimization.max_seconds=600; repeatable.",
            panel=CONFIGURATION,
            default="none",
        ),
    ] = None
    override_mode: Annotated[
        str,
        option(
            "--override-mode",
            metavar="patch|replace",
            help="patch applies the overrides on top of the layers; replace uses the overrides alone.",
            panel=CONFIGURATION,
        ),
    ] = "patch"
    allow_unknown_profiles: Annotated[
        bool,
        option(
            "--allow-unknown-profiles",
            help="Warn about unknown profiles instead of failing.",
            panel=CONFIGURATION,
        ),
    ] = False
    scenario: Annotated[list[str] | None, scenario_option(profile_or("D(100,100)"))] = None
    concurrency: Annotated[str | None, concurrency_option(profile_or("1,4"))] = None
    rate: Annotated[str | None, RATE_OPTION] = None
    duration: Annotated[float | None, duration_option(profile_or("20"))] = None
    max_duration: Annotated[float | None, max_duration_option(profile_or("6 times --duration"))] = None
    warmup: Annotated[float | None, warmup_option(profile_or("5"))] = None
    max_requests: Annotated[int | None, max_requests_option(profile_or("no limit"))] = None
    seed: Annotated[
        int | None,
        option(
            "--seed",
            metavar="N",
            help="Random seed of request lengths, arrivals and the search.",
            panel=LOAD,
            default=profile_or("0"),
        ),
    ] = None
    slo: Annotated[str | None, slo_option(profile_or("none"))] = None
    objective: Annotated[
        str | None,
        option(
            "--objective",
            metavar="OBJECTIVE",
            help="What to optimize: minimize_latency, minimize_ttft, minimize_tpot, maximize_throughput,"
            " maximize_goodput or minimize_cost.",
            panel=SEARCH,
            default=profile_or("minimize_latency"),
        ),
    ] = None
    strategy: Annotated[
        str | None,
        option(
            "--strategy",
            metavar="STRATEGY",
            help="Search strategy: racing, grid_search, random or bayesian.",
            panel=SEARCH,
            default=profile_or("racing"),
        ),
    ] = None
    evaluator: Annotated[
        str | None,
        option(
            "--evaluator",
            metavar="EVALUATOR",
            help="Evaluator: measured (load on real servers) or simulated (in virtual time).",
            panel=SEARCH,
            default=profile_or("measured"),
        ),
    ] = None
    find_capacity: Annotated[
        bool,
        option(
            "--find-capacity",
            help="Find the highest load at which each candidate meets the targets, between the given loads or"
            " 1 and 1024 in flight.",
            panel=SEARCH,
        ),
    ] = False
    max_iterations: Annotated[
        int | None,
        option(
            "--max-iterations",
            metavar="N",
            help="Maximum number of candidates to launch, including the engine's defaults; launches that confirm"
            " the winner are extra.",
            panel=SEARCH,
            default=profile_or("10"),
        ),
    ] = None
    parallel_trials: Annotated[
        int | None,
        option(
            "--parallel-trials",
            metavar="N",
            help="Launches that run side by side, each on GPUs of its own; confirmations run alone.",
            panel=SEARCH,
            default=profile_or("1"),
            min=1,
        ),
    ] = None
    gpu: Annotated[
        str | None,
        option(
            "--gpu",
            metavar="TYPE",
            help="GPU type, such as H100; selects GPU-specific layers and what is predicted or simulated.",
            panel=HARDWARE,
            default="from the profile, else this machine's for a real engine",
        ),
    ] = None
    gpus: Annotated[
        str | None,
        option(
            "--gpus",
            metavar="I[,I...]",
            help="Indices of the GPUs to use on this machine.",
            panel=HARDWARE,
            default=profile_or("all idle ones"),
        ),
    ] = None
    total_gpus: Annotated[
        int | None,
        option(
            "--total-gpus",
            metavar="N",
            help="Maximum number of GPUs to use.",
            panel=HARDWARE,
            default="from the profile, else all of this machine's for a real engine",
        ),
    ] = None
    price: Annotated[
        float | None,
        option(
            "--price",
            metavar="PRICE",
            help="Price per GPU-hour, in any currency.",
            panel=HARDWARE,
            default=profile_or("none; costs are in GPU-seconds"),
        ),
    ] = None

    def compose(self) -> Composition:
        """Compose and validate the configuration; UsageError if files ask for several."""
        from autotuner.errors import UsageError

        compositions = self.compose_all()
        if len(compositions) > 1:
            raise UsageError(
                f"The files ask for {len(compositions)} experiments: {', '.join(compositions)}.",
                why="This command takes one.",
                remedy="Give a file with one of them.",
            )
        return next(iter(compositions.values()))

    def compose_all(self) -> dict[str, Composition]:
        """Compose and validate every experiment that the files ask for, by name; without files the only one."""
        from autotuner.config.requests import TaskRequest, read_requests

        requests = read_requests(self.file) if self.file else [TaskRequest("", {})]
        return {request.name: self._compose_request(request.fields) for request in requests}

    def _compose_request(self, fields: Mapping[str, Any]) -> Composition:
        from autotuner.config import compose
        from autotuner.engines.parameters import check_values

        composition = compose(self.context(fields))
        check_values(composition.experiment.parameters, lambda name: composition.origin(f"parameters.{name}"))
        return composition

    def context(self, request: Mapping[str, Any] | None = None) -> TaskContext:
        """Inputs of the composition, on top of the fields of a request from a file.

        This machine fills in defaults, a running server its model.
        """
        from autotuner.config import TaskContext, resolved_context
        from autotuner.config.overrides import COMMAND_LINE
        from autotuner.machine import LocalMachine

        request = request or {}
        overrides = self._overrides(request.get("user_overrides"))
        deployment = overrides.get("deployment")
        has_url = isinstance(deployment, Mapping) and deployment.get("url") is not None
        given: dict[str, Any] = {
            "model_name": self.model,
            "base_runtime": self.runtime,
            "deployment_mode": self.deployment,
            "slo_config": parse_slo(self.slo),
            "gpu_type": self.gpu,
            "total_gpus": self.total_gpus,
            "override_mode": None if self.override_mode == "patch" else self.override_mode,
            "allow_unknown_profiles": self.allow_unknown_profiles or None,
        }
        values = {**request, **{name: value for name, value in given.items() if value is not None}}
        if has_url:
            values.setdefault("deployment_mode", "external")
        values |= {
            "profiles": [
                *request.get("profiles", ()),
                *(name for text in self.profile or [] for name in text.split(",")),
            ],
            "layers": [*request.get("layers", ()), *(self.layer or [])],
            "user_overrides": overrides,
        }
        context = TaskContext(**values, machine=LocalMachine(), origin=COMMAND_LINE)
        if resolved_context(context).deployment_mode != "external":
            return context
        from autotuner.running_server import with_served_model

        return with_served_model(context)

    def _overrides(self, requested: Mapping[str, Any] | None = None) -> Overrides:
        """The overrides of a request, then files, --set and options."""
        from autotuner.config import Overrides, leaves, merge, read_overrides
        from autotuner.config.overrides import COMMAND_LINE

        given = read_overrides(self.config or [], self.set or [])
        overrides = Overrides(merge(requested or {}, given), given.places)
        benchmark_overrides = overrides.get("benchmark")
        option_overrides = self._option_overrides(
            benchmark_overrides if isinstance(benchmark_overrides, Mapping) else {}
        )
        return Overrides(
            merge(overrides, option_overrides),
            {**overrides.places, **dict.fromkeys(leaves(option_overrides), COMMAND_LINE)},
        )

    def _request_rates(self, benchmark_overrides: Mapping[str, Any]) -> list[float | str] | None:
        """Rates of --rate; without any load option, the recorded rate of a timed trace."""
        from autotuner.experiment import TRACE_RATE
        from autotuner.workload import arrivals

        has_load = (
            self.concurrency
            or self.find_capacity
            or benchmark_overrides.get("num_concurrency")
            or benchmark_overrides.get("request_rates")
        )
        if (
            self.rate
            or has_load
            or not arrivals.are_timed_traces(parse_scenarios(self.scenario) or [], benchmark_overrides.get("arrival"))
        ):
            return parse_rates(self.rate)
        return [TRACE_RATE]

    def _option_overrides(self, benchmark_overrides: Mapping[str, Any]) -> dict[str, Any]:
        rates = self._request_rates(benchmark_overrides)
        benchmark = {
            "traffic_scenarios": parse_scenarios(self.scenario),
            "num_concurrency": parse_numbers("--concurrency", self.concurrency, int) or ([] if rates else None),
            "request_rates": rates,
            "duration": self.duration,
            "max_duration": self.max_duration,
            "warmup": self.warmup,
            "max_requests": self.max_requests,
            "seed": self.seed,
        }
        if self.find_capacity:
            from autotuner.experiment import CAPACITY_SEARCH_RANGE

            benchmark["find_capacity"] = True
            if not self.concurrency and not self.rate:
                benchmark["num_concurrency"] = list(CAPACITY_SEARCH_RANGE)
        optimization = {
            "objective": self.objective,
            "strategy": self.strategy,
            "evaluator": self.evaluator,
            "max_iterations": self.max_iterations,
            "parallel_trials": self.parallel_trials,
            "seed": self.seed,
        }
        sections: dict[str, dict[str, Any]] = {
            "benchmark": benchmark,
            "optimization": optimization,
            "deployment": {"url": self.url, "api_key_env": self.api_key_env},
            "hardware": {"gpus": parse_numbers("--gpus", self.gpus, int), "price_per_gpu_hour": self.price},
        }
        overrides = {name: {k: v for k, v in body.items() if v is not None} for name, body in sections.items()}
        return {name: body for name, body in overrides.items() if body}
