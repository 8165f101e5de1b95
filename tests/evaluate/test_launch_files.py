import json
import random
from typing import Any

import pytest

from autotuner.core import Candidate, Measurement, ServerSpec, Trial
from autotuner.deploy import with_port
from autotuner.engines import engine
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import ConfigError, UsageError
from autotuner.evaluate.launch_files import (
    CLUSTER_FORMATS,
    LAUNCH_FORMATS,
    DeployedCandidate,
    default_format,
    launch_files,
)
from autotuner.evaluate.launch_package import package_files
from tests.deploy.manifest_schema import problems, read_documents
from tests.factories import experiment

MODELS = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B", "org/" + "Long-Name_" * 9, "7B", "a/B.c_D-")
ENGINES = ("vllm", "sglang", "trtllm")
SECRET = "hf_never_write_this_down"
VALUES = {
    "tp-size": (1, 2, 8),
    "mem-fraction-static": (0.8, 0.9),
    "max-running-requests": (64, 256),
    "kv-cache-dtype": ("auto", "fp8"),
    "enable-chunked-prefill": (True,),
}
TEXTS = ("plain", "a b", "$(X) $$", "{\"a\": 'b'}", "1e3", "y", "ünï:#", "")


def launch(format="kubernetes", counts=None, name="vllm", parameters=None, **sections) -> DeployedCandidate:
    """A launch of the engine called `name`; `sections` replace whole sections of its experiment."""
    sections = {"runtime": {"image": f"registry.example/{name}:1"}, "deployment": {"mode": "kubernetes"}} | sections
    tried = experiment(base_runtime=name, **sections)
    candidate = Candidate(name, parameters or {"tp-size": 2})
    spec = engine(name).server_spec(candidate, LaunchContext.from_experiment(tried, 45678, print_only=True))
    trial = Trial(3, candidate, Measurement("measured", (), spec=spec), 0.0, 1.0)
    return DeployedCandidate.of_trial(tried, trial, with_port(spec, 8000), format, counts or {})


def documents(launched: DeployedCandidate, format: str) -> list[dict[str, Any]]:
    (text,) = launch_files(launched, format, with_remark=True).values()
    return read_documents(text)


def random_launch(seed: int, format: str) -> DeployedCandidate:
    choice = random.Random(seed)
    runtime = choice.choice(ENGINES)
    names = choice.sample(sorted(VALUES), choice.randint(1, 4))
    parameters = {name: choice.choice(VALUES[name]) for name in names}
    if runtime != "vllm":
        parameters.pop("kv-cache-dtype", None)
    deployment = {
        "mode": choice.choice(("docker", "kubernetes", "ome")),
        "namespace": choice.choice((None, "bench")),
        "service_account": choice.choice((None, "tuner")),
        "image_pull_secret": choice.choice((None, "registry")),
        "model_volume": choice.choice((None, "models", "models:a/b")),
        "node_selector": choice.choice(({}, {"nvidia.com/gpu.product": "NVIDIA-H200"})),
        "tolerations": choice.choice(((), ("spot", "pool=h200:NoSchedule"))),
        "serving_runtime": choice.choice((None, "srt-qwen3")),
    }
    env = {f"VARIABLE_{index}": choice.choice(TEXTS[:-1]) for index in range(3)}
    return launch(
        format,
        name=runtime,
        parameters=parameters,
        model={"id_or_path": choice.choice(MODELS), "served_name": choice.choice((None, "chat"))},
        deployment=deployment,
        runtime={
            "image": f"registry.example/{runtime}:1",
            "env": env,
            "mounts": choice.choice(((), ("/data/cache:/cache:rw",))),
            "network": choice.choice(("bridge", "host")),
            "shm_size": choice.choice((None, "16g")),
            "memory": choice.choice((None, "64g")),
            "executable": choice.choice((None, "/opt/bin/serve")),
        },
    )


