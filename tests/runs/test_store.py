import errno
import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import redaction
from autotuner.core import (
    Candidate,
    Distribution,
    Failure,
    FailureKind,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Metrics,
    Share,
    Trial,
)
from autotuner.errors import RunStoreError
from autotuner.redaction import MASK, Redactor
from autotuner.runs import store as store_module
from autotuner.runs import trial_lines
from autotuner.runs.store import RunStore, explain_write_errors, find_run
from autotuner.runs.trial_lines import trial_to_json

CONFIG = {
    "task_name": "a model_grid/search",
    "model": {"id_or_path": "llama-3.1-8b"},
    "base_runtime": "sim",
    "parameters": {"tp-size": [1, 2]},
    "benchmark": {"traffic_scenarios": ["D(100,100)"], "num_concurrency": [1]},
}
DISTRIBUTION = Distribution(3, 0.2, 0.1, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3, {"p50": (0.1, 0.3)}, {"p99": None})
METRICS = Metrics(
    requests=3,
    ttft=DISTRIBUTION,
    ttfo=None,
    tpot=DISTRIBUTION,
    itl=None,
    chunk_gap=None,
    e2e=DISTRIBUTION,
    interactivity=5.0,
    output_throughput=10.0,
    throughput=20.0,
    request_throughput=0.1,
    goodput=0.1,
    token_goodput=10.0,
    attainment=Share(1.0, 0.4, 1.0, 3),
    errors={"timeout": 1},
)


def trial(number: int, **parameters) -> Trial:
    result = LoadPointResult(LoadPoint("D(100,100)", concurrency=1), "simulated", METRICS)
    return Trial(number, Candidate("sim", parameters or {"tp-size": 1}), Measurement("simulated", (result,)), 1.0, 2.0)


HOST = dict.fromkeys(("autotune", "python", "host", "system", "kernel", "cpu"), "x") | {"cpu_cores": 2, "gpus": []}


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore.create(tmp_path, CONFIG, {"layers": ["base"], "values": {"task_name": "base"}})


def test_a_run_folder_is_named_after_the_task_without_odd_characters(store):
    assert store.path.name.startswith("a-model_grid-search-")


def test_two_runs_of_one_second_get_two_folders(store, tmp_path):
    other = RunStore.create(tmp_path, CONFIG, {})
    assert other.path != store.path


def test_a_trial_comes_back_as_it_was_written(store):
    failed = replace(
        trial(2, **{"tp-size": 2, "x": True, "y": 0.85, "z": "fp8", "w": None}),
        measurement=Measurement("simulated", (), Failure(FailureKind.BAD_FLAG, "unrecognized --x", "Remove it.")),
    )
    store.append(trial(1))
    store.append(failed)
    assert RunStore.open(store.path).trials() == [trial(1), failed]


def test_a_trial_of_an_earlier_version_that_calls_the_message_said_is_read(store):
    failure = Failure(FailureKind.BAD_FLAG, 'unrecognized "said": --x', "Remove it.")
    failed = replace(trial(1), measurement=Measurement("simulated", (), failure))
    store.append(failed)
    path = store.path / "trials.jsonl"
    path.write_text(path.read_text().replace('"message":', '"said":'))
    assert RunStore.open(store.path).trials() == [failed]


def test_refused_combinations_come_back_with_their_reasons(store):
    assert store.load_refused() == []
    refused = [(Candidate("sim", {"tp-size": 3, "x": None}), "32 attention heads are not divisible by tp-size 3")]
    store.save_refused(refused)
    assert RunStore.open(store.path).load_refused() == refused


def test_a_file_of_refused_combinations_that_was_changed_by_hand_is_named(store):
    store.save("refused.json", "[{}]")
    with pytest.raises(RunStoreError, match=r"refused\.json' cannot be read"):
        store.load_refused()


