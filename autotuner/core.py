"""Data types shared by all rooms: candidates, load points, request records, measurements, trials. All frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

Value = bool | int | float | str | None
"""What one parameter of an engine can be set to."""

Source = Literal["measured", "simulated", "predicted"]
"""Where a number comes from: a real engine, the simulated engine, or the closed-form predictor."""


class Verdict(StrEnum):
    """Whether a load point meets its targets, or why its figures cannot tell."""

    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNDECIDED = "undecided"
    SATURATED = "saturated"
    CLIENT_LIMITED = "client-limited"
    INVALID = "invalid"


class FailureKind(StrEnum):
    """Why a launch or a load point ended without a result."""

    BAD_FLAG = "bad-flag"
    OUT_OF_MEMORY_AT_START = "out-of-memory-at-start"
    OUT_OF_MEMORY_UNDER_LOAD = "out-of-memory-under-load"
    MODEL_NOT_FOUND = "model-not-found"
    GATED_MODEL = "gated-model"
    UNSUPPORTED_MODEL = "unsupported-model"
    NOT_DIVISIBLE = "not-divisible"
    ENGINE_MISSING = "engine-missing"
    IMAGE_MISSING = "image-missing"
    BROKEN_INSTALLATION = "broken-installation"
    DRIVER_FAULT = "driver-fault"
    DISK_FULL = "disk-full"
    PORT_IN_USE = "port-in-use"
    START_TIMED_OUT = "start-timed-out"
    CRASHED_AT_START = "crashed-at-start"
    CRASHED_UNDER_LOAD = "crashed-under-load"
    HUNG_UNDER_LOAD = "hung-under-load"
    WRONG_MODEL = "wrong-model"
    UNHEALTHY = "unhealthy"
    TRIAL_TIMED_OUT = "trial-timed-out"
    UNSCHEDULABLE = "unschedulable"
    QUOTA = "quota"
    VOLUME = "volume"
    REJECTED = "rejected"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    NODE_LOST = "node-lost"
    JOB_CANCELLED = "job-cancelled"
    JOB_TIME_LIMIT = "job-time-limit"
    JOB_OUT_OF_MEMORY = "job-out-of-memory"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal-error"


PARALLEL_SIZES = ("tp-size", "pp-size", "dp-size", "ep-size")
"""Parameters that say over how many GPUs a server is spread, each in its own way."""


@dataclass(frozen=True)
class Parallelism:
    """Tensor, pipeline, data and expert parallel size of one server.

    With `dp_attention` the `dp` replicas of the attention layers share the GPUs that `tp` counts.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    dp_attention: bool = False

    @classmethod
    def of(cls, parameters: Mapping[str, Value]) -> Parallelism:
        """The parallelism of a candidate's parameters; a size that is not set is 1."""
        sizes = (parameters.get(name) for name in PARALLEL_SIZES)
        tp, pp, dp, ep = (size if isinstance(size, int) and size > 0 else 1 for size in sizes)
        spellings = ("enable-dp-attention", "enable_dp_attention")
        return cls(tp, pp, dp, ep, dp_attention=any(parameters.get(name) is True for name in spellings))

    @property
    def by_parameter(self) -> dict[str, int]:
        """The sizes by the names of their parameters."""
        return dict(zip(PARALLEL_SIZES, (self.tp, self.pp, self.dp, self.ep), strict=True))

    @property
    def gpus(self) -> int:
        return self.tp * self.pp * (1 if self.dp_attention else self.dp)

    @property
    def attention_tp(self) -> int:
        """Number of GPUs over which the attention layers of one replica are spread."""
        return max(1, self.tp // self.dp) if self.dp_attention else self.tp


@dataclass(frozen=True)
class Candidate:
    """One runtime with one value for each parameter: one server launch."""

    runtime: str
    parameters: Mapping[str, Value] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The first ten hexadecimal digits of a SHA-256 hash: equal for equal candidates, in any process."""
        text = json.dumps([self.runtime, dict(self.parameters)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @cached_property
    def parallelism(self) -> Parallelism:
        return Parallelism.of(self.parameters)

    @property
    def gpus(self) -> int:
        """Number of GPUs of one server."""
        return self.parallelism.gpus

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        settings = (
            f"{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in self.parameters.items()
        )
        return " ".join((self.runtime, *settings))


@dataclass(frozen=True, order=True)
class LoadPoint:
    """One scenario at one concurrency (closed loop) or one request rate in 1/s (open loop)."""

    scenario: str
    concurrency: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("a load point has either a concurrency or a rate")

    def __str__(self) -> str:
        load = f"{self.rate:g}/s" if self.concurrency is None else f"{self.concurrency}"
        return f"{self.scenario} @ {load}"


LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
"""The fields that limit the length of an answer; the first is the usual one."""


@dataclass(frozen=True)
class RequestForm:
    """How requests are written, for servers that do not take the usual fields.

    `prompts` of completions are token ids or text; chat prompts are always text. `length_field` limits the
    length of an answer. The fields of `omit` are left out, and `extra_body` is merged into every request.
    """

    prompts: Literal["token-ids", "text"] = "token-ids"
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omit: tuple[str, ...] = ()
    extra_body: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def limits_length(self) -> bool:
        """Whether requests say how long an answer may be."""
        return not set(LENGTH_FIELDS) & set(self.omit)

    @property
    def holds_length(self) -> bool:
        """Whether requests ask for an answer of exactly their length."""
        return "ignore_eos" not in self.omit

    def without(self, name: str) -> RequestForm:
        """The form without a field; without `max_tokens` its successor is sent first."""
        if name == "max_tokens" and self.length_field == "max_tokens":
            return replace(self, length_field="max_completion_tokens")
        return replace(self, omit=(*self.omit, name))


@dataclass(frozen=True)
class Workload:
    """The load points one launch serves, and how each is driven; times in seconds.

    A measurement window lasts at least `duration`, and at most `max_duration` where a stop rule may end
    it earlier. `arrival` is the arrival process of an open loop: constant, poisson, gamma:SHAPE,
    ramp:START-END or trace; `max_in_flight` bounds its requests in flight. `workers` is the number of
    client processes, None for as many as the load needs. With `honour_retry_after` a client whose request
    was refused waits as long as the server asks for. Load points with the same `prompt_salt` send the same
    prompts, request by request, which the server's prefix cache then holds; without one every prompt is new.
    Without `keeps_load` nothing is sent after the last request of the window.
    """

    load_points: tuple[LoadPoint, ...]
    duration: float = 20.0
    max_duration: float | None = None
    warmup: float = 5.0
    max_requests: int | None = None
    request_timeout: float = 300.0
    endpoint: Literal["completions", "chat"] = "completions"
    arrival: str = "poisson"
    seed: int = 0
    max_in_flight: int | None = None
    workers: int | None = None
    request_form: RequestForm = field(default_factory=RequestForm)
    honour_retry_after: bool = False
    prompt_salt: str | None = None
    keeps_load: bool = True

    @property
    def window_limit(self) -> float:
        """Seconds after which a window ends in any case."""
        return max(self.duration, self.max_duration or 0.0)

    def for_load_point(self, load_point: LoadPoint) -> Workload:
        """The workload with this load point alone."""
        return replace(self, load_points=(load_point,))


@dataclass(frozen=True)
class Mount:
    """A host path a container sees; `is_model` where it holds the model, or the cache that models come from."""

    host: str
    container: str
    read_only: bool = True
    is_model: bool = False


@dataclass(frozen=True)
class ServerSpec:
    """The command of one server and its environment: launchers run it, `autotuner.deploy` prints it.

    `argv` is the whole command of a process. In a container whose image has an entry point,
    `container_argv` is what follows it; `entrypoint` replaces it. `secrets` names environment
    variables that are passed through from the caller's environment and are never written anywhere.
    `devices` are the indices of the GPUs it may use, empty for any `gpus` of them. `shm_size`
    and `memory` are sizes as Docker reads them, such as 16g.
    """

    image: str | None
    argv: tuple[str, ...]
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    port: int
    ready_path: str
    served_model: str
    container_argv: tuple[str, ...] = ()
    gpus: int = 0
    secrets: tuple[str, ...] = ()
    devices: tuple[int, ...] = ()
    entrypoint: str | None = None
    network: Literal["bridge", "host"] = "bridge"
    shm_size: str | None = None
    memory: str | None = None


MIN_TPOT_SECONDS = 2e-5
"""Below this, 50,000 tokens/s of one stream, tokens arrived together and say nothing about the engine's pace."""

CUT_OFF_ERROR = "cut-off"
"""The error of a warm-up request that was still in flight when a stop rule ended the load point."""

EARLY_STOP_ERROR = "early-stop"
"""The error of an answer that the model ended before the length that was asked for."""

SKIPPED_EVENT = "skipped-event"
"""The name of the message about an event that was not understood in an answer that counts all the same."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as the client saw it. Times are seconds on one monotonic clock.

    `chunk_times[i]` is the arrival time of the i-th chunk that carries tokens, `chunk_tokens[i]` its
    number of tokens. `requested_*` are the requested lengths; `prompt_tokens`, `output_tokens` and
    `cached_tokens` (prompt tokens from the prefix cache) are the server's own counts, None when it
    reports none that can be believed; `token_counts` names what counted the tokens: the server's usage,
    running usage or listed tokens, or the events of the stream. `client_delay` is the time in seconds
    that the first token's bytes waited in the client's kernel before they were timestamped, None on
    connections where it is not measured.
    """

    index: int
    scheduled: float
    sent: float
    finished: float
    chunk_times: Sequence[float]
    chunk_tokens: Sequence[int]
    requested_prompt: int
    requested_output: int
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    first_output: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    cached_tokens: int | None = None
    client_delay: float | None = None
    token_counts: str | None = None

    @property
    def prompt_token_count(self) -> int:
        """Number of prompt tokens: the server's count, else the requested length."""
        return self.requested_prompt if self.prompt_tokens is None else self.prompt_tokens

    @property
    def output_token_count(self) -> int:
        """Number of output tokens: the server's count, else the sum over the chunks."""
        return self.output_tokens if self.output_tokens is not None else sum(self.chunk_tokens)

    @property
    def ttft(self) -> float | None:
        """Time to first token in seconds, from sending; reasoning tokens count."""
        return self.chunk_times[0] - self.sent if self.chunk_times else None

    @property
    def ttfo(self) -> float | None:
        """Time to first output token that is not reasoning, in seconds from sending."""
        return None if self.first_output is None else self.first_output - self.sent

    @property
    def e2e(self) -> float | None:
        """End-to-end latency: seconds from sending to the last token."""
        return self.chunk_times[-1] - self.sent if self.chunk_times else None

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first chunk, in seconds.

        None for a single chunk or token, and for chunks that arrived together: no engine takes less than
        `MIN_TPOT_SECONDS`, so that they were kept back on the way.
        """
        if not self.chunk_times or self.output_token_count <= self.chunk_tokens[0]:
            return None
        tpot = (self.chunk_times[-1] - self.chunk_times[0]) / (self.output_token_count - self.chunk_tokens[0])
        return tpot if tpot >= MIN_TPOT_SECONDS else None


StopRule = Callable[[Sequence[RequestRecord]], str | None]
"""(finished requests of the window, in the order in which they finished) -> why to stop the window, or None."""


@dataclass(frozen=True)
class LoadStep:
    """One load point to drive: `workload` holds it alone, `stop_rule` may end its window early."""

    workload: Workload
    stop_rule: StopRule | None = None

    @property
    def load_point(self) -> LoadPoint:
        return self.workload.load_points[0]

    def for_attempt(self, attempt: int) -> LoadStep:
        """The step with the random seed of attempt number `attempt`, from 1: other lengths and arrivals."""
        return replace(self, workload=replace(self.workload, seed=self.workload.seed + attempt - 1))

    def with_time_limit(self, seconds: float) -> LoadStep:
        """The step cut to about `seconds` with its warm-up, but to no less than the workload's `duration`."""
        if self.workload.max_duration is None:
            return self
        max_duration = max(self.workload.duration, min(self.workload.max_duration, seconds - self.workload.warmup))
        return replace(self, workload=replace(self.workload, max_duration=max_duration))


@dataclass(frozen=True)
class Observation:
    """The raw data of one load point, as the load generator returns it.

    `window` is [start, end] on the records' clock. `cut_off_requests` counts requests cancelled by the
    load generator itself, which tell nothing about the server; of them only those of the warm-up are
    among the records, for their tokens. `counters` are differences of the engine's Prometheus counters
    over the load point. `abort_reason` says why the load point was aborted, `stop_reason` why a stop rule
    ended it or that its trace ended; both are None when it ran its full time. A window that a stop rule
    ended closes before the first cancelled request was due: up to there every outcome is known, and
    among later requests the finished ones are biased towards the fast. In an open loop `due_requests`
    were scheduled for the window, and `held_back_requests` of them were sent late because
    `max_in_flight` was reached. With `nonstationary_arrivals`, a ramp or a trace, there is no steady
    state. `loop_lag_*` are delays of the load generator's event loop in seconds, `client_cpu` the share
    of a core that its thread used in the window: the worst of all client processes, None if unmeasured.
    `error_messages` has one message for some classes of errors, and for SKIPPED_EVENT: the server's own, or a
    quote of what it sent.
    `retry_after` is the longest pause in seconds that a refused request was asked to keep.
    """

    load_point: LoadPoint
    records: tuple[RequestRecord, ...]
    window: tuple[float, float]
    loop_lag_p99: float
    counters: Mapping[str, float] = field(default_factory=dict)
    cut_off_requests: int = 0
    abort_reason: str | None = None
    stop_reason: str | None = None
    due_requests: int | None = None
    held_back_requests: int | None = None
    nonstationary_arrivals: bool = False
    loop_lag_mean: float | None = None
    client_cpu: float | None = None
    error_messages: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None


_NO_ENTRIES: Mapping[str, Any] = {}


def _no_entries() -> Mapping[str, Any]:
    """One empty mapping for all: a large run has a million of them."""
    return _NO_ENTRIES


@dataclass(frozen=True, slots=True)
class Distribution:
    """Summary statistics of `n` pooled samples, in the samples' unit.

    `intervals` maps "mean" and each percentile to its 95% confidence interval; an upper limit of None
    means that there are too few samples for one. `adjusted` holds the percentiles with every error
    counted as infinitely slow, `adjusted_intervals` their intervals where there were errors; None is
    infinite.
    """

    n: int
    mean: float
    sd: float
    min: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    max: float
    intervals: Mapping[str, tuple[float, float | None]] = field(default_factory=_no_entries)
    adjusted: Mapping[str, float | None] = field(default_factory=_no_entries)
    adjusted_intervals: Mapping[str, tuple[float | None, float | None]] = field(default_factory=_no_entries)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of `n` requests with its 95% interval; `effective` is the effective sample size, `n` where None."""

    value: float
    low: float
    high: float
    n: int
    effective: float | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of one load point: seconds, tokens/s, requests/s.

    `throughput` counts prompt and output tokens, `output_throughput` output tokens alone; `intervals`
    maps a rate's field name to its 95% confidence interval. A distribution is None where no request
    gave a sample. `without_tpot` requests were answered in a single chunk, or all at once, and have no
    TPOT; they are left out of the attainment of a TPOT target. `token_counts` maps what counted tokens
    to its number of requests, as in `RequestRecord`.
    """

    requests: int
    ttft: Distribution | None
    ttfo: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    chunk_gap: Distribution | None
    e2e: Distribution | None
    interactivity: float | None
    output_throughput: float
    throughput: float
    request_throughput: float
    goodput: float
    token_goodput: float
    attainment: Share | None
    errors: Mapping[str, int]
    ttft_from_schedule: Distribution | None = None
    e2e_from_schedule: Distribution | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=_no_entries)
    without_tpot: int = 0
    token_counts: Mapping[str, int] = field(default_factory=_no_entries)


