"""What is shown while a run goes on."""

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from autotuner.cli import display
from autotuner.cli.live_view import LiveTuneView, PlainTuneView, stage_text
from autotuner.cli.load_point_rows import COLUMNS, load_points_table
from autotuner.core import Candidate, Failure, FailureKind, LoadPoint, Measurement, Progress, Trial
from autotuner.experiment import Slo
from tests.factories import experiment, plan, scored_result

SLO = {"ttft": 0.05, "tpot": {"threshold": 0.02}}
FIRST, SECOND = Candidate("vllm"), Candidate("vllm", {"x": 0, "enable-chunked-prefill": True})
CRASHED = Failure(FailureKind.CRASHED_AT_START, "Killed.", "Free some memory.")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def made():
    return plan(
        experiment(
            base_runtime="vllm",
            parameters={"x": list(range(8))},
            optimization={"objective": "minimize_latency", "strategy": "racing"},
            benchmark={"traffic_scenarios": ["D(100,100)"], "num_concurrency": (4, 16)},
            slo=SLO,
        )
    )


@pytest.fixture
def printed(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(display, "progress", lines.append)
    return lines


def run(view, clock, made, candidate, number, *, ttft=0.03, purpose="search", failure=None):
    """One launch of two load points as an evaluator tells of it."""
    results = [scored_result(load, ttft * load / 4, 0.005, made.experiment) for load in (4, 16)] if not failure else []
    view(Progress("starting", number, candidate, total=3, expected_seconds=90.0, purpose=purpose))
    clock.now += 80
    if not failure:
        view(Progress("ready", number, candidate, total=3))
    for place, each in enumerate(results, start=1):
        at: dict[str, Any] = {"load_point": each.load_point, "position": place, "total": 3}
        view(Progress("measuring", number, candidate, **at, expected_seconds=20.0))
        clock.now += 26
        view(Progress("measured", number, candidate, **at, result=each))
    trial = Trial(number, candidate, Measurement("measured", tuple(results), failure), 0.0, 132.0, purpose)
    view(Progress("finished", number, candidate, finished_trial=trial))


def rendered(view, width=80):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(view.render())
    return captured.get()


@pytest.fixture
def narrow(monkeypatch):
    console = Console(width=80, height=30)
    monkeypatch.setattr(display, "stderr_console", lambda: console)


def test_the_panel_shows_every_measured_load_point_with_its_verdict(made, narrow):
    clock = Clock()
    view = LiveTuneView(made, (), clock)
    run(view, clock, made, FIRST, 1, purpose="baseline")
    shown = rendered(view)
    rows = [line.split() for line in shown.splitlines()]
    # 4 streams of 100 tokens in 0.525 s; 16 in 0.615 s, with a TTFT of 120 ms
    assert ["1", "defaults", "4", "152", "30.0", "5.00", "762", "100", "(98-100)", "feasible"] in rows
    assert ["16", "512", "120", "5.00", "2,600", "0", "(0-1)", "infeasible"] in rows
    assert "none that meets the targets" in shown


def test_the_panel_fits_eighty_columns(made, narrow):
    clock = Clock()
    view = LiveTuneView(made, (), clock)
    run(view, clock, made, FIRST, 1, purpose="baseline")
    run(view, clock, made, SECOND, 2, ttft=0.01)
    view(Progress("measuring", 3, SECOND, scored_result(16, 0.1, 0.01, made.experiment).load_point, 2, 3, 20.0))
    clock.now += 31
    text = rendered(view)
    assert max(map(len, text.splitlines())) <= 80
    assert "31 s of 20 s to 2:00" in " ".join(text.split())
    assert "launch       3 of at most 13" in text
    assert "best so far  trial 2 (x=0 enable-chunked-prefill=true): mean E2E" in text


def test_the_panel_says_that_the_winner_is_confirmed_and_how_long_it_takes(made, narrow):
    clock = Clock()
    view = LiveTuneView(made, (), clock)
    run(view, clock, made, FIRST, 1, purpose="baseline")
    run(view, clock, made, SECOND, 2, ttft=0.01)
    assert "up to about" in rendered(view)
    view(Progress("starting", 3, SECOND, total=3, expected_seconds=80.0, purpose="confirmation"))
    text = rendered(view)
    assert "launch       3 of 6, to confirm the winner" in text
    # four launches of 80 s and two load points of 26 s
    assert "elapsed      4:24, about 8:48 left" in text


def test_the_panel_keeps_to_the_height_of_the_terminal(made, narrow):
    clock = Clock()
    view = LiveTuneView(made, (), clock)
    for number in range(1, 21):
        run(view, clock, made, Candidate("vllm", {"x": number}), number)
    text = rendered(view)
    assert len(text.splitlines()) <= 30
    assert "before" in text.splitlines()[-1]


def test_verdicts_have_their_colours(made):
    shown = [{"trial": "1", "load": "4", "scenario": "s", "verdict": verdict} for verdict in ("feasible", "infeasible")]
    console = Console(width=80, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(load_points_table(shown, 80, 10))
    assert "\x1b[32mfeasible" in captured.get()
    assert "\x1b[31minfeasible" in captured.get()


def test_a_launch_that_failed_has_a_row_with_its_failure(made, narrow):
    clock = Clock()
    view = LiveTuneView(made, (), clock)
    run(view, clock, made, FIRST, 1, failure=CRASHED)
    assert "crashed-at-start" in rendered(view)
    assert "last failure  crashed-at-start: Killed. Free some memory." in rendered(view)


def test_a_resumed_run_shows_what_was_measured_before(made, narrow):
    each = scored_result(4, 0.03, 0.005, made.experiment)
    done = [Trial(1, FIRST, Measurement("measured", (each,)), 0.0, 100.0, "baseline")]
    text = rendered(LiveTuneView(made, done, Clock()))
    assert "launch       2 of at most 13" in text
    assert "feasible" in text


MEASURING = Progress("measuring", 1, Candidate("openai"), LoadPoint("D(100,100)", concurrency=4), 2, 4, 20.0)


@pytest.mark.parametrize("has_targets", [True, False])
def test_in_a_pipe_each_load_point_of_a_load_test_is_two_lines(made, printed, has_targets):
    plan = made if has_targets else replace(made, experiment=made.experiment.model_copy(update={"slo": Slo()}))
    with PlainTuneView(plan, (), Clock(), is_load_test=True) as view:
        for stage in ("starting", "ready", "warming-up", "measuring"):
            view(replace(MEASURING, stage=stage))
        view(replace(MEASURING, stage="measured", result=scored_result(4, 0.03, 0.005, plan.experiment)))
    summary = "TTFT 30.0 ms, TPOT 5.00 ms, 762 output tokens/s"
    assert printed == [
        "[2/4] D(100,100) @ 4: 20 s to 2:00",
        f"[2/4] D(100,100) @ 4: {summary}{', SLO met 100%' if has_targets else ''}, feasible, n=152 (measured)",
    ]


def test_a_load_point_that_is_measured_again_is_counted_too(made, printed):
    again = replace(MEASURING, position=5)
    PlainTuneView(made, (), Clock(), is_load_test=True)(again)
    assert printed == ["[5/5] D(100,100) @ 4: 20 s to 2:00"]
    assert stage_text(again, 3.0).startswith("measuring load point 5 of 5")


def test_the_panel_of_a_load_test_names_its_load_points_and_no_candidate(made, narrow):
    clock = Clock()
    view = LiveTuneView(made, (), clock, is_load_test=True)
    view(replace(MEASURING, stage="starting", load_point=None))
    view(MEASURING)
    clock.now += 7
    text = rendered(view)
    assert "measuring load point 2 of 4, D(100,100) @ 4: 7 s of 20 s to 2:00" in " ".join(text.split())
    assert not any(word in text for word in ("candidate", "launch", "best so far", "openai"))
    view(replace(MEASURING, stage="measured", result=scored_result(4, 0.03, 0.005, made.experiment)))
    rows = [line.split() for line in rendered(view).splitlines()]
    assert ["4", "152", "30.0", "5.00", "762", "100", "(98-100)", "feasible"] in rows


def test_in_a_pipe_each_step_is_a_line(made, printed):
    clock = Clock()
    with PlainTuneView(made, (), clock) as view:
        run(view, clock, made, FIRST, 1, purpose="baseline")
        run(view, clock, made, SECOND, 2, ttft=0.01)
        run(view, clock, made, FIRST, 3, purpose="confirmation")
        run(view, clock, made, SECOND, 4, purpose="confirmation", failure=CRASHED)
    assert printed[0] == "[1/13] starting trial 1, the defaults"
    assert printed[2] == "[1/13] load point 1 of 3: D(100,100) @ 4, 20 s to 2:00"
    assert printed[3] == (
        "[1/13] D(100,100) @ 4: TTFT 30.0 ms, TPOT 5.00 ms, 762 output tokens/s, SLO met 100%, feasible, "
        "n=152 (measured)"
    )
    assert printed[6].startswith("[1/13] finished in 2:12, up to about ")
    assert "[3/6] starting trial 1, the defaults, again to confirm the winner" in printed
    assert printed[-1] == "[4/6] failed, crashed-at-start: Killed. Free some memory."


def test_a_failed_trial_is_named_with_its_log(made, printed, tmp_path):
    log = tmp_path / "trials" / "001" / "server.log"
    log.parent.mkdir(parents=True)
    log.write_text("Killed.")
    clock = Clock()
    with PlainTuneView(made, (), clock, tmp_path) as view:
        run(view, clock, made, FIRST, 1, failure=CRASHED)
    assert printed[-1].endswith(f"failed, crashed-at-start: Killed. Free some memory. Log: {log}")


@pytest.mark.parametrize(
    ("since", "text"),
    [
        (3.4, "starting: 3 of 20 s"),
        (20.0, "starting: 20 of 20 s"),
        (23.0, "starting: 23 s, longer than the 20 s planned"),
    ],
)
def test_no_stage_is_said_to_be_further_than_its_end(since, text):
    assert stage_text(Progress("starting", 1, FIRST, expected_seconds=20.0), since) == text


def test_a_stage_of_unknown_length_says_how_long_it_has_lasted():
    assert stage_text(Progress("stopping", 1, FIRST), 4.0) == "stopping: 4 s"


def test_the_columns_of_figures_are_never_left_out_before_the_candidate():
    by_title = {column.title: column.drop_priority for column in COLUMNS}
    assert max(by_title, key=lambda title: by_title[title]) == "candidate"
    assert {name for name, priority in by_title.items() if not priority} >= {"load", "TTFT ms", "TPOT ms", "verdict"}
