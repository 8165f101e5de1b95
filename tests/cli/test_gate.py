"""`--fail-on`: what ends a command with exit code 1."""

import re
from dataclasses import replace

import pytest

from autotuner.cli.gate import FAIL_ON_VALUES, Gate
from autotuner.core import Verdict
from autotuner.errors import AutotuneError, UsageError
from tests.factories import load_test, scored_experiment, scored_result
from tests.servers import QUICK


@pytest.mark.parametrize(
    ("text", "infeasible", "undecided"),
    [
        ("infeasible", True, False),
        ("undecided", True, True),
        ("undecided,infeasible", True, True),
        ("infeasible, undecided", True, True),
        ("none", False, False),
        ("none,none", False, False),
    ],
)
def test_a_gate_that_asks_for_proof_passes_no_miss(text, infeasible, undecided):
    assert Gate.parse(text) == Gate(infeasible, undecided)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("undecidet", "did you mean 'undecided'"),
        ("none,undecided", "Keep one of them"),
        ("", "Give one of: undecided, infeasible, none"),
        ("infeasible,,", "Give one of"),
    ],
)
def test_another_value_is_refused_with_those_there_are(text, message):
    with pytest.raises(UsageError, match=message):
        Gate.parse(text)


RUN = ("run", "--profile", "quick-test", "--evaluator", "simulated", "--max-requests", "12")
"""Too few requests to prove that 95% of them meet a target."""

MET, MISSED = ("--slo", "ttft=10"), ("--slo", "ttft=0.000001")
UNPROVEN, NOTHING = "met, but not proven", "No configuration met the targets"


def test_a_run_exits_as_the_gate_says_and_so_does_its_report(autotune):
    cases = [
        (MET, (), 0, f"Warning: The winner's targets are {UNPROVEN}"),
        (MET, ("--fail-on", "undecided"), 1, f"Error: The winner's targets are {UNPROVEN}"),
        (MISSED, (), 1, f"Error: {NOTHING}"),
        (MISSED, ("--fail-on", "none"), 0, f"Warning: {NOTHING}"),
    ]
    for slo, gate, code, message in cases:
        ended = autotune(*RUN, *slo, *gate)
        assert (ended.code, message in " ".join(ended.err.split())) == (code, True), ended.err
    # the newest run missed its targets
    for gate, code in (((), 0), (("--fail-on", "none"), 0), (("--fail-on", "infeasible"), 1)):
        ended = autotune("report", *gate)
        assert (ended.code, NOTHING in ended.err) == (code, code == 1)
    assert autotune("report", "--fail-on", "infeasible", "--json").data["winner"] is None


def test_an_undecided_winner_fails_a_report_that_asks_for_proof(autotune):
    assert autotune(*RUN, *MET).code == 0
    assert [autotune("report", "--fail-on", value).code for value in ("infeasible", "undecided")] == [0, 1]


@pytest.mark.parametrize(
    ("slo", "gate", "code", "message"),
    [
        (MET, (), 0, ""),
        (MET, ("--fail-on", "undecided"), 1, "A load point met the targets, and none is proven to"),
        (MISSED, ("--fail-on", "none"), 0, "Warning: No load point met the targets"),
        ((), ("--fail-on", "undecided"), 0, ""),
    ],
)
def test_a_load_test_exits_as_the_gate_says(autotune, sim, slo, gate, code, message):
    ended = autotune("bench", sim, *QUICK, "--concurrency", "1", *slo, *gate)
    assert ended.code == code, ended.err
    assert message in " ".join(ended.err.split())


@pytest.mark.parametrize("fault", ["crash_after=5", "server_error=1"])
def test_a_run_without_any_figure_fails_whatever_the_gate_says(autotune, fault):
    one = ("--max-iterations", "1", "--set", "optimization.confirm=0", "--concurrency", "1")
    ended = autotune(*RUN, *one, "--set", f"simulate.faults.{fault}", "--fail-on", "none")
    assert ended.code == 1, ended.err
    assert "Error: No configuration could be measured. The only candidate gave no figure" in " ".join(ended.err.split())


@pytest.mark.parametrize("slo", [None, {"ttft": 10}])
@pytest.mark.parametrize(
    ("verdicts", "fails_under", "message"),
    [
        (("invalid",), ("infeasible", "undecided"), "No load point"),
        (("invalid", "saturated"), ("infeasible", "undecided"), "is saturated"),
        (("client-limited",), ("infeasible", "undecided"), "leave it a CPU core"),
        (("invalid", "undecided"), ("undecided",), "to be relied on|none is proven to"),
        (("invalid", "feasible"), (), ""),
    ],
)
def test_a_load_test_of_nothing_but_invalid_load_points_fails(capsys, slo, verdicts, fails_under, message):
    configured = scored_experiment(slo=slo or {})
    driven = scored_result(4, 0.04, 0.01, configured)
    tested = load_test(configured, [replace(driven, verdict=Verdict(verdict)) for verdict in verdicts])
    for value in FAIL_ON_VALUES:
        gate = Gate.parse(value)
        if value in fails_under:
            with pytest.raises(AutotuneError, match=message) as caught:
                gate.check_load_test(tested)
            assert caught.value.exit_code == 1
        else:
            gate.check_load_test(tested)
            words = " ".join(capsys.readouterr().err.split())
            assert re.search(message, words)
            assert slo or "target" not in words


@pytest.mark.parametrize("command", [("run",), ("report",), ("bench", "http://127.0.0.1:9")])
def test_the_gate_is_read_before_anything_starts(autotune, tmp_path, command):
    ended = autotune(*command, "--fail-on", "undecidet")
    assert (ended.code, "did you mean 'undecided'" in ended.err) == (2, True)
    assert not list(tmp_path.iterdir())
