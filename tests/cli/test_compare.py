"""`autotune compare` and `autotune baseline` on runs in virtual time."""

import json
from pathlib import Path

import pytest

from autotuner.compare.baseline_file import save_baseline
from tests.compare.builders import candidate, run

FAST = (
    "run",
    "--evaluator=simulated",
    "--runtime=vllm",
    "--model=llama-3.1-8b",
    "--gpu=H100",
    "--objective=maximize_throughput",
    "--scenario=D(100,20)",
    "--concurrency=4",
    "--duration=1",
    "--set=optimization.confirm=0",
    "--max-iterations=1",
)


@pytest.fixture
def two_runs(autotune):
    """Two runs of the defaults in virtual time, the second one with one sequence at a time."""
    for folder, changes in (("before", ()), ("after", ("--set", "parameters.max-running-requests=[1]"))):
        done = autotune(*FAST, "--output", folder, "--set", "optimization.baseline=false", *changes)
        assert done.code == 0, done.err
    return ["before/" + name for name in _names("before")] + ["after/" + name for name in _names("after")]


def _names(folder):
    return [path.name for path in Path(folder).iterdir()]


def test_a_gate_fails_by_fresh_pairs_and_passes_against_itself(autotune, two_runs):
    before, after = two_runs
    alone = autotune("compare", before, after, "--gate")
    assert alone.code == 4
    assert (alone.out + alone.err).count("one launch a side") == 1
    assert "The gate does not decide: total throughput" in " ".join(alone.err.split())
    assert autotune("compare", before, after, "--gate", "--unclear", "pass").code == 0

    failed = autotune("compare", before, after, "--gate", "--launches", "5", "--junit", "j.xml", columns="80")
    assert failed.code == 1
    assert "Decided by 3 fresh pairs of launches." in failed.out
    progress = " ".join(failed.err.split())
    assert "pair 1: launching the baseline, the winner of " in progress
    assert "pair 2: launching the candidate, the winner of " in progress
    assert "is worse: " not in progress
    assert "parameters.max-running-requests: " in failed.out
    assert all(len(line) <= 80 for line in failed.out.splitlines())
    assert 'failures="1"' in Path("j.xml").read_text()

    Path("pages").mkdir()
    written = autotune("compare", before, after, "--format", "html", "--to", "pages/after.html")
    assert (written.code, written.out.splitlines()[-1]) == (0, "pages/after.html")
    assert "parameters.max-running-requests" in Path("pages/after.html").read_text()

    saved = autotune("baseline", "save", before)
    assert saved.code == 0
    refused = autotune("baseline", "save", before)
    assert (refused.code, "--accept" in refused.err) == (2, True)
    same = autotune("compare", "baseline.json", before, "--gate", "--launches", "2", "--json")
    assert same.code == 0
    record = json.loads(same.out)["comparisons"][0]
    assert (record["gate"], record["fresh_pairs"], record["gated"][0]["change"]) == ("passes", 2, "same")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--launches", "3"), "--launches belongs to a gate"),
        (("--gate", "--launches", "7"), "not between 2 and 5"),
        (("--tolerance", "none"), "is not a share"),
        (("--allow", "engine"), "Unknown value of --allow"),
        (("--unclear", "maybe"), "Unknown value of --unclear"),
        (("--format", "htm"), "did you mean 'html'"),
        (("--to", "page.html"), "not written to a file"),
        (("--junit", "j.xml"), "--junit is the file of a gate"),
        ((), "There is no run or baseline 'here'"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_launched(autotune, arguments, message):
    done = autotune("compare", "here", "there", *arguments)
    assert done.code in (2, 3)
    assert message in " ".join(done.err.split())


def test_a_baseline_without_figures_never_passes_a_gate(autotune):
    save_baseline(run(candidate([]), name="before"), Path("before.json"))
    save_baseline(run(candidate([1000.0]), name="after"), Path("after.json"))
    done = autotune("compare", "before.json", "after.json", "--gate")
    assert done.code == 2
    assert "The baseline 'before' has no trusted figures of its winner." in " ".join(done.err.split())
