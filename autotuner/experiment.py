"""The schema of a composed configuration: typed, validated and frozen."""

from __future__ import annotations

import math
import re
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from autotuner.core import LENGTH_FIELDS, LoadPoint, RequestForm, Value, Workload
from autotuner.expression import parse
from autotuner.kubernetes_values import ModelVolume, Toleration, check_label, check_object_name
from autotuner.redaction import remember_headers

ObjectiveName = Literal[
    "minimize_latency",
    "minimize_ttft",
    "minimize_tpot",
    "maximize_throughput",
    "maximize_goodput",
    "minimize_cost",
]
LATENCY_METRICS = ("ttft", "tpot", "itl", "latency")
MINIMUM_METRICS = ("output_throughput", "request_throughput", "goodput")
STATISTICS = ("mean", "p50", "p75", "p90", "p95", "p99")
EACH_REQUEST = "each"
"""The statistic of a term that names none: the target applies to every single request."""


MILLISECOND_LIMITS = {"ttft": 60.0, "tpot": 5.0, "itl": 5.0, "latency": 1000.0}
"""Latency targets in seconds from which on milliseconds were probably meant; chosen by hand."""

_DURATION_PATTERN = re.compile(r"(\d+\.?\d*|\.\d+)\s*(ms|s)", re.IGNORECASE)


def duration_seconds(text: str) -> float | None:
    """The seconds of a duration with a unit, such as 500ms or 0.5 s; None for any other text."""
    match = _DURATION_PATTERN.fullmatch(text.strip())
    if match is None:
        return None
    return float(match[1]) / (1000 if match[2].lower() == "ms" else 1)


