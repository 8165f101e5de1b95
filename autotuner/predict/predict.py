"""Closed-form prediction of TTFT, TPOT, throughput and memory of a closed loop, without a GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.errors import ConfigError
from autotuner.predict.calibration import Calibration, bundled_calibration, effect_basis
from autotuner.predict.intervals import Interval, prediction_interval
from autotuner.predict.layout import Layout
from autotuner.predict.memory import MemoryPlan
from autotuner.predict.model_on_gpus import ModelOnGpus, iteration_seconds, model_on_gpus
from autotuner.predict.queueing import mean_tpot, mean_ttft
from autotuner.predict.shape import ModelShape


class DoesNotFitError(ConfigError):
    """The model does not fit on the GPUs it is to run on."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Prediction of a closed loop; times are means in seconds, intervals cover 80%.

    `throughput` is output tokens/s and `requests` requests/s, over all GPUs. `prefill` and `decode`
    are seconds by operator of an iteration of one prompt and of one that only decodes.
    `max_in_flight` is how many requests the KV cache holds, `model_measured` whether the constants
    were fitted on this model too.
    """

    ttft: float
    tpot: float
    ttft_interval: Interval
    tpot_interval: Interval
    throughput: float
    requests: float
    gpus: int
    max_in_flight: float
    memory: MemoryPlan
    prefill: Mapping[str, float]
    decode: Mapping[str, float]
    model_measured: bool


def predict(
    model: str,
    gpu: str,
    *,
    isl: int,
    osl: int,
    concurrency: int,
    engine: str = "vllm",
    version: str | None = None,
    tp: int = 1,
    pp: int = 1,
    dp: int = 1,
    moe_tp: int = 0,
    ep: int = 0,
    gemm_dtype: str | None = None,
    moe_dtype: str | None = None,
    kv_dtype: str | None = None,
    prefix_hit: float = 0.0,
    draft_tokens: int = 0,
    acceptance: float = 0.7,
    memory_fraction: float = 0.9,
) -> Prediction:
    """Predict a closed loop of `concurrency` requests in flight over all GPUs.

    `model` is a bundled name or a path to a config.json, `gpu` a name of the table, `isl` and
    `osl` tokens, `concurrency` requests over all `dp` replicas. Dtypes default to the
    checkpoint's. `prefix_hit` is the share of prompt tokens that hit the prefix cache,
    `draft_tokens` how many a draft model proposes per step and `acceptance` the probability that
    each is accepted. Raises ConfigError for what no engine runs, DoesNotFitError for what does not
    fit.
    """
    layout = Layout(tp=tp, pp=pp, dp=dp, moe_tp=moe_tp, ep=ep)
    deployment = model_on_gpus(model, gpu, layout, gemm_dtype, moe_dtype, kv_dtype, engine, version, memory_fraction)
    return predict_closed_loop(
        deployment,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        prefix_hit=prefix_hit,
        draft_tokens=draft_tokens,
        acceptance=acceptance,
    )


def predict_closed_loop(
    deployment: ModelOnGpus,
    *,
    isl: int,
    osl: int,
    concurrency: int,
    prefix_hit: float = 0.0,
    draft_tokens: int = 0,
    acceptance: float = 0.7,
    calibration: Calibration | None = None,
    length_scale: float = 1.0,
    separate_prefill: bool = False,
) -> Prediction:
    """Predict a closed loop on a deployment; arguments as for `predict`.

    `length_scale` is the mean length of requests as a share of `isl` and `osl`; with
    `separate_prefill` prompts run on other workers, neither interrupting decodes nor queueing for
    their KV cache.
    """
    _check_load(deployment, isl, osl, concurrency, prefix_hit)
    memory_plan, shape, layout = deployment.memory_plan, deployment.shape, deployment.layout
    if memory_plan.sequence_capacity(isl + osl) < 1:
        shortage = memory_plan.shortage
        raise DoesNotFitError(f"'{shape.name}' does not fit.", why=f"{shortage[:1].upper()}{shortage[1:]}.")
    efficiencies = deployment.efficiencies(calibration) if calibration else deployment.bundled_efficiencies
    calibration = calibration or bundled_calibration()
    load = deployment.replica_load(isl, osl, concurrency, length_scale=length_scale)
    work = deployment.iteration_work(load, cached_tokens=isl * prefix_hit, queries=1 + draft_tokens)
    seconds, decode_parts, prefill_parts = iteration_seconds(work, efficiencies, cuda_graph=deployment.cuda_graph)
    tokens_per_step = sum(acceptance**n for n in range(draft_tokens + 1))
    if draft_tokens:
        draft_cost = 1 + draft_tokens * max(1, shape.draft_layers) / shape.layers
        seconds = seconds._replace(decode=seconds.decode * draft_cost)
    constants = calibration.serving_constants(
        deployment.engine, deployment.gpu, shape.layers, deployment.version, concurrency, layout.dp
    )
    if separate_prefill:
        load = load._replace(queue_ratio=0.0)
    decode_load = load._replace(other_requests=0.0) if separate_prefill else load
    tpot = mean_tpot(decode_load, seconds, constants, tokens_per_step)
    ttft = mean_ttft(load, seconds, constants, tpot)
    # Correct by the mean log residuals (measured / predicted) of this model, as far as it was measured.
    residual_keys, regressors = effect_keys(deployment), effect_basis(isl, osl, concurrency)
    ttft_log_residual, _ = calibration.effect("ttft", residual_keys, regressors)
    tpot_log_residual, known_levels = calibration.effect("tpot", residual_keys, regressors)
    ttft, tpot = ttft * math.exp(ttft_log_residual), tpot * math.exp(tpot_log_residual)
    requests = concurrency / (ttft + (osl - 1) * tpot) if ttft else 0.0
    queued = load.queue_ratio > 0
    return Prediction(
        ttft=ttft,
        tpot=tpot,
        ttft_interval=prediction_interval(calibration, "ttft", ttft, known_levels=known_levels, queued=queued),
        tpot_interval=prediction_interval(calibration, "tpot", tpot, known_levels=known_levels, queued=queued),
        throughput=requests * osl,
        requests=requests,
        gpus=layout.gpus,
        max_in_flight=memory_plan.sequence_capacity(isl + osl) * layout.dp,
        memory=memory_plan,
        prefill=prefill_parts._asdict(),
        decode=decode_parts._asdict(),
        model_measured=known_levels > 0,
    )


def effect_keys(deployment: ModelOnGpus) -> tuple[str, ...]:
    """Keys of the measured residuals in constants.yaml: the model's, its series', and the layout's in the series."""
    layout, dtypes = deployment.layout, deployment.dtypes
    name = deployment.shape.name.rsplit("/", 1)[-1].lower()
    series = f"{name} {deployment.engine} {deployment.version or '-'} {deployment.gpu.name} {dtypes.mlp}"
    layout_key = f"{layout.tp}x{layout.dp}{'e' if layout.ep_size > 1 else ''} {dtypes.expert}"
    return (geometry_name(deployment.shape), series, layout_key)


def geometry_name(shape: ModelShape) -> str:
    """A name shared by all models of the same sizes: retrained and requantised ones run alike."""
    return f"{shape.layers} layers of {shape.hidden_size}, {shape.parameters / 1e9:.2f}B"


def _check_load(deployment: ModelOnGpus, isl: int, osl: int, concurrency: int, prefix_hit: float) -> None:
    for name, value in (("isl", isl), ("osl", osl), ("concurrency", concurrency)):
        if not value >= 1:
            raise ConfigError(f"{name} must be at least 1, not {value}.")
    if not 0 <= prefix_hit < 1:
        raise ConfigError(f"The prefix hit rate must be at least 0 and below 1, not {prefix_hit}.")
    shape = deployment.shape
    if isl + osl > shape.max_model_len:
        raise ConfigError(f"{isl} + {osl} tokens are more than the {shape.max_model_len} positions of '{shape.name}'.")
