"""Whole profiles on the predicted and the simulated evaluator."""

import json

import numpy as np
import pytest

from autotuner.errors import ConfigError, MachineError, RunStoreError
from autotuner.profiling.outcome import ProfileOutcome
from autotuner.profiling.record import ProfileRecord
from autotuner.profiling.select import select
from autotuner.profiling.session import open_profile, prepare, profile, write_files
from autotuner.profiling.sweep import Sweep
from tests.profiling.points import sla_request


def sweep_of(folder, **request):
    setup = prepare(sla_request(**request))
    return Sweep(setup, ProfileRecord.open_or_create(folder, setup.request))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A finished profile in virtual time, its files written once."""
    folder = tmp_path_factory.mktemp("simulated") / "profile"
    settings = {"parameters": {"max-running-requests": [24]}}
    request = sla_request(evaluator="simulated", rate=40.0, total_gpus=8, settings=settings)
    return profile(prepare(request), folder)


def test_simulated_points_are_filed_as_simulated_with_cached_prompts(simulated):
    assert simulated.sources == ["simulated"]
    assert simulated.is_complete
    points = simulated.decode_curve_points
    assert points
    assert min(point.cached_share * point.prompt_tokens + 128 for point in points) > 0
    assert all(point.consistency == pytest.approx(1, abs=0.05) for point in points)


def test_every_artefact_is_written_by_its_name(simulated):
    folder = simulated.record.path
    for name in (
        "prefill_1gpus_tp1/points.json",
        "decode_1gpus_tp1/points.json",
        "selected_prefill_interpolation/raw_data.npz",
        "selected_decode_interpolation/raw_data.npz",
        "selected_decode_interpolation/fitted_data.npz",
        "prefill_performance.png",
        "decode_performance.png",
        "prefill_throughput_interpolation.png",
        "decode_throughput_interpolation.png",
        "cost_sla.png",
        "prefill_raw_data.json",
        "decode_raw_data.json",
        "mocker_perf_data.npz",
        "webui_data.json",
        "profile_sla.log",
        "profiler_status.yaml",
        "sla.json",
    ):
        assert (folder / name).stat().st_size > 20, name
    data = json.loads((folder / "sla.json").read_text())
    assert data["complete"]
    assert data["plan"]["prefill_workers"] >= 1
    assert data["leave_one_out"]["itl"]["median"] < 0.1


def test_the_grid_of_the_mocker_rises_with_kv_tokens(simulated):
    with np.load(simulated.record.path / "mocker_perf_data.npz") as data:
        assert data["decode_itl"].shape == (100, 100)
        assert (np.diff(data["decode_itl"], axis=0) >= -1e-9).all()
        assert data["prefill_ttft_ms"].shape == data["prefill_isl"].shape == (100,)


def test_a_finished_profile_is_not_measured_again(simulated):
    before = (simulated.record.path / "points.jsonl").read_bytes()
    Sweep(prepare(simulated.record.request), ProfileRecord.open(simulated.record.path)).run()
    assert (simulated.record.path / "points.jsonl").read_bytes() == before
    assert open_profile(simulated.record.path).selection == simulated.selection


def test_curves_of_the_picks_need_no_launch_of_their_own(simulated):
    mappings = [launch.mapping for launch in simulated.record.launches]
    assert len(mappings) == len(set(mappings)) <= 2


def test_a_kill_between_any_two_points_repeats_none(tmp_path, monkeypatch):
    whole = sweep_of(tmp_path / "whole", gpus_per_engine=(1,))
    whole.run()
    count = sum(map(len, whole.record.points.values()))
    add_point = ProfileRecord.add_point
    for instant in range(1, count, 3):
        folder = tmp_path / str(instant)

        def killed(record, mapping, point, instant=instant):
            assert point.key not in record.points.get(mapping, {}), "a point was measured twice"
            add_point(record, mapping, point)
            if sum(map(len, record.points.values())) == instant:
                raise KeyboardInterrupt

        monkeypatch.setattr(ProfileRecord, "add_point", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep_of(folder, gpus_per_engine=(1,)).run()
        resumed = sweep_of(folder, gpus_per_engine=(1,))
        resumed.run()
        monkeypatch.undo()
        assert resumed.record.points == whole.record.points


def test_the_sweep_selects_what_an_exhaustive_one_selects(tmp_path, monkeypatch):
    economical = sweep_of(tmp_path / "economical", gpus_per_engine=(1, 2, 4, 8), itl=0.01)
    economical.run()
    monkeypatch.setattr("autotuner.profiling.expectations.Expectations.why_hopeless", lambda self, mapping: None)
    exhaustive = sweep_of(tmp_path / "exhaustive", gpus_per_engine=(1, 2, 4, 8), itl=0.01)
    exhaustive.run()
    picks = [select(sweep.record) for sweep in (economical, exhaustive)]
    assert picks[0].prefill_pick == picks[1].prefill_pick
    assert picks[0].decode_pick == picks[1].decode_pick
    assert len(economical.record.launches) <= len(exhaustive.record.launches)


def test_targets_that_nobody_meets_end_before_the_curves_unless_the_nearest_is_accepted(tmp_path):
    strict = sweep_of(tmp_path, ttft=0.001, itl=0.001)
    result = strict.run()
    outcome = ProfileOutcome(strict.record, result)
    assert not outcome.is_complete
    text = str(outcome.infeasible_error())
    assert "TTFT binds" in text
    assert "ITL binds" in text
    assert "--accept-nearest" in text
    again = sweep_of(tmp_path, ttft=0.001, itl=0.001)
    assert ProfileOutcome(again.record, again.run(accept_nearest=True)).is_complete


def test_mappings_that_cannot_run_never_start(tmp_path):
    sweep = sweep_of(tmp_path, model="llama-3.1-70b", gpus_per_engine=(1, 4, 16), total_gpus=8)
    reasons = {item.mapping.label: item.reason for item in sweep.result.forbidden}
    assert "does not fit" in reasons["TP1"]
    assert "--total-gpus is 8" in reasons["TP16"]
    assert [mapping.label for mapping in sweep.mappings] == ["TP4"]
    with pytest.raises(ConfigError, match="No worker of 1 GPU can run"):
        sweep_of(tmp_path / "none", model="llama-3.1-70b", gpus_per_engine=(1,))


def test_experts_can_be_spread_on_the_predicted_evaluator(tmp_path):
    sweep = sweep_of(tmp_path, model="qwen3-30b-a3b", runtime="sglang", gpus_per_engine=(2, 4))
    sweep.run()
    assert {mapping.kind for mapping in sweep.record.points} == {"tp", "tep", "dep"}
    assert ProfileOutcome(sweep.record, sweep.result).is_complete


def test_no_launch_starts_after_the_time_limit(tmp_path):
    sweep = sweep_of(tmp_path, evaluator="simulated", max_seconds=1.0)
    result = sweep.run()
    assert "--max-seconds 1" in (result.stop_reason or "")
    assert len(sweep.record.launches) == 1


def test_an_engine_that_does_not_tell_its_kv_capacity_is_an_error_with_a_remedy(tmp_path):
    setup = prepare(sla_request(evaluator="simulated"))
    with pytest.raises(MachineError, match="--max-kv-tokens"):
        setup.capacity(setup.mappings()[0][0], {})
    assert setup.capacity(setup.mappings()[0][0], {"kv_tokens": "12,345"})[0] == 12_345


def test_files_that_cannot_be_written_lose_no_point(simulated, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autotuner.profiling.artefacts._write_json", full)
    with pytest.raises(RunStoreError, match="no point is measured again"):
        write_files(simulated)
