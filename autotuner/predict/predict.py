"""Prediction of TTFT, TPOT, throughput and memory of a closed loop, without a GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from autotuner.errors import ConfigError
from autotuner.predict.calibration import Calibration, bundled_calibration, effect_basis
from autotuner.predict.harness import Harness
from autotuner.predict.intervals import prediction_interval
from autotuner.predict.layout import Layout
from autotuner.predict.loop_times import closed_form_times, simulated_times
from autotuner.predict.memory import MemoryPlan
from autotuner.predict.model_on_gpus import ModelOnGpus, model_on_gpus
from autotuner.predict.performance import Performance
from autotuner.predict.shape import ModelShape
from autotuner.predict.traffic import Traffic


class DoesNotFitError(ConfigError):
    """The model does not fit on the GPUs it is to run on."""


@dataclass(frozen=True, slots=True)
class Prediction(Performance):
    """Prediction of a closed loop.

    `prefill` and `decode` are seconds by operator of an iteration of one prompt and of one that
    only decodes, `ttft_parts` and `tpot_parts` what TTFT and TPOT are the sums of. `max_in_flight` is how many
    requests the KV cache holds, `model_measured` whether the constants were fitted on this model too.
    """

    gpus: int
    max_in_flight: float
    memory: MemoryPlan
    prefill: Mapping[str, float]
    decode: Mapping[str, float]
    ttft_parts: Mapping[str, float]
    tpot_parts: Mapping[str, float]
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
    harness: Harness | None = None,
) -> Prediction:
    """Predict a closed loop of `concurrency` requests in flight over all GPUs, driven by `harness`.

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
        harness=harness,
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
    harness: Harness | None = None,
    separate_prefill: bool = False,
) -> Prediction:
    """Predict a closed loop on a deployment; arguments as for `predict`.

    With a `harness` its requests are simulated; without one an endless loop is computed in closed form, which is
    quicker. With `separate_prefill` prompts run on other workers, neither interrupting decodes nor queueing for their
    KV cache.
    """
    _check_load(deployment, isl, osl, concurrency, prefix_hit)
    memory_plan, shape, layout = deployment.memory_plan, deployment.shape, deployment.layout
    if memory_plan.sequence_capacity(isl + osl) < 1:
        shortage = memory_plan.shortage
        raise DoesNotFitError(f"'{shape.name}' does not fit.", why=f"{shortage[:1].upper()}{shortage[1:]}.")
    traffic = Traffic(isl, osl, prefix_hit, draft_tokens, acceptance)
    efficiencies = deployment.efficiencies(calibration) if calibration else deployment.bundled_efficiencies
    calibration = calibration or bundled_calibration()
    constants = calibration.serving_constants(
        deployment.engine, shape.layers, deployment.version, dp=layout.dp, recv_interval=deployment.recv_interval
    )
    if not deployment.has_front_end:
        constants = replace(constants, overhead=0.0, host_per_token=0.0, wait_iterations=0.0)
    question = (deployment, efficiencies, constants, traffic, concurrency)
    if harness is None:
        loop = closed_form_times(*question, separate_prefill=separate_prefill)
    else:
        loop = simulated_times(*question, harness, separate_prefill=separate_prefill)
    # Correct by the mean log residuals (measured / predicted) of this model, as far as it was measured.
    residual_keys, basis = effect_keys(deployment), effect_basis(isl, osl, concurrency, layout)
    ttft_log_residual, _ = calibration.effect("ttft", residual_keys, basis)
    tpot_log_residual, known_levels = calibration.effect("tpot", residual_keys, basis)
    ttft_parts = {name: seconds * math.exp(ttft_log_residual) for name, seconds in loop.ttft.items()}
    tpot_parts = {name: seconds * math.exp(tpot_log_residual) for name, seconds in loop.tpot.items()}
    ttft, tpot = sum(ttft_parts.values()), sum(tpot_parts.values())
    requests = concurrency / (ttft + (osl - 1) * tpot) if ttft else 0.0
    interval = partial(
        prediction_interval,
        calibration,
        known_levels=known_levels,
        queued=concurrency / layout.dp > memory_plan.sequence_capacity(isl + osl),
        is_rough=shape.is_rough,
    )
    return Prediction(
        ttft=ttft,
        tpot=tpot,
        ttft_interval=interval("ttft", ttft),
        tpot_interval=interval("tpot", tpot),
        throughput=requests * osl,
        requests=requests,
        gpus=layout.gpus,
        max_in_flight=memory_plan.sequence_capacity(isl + osl) * layout.dp,
        memory=memory_plan,
        prefill=loop.prefill._asdict(),
        decode=loop.decode._asdict(),
        ttft_parts=ttft_parts,
        tpot_parts=tpot_parts,
        model_measured=known_levels > 0,
    )


def effect_keys(deployment: ModelOnGpus) -> tuple[str, str]:
    """Keys of the measured residuals in constants.yaml: the model's and its series'."""
    name = deployment.shape.name.rsplit("/", 1)[-1].lower()
    series = f"{name} {deployment.engine} {deployment.version or '-'} {deployment.gpu.name} {deployment.dtypes.mlp}"
    return (geometry_name(deployment.shape), series)


def geometry_name(shape: ModelShape) -> str:
    """A name shared by all models of the same sizes: retrained and requantised ones run alike."""
    return f"{shape.layers} layers of {shape.hidden_size}, {shape.parameters / 1e9:.2f}B"


def _check_load(deployment: ModelOnGpus, isl: int, osl: int, concurrency: int, prefix_hit: float) -> None:
    for name, value in (("isl", isl), ("osl", osl), ("concurrency", concurrency)):
        if not 1 <= value < math.inf:
            raise ConfigError(f"{name} must be at least 1 and finite, not {value}.")
    if not 0 <= prefix_hit < 1:
        raise ConfigError(f"The prefix hit rate must be at least 0 and below 1, not {prefix_hit}.")
    shape = deployment.shape
    if isl + osl > shape.max_model_len:
        raise ConfigError(f"{isl} + {osl} tokens are more than the {shape.max_model_len} positions of '{shape.name}'.")
