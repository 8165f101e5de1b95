import pytest

from autotuner.config import TaskContext, compose


def warnings(**overrides):
    return compose(TaskContext(user_overrides=overrides)).warnings


def test_the_default_configuration_has_nothing_to_warn_about():
    assert warnings() == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"parameters": {"x": [1, 2, 3, 4]}, "optimization": {"strategy": "grid_search"}},
            "16 candidates and max_iterations is 10",
        ),
        (
            {"constraints": {"fits": "max-batched-tokens >= max-model-len"}, "parameters": {"max-model-len": [1]}},
            "the constraint fits refuses nothing where it depends on max-batched-tokens, which no layer sets",
        ),
        ({"parameters": {"x": [1, 1]}}, "x holds the same value twice"),
        ({"parameters": {"mem-fraction-static": [0.9, 0.98]}}, "mem-fraction-static 0.98"),
        ({"parameters": {"max-running-requests": [2, 8]}}, "concurrency 4 is above max-running-requests 2"),
        ({"benchmark": {"duration": 400}}, "810 s, more than timeout_per_iteration (600 s)"),
        ({"optimization": {"objective": "maximize_goodput"}}, "maximize_goodput has no SLO"),
        ({"optimization": {"objective": "minimize_cost"}}, "minimize_cost has no price; give what one GPU costs"),
        ({"slo": {"ttft": 500}}, "the target ttft is 500 s; write 500ms or 0.5 if milliseconds are meant"),
        ({"slo": {"latency": {"p90": 5000}}}, "the target latency.p90 is 5000 s; write 5000ms or 5 if"),
        ({"slo": {"ttft": 0.03, "tpot": 0.05}}, "the TTFT target (0.03 s) is below the TPOT target (0.05 s)"),
        ({"slo": {"ttft": {"p90": 0.1}, "tpot": {"p90": 0.2}}}, "the TTFT target (0.1 s) is below"),
        ({"parameters": {"tp-size": [8, 16]}}, "tp-size 16 may need several nodes: a node of h100_sxm has 8 GPUs"),
        (
            {"parameters": {"tp-size": [8]}, "simulate": {"gpu": "RTX 4090"}},
            "tp-size 8 may need several nodes: a node of rtx_4090 has 4 GPUs",
        ),
        (
            {"parameters": {"tp-size": [16]}, "base_runtime": "vllm", "model": {"id_or_path": "m"}},
            "tp-size 16 may need several nodes: a node usually has 8 GPUs",
        ),
        (
            {
                "parameters": {"tp-size": [8]},
                "base_runtime": "vllm",
                "model": {"id_or_path": "m"},
                "hardware": {"gpu_type": "GB200"},
            },
            "tp-size 8 may need several nodes: a node of GB200 has 4 GPUs",
        ),
    ],
)
def test_what_is_probably_not_meant_is_one_warning(overrides, message):
    (warning,) = warnings(**overrides)
    assert message in warning


@pytest.mark.parametrize(
    "overrides",
    [
        {"parameters": {"x": [1, True]}},
        {"constraints": {"a": "tp-size * dp-size < 3 and runtime != 'vllm' and quantization == null"}},
        {
            "parameters": {"x": [1, 2, 3, 4]},
            "optimization": {"strategy": "grid_search"},
            "only_when": {"x": "enable-chunked-prefill"},
        },
        {"parameters": {"x": [1, 2, 3, 4]}, "optimization": {"strategy": "random"}},
        {"optimization": {"objective": "maximize_goodput"}, "slo": {"ttft": 1}},
        {"optimization": {"objective": "minimize_cost"}, "hardware": {"price_per_gpu_hour": 2}},
        {"parameters": {"max-running-requests": [4, 8]}},
        {"benchmark": {"num_concurrency": [4]}},
        {"slo": {"ttft": 0.05, "tpot": 0.05}},
        {"slo": {"ttft": {"p50": 0.1}, "tpot": {"p99": 0.2}}},
        {"parameters": {"tp-size": [8]}},
    ],
)
def test_what_is_meant_is_not_warned_about(overrides):
    assert warnings(**overrides) == []
