from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.endpoints.counters import counter_deltas, parse_prometheus, read_counters
from tests.servers import ScriptedResponses, ServeResponses

VLLM = """\
# HELP vllm:prefix_cache_queries_total Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="a b}"} 1.2e+03
vllm:prefix_cache_queries_total{engine="1",model_name="a b}"} 300.0
vllm:prefix_cache_queries_created{engine="0"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0"} 16.0 1700000000000
vllm:num_preemptions_total{engine="0"} 2.0
vllm:num_requests_running{engine="0"} 4.0
vllm:num_requests_waiting{engine="0"} 7.0
"""
SGLANG = """\
sglang:prompt_tokens_total{model_name="m"} 900.0
sglang:cached_tokens_total{model_name="m"} 90.0
sglang:num_retracted_requests_total{model_name="m"} 3.0
sglang:num_running_reqs{model_name="m"} 1.0
sglang:num_queue_reqs{model_name="m"} 0.0
"""
SIM = """\
autotune_sim_prefix_cache_queries_total 10
autotune_sim_prefix_cache_hits_total 5
autotune_sim_num_preemptions_total 1
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VLLM, {"prefix_cache_queries": 1500, "prefix_cache_hits": 16, "preemptions": 2, "running": 4, "waiting": 7}),
        (SGLANG, {"prefix_cache_queries": 900, "prefix_cache_hits": 90, "preemptions": 3, "running": 1, "waiting": 0}),
        (SIM, {"prefix_cache_queries": 10, "prefix_cache_hits": 5, "preemptions": 1}),
        ("", {}),
        ("python_gc_objects_collected_total 5\n<html>not metrics</html>", {}),
    ],
)
def test_each_engines_counters_are_read_under_one_name(text: str, expected: dict[str, float]):
    assert parse_prometheus(text) == expected


@given(st.text())
def test_any_text_is_read_without_an_error(text: str):
    parse_prometheus(text)


@pytest.mark.parametrize("redirects", [0, 1])
def test_counters_are_read_from_a_server(serve_responses: ServeResponses, redirects: int):
    paths = {"metrics": [(307, "")], "metrics__": [(200, VLLM)]} if redirects else {"metrics": [(200, VLLM)]}
    assert read_counters(serve_responses(ScriptedResponses(**paths)))["prefix_cache_hits"] == 16


def test_a_server_without_metrics_has_no_counters(serve_responses: ServeResponses):
    assert read_counters(serve_responses(ScriptedResponses(metrics=[(404, VLLM)]))) == {}


def test_no_server_has_no_counters():
    assert read_counters("http://127.0.0.1:9") == {}


def test_differences_leave_out_gauges_what_is_new_and_what_was_restarted():
    before = {"preemptions": 1.0, "prefix_cache_hits": 9.0, "running": 1.0}
    after = {"preemptions": 4.0, "prefix_cache_hits": 2.0, "running": 5.0, "prefix_cache_queries": 3.0}
    assert counter_deltas(before, after) == {"preemptions": 3.0}
