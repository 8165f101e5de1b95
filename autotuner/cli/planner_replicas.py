"""What a planner of Dynamo computes from a profile, for `autotune sla plan --like`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotuner.cli import display
from autotuner.errors import pluralize

if TYPE_CHECKING:
    from autotuner.profiling.plan import PlannedLoad, WorkerCurves
    from autotuner.profiling.planner_model import PlannerLoad

RELEASES = {"dynamo-0.9": "0.9", "dynamo-1.6": "1.6"}
"""Values of --like and the release they name; 0.9 stands for all before 1.1, 1.6 for 1.4 and later."""


@dataclass(frozen=True)
class PlannerAnswer:
    """Replicas that a planner starts; `figures` are its numbers by their JSON names, `lines` its arithmetic in words.

    `ttft` and `itl` are what it expects of a worker, in milliseconds.
    """

    prefill_workers: int
    decode_workers: int
    ttft: float
    itl: float
    figures: dict[str, float]
    lines: tuple[str, str]

    def to_json(self) -> dict[str, float]:
        """Its numbers by name."""
        workers = {"prefill_workers": self.prefill_workers, "decode_workers": self.decode_workers}
        return {**workers, "ttft_ms": self.ttft, "itl_ms": self.itl, **self.figures}


def print_planner_answer(answer: PlannerAnswer, load: PlannedLoad, like: str) -> None:
    """Print the replicas, the arithmetic behind them, and targets that a worker misses by the planner's own figures."""
    display.sentence(
        f"Dynamo's {RELEASES[like]} planner starts {pluralize(answer.prefill_workers, 'prefill worker')} and "
        f"{pluralize(answer.decode_workers, 'decode worker')} for {load.rate:,.4g} requests/s."
    )
    for line in answer.lines:
        display.sentence(line, indent="    ")
    expected = (("TTFT", answer.ttft, 1000 * load.ttft), ("ITL", answer.itl, 1000 * load.itl))
    for name, value, target in expected:
        if value > target:
            display.warning(
                f"The planner expects {name} {value:,.2f} ms, the target is {target:g} ms: it starts the workers "
                "nevertheless."
            )


def planner_answer(curves: WorkerCurves, load: PlannedLoad, like: str) -> PlannerAnswer:
    """What the planner that `like` names computes for a load."""
    from autotuner.profiling.planner_model import PlannerLoad

    planner_load = PlannerLoad(
        load.rate, load.isl, load.osl, 1000 * load.itl, curves.prefill_gpus, curves.decode_gpus, load.max_gpus
    )
    answer = _interpolated if like == "dynamo-0.9" else _regressed
    return answer(curves, planner_load)


def _interpolated(curves: WorkerCurves, load: PlannerLoad) -> PlannerAnswer:
    from autotuner.profiling.planner_model import PlannerInterpolation, planner_replicas

    interpolation = PlannerInterpolation(curves.profile)
    prefill, decode = planner_replicas(interpolation, load)
    ttft, prompt_throughput = interpolation.ttft(load.isl), interpolation.prefill_throughput(load.isl)
    throughput, itl, usage = interpolation.best_decode(load.itl, load.isl + load.osl / 2)
    figures = {
        "prefill_tokens_per_second_per_gpu": prompt_throughput,
        "decode_tokens_per_second_per_gpu": throughput,
        "kv_usage": usage,
    }
    lines = (
        f"prefill: {load.rate * load.isl:,.0f} tokens/s / {prompt_throughput:,.2f} per GPU / "
        f"{pluralize(load.prefill_gpus, 'GPU')}; TTFT {ttft:,.2f} ms",
        f"decode: {load.rate * load.osl:,.0f} tokens/s / {throughput:,.2f} per GPU / "
        f"{pluralize(load.decode_gpus, 'GPU')}; ITL {itl:,.2f} ms at {usage:.1%} KV usage",
    )
    return PlannerAnswer(prefill, decode, ttft, itl, figures, lines)


def _regressed(curves: WorkerCurves, load: PlannerLoad) -> PlannerAnswer:
    from autotuner.profiling.planner_regression import PlannerRegression, regression_replicas

    regression = PlannerRegression(curves.profile)
    prefill, decode = regression_replicas(regression, load)
    prefill_rate, ttft = regression.prefill_rate(load.isl)
    decode_rate, itl, requests = regression.decode_rate(load.itl, load.isl, load.osl)
    figures = {
        "prefill_requests_per_second_per_worker": prefill_rate,
        "decode_requests_per_second_per_worker": decode_rate,
        "requests_in_flight_per_worker": requests,
    }
    lines = (
        f"prefill: {load.rate:,.4g} requests/s / {prefill_rate:,.2f} per worker; TTFT {ttft:,.2f} ms",
        f"decode: {load.rate:,.4g} requests/s / {decode_rate:,.2f} per worker; ITL {itl:,.2f} ms with "
        f"{pluralize(requests, 'request')} in flight",
    )
    return PlannerAnswer(prefill, decode, ttft, itl, figures, lines)
