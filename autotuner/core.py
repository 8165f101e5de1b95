"""The nouns of autotune: what is asked of a server, and what was found. All frozen."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

Value = bool | int | float | str | None
"""What one parameter of an engine can be set to."""

Source = Literal["measured", "simulated", "predicted"]
"""Who answered: a real engine, the simulated one, or the closed form."""


class Verdict(StrEnum):
    """What a load point's figures are worth."""

    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNDECIDED = "undecided"
    SATURATED = "saturated"
    CLIENT_LIMITED = "client-limited"
    INVALID = "invalid"


class FailureKind(StrEnum):
    """Why a launch or a load point ended without an answer."""

    BAD_FLAG = "bad-flag"
    OUT_OF_MEMORY_AT_START = "out-of-memory-at-start"
    OUT_OF_MEMORY_UNDER_LOAD = "out-of-memory-under-load"
    MODEL_NOT_FOUND = "model-not-found"
    GATED_MODEL = "gated-model"
    UNSUPPORTED_MODEL = "unsupported-model"
    NOT_DIVISIBLE = "not-divisible"
    ENGINE_MISSING = "engine-missing"
    IMAGE_MISSING = "image-missing"
    DRIVER_FAULT = "driver-fault"
    PORT_IN_USE = "port-in-use"
    START_TIMED_OUT = "start-timed-out"
    CRASHED_AT_START = "crashed-at-start"
    CRASHED_UNDER_LOAD = "crashed-under-load"
    HUNG_UNDER_LOAD = "hung-under-load"
    WRONG_MODEL = "wrong-model"
    UNHEALTHY = "unhealthy"
    TRIAL_TIMED_OUT = "trial-timed-out"
    INTERNAL = "internal-error"


@dataclass(frozen=True)
class Candidate:
    """One runtime with one value for each parameter: one server launch."""

    runtime: str
    parameters: Mapping[str, Value] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Ten hexadecimal digits that are equal for equal candidates, in any process."""
        text = json.dumps([self.runtime, dict(self.parameters)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def gpus(self) -> int:
        """How many GPUs one server takes: tensor x pipeline x data parallel size, 1 where unset."""
        sizes = (self.parameters.get(name) for name in ("tp-size", "pp-size", "dp-size"))
        return math.prod(size for size in sizes if isinstance(size, int) and size > 0)

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


@dataclass(frozen=True)
class Workload:
    """The load points one launch serves, and how each is driven; times in seconds.

    A window lasts at least `duration`, and at most `longest` where a stop rule may end it earlier.
    `arrival` is when an open loop's requests are due: constant, poisson, gamma:SHAPE,
    ramp:START-END or trace. `max_in_flight` bounds how many of them are on their way at once.
    `workers` is how many processes send them, None for as many as the load needs.
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

    @property
    def window_limit(self) -> float:
        """Seconds from the start of a window after which it ends in any case."""
        return max(self.duration, self.max_duration or 0.0)

    def for_load_point(self, load_point: LoadPoint) -> Workload:
        """The same way of driving, on one load point."""
        return replace(self, load_points=(load_point,))


@dataclass(frozen=True)
class Mount:
    """A host path a container sees."""

    host: str
    container: str
    read_only: bool = True


@dataclass(frozen=True)
class ServerSpec:
    """How one server is started: launchers run it, `autotuner.deploy` prints it.

    `argv` is the whole command of a process. In a container whose image has an entry point,
    `container_argv` is what follows it; `entrypoint` replaces it. `secrets` names environment
    variables that are handed on from the caller's environment and are never written anywhere.
    `devices` are the indexes of the GPUs it may use, empty for any `gpus` of them. `shm_size`
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


CUT_OFF_ERROR = "cut-off"
"""The error of a warm-up's request that was still running when the load point was decided."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as the client saw it. Times are seconds on one monotonic clock.

    `chunk_times[i]` is when the bytes of the i-th chunk that carries a token arrived and
    `chunk_tokens[i]` how many tokens it carried. `requested_*` are the lengths asked for,
    `prompt_tokens` and `output_tokens` the server's own count (None when it gave none), as is
    `cached_tokens`, how many of the prompt came from its prefix cache. `client_delay` is how many
    seconds the first token's bytes had waited in the client's kernel when they were stamped, None
    on a connection on which that is not measured.
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

    @property
    def output_token_count(self) -> int:
        """Output tokens: the server's count, else what the chunks carried."""
        return self.output_tokens if self.output_tokens is not None else sum(self.chunk_tokens)

    @property
    def ttft(self) -> float | None:
        """Seconds from sending to the first token of any channel."""
        return self.chunk_times[0] - self.sent if self.chunk_times else None

    @property
    def ttfo(self) -> float | None:
        """Seconds from sending to the first token that is not reasoning."""
        return None if self.first_output is None else self.first_output - self.sent

    @property
    def e2e(self) -> float | None:
        """Seconds from sending to the last token."""
        return self.chunk_times[-1] - self.sent if self.chunk_times else None

    @property
    def tpot(self) -> float | None:
        """Seconds per output token after the first chunk; None when there is none."""
        if not self.chunk_times or self.output_token_count <= self.chunk_tokens[0]:
            return None
        return (self.chunk_times[-1] - self.chunk_times[0]) / (self.output_token_count - self.chunk_tokens[0])


