"""The kernels that SGLang imports of `sgl_kernel` on any CPU, in plain torch; PyPI has builds for CUDA only.

On a CPU without AMX all other kernels are torch's own by SGLang's choice; one that is called all the
same raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__version__ = "0.4.10"


def assign_req_to_token_pool_cpu(
    requests: Any, token_pool: Any, starts: Any, ends: Any, cache_slots: Any, pool_length: int
) -> None:
    """Write the cache slots of each request's new tokens into its row of the pool, from its start to its end."""
    first = 0
    for row, start, end in zip(requests.tolist(), starts.tolist(), ends.tolist(), strict=False):
        last = first + end - start
        token_pool[row, start:end] = cache_slots[first:last].to(token_pool.dtype)
        first = last


def __getattr__(name: str) -> Callable[..., None]:
    if name.startswith("__"):
        raise AttributeError(name)

    def absent_kernel(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(f"sgl_kernel.{name} has no build for CPU")

    return absent_kernel
