import json

import pytest

from autotuner import redaction
from autotuner.core import Failure, FailureKind
from autotuner.errors import ConfigError, RunStoreError
from autotuner.profiling.mappings import ParallelMapping
from autotuner.profiling.record import LOCK_FILE, POINTS_FILE, REQUEST_FILE, ProfiledLaunch, ProfileRecord
from tests.profiling.points import decode, prefill, sla_request

TP2 = ParallelMapping("tp", 2)


@pytest.fixture
def record(tmp_path):
    record = ProfileRecord.open_or_create(tmp_path / "profile", sla_request())
    record.add_point(TP2, prefill(600, 0.1))
    record.add_point(TP2, decode(8, 0.01, rejection="saturated: 4 of 8"))
    failure = Failure(FailureKind.CRASHED_UNDER_LOAD, "died", "look")
    record.add_launch(ProfiledLaunch(TP2, 1, 9000, 2000, 4, 30.0, 60.0, failure, ("runs 4",)))
    return record


def test_what_was_recorded_is_read_back(record):
    again = ProfileRecord.open(record.path)
    assert again == record
    assert again.kv_tokens(TP2) == 9000
    assert again.gpu_hours == pytest.approx(2 * 60 / 3600)


def test_a_line_that_a_crash_cut_is_dropped_and_written_over(record):
    file = record.path / POINTS_FILE
    file.write_bytes(file.read_bytes() + b'{"kind":"point","map')
    again = ProfileRecord.open(record.path)
    assert again.points == record.points
    again.add_point(TP2, decode(4, 0.01))
    assert len(ProfileRecord.open(record.path).decode_points(TP2)) == 2


def test_another_request_does_not_continue_a_profile(record):
    with pytest.raises(ConfigError, match="differs in isl"):
        ProfileRecord.open_or_create(record.path, sla_request(isl=700))
    assert ProfileRecord.open_or_create(record.path, sla_request()) == record


def test_a_folder_that_is_no_profile_says_so(tmp_path, record):
    with pytest.raises(RunStoreError, match="not the folder of an SLA profile"):
        ProfileRecord.open(tmp_path)
    request = record.path / REQUEST_FILE
    request.write_text(json.dumps({**json.loads(request.read_text()), "format": 9}))
    with pytest.raises(RunStoreError, match="format version is 9"):
        ProfileRecord.open(record.path)
    (record.path / REQUEST_FILE).write_text("[]")
    with pytest.raises(RunStoreError, match="cannot be read"):
        ProfileRecord.open(record.path)


def test_two_processes_do_not_profile_into_one_folder(record):
    with record.lock(), pytest.raises(RunStoreError, match="in use"), ProfileRecord.open(record.path).lock():
        pass


def test_a_folder_whose_lock_cannot_be_made_is_said_to_be_unwritable(tmp_path):
    record = ProfileRecord.open_or_create(tmp_path / "profile", sla_request())
    (record.path / LOCK_FILE).mkdir()
    with pytest.raises(RunStoreError, match="cannot be written"), record.lock():
        pass


def test_a_profile_with_a_secret_header_is_continued_though_its_file_lacks_the_secret(tmp_path, monkeypatch):
    monkeypatch.setattr(redaction, "_known", redaction.Redactor())
    redaction.remember_secret("s3cret-key")
    request = sla_request(settings={"deployment": {"headers": {"X-Api-Key": "s3cret-key"}}})
    made = ProfileRecord.open_or_create(tmp_path / "profile", request)
    assert "s3cret-key" not in (made.path / REQUEST_FILE).read_text()
    assert made.path.stat().st_mode & 0o077 == 0
    assert ProfileRecord.open_or_create(made.path, request).request == request
    with pytest.raises(ConfigError, match="differs in settings"):
        ProfileRecord.open_or_create(made.path, sla_request(settings={"deployment": {"headers": {"X-Team": "a"}}}))