StopRule = Callable[[Sequence[RequestRecord]], str | None]
"""(requests of the window that have ended, in the order of their ends) -> why no more are needed, or None."""


@dataclass(frozen=True)
class LoadStep:
    """One load point to be driven: `workload` holds it alone, `enough` may end its window early."""

    workload: Workload
    stop_rule: StopRule | None = None

    @property
    def load_point(self) -> LoadPoint:
        """The load point."""
        return self.workload.load_points[0]

    def for_attempt(self, attempt: int) -> LoadStep:
        """The same with other lengths and arrivals, for another attempt at it."""
        return replace(self, workload=replace(self.workload, seed=self.workload.seed + attempt - 1))

    def with_time_limit(self, seconds: float) -> LoadStep:
        """The same in about so many seconds, warm-up included, but no shorter than its duration."""
        if self.workload.max_duration is None:
            return self
        longest = max(self.workload.duration, min(self.workload.max_duration, seconds - self.workload.warmup))
        return replace(self, workload=replace(self.workload, max_duration=longest))


@dataclass(frozen=True)
class Observation:
    """What the load generator brought back from one load point.

    `window` is [start, end] on the records' clock. `cut_off` requests were ended by the run itself
    and say nothing about the server; of them only those of the warm-up are among the records, for
    their tokens. `counters` are differences of the engine's own Prometheus counters over the load
    point, where it has them. `ended_early` says why the load point was given up before its time,
    `decided` why no more of it was needed or, of a trace, why no more came,
    both None when it ran its course. The window of a
    decided one ends before the first request that was cut off was due: up to there all are known,
    while of later ones the fast have ended more often. Of an open loop, `due` requests were
    scheduled for the window, and with a bound on those in flight `held_back` were sent late because
    of it. With `changing` arrivals, a ramp or a trace, no part of the window stands for the whole.
    `loop_lag_*` is by how many seconds the load generator's event loop is late to see
    what has arrived, `client_cpu` the share of a core that its thread took in the window; of
    several processes they are the worst, and None where they were not measured.
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


@dataclass(frozen=True)
class Distribution:
    """Summary of `n` pooled samples, in the samples' unit.

    `intervals` holds [low, high] of the 95% interval for "mean" and each percentile; a high of
    None is unbounded, because so few samples say nothing above it. `adjusted` repeats the
    percentiles with every error counted as infinitely slow, and `adjusted_intervals` their intervals
    where there were errors; None is infinite.
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
    intervals: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    adjusted: Mapping[str, float | None] = field(default_factory=dict)
    adjusted_intervals: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Share:
    """A share of `n` requests with its 95% interval, which is that of `effective` independent ones, `n` where None."""

    value: float
    low: float
    high: float
    n: int
    effective: float | None = None