@dataclass(frozen=True, slots=True)
class Check:
    """One validity check: the value, its limit in words, and whether it passed."""

    name: str
    value: float | None
    limit: str
    ok: bool


@dataclass(frozen=True, slots=True)
class TermOutcome:
    """One SLO term held against a result: `violation` is (actual - threshold) / threshold, negated for minimums."""

    term: str
    actual: float | None
    threshold: float
    violation: float
    penalty: float
    state: Literal["met", "warning", "missed", "failed"]


@dataclass(frozen=True, slots=True)
class Score:
    """`value` is `utility` (positive, higher is better) / (1 + `penalty`), the sum over the SLO terms."""

    utility: float
    penalty: float
    value: float
    terms: tuple[TermOutcome, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Energy, power and memory of all GPUs of a launch together, in the window of a load point.

    `energy` is in joules, `memory_used` the peak in bytes; `utilisation` is the mean share of time in
    which a kernel ran, None where the driver does not report it. `samples` is the number of readings.
    """

    gpus: int
    samples: int
    energy: float
    mean_watts: float
    max_watts: float
    utilisation: float | None
    memory_used: int


@dataclass(frozen=True, slots=True)
class LoadPointResult:
    """One load point of one launch: metrics, validity checks, verdict and score.

    `gpu_use` is None where no driver lists the GPUs of the launch. `decided` is the observation's
    `stop_reason` and `ended_early` its `abort_reason`, both None when the load point ran its full time;
    `error_messages` and `retry_after` are the observation's.
    """

    load_point: LoadPoint
    source: Source
    metrics: Metrics
    validity: tuple[Check, ...] = ()
    verdict: Verdict = Verdict.UNDECIDED
    score: Score | None = None
    gpu_use: GpuUse | None = None
    decided: str | None = None
    error_messages: Mapping[str, str] = field(default_factory=_no_entries)
    ended_early: str | None = None
    retry_after: float | None = None

    @property
    def answered_requests(self) -> int:
        """Number of successful requests in the window."""
        return self.metrics.requests - sum(self.metrics.errors.values())

    @property
    def joules_per_token(self) -> float | None:
        """Joules of all GPUs per output token received in the window."""
        tokens = self.metrics.output_throughput
        return self.gpu_use.mean_watts / tokens if self.gpu_use and tokens else None


@dataclass(frozen=True)
class Failure:
    """Why a launch failed: the class of failure, the engine's own error message, and what to do."""

    kind: FailureKind
    message: str
    remedy: str


@dataclass(frozen=True)
class Capacity:
    """The highest load of a scenario at which a server meets its targets; without targets, its knee.

    `value` is a concurrency, or a rate in 1/s: the highest measured load that meets the targets, 0 where
    even the lowest one misses them. `high` is the lowest load that misses, None where none did.
    """

    scenario: str
    unit: Literal["concurrency", "rate"]
    value: float
    high: float | None
    load_points: int
    reason: str

    @property
    def load_point(self) -> LoadPoint | None:
        """The load point of `value`; None where that is 0."""
        if not self.value:
            return None
        if self.unit == "rate":
            return LoadPoint(self.scenario, rate=self.value)
        return LoadPoint(self.scenario, concurrency=int(self.value))


@dataclass(frozen=True)
class LoadPlanSummary:
    """The result of a load plan: the capacities it determined, and why it was pruned before its end.

    `ceiling` is an upper bound on the utility of a candidate that was pruned, `max_load_points` one on the number of
    load points, None where it was not recorded.
    """

    capacities: tuple[Capacity, ...] = ()
    gave_up: str | None = None
    ceiling: float | None = None
    max_load_points: int | None = None


@dataclass(frozen=True)
class Measurement:
    """What an evaluator returns for one candidate: its load points, and the failure that cut them short.

    `timings` are seconds by phase ("start", "load"); `server` is what the engine reports of itself (KV tokens,
    version) and what was found out about it before the load, all JSON; `spec` is the command that ran, None where
    none did.
    """

    source: Source
    load_points: tuple[LoadPointResult, ...]
    failure: Failure | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    server: Mapping[str, Any] = field(default_factory=dict)
    spec: ServerSpec | None = None
    outcome: LoadPlanSummary = LoadPlanSummary()

    @cached_property
    def latest_results(self) -> Mapping[LoadPoint, LoadPointResult]:
        """The last result of each load point; one whose figures are not valid is measured again."""
        return {result.load_point: result for result in self.load_points}


Purpose = Literal["search", "baseline", "confirmation"]
"""Why a server is launched: to find a better candidate, to measure the engine's defaults, to confirm the winner."""


@dataclass(frozen=True)
class Trial:
    """One launch of a server with the configuration of one candidate, and what was measured on it.

    A candidate that is launched again, to confirm it, has several trials. `number` counts the launches of a run from 1;
    `started` and `ended` are Unix seconds. `parallel_trials` are the numbers of those that ran beside it on this host.
    """

    number: int
    candidate: Candidate
    measurement: Measurement
    started: float
    ended: float
    purpose: Purpose = "search"
    parallel_trials: tuple[int, ...] = ()

    @property
    def results(self) -> tuple[LoadPointResult, ...]:
        return self.measurement.load_points

    @property
    def failed(self) -> bool:
        """Whether the launch ended before all its load points were measured."""
        return self.measurement.failure is not None


Stage = Literal["starting", "ready", "warming-up", "measuring", "measured", "stopping", "finished"]


@dataclass(frozen=True)
class Progress:
    """An event of a running trial, for progress displays: load point `position` of `total`.

    `expected_seconds` is the expected length of the stage, and of a window the shortest one.
    """

    stage: Stage
    trial_number: int
    candidate: Candidate
    load_point: LoadPoint | None = None
    position: int = 0
    total: int = 0
    expected_seconds: float = 0.0
    result: LoadPointResult | None = None
    finished_trial: Trial | None = None
    purpose: Purpose = "search"


Observer = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The observer that does nothing."""
