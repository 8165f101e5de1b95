"""From logs to kinds of failure: the logs in logs/, written after real ones, and what expected.yaml says of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotuner.core import Failure, FailureKind
from autotuner.engines import engine
from autotuner.search.exclusions import UNIVERSAL_FAILURES

LOGS = Path(__file__).with_name("logs")
EXPECTED: Mapping[str, Mapping[str, Any]] = yaml.safe_load((LOGS / "expected.yaml").read_text())
FAILED = sorted(name for name, row in EXPECTED.items() if row["kind"])
HEALTHY = sorted(name for name, row in EXPECTED.items() if not row["kind"])


def log_of(name: str) -> str:
    return (LOGS / f"{name}.log").read_text()


def diagnosed(name: str) -> Failure:
    row = EXPECTED[name]
    return engine(row["engine"]).diagnosis.failure(log_of(name), row["exit"], row["phase"])


@pytest.mark.parametrize("name", FAILED)
def test_a_log_is_named_rightly_in_the_engines_own_words(name: str) -> None:
    failure = diagnosed(name)
    assert failure.kind == EXPECTED[name]["kind"]
    assert EXPECTED[name]["words"] in failure.message
    assert failure.remedy


def test_hardly_a_log_is_misnamed_and_none_condemns_all_candidates_wrongly() -> None:
    wrong = {name: kind for name in FAILED if (kind := diagnosed(name).kind) != EXPECTED[name]["kind"]}
    assert len(EXPECTED) >= 80
    assert len(wrong) <= 0.05 * len(FAILED)
    assert not {name for name, kind in wrong.items() if kind in UNIVERSAL_FAILURES}


@pytest.mark.parametrize("name", FAILED)
def test_the_words_of_a_wrapper_are_never_the_cause(name: str) -> None:
    message = diagnosed(name).message
    assert "See root cause above" not in message
    assert "output_handler failed" not in message
    assert "TORCH" not in message
    assert "HTTP/1.1" not in message


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_in_the_log_of_a_healthy_start_is_taken_for_a_cause(name: str) -> None:
    diagnosis = engine(EXPECTED[name]["engine"]).diagnosis
    assert diagnosis.startup_failure(log_of(name)) is None
    assert diagnosis.failure(log_of(name), None, "start").kind is FailureKind.START_TIMED_OUT
    assert diagnosis.failure(log_of(name), -9, "start").kind is FailureKind.CRASHED_AT_START


@pytest.mark.parametrize(
    "name",
    [
        "vllm-unsupported-architecture",
        "vllm-unknown-model-type",
        "vllm-no-tokenizer",
        "vllm-not-in-the-cache",
        "vllm-oom-loading",
        "sglang-no-memory-for-cache",
    ],
)
def test_an_error_that_ends_the_engine_is_sign_enough(name: str) -> None:
    sign = engine(EXPECTED[name]["engine"]).diagnosis.startup_failure(log_of(name))
    assert sign is not None
    assert sign.kind == EXPECTED[name]["kind"]


def test_an_error_that_the_engine_goes_on_from_is_no_sign() -> None:
    log = (
        "(APIServer pid=1) ERROR 09-20 10:00:02 [loader.py:27] Traceback (most recent call last):\n"
        "(APIServer pid=1) ERROR 09-20 10:00:02 [loader.py:27]     read(path)\n"
        "(APIServer pid=1) ERROR 09-20 10:00:02 [loader.py:27] OSError: [Errno 28] No space left on device\n"
    )
    assert engine("vllm").diagnosis.startup_failure(log) is None


def test_every_log_is_expected_to_mean_something() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == EXPECTED.keys()


def test_a_log_of_sigquit_does_not_blame_the_kernel() -> None:
    failure = diagnosed("sglang-unknown-under-load")
    assert "signal SIGKILL" in failure.message
    assert "memory leak detected" in failure.message
    assert "dmesg" not in failure.remedy


def test_a_healthy_start_says_version_and_cache() -> None:
    assert engine("vllm").diagnosis.server_info(log_of("vllm-healthy")) == {"version": "0.32.0", "kv_tokens": 2_097_152}


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
