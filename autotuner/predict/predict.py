"""Time to first token, time per output token, throughput and memory of a deployment, without a GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.errors import ConfigError
from autotuner.predict.calibration import Calibration, basis_of, calibration
from autotuner.predict.intervals import Interval, interval
from autotuner.predict.layout import Layout
from autotuner.predict.memory import MemoryPlan
from autotuner.predict.model_on_gpus import Deployment, deployment, steps_of
from autotuner.predict.queueing import tpot_of, ttft_of
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
    running: float
    memory: MemoryPlan
    prefill: Mapping[str, float]
    decode: Mapping[str, float]
    measured: bool


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
    of = deployment(model, gpu, layout, gemm_dtype, moe_dtype, kv_dtype, engine, version, memory_fraction)
    return closed_loop(
        of,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        prefix_hit=prefix_hit,
        draft_tokens=draft_tokens,
        acceptance=acceptance,
    )


def closed_loop(
    of: Deployment,
    *,
    isl: int,
    osl: int,
    concurrency: int,
    prefix_hit: float = 0.0,
    draft_tokens: int = 0,
    acceptance: float = 0.7,
    by: Calibration | None = None,
    lengths: float = 1.0,
    apart: bool = False,
) -> Prediction:
    """Predict a closed loop on a deployment; arguments as for `predict`.

    `lengths` is the mean length of requests as a share of `isl` and `osl`, `apart` says that
    prompts run on other workers, so that they neither interrupt decodes nor queue for their cache.
    """
    _check_load(of, isl, osl, concurrency, prefix_hit)
    plan = of.plan
    if plan.sequences(isl + osl) < 1:
        raise DoesNotFitError(
            f"'{of.shape.name}' does not fit.", why=f"{plan.shortage[:1].upper()}{plan.shortage[1:]}."
        )
    constants = by or calibration()
    rates = of.rates(by) if by else of.bundled_rates
    loop = of.loop(isl, osl, concurrency, lengths=lengths)
    works, prompts = of.works(loop, cached=isl * prefix_hit, queries=1 + draft_tokens)
    steps, decode, prefill = steps_of(works, prompts, rates, cuda_graph=of.cuda_graph)
    kept = sum(acceptance**n for n in range(draft_tokens + 1))
    if draft_tokens:
        drafting = 1 + draft_tokens * max(1, of.shape.draft_layers) / of.shape.layers
        steps = steps._replace(decode=steps.decode * drafting)
    serving = constants.serving(of.engine, of.gpu, of.shape.layers, of.version, concurrency, of.layout.dp)
    if apart:
        loop = loop._replace(queued=0.0)
    tpot = tpot_of(loop._replace(others=0.0) if apart else loop, steps, serving, kept)
    ttft = ttft_of(loop, steps, serving, tpot)
    keys, basis = effect_keys(of), basis_of(isl, osl, concurrency)
    ttft_effect, _ = constants.effect("ttft", keys, basis)
    tpot_effect, known = constants.effect("tpot", keys, basis)
    ttft, tpot = ttft * math.exp(ttft_effect), tpot * math.exp(tpot_effect)
    requests = concurrency / (ttft + (osl - 1) * tpot) if ttft else 0.0
    return Prediction(
        ttft=ttft,
        tpot=tpot,
        ttft_interval=interval(constants, "ttft", ttft, known=known, queued=loop.queued > 0),
        tpot_interval=interval(constants, "tpot", tpot, known=known, queued=loop.queued > 0),
        throughput=requests * osl,
        requests=requests,
        gpus=of.layout.gpus,
        running=plan.sequences(isl + osl) * of.layout.dp,
        memory=plan,
        prefill=prefill._asdict(),
        decode=decode._asdict(),
        measured=known > 0,
    )


def effect_keys(of: Deployment) -> tuple[str, ...]:
    """Under which names residuals are kept: the model's, the series', and the layout's in it."""
    layout, types = of.layout, of.dtypes
    name = of.shape.name.rsplit("/", 1)[-1].lower()
    series = f"{name} {of.engine} {of.version or '-'} {of.gpu.name} {types.dense}"
    spread = f"{layout.tp}x{layout.dp}{'e' if layout.expert_groups > 1 else ''} {types.expert}"
    return (geometry(of.shape), series, spread)


def geometry(shape: ModelShape) -> str:
    """One name for all models of the same sizes: retrained and requantised ones run alike."""
    return f"{shape.layers} layers of {shape.hidden}, {shape.parameters / 1e9:.2f}B"


def _check_load(of: Deployment, isl: int, osl: int, concurrency: int, prefix_hit: float) -> None:
    for name, value in (("isl", isl), ("osl", osl), ("concurrency", concurrency)):
        if not value >= 1:
            raise ConfigError(f"{name} must be at least 1, not {value}.")
    if not 0 <= prefix_hit < 1:
        raise ConfigError(f"The prefix hit rate must be at least 0 and below 1, not {prefix_hit}.")
    if isl + osl > of.shape.max_model_len:
        raise ConfigError(
            f"{isl} + {osl} tokens are more than the {of.shape.max_model_len} positions of '{of.shape.name}'."
        )