@dataclass(frozen=True)
class Metrics:
    """One load point in figures: seconds, tokens/s, requests/s.

    `throughput` counts prompt and output tokens, `output_throughput` output tokens alone; `intervals`
    holds [low, high] of the 95% interval of each rate, by field name. A distribution is None where
    no request gave a sample. `without_tpot` requests answered in a single chunk, of which nothing
    can be said against a TPOT target; they are in no share.
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
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    without_tpot: int = 0


@dataclass(frozen=True)
class Check:
    """One validity check: the figure, its limit, and whether it held."""

    name: str
    value: float | None
    limit: str
    ok: bool


@dataclass(frozen=True)
class TermOutcome:
    """How one SLO term came out: `violation` is (actual - threshold) / threshold, reversed for minimums."""

    term: str
    actual: float | None
    threshold: float
    violation: float
    penalty: float
    state: Literal["met", "warning", "missed", "failed"]


@dataclass(frozen=True)
class Score:
    """Utility (higher is better, positive) after SLO penalties."""

    utility: float
    penalty: float
    value: float
    terms: tuple[TermOutcome, ...] = ()


@dataclass(frozen=True)
class GpuUse:
    """What a launch's GPUs drew and did in the window of a load point, all of them together.

    `energy` is in joules, `memory_used` the most bytes held at once; `utilisation` is the mean
    share of time in which they computed, None where the driver does not tell. `samples` readings
    were taken in the window.
    """

    gpus: int
    samples: int
    energy: float
    mean_watts: float
    max_watts: float
    utilisation: float | None
    memory_used: int


@dataclass(frozen=True)
class LoadPointResult:
    """One load point on one launch: figures, what they are worth, how they score.

    `gpu_use` is None where no driver lists the GPUs the launch holds. `decided` says why no more
    requests were needed, None when the load point ran its course.
    """

    load_point: LoadPoint
    source: Source
    metrics: Metrics
    validity: tuple[Check, ...] = ()
    verdict: Verdict = Verdict.UNDECIDED
    score: Score | None = None
    gpu_use: GpuUse | None = None
    decided: str | None = None

    @property
    def joules_per_token(self) -> float | None:
        """Energy of all GPUs for each output token received in the window."""
        tokens = self.metrics.output_throughput
        return self.gpu_use.mean_watts / tokens if self.gpu_use and tokens else None


@dataclass(frozen=True)
class Failure:
    """How a launch ended badly, in the engine's own last words, and what to do."""

    kind: FailureKind
    message: str
    remedy: str


@dataclass(frozen=True)
class Capacity:
    """The highest load of a scenario at which a server meets its targets; without targets, its knee.

    `value` is a concurrency, or a rate in 1/s: the load at which it was seen, 0 where even the
    lowest one misses. `high` is the lowest load that misses, None where none did.
    """

    scenario: str
    unit: Literal["concurrency", "rate"]
    value: float
    high: float | None
    load_points: int
    reason: str

    @property
    def load_point(self) -> LoadPoint | None:
        """Where it was seen."""
        if not self.value:
            return None
        if self.unit == "rate":
            return LoadPoint(self.scenario, rate=self.value)
        return LoadPoint(self.scenario, concurrency=int(self.value))


@dataclass(frozen=True)
class LoadPlanSummary:
    """What a course came to: the capacities found, and why it was given up before its end.

    `ceiling` is the most utility that a candidate that was given up could have come to.
    """

    capacities: tuple[Capacity, ...] = ()
    gave_up: str | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class Measurement:
    """What an evaluator answers for one candidate: its load points, or why it has not all of them.

    `timings` are seconds by phase ("start", "load"); `server` is what the engine said of
    itself (KV tokens, version); `command` is the exact argv that ran, empty where none did.
    """

    source: Source
    load_points: tuple[LoadPointResult, ...]
    failure: Failure | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    server: Mapping[str, Any] = field(default_factory=dict)
    spec: ServerSpec | None = None
    outcome: LoadPlanSummary = LoadPlanSummary()

    @property
    def latest_results(self) -> Mapping[LoadPoint, LoadPointResult]:
        """The last result of each load point: one that could not be trusted is driven again."""
        return {result.load_point: result for result in self.load_points}


Purpose = Literal["search", "baseline", "confirmation"]
"""Why a server is launched: to find a better candidate, to know the engine's defaults, to check the winner."""


@dataclass(frozen=True)
class Trial:
    """A candidate, what was measured on it, and how it ended. `started` and `ended` are Unix seconds."""

    number: int
    candidate: Candidate
    measurement: Measurement
    started: float
    ended: float
    purpose: Purpose = "search"

    @property
    def results(self) -> tuple[LoadPointResult, ...]:
        """What was measured at each load point, in order."""
        return self.measurement.load_points

    @property
    def failed(self) -> bool:
        """Whether the launch ended before all its load points were measured."""
        return self.measurement.failure is not None


Stage = Literal["starting", "ready", "warming-up", "measuring", "measured", "stopping", "finished"]


@dataclass(frozen=True)
class Progress:
    """One step of a running trial, for whoever watches: load point `position` of `total`.

    `expected_seconds` is what the stage takes, and the least of a window, which may go on for longer.
    """

    stage: Stage
    trial: int
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
    """Watch nothing."""
