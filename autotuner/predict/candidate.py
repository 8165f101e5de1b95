"""Predictions for candidates of an experiment: their `ModelOnGpus`, whether it fits, and their load points."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autotuner.core import PARALLEL_SIZES, Candidate, LoadPoint, Value
from autotuner.errors import ConfigError
from autotuner.experiment import Experiment
from autotuner.predict.layout import Layout, resolve_dtypes
from autotuner.predict.memory import GIB, weights_text
from autotuner.predict.model_on_gpus import ModelOnGpus, model_on_gpus
from autotuner.predict.predict import Prediction, predict_closed_loop
from autotuner.predict.shape import model_shape

KV_DTYPES = {
    "auto": None,
    "bf16": "bf16",
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
}
WEIGHT_DTYPES = {
    "fp8": "fp8",
    "ptpc_fp8": "fp8",
    "w8a8_fp8": "fp8",
    "int8": "int8",
    "w8a8_int8": "int8",
    "experts_int8": "int8",
    "int4": "int4",
    "bitsandbytes": "int4",
    "fp4": "fp4",
    "nvfp4": "fp4",
    "modelopt_fp4": "fp4",
    "mxfp4": "fp4",
}
"""Types that an engine quantises the weights to when it loads them, by the value of `quantization`."""
STORED_METHODS = re.compile(
    r"awq|gptq|compressed.tensors|modelopt|auto.round|quark|torchao|fbgemm|bitsandbytes|mxfp4|nvfp4|marlin|moe_wna16"
)
"""Values of `quantization` that name how a quantised checkpoint is stored, and so change nothing about its size."""
COMPUTE_DTYPES = ("auto", "half", "float16", "bf16", "bfloat16")
MODELLED_PARAMETERS = {
    *PARALLEL_SIZES,
    "mem-fraction-static",
    "kv-cache-dtype",
    "quantization",
    "dtype",
    "max-running-requests",
    "max-batched-tokens",
    "max-model-len",
    "cuda-graph",
    "enable-dp-attention",
}
"""Parameters that `ModelOnGpus` has fields for."""

UNMODELLED_FLAGS = re.compile(
    r"parallel|\btp\b|\bdp\b|attention_dp|memory|mem.fraction|quant|dtype|offload|override|speculative|\bcpu|device"
)
"""Engine flags that change memory or speed in ways that are not modelled."""

MAX_CONCURRENCY = 4096
"""Highest concurrency tried for a request rate; chosen by hand."""


def model_on_gpus_for(
    experiment: Experiment, candidate: Candidate, gpu: str | None, model: str | None = None
) -> ModelOnGpus | None:
    """The model of a candidate on GPUs of one type, named as in the table of GPUs or by the driver.

    `model` is the path of its config.json, where that is not the experiment's own name or path.
    None where it cannot be predicted: an unknown GPU or model, dtypes or engine flags that are not
    modelled, a layout that no engine runs.
    """
    parameters, sizes = candidate.parameters, candidate.parallelism
    flags = [*(name for name in parameters if name not in MODELLED_PARAMETERS), *experiment.runtime.extra_args]
    if gpu is None or any(UNMODELLED_FLAGS.search(flag) for flag in flags):
        return None
    name = model or experiment.model.id_or_path
    try:
        weight_dtype, kv_dtype = (
            _weight_dtype(parameters, name),
            _modelled_dtype(KV_DTYPES, parameters.get("kv-cache-dtype")),
        )
        deployment = model_on_gpus(
            name,
            gpu,
            Layout(sizes.attention_tp, sizes.pp, sizes.dp, ep=sizes.ep),
            weight_dtype,
            None,
            kv_dtype,
            "vllm" if candidate.runtime == "sim" else candidate.runtime,
            None,
            _memory_fraction(candidate, default_memory_fraction(candidate.runtime)),
        )
    except ConfigError:
        return None
    return replace(deployment, **_limits(deployment, candidate))


def memory_shortage(deployment: ModelOnGpus, candidate: Candidate, *, skewed: bool = False) -> str | None:
    """Why the candidate's model certainly does not fit, in figures; None where it fits or may fit.

    The simulated engine's memory is the plan itself, unless its costs are `skewed`. Of a real
    engine only what no version can avoid is counted: weights, and on vLLM, which refuses to start
    without it, the KV cache of one request of `max-model-len` tokens. Of a model whose size is only
    guessed, nothing is certain.
    """
    if deployment.shape.is_rough and candidate.runtime != "sim":
        return None
    memory_plan, max_model_len = deployment.memory_plan, _positive_int(candidate.parameters.get("max-model-len"))
    if candidate.runtime == "sim" and not skewed:
        needed, available = memory_plan.budget - memory_plan.kv_pool, memory_plan.budget
    else:
        needed, available = memory_plan.weights, int(memory_plan.memory * _memory_fraction(candidate, 1.0))
    if needed >= available:
        return f"it does not fit: {memory_plan.shortage}"
    reserves_cache = max_model_len and candidate.runtime in ("sim", "vllm")
    cache = max_model_len * memory_plan.kv_bytes_per_token if max_model_len and reserves_cache else 0
    if needed + cache > available:
        return (
            f"it does not fit: the KV cache of one request of max-model-len {max_model_len} needs "
            f"{cache / GIB:.1f} GiB per GPU, {(available - needed) / GIB:.1f} GiB remain for it"
        )
    return None


def predict_load_point(
    deployment: ModelOnGpus, point: LoadPoint, *, prompt_tokens: float, output_tokens: float, prefix_tokens: float = 0
) -> Prediction | None:
    """Predict one load point whose requests have this many prompt and output tokens on average.

    `prefix_tokens` of the prompt are in the prefix cache. A request rate is predicted as the lowest
    concurrency that reaches it, or the highest the deployment runs where none does. None for what
    does not fit.
    """
    isl, osl = max(1, round(prompt_tokens)), max(1, round(output_tokens))
    load: dict[str, Any] = {"isl": isl, "osl": osl, "prefix_hit": min(prefix_tokens / isl, 1 - 1 / isl)}
    try:
        if point.concurrency is not None:
            return predict_closed_loop(deployment, concurrency=point.concurrency, **load)
        return _closed_loop_at_rate(deployment, point.rate or 0.0, load)
    except ConfigError:
        return None


def _closed_loop_at_rate(deployment: ModelOnGpus, rate: float, load: Mapping[str, Any]) -> Prediction:
    """The closed loop of the lowest concurrency whose requests/s reach `rate`, by bisection."""
    single_request = predict_closed_loop(deployment, concurrency=1, **load)
    running = (deployment.max_running_requests or math.inf) * deployment.layout.dp
    lower, upper = 1, max(1, int(min(single_request.max_in_flight, running, MAX_CONCURRENCY)))
    while lower < upper:
        middle = (lower + upper) // 2
        if predict_closed_loop(deployment, concurrency=middle, **load).requests < rate:
            lower = middle + 1
        else:
            upper = middle
    return predict_closed_loop(deployment, concurrency=upper, **load)


def default_memory_fraction(runtime: str) -> float:
    """Share of GPU memory an engine takes by default: vLLM's, and about that of SGLang and TensorRT-LLM."""
    return 0.92 if runtime == "vllm" else 0.9


