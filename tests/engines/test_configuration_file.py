import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import Candidate, ServerSpec
from autotuner.engines import engine
from autotuner.engines.configuration_file import configuration_file
from autotuner.engines.protocol import LaunchContext
from autotuner.errors import UsageError
from autotuner.experiment import Model, Runtime


def server(*arguments: str) -> ServerSpec:
    return ServerSpec(None, ("vllm", "serve", "m", *arguments), {}, (), 8000, "/health", "m")


def as_arguments(settings: dict[str, Any]) -> list[str]:
    """What vLLM and SGLang make of a configuration file: a flag for true, one word or several for a value."""
    words: list[str] = []
    for key, value in settings.items():
        words.append(f"--{key}")
        if value is not True:
            words += [str(item) for item in (value if isinstance(value, list) else [value])]
    return words


WORDS = st.text(min_size=0, max_size=12).filter(lambda text: not text.startswith("-"))
ODD_WORDS = st.sampled_from(
    ["0.9", "1e3", "true", "null", "007", "1_000", "-1", "0x10", "y", "nan", '{"a": 1}', "~", ""]
)


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z-]{1,10}[a-z]", fullmatch=True), st.lists(WORDS | ODD_WORDS, max_size=3))
)
def test_a_configuration_file_stands_for_the_same_flags(flags):
    arguments = [word for name, values in flags.items() for word in (f"--{name}", *values)]
    file = configuration_file("vllm", server(*arguments))
    assert file.server.argv == ("vllm", "serve", "m", "--config", "vllm.yaml")
    assert as_arguments(yaml.safe_load(file.text)) == arguments


def test_what_has_no_place_in_a_file_stays_on_the_command_line():
    file = configuration_file("vllm", server("--x=1", "-tp", "2", "--lora", "a", "--lora", "b", "--flag"))
    assert yaml.safe_load(file.text) == {"x": 1, "flag": True}
    assert file.server.argv[3:] == ("--config", "vllm.yaml", "-tp", "2", "--lora", "a", "--lora", "b")


def test_numbers_are_numbers_and_other_words_are_text():
    arguments = ("--model-path", "m", "--tp-size", "2", "--mem-fraction-static", "0.85", "--dtype", "auto")
    file = configuration_file("sglang", server(*arguments))
    assert yaml.safe_load(file.text) == {"tp-size": 2, "mem-fraction-static": 0.85, "dtype": "auto"}
    assert file.server.argv[3:] == ("--config", "sglang.yaml", "--model-path", "m")


@pytest.mark.parametrize("container", [False, True])
def test_the_options_of_tensorrt_llm_are_a_file_and_its_flags_stay(container):
    candidate = Candidate("trtllm", {"tp-size": 2, "cuda-graph": False, "prefix-caching": True})
    context = LaunchContext(Model(id_or_path="m"), Runtime(image="x"), container=container, print_only=True)
    spec = engine("trtllm").server_spec(candidate, context)
    file = configuration_file("trtllm", spec)
    assert yaml.safe_load(file.text) == json.loads(spec.env["TRTLLM_SERVE_OPTIONS"])
    assert file.server.argv[:3] == ("trtllm-serve", "serve", "m")
    assert file.server.argv[-2:] == ("--extra_llm_api_options", "trtllm.yaml")
    assert "TRTLLM_SERVE_OPTIONS" not in file.server.env


def test_an_engine_without_a_configuration_file_is_refused():
    with pytest.raises(UsageError, match="sim reads no configuration file"):
        configuration_file("sim", server())
