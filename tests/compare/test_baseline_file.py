import errno
import json
import os
from dataclasses import replace

import pytest

from autotuner import redaction
from autotuner.compare.baseline_file import load_baseline, save_baseline
from autotuner.compare.compared_run import ComparedRun
from autotuner.errors import RunStoreError
from autotuner.redaction import MASK, Redactor
from tests.factories import Run


def compared() -> ComparedRun:
    recorded = Run()
    return ComparedRun.from_view("r", recorded.view, recorded.experiment.model_dump(mode="json"))


def first_utility(data):
    """The load point of the first utility, without its value."""
    row = data["candidates"][0]["launches"][0]["utilities"][0]
    row.pop()
    return row


def test_a_baseline_reads_back_as_it_was(tmp_path):
    run = replace(compared(), is_load_test=True)
    save_baseline(run, tmp_path / "deep" / "baseline.json")
    assert load_baseline(tmp_path / "deep" / "baseline.json") == run


def test_it_is_small(tmp_path):
    save_baseline(compared(), tmp_path / "b.json")
    assert (tmp_path / "b.json").stat().st_size < 10_000 * 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("candidates"),
        lambda data: data.update(autotune_baseline=99),
        lambda data: data.update(candidates=[1]),
        lambda data: data.update(config={"no": "experiment"}),
        lambda data: data.update(winner_points=[["D(1,1)"]]),
        lambda data: data.update(winner_points=[["D(1,1)", None, None]]),
        lambda data: data.update(winner="nobody"),
        lambda data: data.update(winner_value=-1),
        lambda data: data.update(sources=[None]),
        lambda data: data["candidates"][0].update(gpus=0),
        lambda data: first_utility(data).append("fast"),
        lambda data: first_utility(data).append(-3.0),
        lambda data: first_utility(data).append(float("nan")),
        lambda data: first_utility(data).append(float("inf")),
    ],
)
def test_a_damaged_baseline_is_a_clear_error(tmp_path, damage):
    path = tmp_path / "b.json"
    save_baseline(compared(), path)
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(RunStoreError, match="cannot be read as a baseline"):
        load_baseline(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        *((text, "has no `autotune_baseline`") for text in ("[]", "null", "{}", '"a"')),
    ],
)
def test_any_other_file_is_a_clear_error(tmp_path, text, reason):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(RunStoreError) as caught:
        load_baseline(tmp_path / "b.json")
    assert reason in str(caught.value)
    assert "Error" not in str(caught.value)


def test_a_damaged_baseline_says_where(tmp_path):
    path = tmp_path / "b.json"
    save_baseline(compared(), path)
    data = json.loads(path.read_text())
    data["candidates"][1]["launches"][0]["attainments"] = [["D(1,1)", 1, None, 1.5]]
    path.write_text(json.dumps(data))
    with pytest.raises(RunStoreError, match=r"first at candidates\.1\.launches\.0\.attainments"):
        load_baseline(path)


@pytest.mark.parametrize("word", ["measured", "candidates", "confirmation", "unmistakable key"])
def test_a_baseline_has_no_secret_and_can_be_read_whatever_the_password_is(tmp_path, monkeypatch, word):
    redactor = Redactor()
    redactor.remember_environment({"DB_PASSWORD": word})
    monkeypatch.setattr(redaction, "_known", redactor)
    monkeypatch.setattr(redaction, "_has_read_environment", True)
    run = compared()
    run = replace(run, environment={"host": f"at {word}"}, config={**run.config, "task_name": f"for {word}"})
    save_baseline(run, tmp_path / "b.json")
    read = load_baseline(tmp_path / "b.json")
    assert read.environment == {"host": f"at {MASK}"}
    assert read.config == {**run.config, "task_name": f"for {MASK}"}
    assert read.candidates == run.candidates


def test_an_interrupted_write_keeps_the_old_baseline(tmp_path, monkeypatch):
    save_baseline(compared(), tmp_path / "b.json")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunStoreError, match="disk"):
        save_baseline(replace(compared(), name="new"), tmp_path / "b.json")
    assert load_baseline(tmp_path / "b.json").name == "r"
