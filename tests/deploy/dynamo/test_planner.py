import pytest

from autotuner.deploy.dynamo import check_planner_settings, planner_settings
from autotuner.deploy.dynamo.planner import RELEASES, planner_arguments, snake_case
from autotuner.errors import ConfigError


@pytest.mark.parametrize("release", RELEASES)
def test_the_settings_of_a_release_are_complete_and_valid_for_it(release):
    settings = planner_settings(release, backend="sglang", model="m", ttft_ms=200.0, itl_ms=20.0, max_gpu_budget=32)
    assert check_planner_settings(settings, release) == settings
    assert settings["max_gpu_budget"] == 32
    assert settings["profile_results_dir"] == "/workspace/profiling_results"
    assert settings.get("ttft_ms", settings.get("ttft")) == 200.0


def test_an_sla_deployment_scales_by_its_sla_in_releases_that_have_other_targets():
    assert planner_settings("1.6.1", backend="vllm", model="m", ttft_ms=1.0, itl_ms=1.0)["optimization_target"] == "sla"


def test_what_the_user_gives_wins_over_what_is_chosen():
    given = {"maxGpuBudget": 4, "load-predictor": "constant"}
    settings = planner_settings(
        "1.6.1", backend="vllm", model="m", ttft_ms=1.0, itl_ms=1.0, max_gpu_budget=32, given=given
    )
    assert (settings["max_gpu_budget"], settings["load_predictor"]) == (4, "constant")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"max_gpus": 3}, "Unknown setting of the planner of Dynamo 1.6.1 'max_gpus'"),
        ({"backend": "tgi"}, "must be one of vllm, sglang, trtllm, mocker"),
        ({"max_gpu_budget": 1.5}, "must be of type int"),
        ({"max_gpu_budget": True}, "must be of type int"),
        ({"min_endpoint": -1}, "must be at least 0"),
        ({"prophet_window_size": 0}, "must be above 0"),
        ({"load_scaling_down_sensitivity": 101}, "must be at most 100"),
        ({"model_name": None, "ttft_ms": None}, "ttft_ms is None.*must not be empty"),
    ],
)
def test_a_setting_that_the_planner_refuses_is_named(given, what):
    with pytest.raises(ConfigError, match=what):
        check_planner_settings(given, "1.6.1")


def test_an_unknown_release_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"choose from: 0.9.1, 1.0.2, 1.6.1"):
        check_planner_settings({}, "1.3")


def test_arguments_of_the_old_planner_leave_out_its_defaults():
    given = {"no_operation": True, "kalman_r": 5.5, "adjustment_interval": 180}
    settings = planner_settings("0.9.1", backend="vllm", model="m", ttft_ms=200.0, itl_ms=20.5, given=given)
    assert planner_arguments(settings) == [
        "--backend=vllm",
        "--no-operation",
        "--decode-engine-num-gpu=1",
        "--prefill-engine-num-gpu=1",
        "--profile-results-dir=/workspace/profiling_results",
        "--ttft=200",
        "--itl=20.5",
        "--kalman-r=5.5",
        "--model-name=m",
    ]


@pytest.mark.parametrize(
    ("name", "snake"),
    [("maxContextLength", "max_context_length"), ("aic-hf-id", "aic_hf_id"), ("useAIC", "use_aic"), ("isl", "isl")],
)
def test_keys_of_any_spelling_are_one_name(name, snake):
    assert snake_case(name) == snake
