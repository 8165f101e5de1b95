"""What is shown while a load test runs."""

from dataclasses import replace

import pytest
from rich.console import Console

from autotuner.cli import display
from autotuner.cli.watch import LiveWatch, PlainWatch
from autotuner.core import Candidate, LoadPoint, LoadPointResult, Metrics, Progress

POINT = LoadPoint("D(1,1)", concurrency=8)
MEASURING = Progress("measuring", 0, Candidate("openai"), POINT, position=2, total=4, expected_seconds=20.0)
NOTHING = Metrics(3, None, None, None, None, None, None, None, 5.0, 10.0, 1.0, 1.0, 5.0, None, {"timeout": 3})
MEASURED = replace(MEASURING, stage="measured", result=LoadPointResult(POINT, "simulated", NOTHING))


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(display, "note", lines.append)
    return lines


def test_elsewhere_than_on_a_terminal_each_load_point_is_two_lines(said):
    with PlainWatch() as watch:
        for stage in ("warming-up", "measuring"):
            watch(replace(MEASURING, stage=stage))
        watch(MEASURED)
    assert said == [
        "[2/4] D(1,1) @ 8: 20 s",
        "[2/4] D(1,1) @ 8: 10 tokens/s, 3 errors, n=3 (simulated)",
    ]


def rendered(watch: LiveWatch) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(watch._render())
    return captured.get()


def test_the_panel_names_the_load_point_its_phase_and_what_was_measured():
    watch = LiveWatch()
    assert "asking the server what it serves" in rendered(watch)
    watch(MEASURING)
    assert "measuring load point 2 of 4, D(1,1) @ 8, 0 of 20 s" in rendered(watch)
    watch(MEASURED)
    assert "D(1,1) @ 8: 10 tokens/s, 3 errors, n=3 (simulated)" in rendered(watch)


def test_the_time_expected_is_that_of_all_load_points():
    watch = LiveWatch()
    assert watch.expected(3.0) == 3.0
    watch(MEASURING)
    assert watch.expected(3.0) == 80.0
    assert watch.expected(100.0) == 100.0
