"""Predictions as plain functions: the same figures as `autotune predict`."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.predict.hardware import find_gpu
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.measured_lookup import LookupResult, MeasuredLookup
from autotuner.predict.open_loop import OpenLoopModel, OpenLoopPrediction
from autotuner.predict.serving_option import Prices, ServingOption
from autotuner.predict.sizing import fewest_gpus as _fewest_gpus
from autotuner.predict.sweep import rank_options
from autotuner.predict.traffic import LatencyTarget, Software, Traffic


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
    load_curve = _load_curve(model, gpu, isl, osl, layout, software, prefix_hit, bundled_only)
    return MeasuredLookup(load_curve).at_concurrency(concurrency)


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
    load_curve = _load_curve(model, gpu, isl, osl, layout, software, prefix_hit, bundled_only)
    return OpenLoopModel(load_curve).at_rate(rate)


def _load_curve(
    model: str,
    gpu: str,
    isl: int,
    osl: int,
    layout: Layout | None,
    software: Software | None,
    prefix_hit: float,
    bundled_only: bool,
) -> LoadCurve:
    deployment = (software or Software()).deploy(model, find_gpu(gpu).name, layout or Layout())
    return LoadCurve(deployment, Traffic(isl, osl, prefix_hit), bundled_only=bundled_only)


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
    return rank_options(
        model,
        gpu,
        traffic=Traffic(isl, osl),
        total_gpus=total_gpus,
        software=software,
        target=LatencyTarget(ttft, tpot),
        decode_gpu=decode_gpu,
        prices=_prices_by_gpu(prices),
    )


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
    return _fewest_gpus(
        model,
        gpus,
        traffic=Traffic(isl, osl),
        rate=rate,
        software=software,
        target=LatencyTarget(ttft, tpot),
        prices=_prices_by_gpu(prices),
    )


def _prices_by_gpu(prices: Prices | None) -> Prices:
    return {find_gpu(name).name: price for name, price in (prices or {}).items()}
