import csv
import shlex
import subprocess

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.core import Candidate, Mount, ServerSpec, Value
from autotuner.deploy import FORMATS, render, with_comment, with_port
from autotuner.deploy.shell import group_by_flag
from autotuner.engines import ENGINES, LaunchContext, engine
from autotuner.errors import AutotuneError
from autotuner.escaping import for_shell
from autotuner.experiment import Model, Runtime
from tests.deploy.servers import spec

HOSTILE = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
ONE_LINE = HOSTILE.map(lambda text: text.replace("\n", " ").replace("\r", " "))
WORDS = st.lists(st.one_of(HOSTILE, st.sampled_from(["--flag", "--", "a b", "$HOME", "`id`", "x'y\"z", "\\\n", ""])))


def run_in_shell(text: str, **env: str) -> list[str]:
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True, env={"PATH": "/usr/bin:/bin", **env})
    return done.stdout.decode().split("\0")[:-1]


def test_shell_is_one_readable_command():
    assert render(spec(), "shell") == (
        'VLLM_LOGGING_LEVEL=INFO \\\n  HF_TOKEN="$HF_TOKEN" \\\n  vllm serve /models/tiny \\\n'
        "  --tensor-parallel-size 2 \\\n  --enforce-eager\n"
    )


def test_docker_run_is_one_readable_command():
    assert render(spec(), "docker") == (
        "docker run \\\n  --rm \\\n  --gpus 2 \\\n  --ipc host \\\n  --publish 8000:8000 \\\n"
        "  --env VLLM_LOGGING_LEVEL=INFO \\\n  --env HF_TOKEN \\\n"
        "  --mount type=bind,source=/data/tiny,target=/models/tiny,readonly \\\n"
        "  vllm/vllm-openai:v0.32.0 \\\n  /models/tiny \\\n  --tensor-parallel-size 2 \\\n  --enforce-eager\n"
    )