@pytest.mark.parametrize("format", ["kubernetes", "ome"])
def test_manifests_of_random_experiments_are_valid_and_run_the_measured_command(format, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    for seed in range(40):
        launched = random_launch(seed, format)
        (text,) = launch_files(launched, format, with_remark=True).values()
        assert SECRET not in text
        written = read_documents(text)
        assert [problems(document) for document in written] == [[]] * len(written), text
        assert all(len(document["metadata"]["name"]) <= 40 for document in written)
        if format == "kubernetes":
            assert_runs_the_command(written[0]["spec"]["template"]["spec"]["containers"][0], launched.server)


def assert_runs_the_command(container: dict[str, Any], server: ServerSpec) -> None:
    expected = [word.replace("127.0.0.1", "0.0.0.0") for word in server.container_argv]
    assert [restored(word) for word in container["args"]] == expected
    assert container.get("command") == ([server.entrypoint] if server.entrypoint else None)
    values = {entry["name"]: restored(entry["value"]) for entry in container["env"] if "value" in entry}
    assert values == {"PYTHONUNBUFFERED": "1", **server.env}


def restored(word: str) -> str:
    """A word as the container gets it, with no reference in it."""
    return word.replace("$$", "$") if "$$(" in word or "$$$" in word else word


@pytest.mark.parametrize(
    ("runtime", "command", "first"),
    [
        ("vllm", ["vllm", "serve"], ["$(MODEL_PATH)", "--host"]),
        ("sglang", ["python3", "-m", "sglang.launch_server"], ["--model-path", "$(MODEL_PATH)"]),
        ("trtllm", ["trtllm-serve", "serve"], ["$(MODEL_PATH)", "--served_model_name"]),
    ],
)
def test_ome_gets_a_whole_command_and_puts_the_model_into_it(runtime, command, first):
    launched = launch("ome", name=runtime, model={"id_or_path": MODELS[0]})
    serving_runtime, service = documents(launched, "ome")
    runner = service["spec"]["engine"]["runner"]
    assert (runner["command"], runner["args"][:2]) == (command, first)
    assert MODELS[0] in runner["args"]  # the name under which it is served
    assert service["spec"]["model"] == {"name": "llama-3-1-8b-instruct"}
    assert service["spec"]["runtime"]["name"] == serving_runtime["metadata"]["name"] == service["metadata"]["name"]
    assert "acceleratorSelector" not in service["spec"]


def test_a_named_runtime_and_model_of_ome_are_used_as_they_are():
    deployment = {"mode": "ome", "serving_runtime": "srt-qwen3", "base_model": "qwen3-8b"}
    (service,) = documents(launch("ome", deployment=deployment), "ome")
    assert service["spec"]["runtime"] == {"name": "srt-qwen3"}
    assert service["spec"]["model"] == {"name": "qwen3-8b"}


def test_ome_is_not_given_what_it_would_run_as_a_template():
    launched = launch("ome", runtime={"image": "x:1", "extra_args": ("--chat-template", "{{ bos }}")})
    with pytest.raises(ConfigError, match="cannot pass on the argument"):
        launch_files(launched, "ome", with_remark=False)


def test_replicas_stand_behind_one_service_and_prefill_servers_need_dynamo():
    deployment, _ = documents(launch(counts={"server": 3}), "kubernetes")
    assert deployment["spec"]["replicas"] == 3
    *_, service = documents(launch("ome", counts={"server": 3}), "ome")
    assert (service["spec"]["engine"]["minReplicas"], service["spec"]["engine"]["maxReplicas"]) == (3, 3)
    for format in ("kubernetes", "ome"):
        with pytest.raises(UsageError, match="manifests of Dynamo only"):
            launch_files(launch(format, counts={"prefill": 1, "decode": 2}), format, with_remark=False)
    (graph,) = documents(launch("dynamo", counts={"prefill": 1, "decode": 2}), "dynamo")
    replicas = {part["type"]: part["replicas"] for part in graph["spec"]["components"]}
    assert (replicas["prefill"], replicas["decode"]) == (1, 2)


def test_dynamo_runs_the_candidates_flags_on_its_gpus():
    launched = launch("dynamo", parameters={"tp-size": 4, "mem-fraction-static": 0.85}, model={"id_or_path": MODELS[0]})
    (graph,) = documents(launched, "dynamo")
    (worker,) = [part for part in graph["spec"]["components"] if part["name"] == "worker"]
    container = worker["podTemplate"]["spec"]["containers"][0]
    assert container["args"] == [
        "--model",
        MODELS[0],
        "--tensor-parallel-size",
        "4",
        "--gpu-memory-utilization",
        "0.85",
    ]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "4"}


