import pytest

from autotuner.endpoints.kv_capacity import parse_kv_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ('vllm:cache_config_info{block_size="16",num_gpu_blocks="1000",engine="0"} 1.0\n', 16_000),
        (
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="10",engine="0"} 1.0\n'
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="20",engine="1"} 1.0\n',
            480,
        ),
        ('vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0\n', None),
        ('sglang:max_total_num_tokens{model_name="m",tp_rank="0"} 1.2345e+05\n', 123_450),
        ("autotune_sim_kv_cache_tokens 450992\n", 450_992),
        ("# HELP nothing\nother 3\n", None),
        ("", None),
    ],
)
def test_the_kv_capacity_is_read_from_the_engines_own_metrics(text, tokens):
    assert parse_kv_tokens(text) == tokens
