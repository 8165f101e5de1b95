"""From logs to kinds of failure. The vLLM logs are from vLLM 0.32.0 on CPU; the others are excerpts of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.core import FailureKind
from autotuner.engines import Phase, engine

LOGS = Path(__file__).with_name("logs")

EXPECTED: dict[str, tuple[str, int | None, Phase, FailureKind, str]] = {
    "vllm-bad-flag": ("vllm", 2, "start", FailureKind.BAD_FLAG, "unrecognized arguments: --max-num-sequences 4"),
    "vllm-bad-choice": ("vllm", 2, "start", FailureKind.BAD_FLAG, "argument --kv-cache-dtype: invalid choice: 'fp9'"),
    "vllm-context-too-long": ("vllm", 1, "start", FailureKind.BAD_FLAG, "max_model_len (100000) is greater than"),
    "vllm-model-not-found": ("vllm", 1, "start", FailureKind.MODEL_NOT_FOUND, "'/nowhere/model'"),
    "vllm-not-divisible": ("vllm", 1, "start", FailureKind.NOT_DIVISIBLE, "attention heads (4) must be divisible by"),
    "vllm-port-in-use": ("vllm", 1, "start", FailureKind.PORT_IN_USE, "Address already in use"),
    "vllm-out-of-host-memory": (
        "vllm",
        1,
        "start",
        FailureKind.OUT_OF_MEMORY_AT_START,
        "less than requested memory for kv",
    ),
    "vllm-memory-share-not-free": (
        "vllm",
        1,
        "start",
        FailureKind.OUT_OF_MEMORY_AT_START,
        "less than desired CPU memory utilization",
    ),
    "vllm-killed-under-load": (
        "vllm",
        0,
        "load",
        FailureKind.CRASHED_UNDER_LOAD,
        "Worker proc VllmWorker-0 died unexpectedly",
    ),
    "vllm-cuda-out-of-memory": (
        "vllm",
        0,
        "load",
        FailureKind.OUT_OF_MEMORY_UNDER_LOAD,
        "CUDA out of memory. Tried to allocate 232.00 MiB",
    ),
    "vllm-no-room-for-cache": (
        "vllm",
        1,
        "start",
        FailureKind.OUT_OF_MEMORY_AT_START,
        "No available memory for the cache blocks",
    ),
    "vllm-gated": ("vllm", 1, "start", FailureKind.GATED_MODEL, "You are trying to access a gated repo"),
    "vllm-unsupported": ("vllm", 1, "start", FailureKind.UNSUPPORTED_MODEL, "are not supported for now"),
    "sglang-not-enough-memory": (
        "sglang",
        1,
        "start",
        FailureKind.OUT_OF_MEMORY_AT_START,
        "Please try to increase --mem-fraction-static",
    ),
    "sglang-out-of-memory": (
        "sglang",
        -9,
        "start",
        FailureKind.OUT_OF_MEMORY_AT_START,
        "CUDA out of memory. Tried to allocate 484.00 MiB",
    ),
    "sim-out-of-memory": ("sim", 1, "start", FailureKind.OUT_OF_MEMORY_AT_START, "weights need 15.0 GiB per GPU"),
    "sim-not-divisible": ("sim", 1, "start", FailureKind.NOT_DIVISIBLE, "32 attention heads are not divisible"),
    "vllm-unsupported-architecture": ("vllm", 1, "start", FailureKind.UNSUPPORTED_MODEL, "TomorrowForCausalLM"),
    "vllm-unknown-model-type": ("vllm", 1, "start", FailureKind.UNSUPPORTED_MODEL, "model type `tomorrow`"),
    "vllm-no-tokenizer": (
        "vllm",
        1,
        "start",
        FailureKind.UNSUPPORTED_MODEL,
        "Couldn't instantiate the backend tokenizer",
    ),
    "vllm-not-in-the-cache": (
        "vllm",
        1,
        "start",
        FailureKind.MODEL_NOT_FOUND,
        "outgoing traffic has been disabled",
    ),
    "sim-model-not-found": ("sim", 1, "start", FailureKind.MODEL_NOT_FOUND, "There is no model at '/nowhere'"),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_real_log_is_named_rightly_in_the_engines_own_words(name: str) -> None:
    runtime, exit_status, phase, kind, words = EXPECTED[name]
    failure = engine(runtime).diagnosis.failure((LOGS / f"{name}.log").read_text(), exit_status, phase)
    assert failure.kind is kind
    assert words in failure.message
    assert failure.remedy


@pytest.mark.parametrize(
    "name",
    ["vllm-unsupported-architecture", "vllm-unknown-model-type", "vllm-no-tokenizer", "vllm-not-in-the-cache"],
)
def test_the_log_itself_is_sign_enough(name: str) -> None:
    sign = engine("vllm").diagnosis.startup_failure((LOGS / f"{name}.log").read_text())
    assert sign is not None
    assert sign.kind is EXPECTED[name][3]


def test_every_log_is_expected_to_mean_something() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == {*EXPECTED, "vllm-healthy"}


def test_a_healthy_start_says_version_and_cache() -> None:
    log = (LOGS / "vllm-healthy.log").read_text()
    assert engine("vllm").diagnosis.server_info(log) == {"version": "0.32.0", "kv_tokens": 2_097_152}


def test_nothing_in_a_healthy_log_is_taken_for_a_cause() -> None:
    failure = engine("vllm").diagnosis.failure((LOGS / "vllm-healthy.log").read_text(), None, "start")
    assert failure.kind is FailureKind.START_TIMED_OUT


def test_the_caches_of_several_engine_cores_add_up() -> None:
    log = "(EngineCore_DP0) GPU KV cache size: 1,024 tokens\n(EngineCore_DP1) GPU KV cache size: 1,024 tokens\n"
    assert engine("vllm").diagnosis.server_info(log) == {"kv_tokens": 2048}


def test_a_hint_about_memory_is_not_a_failure_of_memory() -> None:
    hint = "INFO 03-27 10:29:03 [runner.py:1442] If out-of-memory error occurs during capture, lower the share.\n"
    assert engine("vllm").diagnosis.failure(hint, -11, "start").kind is FailureKind.CRASHED_AT_START


@pytest.mark.parametrize(
    ("exit_status", "words"),
    [
        (-9, "signal SIGKILL"),
        (137, "signal SIGKILL"),
        (-11, "signal SIGSEGV"),
        (1, "exit status 1"),
        (255, "status 255"),
    ],
)
def test_a_crash_without_words_says_how_it_ended(exit_status: int, words: str) -> None:
    failure = engine("vllm").diagnosis.failure("", exit_status, "load")
    assert failure.kind is FailureKind.CRASHED_UNDER_LOAD
    assert words in failure.message


def test_a_kill_from_outside_points_at_memory() -> None:
    assert "dmesg" in engine("vllm").diagnosis.failure("", -9, "start").remedy


def test_a_command_that_is_not_there_is_a_missing_engine() -> None:
    failure = engine("vllm").diagnosis.failure("/no/such/vllm: No such file or directory\n", 127, "start")
    assert failure.kind is FailureKind.ENGINE_MISSING
    assert "/no/such/vllm" in failure.message


def test_a_living_server_under_load_is_hung() -> None:
    assert engine("vllm").diagnosis.failure("all is well\n", None, "load").kind is FailureKind.HUNG_UNDER_LOAD


def test_words_of_the_start_do_not_explain_an_end_under_load() -> None:
    log = "OSError: [Errno 98] Address already in use\n"
    assert engine("vllm").diagnosis.failure(log, 1, "load").kind is FailureKind.CRASHED_UNDER_LOAD
