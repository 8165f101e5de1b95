"""Settings go into the command, secrets only into the process."""

from __future__ import annotations

import pytest

from autotuner.engines import environment
from autotuner.errors import ConfigError
from autotuner.experiment import Runtime


def test_settings_are_kept_with_their_values() -> None:
    assert environment.split_secrets(Runtime(env={"VLLM_USE_V1": "1"})) == ({"VLLM_USE_V1": "1"}, ())


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET", "OPENAI_API_KEY", "db_password", "GOOGLE_CREDENTIALS"])
def test_a_secret_with_a_value_is_refused_without_showing_it(name: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        environment.split_secrets(Runtime(env={name: "hunter2"}))
    assert "hunter2" not in str(caught.value)


def test_a_secret_without_a_value_is_handed_on() -> None:
    assert environment.split_secrets(Runtime(env={"MY_API_KEY": ""})) == ({}, ("MY_API_KEY",))


@pytest.mark.parametrize("name", ["VLLM_MAX_TOKENS", "TOKENIZERS_PARALLELISM", "KEYS"])
def test_a_name_about_tokens_is_not_a_secret(name: str) -> None:
    assert environment.split_secrets(Runtime(env={name: "1"})) == ({name: "1"}, ())


@pytest.mark.parametrize("argument", ["--api-key", "--api-key=hunter2", "--ssl-keyfile-password", "--hf-token"])
def test_a_secret_among_the_arguments_is_refused_without_showing_it(argument: str) -> None:
    with pytest.raises(ConfigError) as caught:
        environment.check_secrets({}, Runtime(extra_args=(argument,)))
    assert "hunter2" not in str(caught.value)


def test_a_flag_about_tokens_is_not_a_secret() -> None:
    environment.check_secrets(
        {}, Runtime(extra_args=("--max-num-batched-tokens", "8192", "--enable-prompt-tokens-details"))
    )


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.HUB_TOKENS:
        monkeypatch.delenv(name, raising=False)