def test_a_folder_of_this_machine_is_no_model_of_a_cluster(tmp_path):
    launched = {format: launch(format, model={"id_or_path": str(tmp_path)}) for format in ("kubernetes", "dynamo")}
    for format, one in launched.items():
        with pytest.raises(ConfigError, match="of this machine") as caught:
            launch_files(one, format, with_remark=False)
        assert "--model-volume" in caught.value.remedy
    (service,) = documents(
        launch("ome", model={"id_or_path": str(tmp_path)}, deployment={"serving_runtime": "x"}), "ome"
    )
    assert "$(MODEL_PATH)" in service["spec"]["engine"]["runner"]["args"]


def test_the_architecture_of_a_model_folder_names_the_formats_of_its_runtime(tmp_path):
    model = {"id_or_path": str(tmp_path)}
    for text, expected in (('{"architectures": ["LlamaForCausalLM"]}', "LlamaForCausalLM"), ("[]", None), ("{", None)):
        (tmp_path / "config.json").write_text(text)
        serving_runtime, _ = documents(launch("ome", model=model), "ome")
        (form,) = serving_runtime["spec"]["supportedModelFormats"]
        assert form.get("modelArchitecture") == expected


def test_a_process_and_a_running_server_have_no_manifests():
    for format in ("kubernetes", "ome"):
        with pytest.raises(ConfigError, match="no container image"):
            launch_files(launch(format, runtime={}, deployment={}), format, with_remark=False)


@pytest.mark.parametrize(
    ("mode", "format"), [("process", "shell"), ("docker", "docker"), ("kubernetes", "kubernetes"), ("ome", "ome")]
)
def test_a_launch_is_shown_in_the_form_in_which_it_ran(mode, format):
    assert default_format(experiment(runtime={"image": "x:1"}, deployment={"mode": mode})) == format


def package(launched: DeployedCandidate, format: str) -> dict[str, str]:
    trial = Trial(3, launched.candidate, Measurement("measured", (), server={"version": "1.2.3"}), 0.0, 1.0)
    files = launch_files(launched, format, with_remark=True)
    return package_files(launched, format, files, trial=trial, experiment="task_name: t\n", hosts=[{"host": "h"}])


@pytest.mark.parametrize("format", LAUNCH_FORMATS)
def test_a_package_says_how_to_start_and_how_to_measure_again(format):
    files = package(launch(format, model={"id_or_path": MODELS[0]}), format)
    assert json.loads(files["environment.json"]) == [{"host": "h"}]
    assert files["experiment.yaml"] == "task_name: t\n"
    readme = files["README.md"]
    for text in (
        next(iter(files)) if format != "engine" else "command.sh",
        "trial 3",
        "tp-size 2",
        "1.2.3",
        "autotune run -f experiment.yaml",
        "--scenario 'D(100,100)' --concurrency 1",
    ):
        assert text in readme
    assert ("role.yaml" in files) == (format in ("kubernetes", "ome"))
    if format in CLUSTER_FORMATS:
        assert f"kubectl apply -f {format}.yaml" in readme


def test_a_package_names_the_secret_and_never_its_value(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    deployment = {"mode": "kubernetes", "namespace": "bench", "secret_name": "tokens"}
    files = package(launch(deployment=deployment), "kubernetes")
    assert SECRET not in "".join(files.values())
    assert "kubectl --namespace bench create secret generic tokens --from-literal=HF_TOKEN=" in files["README.md"]
    kinds = [problems(document) for document in read_documents(files["role.yaml"])]
    assert kinds == [[], [], []]