def test_a_torn_last_line_is_dropped_and_does_not_spoil_the_next_trial(store):
    store.append(trial(1))
    with (store.path / "trials.jsonl").open("ab") as file:
        file.write(b'{"number": 2, "cand')
    assert store.trials() == [trial(1)]
    store.append(trial(2))
    assert [t.number for t in store.trials()] == [1, 2]


@given(cut=st.integers(1, 10_000))
def test_cut_at_any_byte_the_record_keeps_every_whole_trial(tmp_path_factory, cut):
    store = RunStore.create(tmp_path_factory.mktemp("runs"), CONFIG, {})
    for number in (1, 2, 3):
        store.append(trial(number))
    path = store.path / "trials.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole))])
    kept = whole[: min(cut, len(whole))].count(b"\n")
    assert [t.number for t in store.trials()] == list(range(1, kept + 1))


def test_a_file_that_did_not_change_is_read_once(store, monkeypatch):
    for number in (1, 2, 3):
        store.append(trial(number))
    lines = []
    parse = trial_lines.parse_trial

    def counted(line):
        lines.append(line)
        return parse(line)

    monkeypatch.setattr(store_module, "parse_trial", counted)
    reader = RunStore.open(store.path)
    assert reader.trials() == reader.trials() == [trial(1), trial(2), trial(3)]
    assert len(lines) == 3
    reader.append(trial(4))
    assert [t.number for t in reader.trials()] == [1, 2, 3, 4]
    assert len(lines) == 4


def test_what_another_process_appends_or_removes_is_seen(store):
    reader = RunStore.open(store.path)
    assert reader.trials() == []
    store.append(trial(1))
    assert reader.trials() == [trial(1)]
    store.append(trial(2))
    reader.append(trial(3))  # the reader has not seen trial 2
    assert [t.number for t in reader.trials()] == [1, 2, 3]
    path = store.path / "trials.jsonl"
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    assert [t.number for t in reader.trials()] == [2, 3]


def test_what_a_caller_does_to_the_list_of_trials_is_not_kept(store):
    store.append(trial(1))
    store.trials().clear()
    assert store.trials() == [trial(1)]


