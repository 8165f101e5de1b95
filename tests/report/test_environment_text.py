from dataclasses import replace

import pytest

from autotuner.report.environment_text import environment_lines, environment_sentence, parallel_trials_note
from autotuner.report.markdown import markdown_report
from autotuner.report.record import run_record
from autotuner.report.run_view import RunView
from autotuner.report.table import ranking_table

H100 = {"name": "NVIDIA H100 80GB HBM3"}
HOST = {
    "autotune": "0.1.0",
    "python": "3.11.7",
    "host": "node1",
    "system": "Debian GNU/Linux 12",
    "kernel": "6.1.0",
    "cpu": "AMD EPYC",
    "cpu_cores": 64,
    "driver": "575.57",
    "gpus": [H100] * 4,
}
WITHOUT_GPUS = HOST | {"driver": None, "gpus": []}
VLLM = {"version": "0.11.0", "image": "vllm/vllm-openai:v0.11.0", "image_digest": "sha256:12ab"}


def view_on(run, *hosts, **server) -> RunView:
    """The run on these hosts, each trial on a server that told this of itself."""
    trials = [replace(trial, measurement=replace(trial.measurement, server=server)) for trial in run.trials]
    return RunView.of(trials, run.experiment, environments=hosts)


@pytest.mark.parametrize(
    ("source", "hosts", "server", "sentence"),
    [
        (
            "measured",
            [HOST],
            VLLM,
            "Measured on node1: 4x NVIDIA H100 80GB HBM3, driver 575.57; vLLM 0.11.0; autotune 0.1.0.",
        ),
        (
            "measured",
            [HOST | {"gpus": [H100, {"name": "NVIDIA L40S"}]}],
            {"image": "local/vllm"},
            "Measured on node1: 1x NVIDIA H100 80GB HBM3 and 1x NVIDIA L40S, driver 575.57; vLLM local/vllm;"
            " autotune 0.1.0.",
        ),
        (
            "measured",
            [WITHOUT_GPUS, WITHOUT_GPUS | {"host": "node2", "autotune": "0.2.0", "cpu_cores": 1}],
            {},
            "Measured on 2 hosts, one after another: node1: AMD EPYC, 64 cores; node2: AMD EPYC, 1 core;"
            " autotune 0.1.0 and 0.2.0.",
        ),
        ("measured", [WITHOUT_GPUS] * 2, {}, "Measured on node1: AMD EPYC, 64 cores; autotune 0.1.0."),
        # of a simulation neither the GPUs of the host matter, nor the version of the simulated engine
        ("simulated", [HOST], {"version": "0.1.0"}, "Simulated on node1: AMD EPYC, 64 cores; autotune 0.1.0."),
        ("measured", [], VLLM, ""),
    ],
)
def test_the_environment_is_one_sentence(make_run, source, hosts, server, sentence):
    assert environment_sentence(view_on(make_run(source=source), *hosts, **server)) == sentence


def test_of_a_server_that_was_running_already_only_the_host_of_the_load_is_known(make_run):
    run = make_run()
    deployment = run.experiment.deployment.model_copy(update={"mode": "external"})
    run.experiment = run.experiment.model_copy(update={"deployment": deployment})
    assert environment_sentence(view_on(run, HOST)) == "Measured from node1; autotune 0.1.0."


def test_a_run_without_trials_says_nothing_of_its_environment(make_run):
    assert environment_sentence(RunView.of([], make_run().experiment, environments=[HOST])) == ""


def test_markdown_has_the_environment_with_image_and_digest(make_run):
    view = view_on(make_run(), HOST, **VLLM)
    assert (
        "Environment:\n\n"
        "- node1: Debian GNU/Linux 12, kernel 6.1.0, AMD EPYC, 64 cores, 4x NVIDIA H100 80GB HBM3, driver 575.57\n"
        "- vLLM 0.11.0, vllm/vllm-openai:v0.11.0, sha256:12ab\n"
        "- autotune 0.1.0, Python 3.11.7\n"
    ) in markdown_report(view)
    assert "no GPU" in environment_lines(view_on(make_run(), WITHOUT_GPUS))[0]


def test_a_run_that_recorded_no_host_has_no_environment(make_run):
    view = view_on(make_run(), **VLLM)
    assert "Environment" not in markdown_report(view)
    assert run_record(view)["environments"] == []


def test_json_has_the_hosts_and_the_trials_side_by_side(make_run):
    run = make_run()
    run.trials[0] = replace(run.trials[0], parallel_trials=(2,))
    data = run_record(view_on(run, HOST))
    assert data["environments"] == [HOST]
    assert [trial["parallel_trials"] for trial in data["trials"]] == [[2], [], []]


@pytest.mark.parametrize(
    ("neighbours", "note"),
    [
        ({}, ""),
        ({1: (2,), 2: (1,)}, "Trials 1 and 2 ran side by side."),
        ({1: (2, 3), 2: (1, 3), 3: (1, 2)}, "Trials 1 to 3 ran side by side."),
        (
            {1: (2,), 2: (1, 3), 3: (2,), 5: (6,), 6: (5,), 9: (10,)},
            "Trials 1 to 3, 5, 6 and 9 ran side by side, at most 3 at a time.",
        ),
        ({2: (4,)}, "Trial 2 ran beside one that did not finish."),
    ],
)
def test_trials_that_ran_side_by_side_are_noted(make_run, neighbours, note):
    run = make_run(count=9)
    optimization = run.experiment.optimization.model_copy(update={"parallel_trials": 3})
    run.experiment = run.experiment.model_copy(update={"optimization": optimization})
    run.trials = [replace(trial, parallel_trials=neighbours.get(trial.number, ())) for trial in run.trials]
    assert parallel_trials_note(run.view) == note
    assert (note in ranking_table(run.view).notes) == bool(note)
