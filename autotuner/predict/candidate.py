"""What the closed form knows of a candidate: its deployment, whether it can fit, and its load points."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autotuner.core import Candidate, LoadPoint, Value
from autotuner.errors import ConfigError
from autotuner.experiment import Experiment
from autotuner.predict.layout import Layout
from autotuner.predict.memory import GIB
from autotuner.predict.model_on_gpus import ModelOnGpus, model_on_gpus
from autotuner.predict.predict import Prediction, predict_closed_loop

KV_DTYPES = {
    "auto": None,
    "bf16": "bf16",
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
}
WEIGHT_DTYPES = {"fp8": "fp8", "int8": "int8", "int4": "int4", "fp4": "fp4"}
COMPUTE_DTYPES = ("auto", "half", "float16", "bf16", "bfloat16")
MODELLED_PARAMETERS = {
    "tp-size",
    "pp-size",
    "dp-size",
    "ep-size",
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
"""Parameters whose values are part of a deployment."""

UNMODELLED_FLAGS = re.compile(
    r"parallel|\btp\b|\bdp\b|attention_dp|memory|mem.fraction|quant|dtype|offload|override|speculative|\bcpu|device"
)
"""Engine flags after which neither memory nor speed is that of a deployment made of MODELLED alone."""

MAX_CONCURRENCY = 4096
"""The highest concurrency an open loop is taken to reach."""


def model_on_gpus_for(
    experiment: Experiment, candidate: Candidate, gpu: str | None, model: str | None = None
) -> ModelOnGpus | None:
    """The deployment a candidate describes on GPUs of one type, as drivers or the bundled table name it.

    `model` is where the model's config.json is, where that is not the experiment's own name or path.
    None where the closed form cannot tell: an unknown GPU or model, types of weights or cache that
    are not modelled, engine flags that change either, a layout that no engine runs.
    """
    given = candidate.parameters
    words = [*(name for name in given if name not in MODELLED_PARAMETERS), *experiment.runtime.extra_args]
    if gpu is None or any(UNMODELLED_FLAGS.search(word) for word in words):
        return None
    try:
        weights, cache = _weight_dtype(given), _modelled_dtype(KV_DTYPES, given.get("kv-cache-dtype"))
        of = model_on_gpus(
            model or experiment.model.id_or_path,
            gpu,
            _layout(given),
            weights,
            None,
            cache,
            "vllm" if candidate.runtime == "sim" else candidate.runtime,
            None,
            _memory_fraction(candidate, default_memory_fraction(candidate.runtime)),
        )
    except ConfigError:
        return None
    return replace(of, **_limits(of, given))


def memory_shortage(deployment: ModelOnGpus, candidate: Candidate, *, skewed: bool = False) -> str | None:
    """Why the candidate cannot hold its model, in figures; None where it can, or where that is not certain.

    The simulated engine's memory is the plan itself, unless its costs are `skewed`. Of a real
    engine only what no version can avoid is counted: weights, and on vLLM, which insists on room
    for one whole request, the cache of `max-model-len` tokens.
    """
    plan, asked = deployment.memory_plan, candidate.parameters.get("max-model-len")
    if candidate.runtime == "sim" and not skewed:
        needed, room = plan.budget - plan.kv_pool, plan.budget
    else:
        needed, room = plan.weights, int(plan.memory * _memory_fraction(candidate, 1.0))
    if needed >= room:
        return f"it does not fit: {plan.shortage}"
    tokens = _positive_int(asked)
    cache = tokens * plan.kv_bytes_per_token if tokens and candidate.runtime in ("sim", "vllm") else 0
    if needed + cache > room:
        return (
            f"it does not fit: the KV cache of one request of max-model-len {tokens} needs {cache / GIB:.1f} GiB per "
            f"GPU, {(room - needed) / GIB:.1f} GiB are left"
        )
    return None


def predict_load_point(
    deployment: ModelOnGpus, point: LoadPoint, *, prompt_tokens: float, output_tokens: float, prefix_tokens: float = 0
) -> Prediction | None:
    """Predict one load point whose requests have so many prompt and output tokens on average.

    `prefix` of the prompt tokens are in the prefix cache. A request rate is predicted as the
    least concurrency that reaches it, or the most the deployment runs where none does. None for
    what does not fit.
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
    """The closed loop whose request throughput is nearest above `rate`, by bisection."""
    least = predict_closed_loop(deployment, concurrency=1, **load)
    held = min(least.max_in_flight, (deployment.max_running_requests or math.inf) * deployment.layout.dp, MAX_CONCURRENCY)
    low, high = 1, max(1, int(held))
    while low < high:
        middle = (low + high) // 2
        if predict_closed_loop(deployment, concurrency=middle, **load).requests < rate:
            low = middle + 1
        else:
            high = middle
    return predict_closed_loop(deployment, concurrency=high, **load)


def default_memory_fraction(runtime: str) -> float:
    """The share of memory an engine takes where it is not told: vLLM's, and what the others come near to."""
    return 0.92 if runtime == "vllm" else 0.9


def _memory_fraction(candidate: Candidate, default: float) -> float:
    """The share of all memory that weights and cache may take; TensorRT-LLM's own is of what weights leave."""
    given = candidate.parameters.get("mem-fraction-static")
    known = isinstance(given, int | float) and given > 0 and candidate.runtime != "trtllm"
    return float(given) if known and given is not None else default


def _layout(parameters: Mapping[str, Value]) -> Layout:
    tp, pp, dp, ep = (_positive_int(parameters.get(f"{name}-size")) or 1 for name in ("tp", "pp", "dp", "ep"))
    if parameters.get("enable-dp-attention") is True:  # SGLang's replicas share the GPUs that tp-size counts
        tp = max(1, tp // dp)
    return Layout(tp=tp, pp=pp, dp=dp, ep=ep)


def _weight_dtype(parameters: Mapping[str, Value]) -> str | None:
    if str(parameters.get("dtype") or "auto") not in COMPUTE_DTYPES:
        raise ConfigError(f"The type '{parameters['dtype']}' is not modelled.")
    return _modelled_dtype(WEIGHT_DTYPES, parameters.get("quantization"))


def _modelled_dtype(dtypes: Mapping[str, str | None], value: Value) -> str | None:
    if value is None:
        return None
    if str(value) not in dtypes:
        raise ConfigError(f"The type '{value}' is not modelled.")
    return dtypes[str(value)]


def _limits(deployment: ModelOnGpus, parameters: Mapping[str, Value]) -> dict[str, Any]:
    """What the candidate bounds beyond names and layout."""
    length = _positive_int(parameters.get("max-model-len"))
    return {
        "shape": replace(deployment.shape, max_model_len=min(length, deployment.shape.max_model_len))
        if length
        else deployment.shape,
        "max_batched_tokens": _positive_int(parameters.get("max-batched-tokens")) or deployment.max_batched_tokens,
        "max_running_requests": _positive_int(parameters.get("max-running-requests")),
        "cuda_graph": parameters.get("cuda-graph") is not False,
    }


def _positive_int(value: Value) -> int | None:
    """A whole number above 0, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