class Section(BaseModel):
    """Base of all sections of the configuration: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Section):
    """The model to serve; `served_name` is its name in requests."""

    id_or_path: str = Field(min_length=1)
    namespace: str = "autotuner"
    revision: str | None = None
    tokenizer: str | None = None
    served_name: str | None = None


_NUMBER_PATTERN = r"(\d+\.?\d*|\.\d+)"
_ARRIVAL_PATTERN = re.compile(
    rf"constant|poisson|trace|gamma:{_NUMBER_PATTERN}|ramp:{_NUMBER_PATTERN}-{_NUMBER_PATTERN}"
)
SIZE_PATTERN = r"^\d+[bkmgBKMG]?$"


class Runtime(Section):
    """What the engine needs besides its parameters: image, executable, arguments, environment.

    In a container `executable` is a path in the image and replaces its entry point, and `mounts`
    are HOST:CONTAINER, with :rw where the engine may write. With `fail_fast` a start fails at the
    first line of the log that means failure, before the engine itself exits.
    """

    image: str | None = None
    executable: str | None = None
    extra_args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    start_timeout: float = Field(600.0, gt=0)
    mounts: tuple[str, ...] = ()
    network: Literal["bridge", "host"] = "bridge"
    shm_size: str | None = Field(None, pattern=SIZE_PATTERN)
    memory: str | None = Field(None, pattern=SIZE_PATTERN)
    fail_fast: bool = False

    @field_validator("mounts")
    @classmethod
    def _check_mounts(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            host, _, container = value.removesuffix(":ro").removesuffix(":rw").partition(":")
            if not host.startswith(("/", "~")) or not container.startswith("/"):
                raise ValueError(f"'{value}' must be /HOST/PATH:/CONTAINER/PATH, with :rw where it may be written")
        return values


CLUSTER_MODES = ("kubernetes", "ome")
"""Deployment modes in which the server runs on a cluster, and takes no GPU of this machine."""

IMAGE_MODES = ("docker", *CLUSTER_MODES)
"""Deployment modes in which the server is a container of `runtime.image`."""

ObjectName = Annotated[str, AfterValidator(check_object_name)]
"""The name of an object of Kubernetes."""


REMOTE_EXECUTORS = ("slurm", "ray")
"""Executors that run trials on other hosts, whose GPUs they count."""


OWN_SBATCH_OPTIONS = ("--array", "-a", "--job-name", "-J", "--chdir", "-D", "--output", "-o", "--requeue", "--wrap")
"""Options of sbatch by which jobs are found again."""


class SlurmSettings(Section):
    """How trials become jobs of Slurm; what is left out is the cluster's default.

    `time_limit` is a limit of sbatch, such as 2:00:00, by default what the launch may take. `gpu_option` asks for
    {gpus} GPUs, and `options` are further options of sbatch. `command_prefix` stands before the command of the job,
    such as apptainer exec --nv IMAGE, and `python` is a Python with autotune on the nodes, by default this one. A
    job may wait `queue_timeout` seconds.
    """

    partition: str | None = None
    account: str | None = None
    time_limit: str | None = Field(None, pattern=r"^(UNLIMITED|\d+(-\d+)?(:\d+){0,2})$")
    gpu_option: str = "--gpus-per-node={gpus}"
    options: tuple[str, ...] = ()
    command_prefix: str = ""
    python: str | None = None
    queue_timeout: float = Field(7 * 86400.0, gt=0)

    @field_validator("gpu_option")
    @classmethod
    def _check_gpu_option(cls, value: str) -> str:
        if "{gpus}" not in value or value.replace("{gpus}", "").count("{") or value.count("}") != value.count("{"):
            raise ValueError("must have {gpus} where the number of GPUs belongs, as in --licenses=gpu:{gpus}")
        return value

    @field_validator("options")
    @classmethod
    def _check_options(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not value.startswith("-"):
                raise ValueError(f"'{value}' must be an option of sbatch, as in --mem=64G")
            if value.split("=")[0] in OWN_SBATCH_OPTIONS:
                raise ValueError(f"'{value}' is autotune's own to set")
        return values


class RaySettings(Section):
    """Which Ray cluster runs the trials: the `address` of one that is there already, HOST:PORT of its head.

    auto is that in RAY_ADDRESS, else the cluster that this machine belongs to.
    """

    address: str = "auto"


class Deployment(Section):
    """Where the server runs: on this machine, on a cluster, or already.

    Trials run by `executor`: on this machine, as jobs of Slurm, or on the nodes of a Ray cluster.

    Of a server that runs already the certificate is checked against the system's authorities, or those in
    `ca_file`; not at all if `insecure`. The rest is for clusters. `namespace`, `context` and `kubeconfig` are
    kubectl's by default. `secret_name` is the Secret that has the server's secrets. `model_volume` is PVC[:path] or
    hostPath:/folder, each of `tolerations` is KEY[=VALUE][:EFFECT], and `gpu_resource` is what nodes call GPUs.
    A pod waits `queue_timeout` seconds for a node, and with `share_nodes` trials may run on one node.
    `base_model` and `serving_runtime` are names of OME's objects.
    """

    mode: Literal["docker", "kubernetes", "ome", "process", "external"] = "process"
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    api_key_env: str | None = None
    ca_file: str | None = None
    insecure: bool = False
    namespace: ObjectName | None = None
    context: str | None = None
    kubeconfig: str | None = None
    service_account: ObjectName | None = None
    image_pull_secret: ObjectName | None = None
    secret_name: ObjectName = "autotune-secrets"
    model_volume: str | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[str, ...] = ()
    gpu_resource: str = "nvidia.com/gpu"
    queue_timeout: float = Field(600.0, gt=0)
    share_nodes: bool = False
    base_model: ObjectName | None = None
    serving_runtime: ObjectName | None = None
    executor: Literal["local", "slurm", "ray"] = "local"
    slurm: SlurmSettings = SlurmSettings()
    ray: RaySettings = RaySettings()

    @property
    def is_remote(self) -> bool:
        """Whether trials run on other hosts than this one."""
        return self.executor in REMOTE_EXECUTORS

    @property
    def uses_image(self) -> bool:
        """Whether the server runs in a container."""
        return self.mode in IMAGE_MODES

    @field_validator("model_volume")
    @classmethod
    def _check_model_volume(cls, value: str | None) -> str | None:
        if value is not None:
            ModelVolume.parse(value)
        return value

    @field_validator("node_selector")
    @classmethod
    def _check_node_selector(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            check_label(key, value)
        return labels

    @field_validator("tolerations")
    @classmethod
    def _check_tolerations(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            Toleration.parse(value)
        return values

    @field_validator("gpu_resource")
    @classmethod
    def _check_gpu_resource(cls, value: str) -> str:
        check_label(value, "")
        return value

    @field_validator("headers")
    @classmethod
    def _remember_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        remember_headers(headers)  # before anything of the configuration is shown
        return headers

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("must be an address such as http://127.0.0.1:8000")
        if url is not None and "@" in url.split("/")[2]:
            raise ValueError("must hold no user name and password, which are written to files: send them as a header")
        return url


MAX_PRICE = 1e12
"""Of a GPU-hour in any currency; what a million tokens cost must stay a number."""


class Hardware(Section):
    """The GPUs a run may use, `gpus` by index; `price_per_gpu_hour` is in any one currency."""

    gpu_type: str | None = None
    total_gpus: int | None = Field(None, ge=1)
    gpus: tuple[int, ...] = ()
    price_per_gpu_hour: float | None = Field(None, gt=0, le=MAX_PRICE)

    @property
    def usable_gpu_count(self) -> int | None:
        """Number of GPUs the run may use; None where it is not known."""
        return min(self.total_gpus or len(self.gpus), len(self.gpus)) if self.gpus else self.total_gpus


class FaultOptions(Section):
    """Faults to inject into the simulated engine; probabilities are per request."""

    start_delay: float = Field(0.0, ge=0)
    crash_after: int | None = Field(None, ge=0)
    hang_after: int | None = Field(None, ge=0)
    rate_limited: float = Field(0.0, ge=0, le=1)
    server_error: float = Field(0.0, ge=0, le=1)
    malformed: float = Field(0.0, ge=0, le=1)
    early_stop: float = Field(0.0, ge=0, le=1)


class SkewOptions(Section):
    """Log-normal factors, of standard deviation `sd`, between the simulated engine's costs and the predicted ones."""

    seed: int = 0
    sd: float = Field(0.0, ge=0, le=10)


