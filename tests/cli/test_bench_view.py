"""What is shown while a load test runs."""

from dataclasses import replace

import pytest
from rich.console import Console

from autotuner.cli import display
from autotuner.cli.bench_view import LiveBenchView, PlainBenchView
from autotuner.cli.live_view import stage_text
from autotuner.core import Candidate, LoadPoint, LoadPointResult, Metrics, Progress, Share

POINT = LoadPoint("D(1,1)", concurrency=8)
MEASURING = Progress("measuring", 0, Candidate("openai"), POINT, position=2, total=4, expected_seconds=20.0)
FEW = Share(0.25, 0.1, 0.5, 4)
NOTHING = Metrics(3, None, None, None, None, None, None, None, 5.0, 10.0, 1.0, 1.0, 5.0, FEW, {"timeout": 3})
MEASURED = replace(MEASURING, stage="measured", result=LoadPointResult(POINT, "simulated", NOTHING))


@pytest.fixture
def printed(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(display, "progress", lines.append)
    return lines


@pytest.mark.parametrize(("targets", "met"), [(True, ", SLO met 25%"), (False, "")])
def test_elsewhere_than_on_a_terminal_each_load_point_is_two_lines(printed, targets, met):
    with PlainBenchView(has_targets=targets) as watch:
        for stage in ("warming-up", "measuring"):
            watch(replace(MEASURING, stage=stage))
        watch(MEASURED)
    assert printed == [
        "[2/4] D(1,1) @ 8: 20 s",
        f"[2/4] D(1,1) @ 8: 5.00 output tokens/s{met}, 3 errors, undecided, n=3 (simulated)",
    ]


def test_a_load_point_that_is_measured_again_is_counted_too(printed):
    PlainBenchView(has_targets=False)(replace(MEASURING, position=5))
    assert printed == ["[5/5] D(1,1) @ 8: 20 s"]
    assert stage_text(replace(MEASURING, position=5), 3.0).startswith("measuring load point 5 of 5")


def rendered(watch: LiveBenchView) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(watch.render())
    return captured.get()


def test_the_panel_names_the_load_point_its_phase_and_what_was_measured():
    now = [0.0]
    watch = LiveBenchView(has_targets=True, clock=lambda: now[0])
    assert "querying the server" in rendered(watch)
    watch(MEASURING)
    now[0] = 7.0
    assert "measuring load point 2 of 4, D(1,1) @ 8: 7 of 20 s" in rendered(watch)
    watch(MEASURED)
    rows = [line.split() for line in rendered(watch).splitlines()]
    assert ["8", "3", "5.00", "25", "(10-50)", "undecided"] in rows
    assert max(map(len, rendered(watch).splitlines())) <= 80


def test_the_time_expected_is_that_of_all_load_points():
    watch = LiveBenchView(has_targets=False, clock=lambda: 0.0)
    assert watch.expected_seconds(3.0) == 3.0
    watch(MEASURING)
    assert watch.expected_seconds(3.0) == 80.0
    assert watch.expected_seconds(100.0) == 100.0
