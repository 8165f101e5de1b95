"""The closed form against the simulated engine, where both should agree.

They share operators and calibrated efficiencies, so without a skew and with little queueing they differ
only in how iterations interleave. The closed form's fitted terms that the simulated engine lacks are set
to zero: the effects that multiply a measured model's times, and the waits and overheads that real servers
add to the TTFT. Tolerances: 1% for one request alone, where only the growing context is averaged; 3% for
four in flight, where the closed form adds a prefill to the decodes it interrupts and the scheduler runs
both in one iteration. At 16 and more in flight the two differ by 10% and more, and the simulation is the
more accurate one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuner.core import LoadPoint, LoadStep, Metrics, Workload
from autotuner.experiment import Slo
from autotuner.predict.calibration import Calibration, bundled_calibration
from autotuner.predict.layout import Layout
from autotuner.predict.model_on_gpus import model_on_gpus
from autotuner.predict.predict import Prediction, predict_closed_loop
from autotuner.scoring import metrics
from autotuner.simulate.settings import parse_settings
from autotuner.simulate.started_engine import start_engine
from autotuner.simulate.virtual_time import VirtualServer

EXTRAS = ("overhead", "wait_iterations", "host_per_token", "burst_share")
DEPLOYMENTS = (
    ("llama-3.1-8b", "h100_sxm", 1),
    ("llama-3.1-70b", "h200_sxm", 4),
    ("qwen3-30b-a3b", "h100_sxm", 2),
    ("qwen3-32b", "a100_sxm", 2),
)
LENGTHS = ((1000, 200), (200, 1000))


def without_extras() -> Calibration:
    fitted = bundled_calibration()
    constants = {**fitted.constants, **{name: {"base": 0.0} for name in EXTRAS}}
    return replace(fitted, constants=constants, effects={})


def predicted(model: str, gpu: str, tp: int, isl: int, osl: int, concurrency: int) -> Prediction:
    deployment = model_on_gpus(model, gpu, Layout(tp=tp), engine="vllm")
    return predict_closed_loop(deployment, isl=isl, osl=osl, concurrency=concurrency, calibration=without_extras())


def simulated(model: str, gpu: str, tp: int, isl: int, osl: int, concurrency: int) -> Metrics:
    settings = parse_settings(["--model", model, "--gpu", gpu, "--tp-size", str(tp)])
    point = LoadPoint(f"D({isl},{osl})", concurrency=concurrency)
    observation = VirtualServer(settings, start_engine(settings)).drive(LoadStep(Workload((point,), duration=120.0)))
    return metrics.summarize(observation, Slo())


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_the_latency_of_one_request_alone_is_as_predicted(
    deployment: tuple[str, str, int], lengths: tuple[int, int]
) -> None:
    prediction, simulation = predicted(*deployment, *lengths, 1), simulated(*deployment, *lengths, 1)
    assert simulation.ttft.mean == pytest.approx(prediction.ttft, rel=0.01)
    assert simulation.tpot.mean == pytest.approx(prediction.tpot, rel=0.01)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_tpot_and_throughput_of_a_few_requests_in_flight_are_as_predicted(
    deployment: tuple[str, str, int], lengths: tuple[int, int]
) -> None:
    prediction, simulation = predicted(*deployment, *lengths, 4), simulated(*deployment, *lengths, 4)
    assert simulation.tpot.mean == pytest.approx(prediction.tpot, rel=0.03)
    assert simulation.output_throughput == pytest.approx(prediction.throughput, rel=0.03)
