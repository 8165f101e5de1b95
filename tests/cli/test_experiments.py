"""`autotune run -f`: whole requests from files, and several experiments in one command."""

import json
from pathlib import Path

import pytest
import yaml

SHARED = {
    "model": "llama-3.1-8b",
    "gpu_type": "H100",
    "overrides": {
        "optimization": {"evaluator": "simulated", "max_iterations": 1, "confirm": 0},
        "benchmark": {"traffic_scenarios": ["D(100,20)"], "num_concurrency": [2], "duration": 1},
        "parameters": {"tp-size": [1]},
    },
}


def write(path: str, **fields) -> str:
    Path(path).write_text(yaml.safe_dump({**SHARED, **fields}))
    return path


def test_several_experiments_run_in_turn_and_are_compared(autotune):
    both = write("both.yaml", experiments=[{"name": "a", "runtime": "vllm"}, {"name": "b", "runtime": "sglang"}])
    plan = autotune("run", "-f", both, "--dry-run", "--json").data["experiments"]
    assert [row["experiment"] for row in plan] == ["a", "b"]

    done = autotune("run", "-f", both, columns="80")
    assert done.code == 0, done.err
    assert all(len(line) <= 80 for line in done.out.splitlines())
    assert "Winners of the experiments" in done.out
    assert "| a | vllm |" in Path("runs/experiments.md").read_text()
    runs = [path.parent for path in sorted(Path("runs").glob("*/experiment.yaml"))]
    assert len(runs) == 2

    again = autotune("run", "-f", str(runs[0] / "experiment.yaml"), "--seed", "5", "--json", "--output", "again")
    assert again.code == 0, again.err
    config = yaml.safe_load((Path(json.loads(again.out)["run"]) / "experiment.yaml").read_text())
    before = yaml.safe_load((runs[0] / "experiment.yaml").read_text())
    assert config["optimization"].pop("seed") == 5
    assert config["benchmark"].pop("seed") == 5
    before["optimization"].pop("seed", None)
    before["benchmark"].pop("seed", None)
    assert config == before


def test_an_experiment_that_cannot_run_does_not_stop_the_others(autotune):
    files = [write("a.yaml", name="a", runtime="vllm"), write("b.yaml", name="b", runtime="vllm", model="no-such")]
    done = autotune("run", "-f", files[0], "-f", files[1])
    assert done.code != 0
    assert "experiment b: " in " ".join(done.err.split())
    assert "Winners of the experiments" in done.out


def test_a_command_that_takes_one_experiment_says_so(autotune):
    both = write("both.yaml", experiments=[{"name": "a"}, {"name": "b"}])
    shown = autotune("config", "show", "-f", both)
    assert (shown.code, "The files ask for 2 experiments: a, b." in shown.err) == (2, True)
    one = write("one.yaml", runtime="vllm")
    assert "base_runtime" in autotune("config", "show", "-f", one).out


@pytest.mark.processes
def test_experiments_side_by_side_are_compared_and_one_that_cannot_run_is_named(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    requests = [{"name": "a", "runtime": "vllm"}, {"name": "b", "runtime": "sglang"}, {"name": "c", "model": "no-such"}]
    done = installed("run", "-f", write("three.yaml", experiments=requests), "--parallel-experiments", "2", "--json")
    assert {row["experiment"] for row in done.data["experiments"]} == {"a", "b"}
    assert done.code == 2
    assert "experiment c: " in " ".join(done.err.split())
    logs = sorted(Path("runs").glob("*/output.log"))
    assert [("run folder" in log.read_text()) for log in logs] == [True, True]
