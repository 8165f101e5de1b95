"""Large runs are read as summaries, from an index that is never trusted over trials.jsonl."""

import json
from dataclasses import replace

import pytest

from autotuner.errors import RunStoreError
from autotuner.report.markdown import markdown_report
from autotuner.report.page.run_page import run_page
from autotuner.report.record import run_record
from autotuner.report.run_view import RunView
from autotuner.runs import store as store_module
from autotuner.runs import summaries as summaries_module
from autotuner.runs import trial_lines
from autotuner.runs.store import RunStore
from tests.pages import make_run_folder

INDEX = "trials.index"


@pytest.fixture
def every_run_is_large(monkeypatch):
    for name in ("MIN_INDEXED_BYTES", "MIN_ADDED_BYTES", "MAX_COMPLETE_LOAD_POINTS"):
        monkeypatch.setattr(store_module, name, 0)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    return make_run_folder(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(finished_run, tmp_path, every_run_is_large):
    """The path of a run that counts as large, without an index."""
    path = tmp_path / "run"
    path.mkdir()
    for name in ("experiment.yaml", "provenance.yaml", "trials.jsonl", "refused.json", "search.json"):
        (path / name).write_bytes((finished_run.path / name).read_bytes())
    return path


@pytest.fixture
def parsed_lines(monkeypatch):
    """The lines of trials.jsonl that were read since, as a list."""
    lines: list[bytes] = []

    def counted(line):
        lines.append(line)
        return trial_lines.parse_trial(line)

    monkeypatch.setattr(store_module, "parse_trial", counted)
    return lines


def summaries(path):
    return RunStore.open(path).summaries()


@pytest.mark.parametrize("has_index", [False, True])
def test_reports_are_the_same_with_summaries_as_with_everything(run, has_index):
    if has_index:
        summaries(run)
    store = RunStore.open(run)
    complete, summarized = RunView.from_store(store), RunView.from_store(store, summarized=True)
    assert summarized.trials != complete.trials
    assert summarized.ranking == complete.ranking
    assert markdown_report(summarized) == markdown_report(complete)
    assert run_page(store, summarized).html == run_page(store, complete).html


def test_a_brief_record_is_the_same_with_summaries(run, monkeypatch):
    monkeypatch.setattr("autotuner.report.record.MAX_DETAILED_LOAD_POINTS", 0)
    store = RunStore.open(run)
    assert run_record(RunView.from_store(store, summarized=True)) == run_record(RunView.from_store(store))


def test_a_small_run_has_no_index_and_complete_summaries(finished_run):
    store = RunStore.open(finished_run.path)
    assert store.summaries() == list(RunView.from_store(store).trials)
    assert not (finished_run.path / INDEX).exists()


def test_trials_that_an_index_has_are_not_read_again(run, parsed_lines):
    first = summaries(run)
    assert len(parsed_lines) == len(first)
    assert summaries(run) == first
    assert len(parsed_lines) == len(first)


def test_trials_after_those_of_an_index_are_read(run, parsed_lines, monkeypatch):
    first = summaries(run)
    monkeypatch.setattr(store_module, "MIN_ADDED_BYTES", 1 << 20)
    with_index = (run / INDEX).read_bytes()
    RunStore.open(run).append(replace(RunStore.open(run).trials()[0], number=99))
    del parsed_lines[:]
    assert [trial.number for trial in summaries(run)] == [*(trial.number for trial in first), 99]
    assert len(parsed_lines) == 1
    assert (run / INDEX).read_bytes() == with_index


def test_summaries_are_kept_in_step_with_what_is_appended(run, parsed_lines):
    store = RunStore.open(run)
    before = store.summaries()
    del parsed_lines[:]
    store.append(replace(store.trials_numbered({2})[0], number=99))
    after = store.summaries()
    assert len(parsed_lines) == 2
    assert after[:-1] == before
    assert after == summaries(run)


def edit(path):
    lines = (path / "trials.jsonl").read_text().replace('"number": 2,', '"number": 7,', 1)
    (path / "trials.jsonl").write_text(lines)


def cut_off(path):
    lines = (path / "trials.jsonl").read_bytes()
    (path / "trials.jsonl").write_bytes(lines[: len(lines) * 2 // 3])


@pytest.mark.parametrize("change", [edit, cut_off])
def test_an_index_of_other_lines_is_made_anew(run, change):
    before = summaries(run)
    change(run)
    after = summaries(run)
    assert after != before
    assert [trial.number for trial in after] == [trial.number for trial in RunStore.open(run).trials()]
    assert json.loads((run / INDEX).read_bytes().split(b"\n")[0])["trials"] == len(after)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"[" * 100_000,
        lambda data: data.replace(b'"format": 1', b'"format": 2', 1),
        lambda data: data.replace(b'"autotune": "', b'"autotune": "9', 1),
        lambda data: data.replace(b'"mean"', b'"mode"', 1),
        lambda data: data.split(b"\n", 1)[0] + b"\n{}\n",
        lambda data: b"\xff" + data,
    ],
    ids=["empty", "half", "deep", "newer", "other version", "other content", "no trials", "no text"],
)
def test_a_damaged_or_foreign_index_is_made_anew(run, damage):
    expected = summaries(run)
    whole = (run / INDEX).read_bytes()
    (run / INDEX).write_bytes(damage(whole))
    assert summaries(run) == expected
    assert (run / INDEX).read_bytes() == whole


def test_a_run_whose_index_cannot_be_written_is_read_all_the_same(run):
    (run / INDEX).mkdir()
    assert len(summaries(run)) == len(RunStore.open(run).trials())


def test_a_line_that_is_no_trial_is_named_after_an_index_too(run):
    count = len(summaries(run))
    with (run / "trials.jsonl").open("a") as file:
        file.write('{"format":1}\n')
    with pytest.raises(RunStoreError, match=f"Line {count + 1} of"):
        summaries(run)


def test_a_summary_has_all_that_verdicts_are_made_of(run):
    store = RunStore.open(run)
    for summary, trial in zip(store.summaries(), RunView.from_store(store).trials, strict=True):
        assert [(r.verdict, r.score) for r in summary.results] == [(r.verdict, r.score) for r in trial.results]
    assert summaries_module.SummaryContent.of(store.experiment).checks == frozenset()