class SimulationOptions(Section):
    """Settings of the simulated engine; `gpu` is the type of GPU that it simulates."""

    gpu: str = "h100_sxm"
    seed: int = 0
    faults: FaultOptions = FaultOptions()
    skew: SkewOptions = SkewOptions()

    @property
    def by_flag(self) -> dict[str, Value]:
        """The options that are in effect, by the simulated server's flags without their dashes."""
        skew = {"skew-seed": self.skew.seed, "skew-sd": self.skew.sd} if self.skew.sd else {}
        # a count of 0 is a fault at the first request, a probability or delay of 0 is none
        faults = {name: value for name, value in self.faults if isinstance(value, int) or value}
        return {
            "gpu": self.gpu,
            "seed": self.seed,
            **skew,
            **{f"fault-{name.replace('_', '-')}": value for name, value in faults.items()},
        }


class Optimization(Section):
    """The search strategy, its objective and its budget, and the evaluator: measured or simulated.

    `max_iterations` counts launches, the baseline's included; `patience` ends the search after that many
    launches without a gain. `confirm` is how often winner and baseline are launched again at the end.
    `timeout_per_iteration` is how many seconds one launch may take, from its start to its last load point.
    The bayesian strategy uses `sampler`, and with `further_objectives` searches for the Pareto frontier.
    The simulated evaluator runs the simulated engine in virtual time, whatever the runtime. At most
    `parallel_trials` launches run side by side, each on GPUs of its own.
    """

    strategy: Literal["racing", "grid_search", "random", "bayesian"] = "racing"
    evaluator: Literal["measured", "simulated"] = "measured"
    objective: ObjectiveName = "minimize_latency"
    further_objectives: tuple[ObjectiveName, ...] = ()
    sampler: Literal["tpe", "gp"] = "tpe"
    max_iterations: int = Field(10, ge=1)
    max_seconds: float | None = Field(None, gt=0)
    max_gpu_hours: float | None = Field(None, gt=0)
    patience: int | None = Field(None, ge=1)
    baseline: bool = True
    confirm: int = Field(2, ge=0)
    timeout_per_iteration: float = Field(600.0, gt=0)
    parallel_trials: int = Field(1, ge=1)
    seed: int = 0


CAPACITY_SEARCH_RANGE = (1, 1024)
"""The lowest and highest concurrency of a capacity search where no load is given."""

MAX_DURATION_FACTOR = 6.0
"""The default `max_duration`, as a multiple of `duration`."""

TRACE_RATE = "trace"
"""The request rate that stands for a trace's own: its requests arrive at the recorded times."""


def _is_valid_rate(value: Any) -> bool:
    try:
        return value == TRACE_RATE or 0 < float(value) < math.inf
    except (TypeError, ValueError):
        return False


MAX_CONCURRENCY = 65_535
"""The highest number of requests in flight: each has a connection, and a port of this host."""

PROMPT_FIELDS = ("model", "prompt", "messages", "input")
"""The fields of a request that no configuration changes."""

_UNSUPPORTED_TASKS = {
    "embed": "embeddings",
    "rerank": "reranking",
    "score": "scoring",
    "image": "images",
    "video": "video",
    "audio": "audio",
    "speech": "audio",
    "transcri": "audio",
    "responses": "the Responses API",
}


