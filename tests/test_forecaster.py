"""Which GPU type candidates are predicted on, and that what does not fit is no candidate."""

import json
import math

import pytest

from autotuner.core import Candidate, LoadPoint
from autotuner.engines import engine
from autotuner.errors import ConfigError
from autotuner.experiment import Experiment
from autotuner.forecaster import Forecaster
from autotuner.launchers import gpus, launcher
from autotuner.launchers.gpus import GpuInventory, InstalledGpu
from autotuner.predict.efficiencies import COST_KINDS, UNIT_COSTS, CostFactors
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.local_ratios import LocalRatios, ratios_key, save_ratios
from autotuner.predict.log_ratios import MeasuredRatio, regressors
from autotuner.predict.traffic import Traffic
from autotuner.run_setup import RunSetup


def experiment(base_runtime="sim", model="llama-3.1-70b", parameters=None, **sections):
    return Experiment.model_validate(
        {
            "task_name": "t",
            "model": {"id_or_path": model},
            "base_runtime": base_runtime,
            "parameters": parameters or {},
            "benchmark": {"traffic_scenarios": ["P(900,100,200)"], "num_concurrency": [1]},
            **sections,
        }
    )


def forecaster(**sections):
    config = experiment(**sections)
    return Forecaster.from_experiment(
        config, engine(config.base_runtime), launcher(config.deployment.mode, config.deployment)
    )


@pytest.fixture
def machine(monkeypatch):
    """Give this machine GPUs with these names."""

    def has(*names):
        installed = tuple(
            InstalledGpu(index, name, f"GPU-{index}", 80 * 2**30, 80 * 2**30) for index, name in enumerate(names)
        )
        monkeypatch.setattr(gpus, "query_inventory", lambda: GpuInventory(installed))

    return has


def test_the_simulated_engine_has_the_gpu_it_imitates():
    assert forecaster(simulate={"gpu": "l4"}, hardware={"gpu_type": "H100"}).gpu == "l4"


def test_a_real_engine_has_the_type_the_experiment_names_else_that_of_the_machine(machine):
    machine("NVIDIA H200", "NVIDIA H200", "Tesla T4")
    assert forecaster(base_runtime="vllm", hardware={"gpu_type": "H100"}).gpu == "H100"
    assert forecaster(base_runtime="vllm", hardware={"gpus": [0, 1]}).gpu == "NVIDIA H200"
    assert forecaster(base_runtime="vllm").gpu is None


def test_nothing_is_predicted_for_an_endpoint_or_on_a_cpu(machine):
    machine("NVIDIA H200")
    elsewhere = {"mode": "external", "url": "http://127.0.0.1:1"}
    container = {"deployment": {"mode": "docker"}}
    assert forecaster(base_runtime="vllm", deployment=elsewhere).gpu is None
    assert forecaster(base_runtime="sim", deployment=elsewhere).gpu is None
    assert forecaster(**container, base_runtime="vllm", runtime={"image": "acme/vllm-openai:1"}).gpu == "NVIDIA H200"
    assert forecaster(**container, base_runtime="vllm", runtime={"image": "acme/vllm-cpu:1"}).gpu is None


def test_what_does_not_fit_is_no_candidate_and_says_why():
    space = RunSetup.from_experiment(experiment(parameters={"tp-size": [1, 2]})).space
    assert [candidate.parameters["tp-size"] for candidate in space.candidates] == [2]
    [(candidate, reason)] = space.refusals
    assert candidate.parameters["tp-size"] == 1
    assert "does not fit: weights need 131.4 GiB" in reason


def test_a_space_in_which_nothing_fits_is_refused_with_the_figures():
    with pytest.raises(ConfigError, match="weights need"):
        RunSetup.from_experiment(experiment(parameters={"tp-size": [1]}))


def test_a_model_in_a_folder_is_read_from_there(tmp_path, machine):
    machine("NVIDIA H100 80GB HBM3")
    config = {
        "num_hidden_layers": 80,
        "hidden_size": 8192,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 28672,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    }
    for name, architecture in (("known", "LlamaForCausalLM"), ("unknown", "UnheardOf")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "architectures": [architecture]}))
    known, unknown = (
        forecaster(base_runtime="sglang", model=str(tmp_path / name)).memory_shortage(Candidate("sglang"))
        for name in ("known", "unknown")
    )
    assert "does not fit" in known
    assert unknown is None


def test_a_shared_prefix_is_predicted_in_the_cache_unless_that_is_off():
    forecast = forecaster(model="llama-3.1-8b")
    point = LoadPoint("P(3000,100,200)", concurrency=4)
    on, off = (forecast.predict(Candidate("sim", {"prefix-caching": cache}), point) for cache in (True, False))
    assert on.ttft < off.ttft


def test_slower_operators_are_predicted_to_take_longer():
    forecast, candidate = forecaster(), Candidate("sim", {"tp-size": 4})
    point = LoadPoint("D(1000,200)", concurrency=16)
    as_fitted = forecast.predict(candidate, point)
    assert as_fitted is not None
    assert forecast.predict(candidate, point, UNIT_COSTS) == as_fitted
    for kind in COST_KINDS:
        slower = forecast.predict(candidate, point, CostFactors(**{kind: 1.2}))
        assert slower is not None
        assert slower.tpot >= as_fitted.tpot
    every = forecast.predict(candidate, point, CostFactors(*[1.2] * len(COST_KINDS)))
    assert every is not None
    assert every.tpot == pytest.approx(1.2 * as_fitted.tpot, rel=0.02)


def test_what_has_no_room_for_a_cache_is_not_expected_to_hold_its_model():
    forecast = forecaster()
    assert not forecast.expects_fit(Candidate("sim", {"tp-size": 1}))
    assert forecast.expects_fit(Candidate("sim", {"tp-size": 4}))
    assert forecaster(base_runtime="vllm").expects_fit(Candidate("vllm", {"tp-size": 1}))


def test_a_calibration_corrects_predictions_of_measured_runs_alone(machine, monkeypatch, tmp_path):
    machine("NVIDIA H200")
    monkeypatch.setenv("AUTOTUNE_DATA_HOME", str(tmp_path))
    candidate, point = Candidate("vllm", {"tp-size": 4}), LoadPoint("D(1000,200)", concurrency=8)
    config = {"base_runtime": "vllm", "hardware": {"gpu_type": "H200"}}
    before, virtual = forecaster(**config).predict(candidate, point), {"optimization": {"evaluator": "simulated"}}
    assert before is not None
    deployed = forecaster(**config).model_on_gpus(candidate)
    assert deployed is not None
    ratios = (MeasuredRatio("run 1", regressors(8, 1000, 200, 4), math.log(1.5), math.log(2.0)),) * 3
    save_ratios({ratios_key(deployed): LocalRatios(ratios)})
    after, simulated = (forecaster(**config, **more).predict(candidate, point) for more in ({}, virtual))
    assert after is not None
    # the ratios are those to the schedule that our own load generator leads to
    driven = LoadCurve(deployed, Traffic(1000, 200), bundled_only=True).at_concurrency(8)
    assert 1.5 * driven.tpot < after.tpot <= 2.0 * driven.tpot
    assert 1.2 * driven.ttft < after.ttft <= 1.5 * driven.ttft
    assert simulated == before
