"""The KV capacity of a server that already runs, from its metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping

from autotuner.endpoints.client import Client, NoAnswerError
from autotuner.endpoints.tls import TlsTrust

_LABEL = re.compile(r'(\w+)="([^"]*)"')
_TOTAL_TOKENS = re.compile(r"^sglang:max_total_num_tokens(?:\{[^}]*\})? +([\d.e+]+)", re.MULTILINE)
_VLLM_CACHE = re.compile(r"^vllm:cache_config_info\{([^}]*)\}", re.MULTILINE)
_SIM_TOKENS = re.compile(r"^autotune_sim_kv_cache_tokens(?:\{[^}]*\})? +([\d.e+]+)", re.MULTILINE)


def read_kv_tokens(url: str, headers: Mapping[str, str] | None = None, tls: TlsTrust | None = None) -> int | None:
    """Tokens that the KV cache of the server at `url` holds; None where its metrics do not say."""
    try:
        with Client(url, headers, tls) as client:
            answer = client.ask_root("/metrics", timeout=5.0)
            if 300 <= answer.status < 400:
                answer = client.ask_root("/metrics/", timeout=5.0)
    except NoAnswerError:
        return None
    return parse_kv_tokens(answer.text) if answer.status == 200 else None


def parse_kv_tokens(text: str) -> int | None:
    """The KV capacity in Prometheus text, summed over data-parallel replicas.

    vLLM: labels num_gpu_blocks and block_size of cache_config_info; SGLang: max_total_num_tokens.
    """
    blocks = 0
    for labels in _VLLM_CACHE.findall(text):
        values = dict(_LABEL.findall(labels))
        count, size = values.get("num_gpu_blocks", ""), values.get("block_size", "")
        if count.isdigit() and size.isdigit():
            blocks += int(count) * int(size)
    if blocks:
        return blocks
    for pattern in (_TOTAL_TOKENS, _SIM_TOKENS):
        totals = [float(number) for number in pattern.findall(text)]
        if totals and sum(totals) >= 1:
            return int(sum(totals))
    return None