def _unsupported_task(text: str) -> str | None:
    """What a name of a task or an endpoint asks for that no load is made for; None for any other name."""
    return next((name for part, name in _UNSUPPORTED_TASKS.items() if part in text.lower()), None)


class TraceStatistics(Section):
    """The load of a recorded trace: `seconds` from the first of its `requests` to the last."""

    requests: int = Field(ge=2)
    seconds: float = Field(gt=0)

    @property
    def rate(self) -> float:
        """Mean requests per second."""
        return (self.requests - 1) / self.seconds


class Benchmark(Section):
    """The load: scenarios x (concurrencies or request rates), each driven for `duration` seconds or more.

    A window lasts at least `duration` and goes on until the objective is known to 3% and the targets
    are decided, but no longer than `max_duration`, by default MAX_DURATION_FACTOR x `duration`.
    `arrival` and `max_in_flight` apply to request rates. A rate of "trace" is each trace's own; the
    composition reads it into `recorded`, one entry for each scenario, with timestamps in `trace_time_unit`, by
    default the detected one, and `trace_scale` times as fast as recorded. `workers` is the number of
    client processes, by default as many as the load needs. With `find_capacity` the lowest and the
    highest of the loads bound the search for each candidate's capacity. Requests to completions have `prompts`
    of token ids or text; `length_field` limits the length of an answer, the fields of `omit` are left out of
    every request, and `extra_body` is merged into it. With `honour_retry_after` a client of a closed loop
    whose request was refused waits as long as the server asks for.
    """

    task: Literal["text-to-text"] = "text-to-text"
    model_name: str | None = None
    traffic_scenarios: tuple[str, ...] = Field(min_length=1)
    num_concurrency: tuple[int, ...] = ()
    request_rates: tuple[Annotated[float | str, Field(union_mode="left_to_right")], ...] = ()
    recorded: tuple[TraceStatistics, ...] = ()
    trace_time_unit: Literal["s", "ms", "us", "ns"] | None = None
    trace_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    find_capacity: bool = False
    duration: float = Field(20.0, gt=0)
    max_duration: float | None = Field(None, gt=0)
    warmup: float = Field(5.0, ge=0)
    max_requests: int | None = Field(None, ge=1)
    request_timeout: float = Field(300.0, gt=0)
    endpoint: Literal["completions", "chat"] = "completions"
    arrival: str = "poisson"
    max_in_flight: int | None = Field(None, ge=1)
    workers: int | None = Field(None, ge=1)
    seed: int = 0
    prompts: Literal["token-ids", "text"] = "token-ids"
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omit: tuple[str, ...] = ()
    extra_body: dict[str, Any] = Field(default_factory=dict)
    honour_retry_after: bool = False

    @field_validator("omit")
    @classmethod
    def _check_omit(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        needed = next((value for value in values if value in (*PROMPT_FIELDS, "stream")), None)
        if needed is not None:
            reason = "without it no token has a time" if needed == "stream" else "no request is one without it"
            raise ValueError(f"'{needed}' cannot be left out: {reason}")
        return tuple(dict.fromkeys(values))

    @field_validator("extra_body")
    @classmethod
    def _check_extra_body(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in values:
            if name in PROMPT_FIELDS:
                raise ValueError(
                    f"'{name}' cannot be given: prompts are generated text; images, audio and prompts of one's own "
                    "are not supported"
                )
            if name == "modalities" or (task := _unsupported_task(name)):
                task = "audio and images" if name == "modalities" else task
                raise ValueError(f"'{name}' cannot be given: {task} in requests or answers are not supported")
            if name in LENGTH_FIELDS:
                raise ValueError(f"'{name}' cannot be given: the scenario says how long answers are")
            if name == "stream":
                raise ValueError("'stream' cannot be given: without streaming no token has a time")
        return values

    @field_validator("task", mode="before")
    @classmethod
    def _check_task(cls, value: Any) -> Any:
        if isinstance(value, str) and (name := _unsupported_task(value)):
            raise ValueError(f"'{value}' asks for {name}, which is not supported; the load is text-to-text")
        return value

    @field_validator("endpoint", mode="before")
    @classmethod
    def _check_endpoint(cls, value: Any) -> Any:
        if isinstance(value, str) and (name := _unsupported_task(value)):
            raise ValueError(f"'{value}' is for {name}, which is not supported; choose completions or chat")
        return value

    @field_validator("arrival")
    @classmethod
    def _check_arrival(cls, value: str) -> str:
        match = _ARRIVAL_PATTERN.fullmatch(value)
        if match is None or any(float(number) == 0 for number in match.groups() if number):
            raise ValueError(
                "must be constant, poisson, gamma:SHAPE, ramp:START-END or trace, with numbers above 0 "
                "such as gamma:0.5 and ramp:2-10"
            )
        return value

    @field_validator("num_concurrency")
    @classmethod
    def _check_concurrency(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if any(value < 1 for value in values):
            raise ValueError("every concurrency must be at least 1")
        if max(values, default=0) > MAX_CONCURRENCY:
            raise ValueError(f"a concurrency above {MAX_CONCURRENCY:,} has more connections than a host has ports")
        return values

    @field_validator("request_rates", mode="before")
    @classmethod
    def _check_rates(cls, values: Any) -> Any:
        if isinstance(values, list | tuple) and not all(map(_is_valid_rate, values)):
            raise ValueError(f"every request rate must be a number above 0, or {TRACE_RATE} for a trace's own")
        return values

    @property
    def request_form(self) -> RequestForm:
        """How requests are written."""
        return RequestForm(self.prompts, self.length_field, self.omit, self.extra_body)

    def rates_for(self, scenario_index: int) -> set[float]:
        """The request rates in 1/s of one traffic scenario, its trace's own rate included."""
        trace_rates = [self.recorded[scenario_index].rate] if TRACE_RATE in self.request_rates else []
        return {*trace_rates, *self.numeric_rates}

    @property
    def effective_max_duration(self) -> float:
        """The longest window in seconds, with the default where none is configured."""
        return MAX_DURATION_FACTOR * self.duration if self.max_duration is None else self.max_duration

    @property
    def numeric_rates(self) -> tuple[float, ...]:
        """The request rates that are numbers, not "trace"."""
        return tuple(value for value in self.request_rates if not isinstance(value, str))

    @model_validator(mode="after")
    def _check_load(self) -> Benchmark:
        if not self.num_concurrency and not self.request_rates:
            raise ValueError("give num_concurrency or request_rates, the loads to measure at")
        if self.arrival == "trace" and not self.request_rates:
            raise ValueError("`arrival` trace replays a trace at a rate; give `request_rates`, trace for its own")
        if self.arrival != "poisson" and not self.request_rates:
            raise ValueError(f"`arrival` {self.arrival} applies to open loops, which have a rate; give `request_rates`")
        if self.max_duration is not None and self.max_duration < self.duration:
            raise ValueError(
                f"`max_duration` {self.max_duration:g} is below `duration` {self.duration:g}, the shortest window; "
                "raise one or lower the other"
            )
        if TRACE_RATE in self.request_rates and (
            self.arrival != "trace" or len(self.recorded) != len(self.traffic_scenarios)
        ):
            raise ValueError("a request rate of trace needs the arrival 'trace' and one entry of recorded per scenario")
        if self.trace_scale != 1 and TRACE_RATE not in self.request_rates:
            raise ValueError(
                "`trace_scale` makes a trace faster that is replayed at its own rate; give `request_rates`: trace, "
                "or leave it out"
            )
        if self.arrival.startswith("ramp:") and self.max_requests is not None:
            raise ValueError("a ramp takes the whole window; leave `max_requests` out")
        return self


class SloTerm(Section):
    """A target on one metric: an upper limit in seconds, or a minimum for throughputs.

    Without a statistic the target applies to each request, and `Slo.attainment` is the share of requests
    that must meet all such terms; the penalty is computed from the mean. A term on the mean or a
    percentile applies to that statistic alone.
    """

    metric: str
    statistic: str = EACH_REQUEST
    threshold: float = Field(gt=0)
    weight: float = Field(1.0, ge=0)
    hard_fail: bool = False
    fail_ratio: float = Field(0.5, ge=0)
    steepness: float = Field(0.1, gt=0)
    warn_ratio: float = Field(0.9, gt=0, le=1)

    @property
    def name(self) -> str:
        """`ttft`, `ttft.mean`, `latency.p90`, ..."""
        return self.metric if self.statistic == EACH_REQUEST else f"{self.metric}.{self.statistic}"

    @property
    def scored_statistic(self) -> str:
        """The statistic from which the penalty is computed, and which reports show."""
        return "mean" if self.statistic == EACH_REQUEST else self.statistic

    @property
    def quantile(self) -> float | None:
        """The quantile of a percentile term, such as 0.9 of p90; None for other terms."""
        return int(self.statistic[1:]) / 100 if self.statistic.startswith("p") else None

    @property
    def is_minimum(self) -> bool:
        """Whether the threshold is a lower limit, as for throughputs."""
        return self.metric in MINIMUM_METRICS


class Slo(Section):
    """All targets, and the share of requests that must meet those on single requests.

    Validated from the mapping users write: `{ttft: {threshold: 1.0}, latency: {p90: {...}}}`; a bare
    number is a threshold.
    """

    terms: tuple[SloTerm, ...] = ()
    attainment: float = Field(0.95, gt=0, lt=1)

    @cached_property
    def request_terms(self) -> tuple[SloTerm, ...]:
        """The terms on single requests: the latency targets without a statistic."""
        return tuple(term for term in self.terms if term.statistic == EACH_REQUEST and not term.is_minimum)

    @model_validator(mode="before")
    @classmethod
    def _parse_mapping(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "terms" in data:
            return data
        targets = dict(data)
        fields: dict[str, Any] = {"attainment": targets.pop("attainment")} if "attainment" in targets else {}
        terms: list[dict[str, Any]] = []
        for metric, term in targets.items():
            if metric not in LATENCY_METRICS + MINIMUM_METRICS:
                raise ValueError(f"unknown SLO metric '{metric}'")
            if not isinstance(term, dict):
                term = {"threshold": term}
            by_statistic = {name: body for name, body in term.items() if name in STATISTICS}
            options = {name: value for name, value in term.items() if name not in STATISTICS}
            if options:
                terms.append({"metric": metric, **options})
            for statistic, body in by_statistic.items():
                body = body if isinstance(body, dict) else {"threshold": body}
                terms.append({"metric": metric, "statistic": statistic, **body})
        return {"terms": terms, **fields}


def _check_expression(text: str) -> str:
    parse(text)
    return text


ExpressionText = Annotated[str, AfterValidator(_check_expression)]
"""The text of an expression that `expression.parse` accepts."""


class Experiment(Section):
    """One composed and validated configuration: everything a run needs.

    A parameter in `only_when` exists only where its expression is true. Candidates that violate one of
    the named `constraints` are refused.
    """

    task_name: str = Field(min_length=1)
    description: str = ""
    model: Model
    base_runtime: str
    runtime: Runtime = Runtime()
    deployment: Deployment = Deployment()
    hardware: Hardware = Hardware()
    parameters: dict[str, tuple[Value, ...]]
    only_when: dict[str, ExpressionText] = Field(default_factory=dict)
    constraints: dict[str, ExpressionText] = Field(default_factory=dict)
    optimization: Optimization = Optimization()
    benchmark: Benchmark
    slo: Slo = Slo()
    simulate: SimulationOptions = SimulationOptions()

    @field_validator("parameters", mode="before")
    @classmethod
    def _wrap_scalars(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value if isinstance(value, list | tuple) else (value,) for name, value in data.items()}

    @field_validator("only_when", "constraints", mode="before")
    @classmethod
    def _check_is_mapping(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError("must be a mapping of names to expressions, such as {all-gpus: tp-size * dp-size == gpus}")
        return data

    @field_validator("only_when")
    @classmethod
    def _check_acyclic(cls, rules: dict[str, str]) -> dict[str, str]:
        try:
            TopologicalSorter({name: parse(text).names - {name} for name, text in rules.items()}).prepare()
        except CycleError as error:
            raise ValueError(f"these depend on one another in a circle: {', '.join(error.args[1])}") from error
        return rules

    def workload(self) -> Workload:
        """The load points of one launch, lightest first, so that a crash under load loses least."""
        load = self.benchmark
        points = []
        for index, name in enumerate(load.traffic_scenarios):
            points += [LoadPoint(name, concurrency=value) for value in sorted(set(load.num_concurrency))]
            points += [LoadPoint(name, rate=value) for value in sorted(load.rates_for(index))]
        return Workload(
            load_points=tuple(points),
            duration=load.duration,
            max_duration=load.effective_max_duration,
            warmup=load.warmup,
            max_requests=load.max_requests,
            request_timeout=load.request_timeout,
            endpoint=load.endpoint,
            arrival=load.arrival,
            seed=load.seed,
            max_in_flight=load.max_in_flight,
            workers=load.workers,
            request_form=load.request_form,
            honour_retry_after=load.honour_retry_after,
        )