def _memory_fraction(candidate: Candidate, default: float) -> float:
    """The candidate's share of GPU memory; `default` for TensorRT-LLM, whose fraction is of what weights leave free."""
    fraction = candidate.parameters.get("mem-fraction-static")
    if isinstance(fraction, int | float) and fraction > 0 and candidate.runtime != "trtllm":
        return float(fraction)
    return default


def weights_text_for(experiment: Experiment, candidate: Candidate, model: str | None = None) -> str | None:
    """Bits and size of the candidate's weights and where they were read; None where they are not known."""
    name, quantization = model or experiment.model.id_or_path, candidate.parameters.get("quantization")
    try:
        dtype = _weight_dtype(candidate.parameters, name)
        shape = model_shape(name)
        dtypes = resolve_dtypes(shape, gemm_dtype=dtype)
    except ConfigError:
        return None
    return weights_text(shape, dtypes, f"quantization {quantization}" if dtype else "")


def model_notes(experiment: Experiment, model: str | None = None) -> tuple[str, ...]:
    """What was read only roughly of the experiment's model; empty for a model that is not known here."""
    try:
        return model_shape(model or experiment.model.id_or_path).notes
    except ConfigError:
        return ()


def _weight_dtype(parameters: Mapping[str, Value], model: str) -> str | None:
    """The type that the engine quantises to when it loads the model; None for the checkpoint's own."""
    if str(parameters.get("dtype") or "auto") not in COMPUTE_DTYPES:
        raise ConfigError(f"The type '{parameters['dtype']}' is not modelled.")
    quantization = parameters.get("quantization")
    if quantization is not None and STORED_METHODS.search(str(quantization)):
        shape = model_shape(model)
        if (shape.weight_dtype, shape.expert_dtype) != ("bf16", "bf16"):
            return None
    return _modelled_dtype(WEIGHT_DTYPES, quantization)


def _modelled_dtype(dtypes: Mapping[str, str | None], value: Value) -> str | None:
    if value is None:
        return None
    if str(value) not in dtypes:
        raise ConfigError(f"The type '{value}' is not modelled.")
    return dtypes[str(value)]


def _limits(deployment: ModelOnGpus, candidate: Candidate) -> dict[str, Any]:
    """Fields of the deployment that the candidate sets besides layout, dtypes and memory fraction."""
    parameters = candidate.parameters
    shape, max_model_len = deployment.shape, _positive_int(parameters.get("max-model-len"))
    if max_model_len:
        shape = replace(shape, max_model_len=min(max_model_len, shape.max_model_len))
    return {
        "shape": shape,
        "max_batched_tokens": _positive_int(parameters.get("max-batched-tokens")) or deployment.max_batched_tokens,
        "max_running_requests": _positive_int(parameters.get("max-running-requests")),
        "recv_interval": _positive_int(parameters.get("scheduler-recv-interval")) or 1,
        "has_front_end": candidate.runtime != "sim",
        "cuda_graph": parameters.get("cuda-graph") is not False,
    }


def _positive_int(value: Value) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