def test_a_line_that_is_not_a_trial_is_named(store):
    (store.path / "trials.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(RunStoreError, match="Line 1 of"):
        store.trials()


def test_the_next_trial_folder_is_empty_even_after_an_interrupted_attempt(store):
    number, folder = store.open_trial()
    (folder / "nested").mkdir()
    (folder / "server.log").write_text("half")
    again = RunStore.open(store.path)
    assert again.open_trial() == (number, folder)
    assert list(folder.iterdir()) == []


def test_trial_numbers_go_on_after_the_finished_ones(store):
    store.append(trial(1))
    number, folder = RunStore.open(store.path).open_trial()
    assert (number, folder.name) == (2, "002")


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(RunStoreError, match="is not a run folder"):
        RunStore.open(tmp_path)
    with pytest.raises(RunStoreError, match="There is no such folder"):
        RunStore.open(tmp_path / "missing")


def test_a_configuration_changed_beyond_recognition_is_refused(store):
    (store.path / "experiment.yaml").write_text("task_name: x\n")
    with pytest.raises(RunStoreError, match="cannot be read"):
        RunStore.open(store.path)


def test_a_run_in_use_cannot_be_resumed_beside(store):
    with store.lock(), pytest.raises(RunStoreError, match="is in use"), RunStore.open(store.path).lock():
        pass


def test_without_a_name_the_newest_run_is_found(tmp_path):
    first = RunStore.create(tmp_path, CONFIG, {})
    second = RunStore.create(tmp_path, CONFIG, {})
    os.utime(first.path / "experiment.yaml", (1, 1))
    assert find_run(None, tmp_path) == second.path
    assert find_run(first.path.name, tmp_path) == first.path
    assert find_run(str(first.path), tmp_path / "elsewhere") == first.path


def test_without_any_run_the_error_says_how_to_make_one(tmp_path):
    with pytest.raises(RunStoreError, match="autotune run --profile quick-test"):
        find_run(None, tmp_path)


def test_a_full_disk_is_said_with_what_to_do(tmp_path):
    with (
        pytest.raises(RunStoreError, match=r"disk of .* is full.*finished trials are kept"),
        explain_write_errors(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_run_cannot_be_made_inside_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunStoreError, match="cannot be written"):
        RunStore.create(tmp_path / "file" / "runs", CONFIG, {})


def test_a_trial_as_json_has_plain_names_and_numbers():
    data = json.loads(json.dumps(trial_to_json(trial(1))))
    assert data["candidate"] == {"runtime": "sim", "parameters": {"tp-size": 1}}
    assert data["measurement"]["load_points"][0]["metrics"]["ttft"]["p50"] == 0.2


def test_the_hosts_of_a_run_are_recorded_in_order_and_not_twice_in_a_row(store):
    assert store.environments() == []
    for name in ("a", "a", "b", "a"):
        store.add_environment({**HOST, "host": name})
    assert [environment["host"] for environment in store.environments()] == ["a", "b", "a"]


def test_a_run_of_a_newer_format_is_refused_and_one_without_a_format_opens(store):
    path = store.path / "experiment.yaml"
    text = path.read_text()
    assert text.startswith("format: 1\n")
    path.write_text(text.replace("format: 1\n", ""))
    assert RunStore.open(store.path).experiment == store.experiment
    path.write_text(text.replace("format: 1\n", "format: 2\n"))
    with pytest.raises(RunStoreError, match="newer version"):
        RunStore.open(store.path)


@pytest.mark.parametrize("text", ["null", "{", '{"a": 1}', "[1, 2]", '"x"', '[{"gpus": 3}]', '[{"cpu": {"x": 1}}]'])
def test_a_damaged_record_of_hosts_is_as_if_there_were_none(store, text):
    (store.path / "environment.json").write_text(text)
    assert store.environments() == []


def test_a_trial_of_a_newer_format_is_refused(store):
    (store.path / "trials.jsonl").write_text('{"format":99,"number":1}\n')
    with pytest.raises(RunStoreError, match="newer version"):
        store.trials()


def test_a_run_folder_is_private_and_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("autotuner.runs.store._publish", fail)
        with pytest.raises(KeyboardInterrupt):
            RunStore.create(tmp_path, CONFIG, {})
    assert list(tmp_path.iterdir()) == []
    made = RunStore.create(tmp_path, CONFIG, {})
    assert made.path.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == [made.path]
    assert {path.name for path in made.path.iterdir()} == {"experiment.yaml", "provenance.yaml", "trials.jsonl"}


def test_a_folder_that_was_never_finished_is_no_run(tmp_path):
    (tmp_path / ".new-run-x").mkdir()
    (tmp_path / ".new-run-x" / "experiment.yaml").write_text("{}")
    with pytest.raises(RunStoreError, match="There is no run"):
        find_run(None, tmp_path)


def test_a_run_without_a_list_of_trials_goes_on(store):
    (store.path / "trials.jsonl").unlink()
    assert store.trials() == []
    store.append(trial(1))
    assert store.trials() == [trial(1)]


def test_headers_that_are_secrets_and_secrets_in_trials_are_not_recorded(tmp_path):
    headers = {"Authorization": "Bearer unmistakable-key", "x-team": "search", "x-api-key": "${MY_KEY}"}
    config = {**CONFIG, "deployment": {"headers": headers}}
    made = RunStore.create(tmp_path, config, {"values": {"a": "--set unmistakable-key"}})
    failure = Failure(FailureKind.UNHEALTHY, "no unmistakable-key", "")
    made.append(replace(trial(1), measurement=Measurement("simulated", (), failure)))
    made.save("report.md", "unmistakable-key")
    for path in made.path.glob("*.*"):
        assert "unmistakable-key" not in path.read_text(), path
    assert RunStore.open(made.path).experiment.deployment.headers == {
        "Authorization": "*****",
        "x-team": "search",
        "x-api-key": "${MY_KEY}",
    }
    assert [trial.number for trial in made.trials()] == [1]


@pytest.mark.parametrize("text", ["[", "[" * 100_000, "9" * 5000, "1", '{"stopped": 1, "skipped": []}', "{}", "null"])
@pytest.mark.parametrize("name", ["search.json", "refused.json", "forecasts.json"])
def test_a_damaged_file_of_a_run_is_an_error_that_names_it(store, name, text):
    (store.path / name).write_text(text)
    readers = {
        "search.json": store.load_search,
        "refused.json": store.load_refused,
        "forecasts.json": store.load_forecasts,
    }
    with pytest.raises(RunStoreError, match=name):
        readers[name]()


@pytest.mark.parametrize("text", ["[" * 100_000, "a: !!int x", "a: " + "9" * 5000, "1", "", "- a", "\x00"])
def test_a_damaged_configuration_of_a_run_is_an_error(store, text):
    (store.path / "experiment.yaml").write_text(text)
    with pytest.raises(RunStoreError, match="cannot be read"):
        RunStore.open(store.path)


@pytest.mark.parametrize("word", ["measured", "simulated", "parameters", "out-of-memory-at-start", "12345678"])
def test_a_password_that_is_a_word_of_the_run_leaves_it_readable(store, monkeypatch, word):
    redactor = Redactor()
    redactor.remember_environment({"DB_PASSWORD": word})
    monkeypatch.setattr(redaction, "_known", redactor)
    monkeypatch.setattr(redaction, "_has_read_environment", True)
    failure = Failure(FailureKind.OUT_OF_MEMORY_AT_START, f"no {word} here", "")
    result = replace(trial(1).results[0], source="measured", error_messages={"timeout": f"after {word}"})
    measurement = Measurement("measured", (result,), failure, timings={"load": 12345678.0})
    store.append(replace(trial(1, **{"tp-size": 12345678}), measurement=measurement))
    store.save_search(None, [(Candidate("sim", {"tp-size": 1}), f"because of {word}")], 3)
    store.save_refused([(Candidate("sim", {"tp-size": 2}), word)])
    (read,) = store.trials()
    assert read.candidate.parameters == {"tp-size": 12345678}
    assert read.measurement.source == read.results[0].source == "measured"
    assert read.measurement.failure == Failure(FailureKind.OUT_OF_MEMORY_AT_START, f"no {MASK} here", "")
    assert read.results[0].error_messages == {"timeout": f"after {MASK}"}
    assert read.measurement.timings == {"load": 12345678.0}
    assert store.load_search() == (None, ((Candidate("sim", {"tp-size": 1}), f"because of {MASK}"),), 3)
    assert store.load_refused() == [(Candidate("sim", {"tp-size": 2}), MASK)]


def test_an_interrupted_write_keeps_what_was_there(store, monkeypatch):
    store.save_search("enough", [], 1)
    store.save("report.md", "old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    for save in (lambda: store.save_search("all", [], 2), lambda: store.save("report.md", "new")):
        with pytest.raises(RunStoreError, match="disk"):
            save()
    assert store.load_search() == ("enough", (), 1)
    assert (store.path / "report.md").read_text() == "old"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EEXIST, errno.ENOSPC])
def test_errors_of_what_is_done_under_the_lock_are_not_blamed_on_the_run(store, number):
    with pytest.raises(OSError, match=r"docker\.sock"), store.lock():
        raise OSError(number, "an error", "/var/run/docker.sock")
    with store.lock():
        pass


@pytest.mark.parametrize("number", [errno.EISDIR, errno.ELOOP])
def test_what_cannot_be_a_file_is_explained(tmp_path, number):
    with pytest.raises(RunStoreError, match="Name another file"), explain_write_errors(tmp_path / ("x" * 300)):
        raise OSError(number, os.strerror(number))
