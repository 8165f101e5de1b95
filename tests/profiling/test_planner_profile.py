import json

import numpy as np
import pytest

from autotuner.errors import ConfigError
from autotuner.profiling.planner_model import PlannerInterpolation, PlannerLoad, planner_replicas
from autotuner.profiling.planner_profile import DECODE_JSON, PREFILL_JSON, PlannerProfile
from tests.profiling.points import decode, prefill

KV_TOKENS = 100_000
LENGTHS = (100, 600, 1200, 2400)


def profile_of(lengths=LENGTHS, contexts=(100, 580, 1900), sizes=(1, 8, 24)):
    points = [
        decode(size, 0.005 + size * 1e-4 + size * context * 1e-7, context) for context in contexts for size in sizes
    ]
    return PlannerProfile.from_points(
        [prefill(length, 0.01 + length / 40_000) for length in lengths], points, KV_TOKENS
    )


def test_a_folder_and_its_json_are_read_alike(tmp_path):
    profile = profile_of()
    profile.write(tmp_path / "npz")
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / PREFILL_JSON).write_text(json.dumps(profile.prefill_json()))
    (tmp_path / "json" / DECODE_JSON).write_text(json.dumps(profile.decode_json()))
    for name in ("npz", "json"):
        read = PlannerProfile.read(tmp_path / name)
        assert read.max_kv_tokens == KV_TOKENS
        assert read.prefill_ttft == pytest.approx(profile.prefill_ttft)
        assert read.z_itl == pytest.approx(profile.z_itl)
    mixed = PlannerProfile.read(tmp_path / "npz", tmp_path / "json")
    assert mixed.problems() == []


def test_the_files_have_the_planners_keys_units_and_types(tmp_path):
    profile_of().write(tmp_path)
    with np.load(tmp_path / "selected_prefill_interpolation/raw_data.npz") as data:
        assert data["prefill_isl"].dtype == np.int64
        assert data["prefill_ttft"][0] == pytest.approx(12.5)
    with np.load(tmp_path / "selected_decode_interpolation/raw_data.npz") as data:
        assert data["max_kv_tokens"].shape == (1,)
        assert data["max_kv_tokens"].dtype == np.int64
        assert data["x_kv_usage"].max() <= 1
    assert isinstance(profile_of().decode_json()["max_kv_tokens"], int)


def test_the_number_of_requests_is_recovered_exactly():
    assert sorted(set(profile_of().requests.tolist())) == [1, 8, 24]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prefill_ttft": [1.0, float("nan"), 3.0, 4.0]}, "has 1 hole:"),
        ({"prefill_ttft": [1.0, 2.0, 3.0]}, "differ in length"),
        ({"prefill_ttft": [1.0, 2.0, 0.0, 4.0]}, "not above 0"),
        ({"prefill_isl": [100, 600, 600, 2400]}, "not ascending"),
        ({"prefill_isl": [1, 2, 3], "prefill_ttft": [1, 2, 3], "prefill_thpt_per_gpu": [1, 2, 3]}, "needs 4"),
        ({"x_kv_usage": [2.0] * 9}, "one line"),
        ({"y_context_length": [620.0] * 9}, "there are 9 of 1"),
        ({"x_kv_usage": [0.1, 0.2, 1.3] * 3}, "more than the whole KV cache"),
    ],
)
def test_what_a_planner_would_fail_on_is_named(changed, words):
    profile = profile_of()
    arrays = {name: np.array(values, dtype=float) for name, values in changed.items()}
    problems = PlannerProfile(**{**vars(profile), **arrays}).problems()
    assert words in "; ".join(problems)


def test_points_that_more_requests_were_asked_of_than_ran_are_found():
    profile = profile_of()
    throughput = profile.z_thpt_per_gpu.copy()
    throughput[2] *= 0.5
    broken = PlannerProfile(**{**vars(profile), "z_thpt_per_gpu": throughput})
    assert profile.inconsistent_points() == []
    assert [requests for requests, _ in broken.inconsistent_points()] == [24]


def test_missing_and_damaged_files_are_errors_with_their_names(tmp_path):
    with pytest.raises(ConfigError, match="has no profile of this phase"):
        PlannerProfile.read(tmp_path)
    profile_of().write(tmp_path)
    (tmp_path / "selected_decode_interpolation/raw_data.npz").write_bytes(b"PK broken")
    with pytest.raises(ConfigError, match="cannot be read"):
        PlannerProfile.read(tmp_path)
    (tmp_path / "selected_decode_interpolation/raw_data.npz").unlink()
    (tmp_path / DECODE_JSON).write_text('{"x_kv_usage": [1]}')
    with pytest.raises(ConfigError, match="y_context_length"):
        PlannerProfile.read(tmp_path)


@pytest.fixture(scope="module")
def interpolation():
    return PlannerInterpolation(profile_of())


def test_the_planner_clamps_lengths_and_scans_for_the_highest_usage_within_the_target(interpolation):
    assert interpolation.ttft(10) == interpolation.ttft(100)
    assert interpolation.ttft(600) == pytest.approx(25.0)
    throughput, itl, usage = interpolation.best_decode(6.0, 620)
    assert itl <= 6.0
    assert usage > 0
    assert throughput > 0
    _, emptiest, none = interpolation.best_decode(0.1, 620)
    assert none == 0
    assert emptiest > 0.1


def test_replicas_follow_the_load_and_are_cut_to_the_budget(interpolation):
    def replicas(rate, **more):
        return planner_replicas(interpolation, PlannerLoad(rate, 600, 40, 8.0, 1, 2, **more))

    assert replicas(0.01) == (1, 1)
    prefill_workers, decode_workers = replicas(200)
    assert prefill_workers == 5
    assert decode_workers >= 1
    cut = replicas(2000, max_gpus=8)
    assert cut[0] + 2 * cut[1] <= 8 + 1
    assert replicas(0.01, min_endpoint=3) == (3, 3)
