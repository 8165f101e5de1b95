"""What an exception means by the place that raised it."""

from __future__ import annotations

import pytest

from autotuner.core import FailureKind
from autotuner.engines import engine
from autotuner.engines.log_errors import read_errors
from autotuner.engines.origin_rules import ENGINE_FILE, Frame, is_import, origin_rule

SITE = "/usr/lib/python3.12/site-packages/"


def frames(*places: str) -> list[Frame]:
    """Frames of `file:function`, outermost first; a path that is not absolute is of an installed package."""
    split = [place.rsplit(":", 1) for place in places]
    return [Frame(path if path.startswith(("/", "<")) else SITE + path, function) for path, function in split]


@pytest.mark.parametrize(
    ("exception", "places", "kind"),
    [
        ("KeyError: 'layers.0.w'", ["vllm/model_executor/models/llama.py:load_weights"], "unsupported-model"),
        ("IndexError: list", ["sglang/srt/models/qwen.py:load_weights", "torch/nn/x.py:copy_"], "unsupported-model"),
        ("AssertionError", ["vllm/config/scheduler.py:__post_init__"], "bad-flag"),
        ("ValueError: no", ["sglang/srt/server_args.py:check_server_args"], "bad-flag"),
        ("ValueError: no", ["tensorrt_llm/llmapi/llm_args.py:validate"], "bad-flag"),
        ("RuntimeError: x", ["vllm/v1/w.py:f", "flashinfer/jit/core.py:build"], "broken-installation"),
        ("RuntimeError: x", ["vllm/distributed/parallel_state.py:all_reduce", "vllm/a.py:b"], "driver-fault"),
        ("KeyError: 'rope'", ["transformers/models/x/configuration_x.py:__init__"], "unsupported-model"),
        ("TypeError: f() got an unexpected keyword argument 'x'", ["vllm/v1/a.py:b"], "broken-installation"),
        ("ModuleNotFoundError: No module named 'x'", ["vllm/v1/a.py:b"], "broken-installation"),
        ("ValueError: x", ["vllm/lora/peft_helper.py:validate"], "bad-flag"),
        ("ValueError: 0 blocks", ["vllm/v1/core/kv_cache_utils.py:check"], "out-of-memory-at-start"),
        (
            "JSONDecodeError: x",
            ["transformers/configuration_utils.py:f", "/usr/lib/python3.12/json/decoder.py:decode"],
            "model-not-found",
        ),
        ("AttributeError: 'X' object has no attribute 'y'", ["vllm/v1/engine/core.py:step"], None),
        ("RuntimeError: x", ["vllm/v1/engine/core.py:step"], None),
    ],
)
def test_the_place_that_raised_it_tells_what_failed(exception: str, places: list[str], kind: str | None) -> None:
    rule = origin_rule(exception, frames(*places), "start")
    assert (rule and rule.kind_in("start")) == (kind and FailureKind(kind))


def test_a_failure_of_the_start_does_not_explain_an_end_under_load() -> None:
    places = frames("vllm/model_executor/models/llama.py:load_weights")
    assert origin_rule("KeyError: 'w'", places, "load") is None
    assert origin_rule("RuntimeError: x", frames("torch/distributed/c10d.py:all_reduce"), "load") is not None


def test_no_place_is_no_cause() -> None:
    assert origin_rule("KeyError: 'w'", [], "start") is None


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["<frozen runpy>:_run_code", "sglang/launch_server.py:<module>", "sglang/a.py:main"], False),
        (["/usr/bin/vllm:<module>", "vllm/cli.py:main", "vllm/x.py:<module>"], True),
        (["vllm/core.py:run", "importlib/x.py:import_module", "vllm/models/y.py:<module>"], True),
    ],
)
def test_an_import_is_told_from_the_program_itself(places: list[str], expected: bool) -> None:
    assert is_import(frames(*places)) is expected


def test_frames_belong_to_the_exception_that_they_raised() -> None:
    log = (
        "Traceback (most recent call last):\n"
        f'  File "{SITE}vllm/a.py", line 1, in inner\n    f()\n'
        "ValueError: first\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        f'  File "{SITE}vllm/b.py", line 2, in outer\n    raise RuntimeError from error\n'
        "RuntimeError: second\n"
    )
    [error] = read_errors(log)
    assert [[frame.function for frame in raised.frames] for raised in error.exceptions] == [["inner"], ["outer"]]


def test_the_end_of_a_command_is_not_quoted_where_another_error_has_its_output() -> None:
    log = (
        "Traceback (most recent call last):\n"
        '  File "/usr/lib/python3.12/subprocess.py", line 571, in run\n    raise CalledProcessError(\n'
        "subprocess.CalledProcessError: Command '['ninja', '-v']' returned non-zero exit status 1.\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        f'  File "{SITE}flashinfer/jit/cpp_ext.py", line 2, in run_ninja\n    raise RuntimeError(msg) from e\n'
        "RuntimeError: Ninja build failed.\n"
    )
    failure = engine("vllm").diagnosis.failure(log, 1, "start")
    assert failure.message == "RuntimeError: Ninja build failed."
    assert failure.kind is FailureKind.BROKEN_INSTALLATION


def test_a_users_folder_named_like_an_engine_is_its_own_file_only_by_the_package() -> None:
    assert ENGINE_FILE.search("/home/me/vllm/v1/a.py")
    assert not ENGINE_FILE.search("/home/my-vllm-setup/site-packages/torch/a.py")
