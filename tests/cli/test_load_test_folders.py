"""`autotune report` and `autotune compare` on the folders of load tests."""

from pathlib import Path

import pytest

from autotuner.runs.store import RunStore
from tests.factories import Run, load_test


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A function that makes the folder of a finished load test in the current one."""
    monkeypatch.chdir(tmp_path)

    def make(name: str) -> str:
        run = Run()
        bench = load_test(run.experiment, run.trials[0].measurement.load_points, "measured")
        Path(name).mkdir()
        RunStore.create_load_test(Path(name), bench.experiment, {}).append(bench.trial)
        return name

    return make


def test_a_load_test_is_written_in_every_format(autotune, folder):
    name = folder("out")
    assert autotune("report", name, "--format", "html").out == "out/report.html\n"
    assert "<h2>Throughput and verdicts</h2>" in Path("out/report.html").read_text()
    assert "## Latencies" in autotune("report", name, "--format", "markdown").out
    for output_format in ("html", "markdown", "json", "csv"):
        written = autotune("report", name, "--format", output_format, "--to", f"report.{output_format}")
        assert written.out == f"report.{output_format}\n"
        assert Path(f"report.{output_format}").stat().st_size > 100


def test_load_tests_are_compared_without_winners_and_launches(autotune, folder):
    compared = autotune("compare", folder("before"), folder("after"), "--gate")
    assert "of the best load point" in compared.out
    assert "load tests" in compared.out
    for word in ("winner", "launch"):
        assert word not in compared.out + compared.err.replace("--launches", "")


def test_the_experiment_of_a_folder_stands_for_the_folder(autotune, folder):
    compared = autotune("compare", f"{folder('before')}/experiment.yaml", folder("after"), "--format", "html")
    assert (compared.code, compared.out.splitlines()[-1]) == (0, "comparison.html")
    assert "before" in Path("comparison.html").read_text()
