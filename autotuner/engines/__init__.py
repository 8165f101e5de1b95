"""The inference engines, by name."""

from __future__ import annotations

from collections.abc import Callable

from autotuner.engines.protocol import Diagnosis, Engine, LaunchContext, Phase
from autotuner.errors import UsageError, unknown_name_message

__all__ = ["ENGINES", "Diagnosis", "Engine", "Phase", "LaunchContext", "engine"]


def _sim() -> Engine:
    from autotuner.engines.sim import Sim

    return Sim()


def _vllm() -> Engine:
    from autotuner.engines.vllm import Vllm

    return Vllm()


def _sglang() -> Engine:
    from autotuner.engines.sglang import Sglang

    return Sglang()


def _trtllm() -> Engine:
    from autotuner.engines.trtllm import Trtllm

    return Trtllm()


def _openai() -> Engine:
    from autotuner.engines.openai import Openai

    return Openai()


ENGINES: dict[str, Callable[[], Engine]] = {
    "sim": _sim,
    "vllm": _vllm,
    "sglang": _sglang,
    "trtllm": _trtllm,
    "openai": _openai,
}


def engine(name: str) -> Engine:
    """The engine called `name`; UsageError with the nearest name when there is none."""
    if name not in ENGINES:
        raise UsageError(unknown_name_message("runtime", name, ENGINES))
    return ENGINES[name]()
