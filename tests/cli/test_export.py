"""`autotune export` on a finished run."""

import json
from pathlib import Path

import pytest

from autotuner.cli.export import FORMAT_NAMES
from autotuner.report.exports import FORMATS


def test_every_format_of_the_report_is_offered():
    assert set(FORMAT_NAMES) == {*FORMATS, "trace"}


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_run_is_written_in_each_format(autotune, finished_run, name):
    done = autotune("export", "--output", str(finished_run), "--format", name, "--to", "out")
    assert done.code == 0, done.err
    files = [Path(line) for line in done.out.splitlines()]
    assert files
    assert all(path.stat().st_size > 100 for path in files)


def test_a_trace_without_records_says_which_there_are(autotune, finished_run):
    done = autotune("export", "--output", str(finished_run), "--format", "trace", "--load-point", "9", "--to", "out")
    assert (done.code, "There are: trials/" in " ".join(done.err.split())) == (2, True)
    assert autotune("export", "--output", str(finished_run), "--format", "xml").code == 2


def test_a_traces_requests_are_those_of_the_record(autotune, finished_run):
    autotune("export", "--output", str(finished_run), "--format", "trace", "--to", "out")
    (trace,) = Path("out").iterdir()
    names = [event["name"] for event in json.loads(trace.read_text())["traceEvents"]]
    assert sum(name.startswith("request ") for name in names) >= 2
