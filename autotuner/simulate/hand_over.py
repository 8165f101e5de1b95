"""The hand-over of a prompt's KV cache from a prefill server to a decode server, in vLLM's words for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotuner.predict.memory import MemoryPlan
from autotuner.simulate.settings import SimulationSettings

PREFILL_REQUEST: Mapping[str, Any] = {"do_remote_decode": True, "do_remote_prefill": False}
"""What a router adds to a request for a prefill server, as `kv_transfer_params`."""

REMOTE_BYTES = "remote_kv_bytes"
"""Bytes of the prompt's KV cache on the fullest GPU of the prefill server."""

GB = 1e9


def prompt_kv_bytes(memory_plan: MemoryPlan, prompt_tokens: int) -> float:
    """Bytes of a prompt's KV cache on the fullest GPU of a server."""
    return prompt_tokens * memory_plan.kv_bytes_per_token + memory_plan.kv_bytes_per_sequence


def prefill_result(memory_plan: MemoryPlan, prompt_tokens: int) -> dict[str, Any]:
    """What a prefill server answers, and a router passes on to a decode server."""
    return {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_tokens": prompt_tokens,
        REMOTE_BYTES: prompt_kv_bytes(memory_plan, prompt_tokens),
    }


@dataclass
class TransferLink:
    """The links of a decode server, which receives one prompt's KV cache after the other.

    `bandwidth` is bytes/s of each GPU, `free_time` when the last transfer ends.
    """

    bandwidth: float
    free_time: float = 0.0

    @classmethod
    def of(cls, settings: SimulationSettings) -> TransferLink:
        """The link of a server: as fast as it is told, else as the GPUs of one node are connected."""
        gbps = settings.kv_transfer_gbps
        return cls(gbps * GB if gbps else settings.gpu.link_bandwidth(1))

    def receive(self, now: float, kv_bytes: float) -> float:
        """Queue a transfer at `now`; returns when it ends."""
        self.free_time = max(now, self.free_time) + kv_bytes / self.bandwidth
        return self.free_time
