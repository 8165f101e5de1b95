"""What holds for how the log of every engine is read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import FailureKind
from autotuner.engines import ENGINES, Diagnosis, Phase, engine

LOGS = sorted((Path(__file__).parent / "logs").glob("*.log"))


@pytest.fixture(params=sorted(ENGINES))
def diagnosis(request: pytest.FixtureRequest) -> Diagnosis:
    return engine(request.param).diagnosis


@pytest.mark.parametrize("exit_status", [None, 0, 1, 2, 127, 137, -9, -11])
@pytest.mark.parametrize("phase", ["start", "load"])
def test_every_end_has_words_and_a_remedy(diagnosis: Diagnosis, phase: Phase, exit_status: int | None) -> None:
    failure = diagnosis.failure("", exit_status, phase)
    assert failure.message
    assert failure.remedy
    assert failure.kind is not FailureKind.INTERNAL


def test_a_log_without_figures_describes_nothing(diagnosis: Diagnosis) -> None:
    assert diagnosis.server_info("") == {}


def test_an_empty_log_is_no_sign_of_a_failed_start(diagnosis: Diagnosis) -> None:
    assert diagnosis.startup_failure("") is None


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_what_a_log_shows_before_its_server_ended_is_what_it_shows_after(diagnosis: Diagnosis, log: Path) -> None:
    text = log.read_text()
    shown_early = diagnosis.startup_failure(text)
    assert shown_early in (None, diagnosis.failure(text, 1, "start"))


@given(st.text(max_size=2000), st.sampled_from(["start", "load"]), st.none() | st.integers(-64, 255))
def test_no_log_is_beyond_words(log: str, phase: Phase, exit_status: int | None) -> None:
    for name in ENGINES:
        failure = engine(name).diagnosis.failure(log, exit_status, phase)
        assert failure.message
        assert len(failure.message) < 600
        engine(name).diagnosis.server_info(log)
