"""Time to first token, time per output token, throughput and memory of a deployment, without a GPU."""

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
    """A model that does not fit on the GPUs it is asked to run on."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a closed loop of requests is predicted to see; times are means in seconds.

    Intervals cover 80%. `throughput` is output tokens/s over all GPUs, `requests` requests/s.
    `prefill` and `decode` are seconds by operator of one prompt's iteration and of one decode
    iteration. `running` is the number of requests in flight that the KV cache holds, `measured`
    says whether this model was among those the constants were fitted on.
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
    `osl` tokens, `concurrency` requests over all `dp` replicas. Types default to the
    checkpoint's; `prefix_hit` is the share of prompt tokens found in the prefix cache,
    `draft_tokens` the tokens proposed per step by a draft and `acceptance` the chance that each
    is kept. Returns seconds, tokens/s and bytes. Raises ConfigError for what no engine runs, and
    DoesNotFitError for what does not fit.
    """
    layout = Layout(tp=tp, pp=pp, dp=dp, moe_tp=moe_tp, ep=ep)
    of = model_on_gpus(model, gpu, layout, gemm_dtype, moe_dtype, kv_dtype, engine, version, memory_fraction)
    return predict_closed_loop(
        of,
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
    by: Calibration | None = None,
    length_scale: float = 1.0,
    separate_prefill: bool = False,
) -> Prediction:
    """Predict a closed loop on a deployment; arguments as for `predict`.

    `lengths` is the mean length of requests as a share of `isl` and `osl`, `apart` says that
    prompts run on other workers, so that they neither interrupt decodes nor queue for their cache.
    """
    _check_load(deployment, isl, osl, concurrency, prefix_hit)
    plan = deployment.memory_plan
    if plan.sequence_capacity(isl + osl) < 1:
        raise DoesNotFitError(
            f"'{deployment.shape.name}' does not fit.", why=f"{plan.shortage[:1].upper()}{plan.shortage[1:]}."
        )
    constants = by or bundled_calibration()
    rates = deployment.efficiencies(by) if by else deployment.bundled_efficiencies
    loop = deployment.replica_load(isl, osl, concurrency, length_scale=length_scale)
    works, prompts = deployment.iteration_work(loop, cached_tokens=isl * prefix_hit, queries=1 + draft_tokens)
    steps, decode, prefill = iteration_seconds(works, prompts, rates, cuda_graph=deployment.cuda_graph)
    kept = sum(acceptance**n for n in range(draft_tokens + 1))
    if draft_tokens:
        drafting = 1 + draft_tokens * max(1, deployment.shape.draft_layers) / deployment.shape.layers
        steps = steps._replace(decode=steps.decode * drafting)
    serving = constants.serving_constants(
        deployment.engine,
        deployment.gpu,
        deployment.shape.layers,
        deployment.version,
        concurrency,
        deployment.layout.dp,
    )
    if separate_prefill:
        loop = loop._replace(queue_ratio=0.0)
    tpot = mean_tpot(loop._replace(other_requests=0.0) if separate_prefill else loop, steps, serving, kept)
    ttft = mean_ttft(loop, steps, serving, tpot)
    keys, basis = effect_keys(deployment), effect_basis(isl, osl, concurrency)
    ttft_effect, _ = constants.effect("ttft", keys, basis)
    tpot_effect, known = constants.effect("tpot", keys, basis)
    ttft, tpot = ttft * math.exp(ttft_effect), tpot * math.exp(tpot_effect)
    requests = concurrency / (ttft + (osl - 1) * tpot) if ttft else 0.0
    return Prediction(
        ttft=ttft,
        tpot=tpot,
        ttft_interval=prediction_interval(constants, "ttft", ttft, known_levels=known, queued=loop.queue_ratio > 0),
        tpot_interval=prediction_interval(constants, "tpot", tpot, known_levels=known, queued=loop.queue_ratio > 0),
        throughput=requests * osl,
        requests=requests,
        gpus=deployment.layout.gpus,
        max_in_flight=plan.sequence_capacity(isl + osl) * deployment.layout.dp,
        memory=plan,
        prefill=prefill._asdict(),
        decode=decode._asdict(),
        model_measured=known > 0,
    )


def effect_keys(deployment: ModelOnGpus) -> tuple[str, ...]:
    """Under which names residuals are kept: the model's, the series', and the layout's in it."""
    layout, types = deployment.layout, deployment.dtypes
    name = deployment.shape.name.rsplit("/", 1)[-1].lower()
    series = f"{name} {deployment.engine} {deployment.version or '-'} {deployment.gpu.name} {types.mlp}"
    spread = f"{layout.tp}x{layout.dp}{'e' if layout.ep_size > 1 else ''} {types.expert}"
    return (geometry_name(deployment.shape), series, spread)


def geometry_name(shape: ModelShape) -> str:
    """One name for all models of the same sizes: retrained and requantised ones run alike."""
    return f"{shape.layers} layers of {shape.hidden_size}, {shape.parameters / 1e9:.2f}B"


def _check_load(deployment: ModelOnGpus, isl: int, osl: int, concurrency: int, prefix_hit: float) -> None:
    for name, value in (("isl", isl), ("osl", osl), ("concurrency", concurrency)):
        if not value >= 1:
            raise ConfigError(f"{name} must be at least 1, not {value}.")
    if not 0 <= prefix_hit < 1:
        raise ConfigError(f"The prefix hit rate must be at least 0 and below 1, not {prefix_hit}.")
    if isl + osl > deployment.shape.max_model_len:
        raise ConfigError(
            f"{isl} + {osl} tokens are more than the {deployment.shape.max_model_len} positions of '{deployment.shape.name}'."
        )
