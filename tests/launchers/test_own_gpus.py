"""GPUs that were chosen reach the server, and the command that is printed."""

import pytest

from autotuner.core import Candidate
from autotuner.deploy import render
from autotuner.engines import LaunchContext, engine
from autotuner.experiment import Hardware, Model, Runtime


def spec(name, *, container, devices=(3, 1, 0), **parameters):
    runtime = Runtime(image="an/image:1", executable="/usr/bin/env")
    context = LaunchContext(Model(id_or_path="some/model"), runtime, container=container, devices=devices)
    return engine(name).server_spec(Candidate(name, parameters), context)


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
def test_a_process_sees_the_first_of_them_as_many_as_it_takes(name):
    server = spec(name, container=False, **{"tp-size": 2})
    assert server.env["CUDA_VISIBLE_DEVICES"] == "3,1"
    assert server.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_VISIBLE_DEVICES=3,1" in render(server, "shell")


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
def test_a_container_gets_them_as_devices(name):
    server = spec(name, container=True, **{"tp-size": 2})
    assert server.devices == (3, 1)
    assert "CUDA_VISIBLE_DEVICES" not in server.env
    assert """--gpus '"device=3,1"'""" in render(server, "docker")


def test_without_a_choice_nothing_is_limited():
    assert "CUDA_VISIBLE_DEVICES" not in spec("vllm", container=False, devices=()).env
    assert "--gpus 2" in render(spec("vllm", container=True, devices=(), **{"tp-size": 2}), "docker")


def test_the_simulated_engine_takes_none():
    server = spec("sim", container=True, **{"tp-size": 4})
    assert (server.gpus, server.devices) == (0, ())


def test_a_cpu_build_in_an_image_takes_none():
    runtime = Runtime(image="vllm/vllm-openai-cpu:v1")
    context = LaunchContext(Model(id_or_path="some/model"), runtime, container=True, devices=(0,))
    server = engine("vllm").server_spec(Candidate("vllm"), context)
    assert (server.gpus, server.devices) == (0, ())
    assert server.env["VLLM_CPU_KVCACHE_SPACE"]


def test_named_gpus_limit_the_candidates():
    context = LaunchContext(Model(id_or_path="some/model"), hardware=Hardware(gpus=(0, 1), total_gpus=8))
    assert (
        engine("vllm").rejection_reason(Candidate("vllm", {"tp-size": 4}), context)
        == "it needs 4 GPUs and 2 may be used"
    )
    assert engine("vllm").rejection_reason(Candidate("vllm", {"tp-size": 2}), context) is None


def test_what_a_linked_model_folder_points_to_is_mounted_too(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "abc").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    context = LaunchContext(
        Model(id_or_path=str(snapshot)), Runtime(image="i", mounts=("/data:/in:rw",)), container=True
    )
    server = engine("vllm").server_spec(Candidate("vllm"), context)
    assert [(mount.host, mount.container, mount.read_only) for mount in server.mounts] == [
        (str(snapshot), str(snapshot), True),
        (str(blobs), str(blobs), True),
        ("/data", "/in", False),
    ]