def test_compose_describes_the_same_server():
    assert yaml.safe_load(render(spec(), "compose")) == {
        "services": {
            "server": {
                "image": "vllm/vllm-openai:v0.32.0",
                "command": ["/models/tiny", "--tensor-parallel-size", "2", "--enforce-eager"],
                "ports": ["8000:8000"],
                "ipc": "host",
                "environment": {"VLLM_LOGGING_LEVEL": "INFO", "HF_TOKEN": None},
                "volumes": [{"type": "bind", "source": "/data/tiny", "target": "/models/tiny", "read_only": True}],
                "deploy": {
                    "resources": {
                        "reservations": {"devices": [{"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}]}
                    }
                },
            }
        }
    }


def needs_no_program(text: str) -> bool:
    """Whether a word is quoted as it is; `printf` makes one with control characters, when a real shell runs."""
    return for_shell(text) == shlex.quote(text)


QUOTED = ONE_LINE.filter(needs_no_program)


@given(WORDS.filter(lambda words: all(map(needs_no_program, words))))
def test_quoted_words_read_back_as_they_were(words):
    assert shlex.split(" ".join(group_by_flag(words))) == words


@pytest.mark.processes
@settings(max_examples=40, deadline=None)
@given(WORDS, HOSTILE)
def test_a_real_shell_reads_the_words_and_the_environment_as_they_were(words, value):
    # The server is replaced by a program that prints what it was given.
    argv = ("/usr/bin/env", "bash", "-c", 'printf "%s\\0" "$HOSTILE" "$@"', "name", *words)
    text = render(spec(argv=argv, env={"HOSTILE": value}, secrets=()), "shell")
    assert run_in_shell(text) == [value, *words]


@given(QUOTED, QUOTED, st.lists(QUOTED))
def test_docker_run_reads_back_as_it_was(value, path, words):
    server = spec(env={"HOSTILE": value}, mounts=(Mount(f"/{path}", "/models"),), container_argv=("serve", *words))
    text = render(server, "docker")
    parts = shlex.split(text.replace(" \\\n", " "))
    assert parts[parts.index("--env") + 1] == f"HOSTILE={value}"
    mount = parts[parts.index("--mount") + 1]
    assert next(csv.reader([mount])) == ["type=bind", f"source=/{path}", "target=/models", "readonly"]
    assert server.image is not None
    assert parts[parts.index(server.image) + 1 :] == ["serve", *words]


@given(HOSTILE, WORDS)
def test_compose_keeps_every_word_and_interpolates_none(value, words):
    server = spec(env={"HOSTILE": value}, container_argv=("serve", *words))
    service = yaml.safe_load(render(server, "compose"))["services"]["server"]
    assert [word.replace("$$", "$") for word in service["command"]] == ["serve", *words]
    assert service["environment"]["HOSTILE"].replace("$$", "$") == value
    assert all("$" not in word.replace("$$", "") for word in service["command"])


@pytest.mark.parametrize("format", FORMATS)
def test_a_secret_is_only_named(format):
    text = render(spec(env={"HF_TOKEN": "hf_very_secret"}), format)
    assert "HF_TOKEN" in text
    assert "hf_very_secret" not in text


@pytest.mark.processes
def test_a_pasted_secret_comes_from_the_shell():
    text = render(spec(argv=("bash", "-c", 'printf "%s\\0" "$HF_TOKEN"'), env={}), "shell")
    assert run_in_shell(text, HF_TOKEN="from outside") == ["from outside"]


def test_a_program_that_looks_like_an_assignment_is_still_a_program():
    text = render(spec(argv=("PATH=x", "serve"), env={}, secrets=()), "shell")
    assert text.startswith("'PATH=x' serve")


@pytest.mark.processes
def test_a_variable_no_shell_can_assign_goes_through_env():
    argv = ("python3", "-c", "import os; print(os.environ['a.b'], end='\\0')")
    text = render(spec(argv=argv, env={"a.b": "1; 2"}, secrets=()), "shell")
    assert run_in_shell(text) == ["1; 2"]


@pytest.mark.parametrize("format", ["docker", "compose"])
def test_a_server_without_an_image_has_no_container_form(format):
    with pytest.raises(AutotuneError) as caught:
        render(spec(image=None), format)
    assert "no container image" in str(caught.value)
    assert "--format shell" in caught.value.remedy


def test_an_image_without_its_own_arguments_gets_the_whole_command():
    text = render(spec(container_argv=(), argv=("trtllm-serve", "serve", "m"), secrets=(), mounts=()), "docker")
    assert text.endswith("v0.32.0 \\\n  trtllm-serve serve m\n")


def test_a_server_without_gpus_asks_for_none():
    assert "--gpus" not in render(spec(gpus=0), "docker")
    assert "deploy" not in render(spec(gpus=0), "compose")


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(AutotuneError, match="did you mean 'compose'"):
        render(spec(), "compse")


LAUNCHED = [name for name in ENGINES if name != "openai"]  # that one stands for servers of somebody else


@pytest.mark.parametrize("network", ["bridge", "host"])
@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize("name", LAUNCHED)
def test_a_server_on_another_port_is_what_its_engine_makes_for_that_port(name, container, network):
    model = Model(id_or_path="llama-3.1-8b" if name == "sim" else "org/model-59875")
    # the same number as a parameter, and options that only trtllm wraps into a shell
    parameters: dict[str, Value] = {
        "max-batched-tokens": 59875,
        "kv-cache-dtype": "fp8",
        "enable-chunked-prefill": True,
    }
    runtime = Runtime(image="an/image:59875", network=network, env={"SEED": "59875"})

    def at(port: int) -> ServerSpec:
        context = LaunchContext(model, runtime, port=port, container=container, devices=(3,), print_only=True)
        return engine(name).server_spec(Candidate(name, parameters), context)

    assert with_port(at(59875), 8000) == at(8000) != at(59875)
    assert "59875" in " ".join(with_port(at(59875), 8000).argv)


@pytest.mark.parametrize(("name", "port"), [("sim", 8000), ("vllm", 8000), ("sglang", 30000), ("trtllm", 8000)])
def test_each_engine_is_printed_on_the_port_its_users_expect(name, port):
    assert engine(name).default_port == port


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_names_the_port_before(format):
    text = render(with_port(spec(argv=("vllm", "--port", "8000"), container_argv=("--port", "8000")), 9001), format)
    assert "9001" in text
    assert "8000" not in text


@pytest.mark.parametrize("format", FORMATS)
def test_a_remark_is_a_comment_that_changes_nothing(format):
    plain = render(spec(secrets=()), format)
    text = with_comment(plain, "Not measured: simulated on H100.\nNot a path.")
    assert text.splitlines()[:2] == ["# Not measured: simulated on H100.", "# Not a path."]
    read = yaml.safe_load if format == "compose" else lambda text: shlex.split(text, comments=True)
    assert read(text) == read(plain)
    assert with_comment(plain, "") == plain
