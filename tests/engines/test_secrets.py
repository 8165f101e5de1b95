"""Secrets are handed on by name: their values are in no spec, file, printed command or error."""

from __future__ import annotations

import json
import os
import subprocess
from unittest import mock

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from autotuner.core import Candidate, Measurement, Mount, ServerSpec, Trial
from autotuner.deploy import FORMATS, render
from autotuner.engines import ENGINES, LaunchContext, engine
from autotuner.engines.commandline import CommandLineEngine
from autotuner.errors import ConfigError
from autotuner.experiment import Model, Runtime
from autotuner.launchers import containers

LAUNCHED = sorted(name for name in ENGINES if isinstance(engine(name), CommandLineEngine))
WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "APIKEY", "CREDENTIAL", "CREDENTIALS")
names = st.builds(
    lambda before, word, lower: (before + word).lower() if lower else before + word,
    st.sampled_from(("", "MY_", "HF_", "HUGGING_FACE_HUB_", "WANDB_", "A_B_")),
    st.sampled_from(WORDS),
    st.booleans(),
)
values = st.text(st.characters(codec="ascii", min_codepoint=32), min_size=1, max_size=40).map(lambda text: "s3" + text)
texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30
)


def secret_spec(runtime: str, name: str, container: bool) -> ServerSpec:
    configured = Runtime(image="an/image:1", executable="/usr/bin/env", env={name: "", "PLAIN": "1"})
    context = LaunchContext(Model(id_or_path="some/model"), runtime=configured, container=container)
    return engine(runtime).server_spec(Candidate(runtime), context)


@given(st.sampled_from(LAUNCHED), names, values, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_value_reaches_the_container_and_nothing_that_is_written(
    runtime: str, name: str, value: str, container: bool
) -> None:
    with mock.patch.dict(os.environ, {name: value}):
        spec = secret_spec(runtime, name, container)
        written = [repr(spec), *(render(spec, form) for form in FORMATS)]
        trial = Trial(1, Candidate(runtime), Measurement("measured", (), spec=spec), 0.0, 1.0)
        written.append(TypeAdapter(Trial).dump_json(trial).decode())
        inside = containers.container_environment(spec)
    assert inside[name] == value
    assert name in spec.secrets
    for text in written:
        assert name in text
    # a value such as `s3` may be part of some other word
    unlikely = value if len(value) > 8 else None
    assert unlikely is None or all(unlikely not in text for text in written)


@given(st.sampled_from(LAUNCHED), names, values)
@settings(max_examples=100, deadline=None)
def test_a_value_in_the_configuration_is_refused_without_repeating_it(runtime: str, name: str, value: str) -> None:
    secret = f"{value}-unmistakable"
    with pytest.raises(ConfigError) as caught:
        engine(runtime).check_parameters(
            {}, Runtime(image="i", executable="/usr/bin/env", env={name: secret}), engine(runtime).flags()
        )
    assert secret not in str(caught.value)
    assert name in str(caught.value)


def as_a_shell_reads(command: str) -> list[str]:
    """The words of a command, by a shell's own account."""
    script = f'set -- {command}\nfor word in "$@"; do printf \'%s\\0\' "$word"; done'
    return subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode().split("\0")[:-1]


@pytest.mark.processes
@given(texts, texts, texts, st.sampled_from((None, "64m")), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_printed_docker_command_survives_a_shell(
    model: str, path: str, value: str, size: str | None, host: bool
) -> None:
    spec = ServerSpec(
        image="an/image:1",
        argv=("serve", model),
        env={"PLAIN": value},
        mounts=(Mount(f"/{path}", f"/in/{path}"),),
        port=8000,
        ready_path="/health",
        served_model=model,
        container_argv=("serve", model, "--port", "8000"),
        gpus=2,
        secrets=("HF_TOKEN",),
        devices=(1, 3),
        entrypoint="/opt/a b/engine",
        network="host" if host else "bridge",
        shm_size=size,
        memory=size,
    )
    words = as_a_shell_reads(render(spec, "docker"))
    assert words[:2] == ["docker", "run"]
    assert words[-5:] == ["an/image:1", *spec.container_argv]
    assert words[words.index("--gpus") + 1] == '"device=1,3"'
    assert words[words.index("--entrypoint") + 1] == "/opt/a b/engine"
    assert f"PLAIN={value}" in words
    assert ("--network" in words, "--publish" in words) == (host, not host)
    assert ("--shm-size" in words, "--ipc" in words) == (size is not None, size is None)
    service = yaml.safe_load(render(spec, "compose"))["services"]["server"]
    assert [word.replace("$$", "$") for word in service["command"]] == list(spec.container_argv)
    assert service["environment"]["PLAIN"].replace("$$", "$") == value
    assert service["environment"]["HF_TOKEN"] is None
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["1", "3"]


@pytest.mark.processes
def test_a_shell_hands_a_secret_on_from_its_own_environment() -> None:
    spec = ServerSpec(None, ("sh", "-c", 'printf %s "$MY_TOKEN"'), {}, (), 1, "/", "m", secrets=("MY_TOKEN",))
    environment = {**os.environ, "MY_TOKEN": "a 'quoted' $value"}
    result = subprocess.run(
        ["sh", "-c", render(spec, "shell")], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout == "a 'quoted' $value"
    assert json.dumps("quoted") not in render(spec, "shell")
