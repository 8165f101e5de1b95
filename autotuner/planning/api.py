"""Predictions and plans as plain functions: the same figures as `autotune predict`."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.planning.cost import Prices, prices_by_gpu
from autotuner.planning.question import LatencyTarget, Question
from autotuner.planning.ranking import rank_options
from autotuner.planning.serving_option import ServingOption
from autotuner.planning.sizing import fewest_gpus as _fewest_gpus
from autotuner.predict.layout import Layout
from autotuner.predict.measured_lookup import LookupResult, MeasuredLookup
from autotuner.predict.open_loop import OpenLoopModel, OpenLoopPrediction
from autotuner.predict.traffic import Software, Traffic


def what_if(
    model: str,
    gpu: str,
    *,
    isl: int,
    osl: int,
    concurrency: int,
    layout: Layout | None = None,
    software: Software | None = None,
    prefix_hit: float = 0.0,
    bundled_only: bool = False,
) -> LookupResult:
    """Figures of a closed loop: measured on this machine, else interpolated between measurements, else predicted.

    `model` is a bundled name or a path to a config.json, `gpu` a GPU type; `isl` and `osl` are
    tokens, `concurrency` requests in flight over all data-parallel replicas, `prefix_hit` the
    share of prompt tokens that hit the prefix cache. The result's `source` says which of the three
    it is; its `prediction` has mean TTFT and TPOT in seconds with 80% intervals, output tokens/s,
    requests/s and bytes. `bundled_only` ignores what was measured and calibrated on this machine.
    Raises ConfigError for what no engine runs and for what does not fit.
    """
    question = _question(model, Traffic(isl, osl, prefix_hit), software, bundled_only=bundled_only)
    return MeasuredLookup(question.load_curve(gpu, layout or Layout())).at_concurrency(concurrency)


def at_rate(
    model: str,
    gpu: str,
    *,
    isl: int,
    osl: int,
    rate: float,
    layout: Layout | None = None,
    software: Software | None = None,
    prefix_hit: float = 0.0,
    bundled_only: bool = False,
) -> OpenLoopPrediction:
    """Predict an open loop: Poisson arrivals at `rate` requests/s over all replicas.

    Other arguments as for `what_if`. Returns mean seconds with 80% intervals, the part of TTFT
    spent queueing, the mean number in flight, and the largest sustainable rate in requests/s.
    Raises SaturatedError, with that rate, where `rate` is above it.
    """
    question = _question(model, Traffic(isl, osl, prefix_hit), software, bundled_only=bundled_only)
    return OpenLoopModel(question.load_curve(gpu, layout or Layout())).at_rate(rate)


def rank_deployments(
    model: str,
    gpu: str,
    *,
    isl: int,
    osl: int,
    total_gpus: int = 8,
    ttft: float | None = None,
    tpot: float | None = None,
    decode_gpu: str | None = None,
    prices: Prices | None = None,
    software: Software | None = None,
) -> list[ServingOption]:
    """Rank all ways to use `total_gpus` GPUs: layouts, replicas, aggregated and disaggregated (P/D) serving.

    `ttft` and `tpot` are targets on the means in seconds; options that meet them come first, by
    output tokens/s per GPU, the others by how far they miss them. `decode_gpu` is another type for
    the decode workers; `prices` are those of one GPU for one hour by GPU type. Raises ConfigError
    where nothing fits or runs.
    """
    question = _question(model, Traffic(isl, osl), software, LatencyTarget(ttft, tpot), prices, decode_gpu)
    return rank_options(question, gpu, total_gpus)


def fewest_gpus(
    model: str,
    gpus: Sequence[str],
    *,
    isl: int,
    osl: int,
    rate: float,
    ttft: float | None = None,
    tpot: float | None = None,
    prices: Prices | None = None,
    software: Software | None = None,
) -> list[ServingOption]:
    """Rank ways to sustain `rate` requests/s on any of the GPU types, cheapest first, without prices smallest first.

    Arguments as for `rank_deployments`. The first option meets the targets where any does; it has
    `gpus`, `pools` of workers, `price` per hour and `cost` per million output tokens.
    """
    return _fewest_gpus(_question(model, Traffic(isl, osl), software, LatencyTarget(ttft, tpot), prices), gpus, rate)


def _question(
    model: str,
    traffic: Traffic,
    software: Software | None,
    target: LatencyTarget | None = None,
    prices: Prices | None = None,
    decode_gpu: str | None = None,
    *,
    bundled_only: bool = False,
) -> Question:
    return Question(
        model=model,
        traffic=traffic,
        software=software or Software(),
        target=target or LatencyTarget(),
        prices=prices_by_gpu(prices or {}),
        decode_gpu=decode_gpu,
        bundled_only=bundled_only,
    )
