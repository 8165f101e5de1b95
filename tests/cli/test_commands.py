"""Each command as a user runs it, on the simulated engine."""

import csv
import io
import json
import re
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from autotuner.cli import machine_checks
from autotuner.cli.results import skipped_text
from autotuner.core import Candidate
from autotuner.launchers.ports import free_port

PROFILES = ["balanced", "cost-optimization", "high-throughput", "low-latency", "production", "quick-test"]


def test_the_version_is_printed(installed):
    assert installed("--version").out.startswith("autotune 0.")


@pytest.mark.parametrize("name", PROFILES)
def test_each_profile_can_be_planned(autotune, name):
    plan = autotune("run", "--profile", name, "--dry-run", "--json").data
    assert plan["layers"][-1] == f"profile:{name}:{name}-params"
    assert 1 <= len(plan["candidates"]) <= plan["combinations"] + 1  # the engine's own defaults come first
    assert len(plan["candidates"]) == plan["launches"] - plan["confirmations"]
    assert 0 < plan["estimated_seconds"] < plan["estimated_seconds_at_most"]
    assert plan["source"] == "simulated"


def test_a_plan_names_launches_time_and_gpu_hours(autotune):
    ended = autotune("run", "--profile", "balanced", "--dry-run").out
    assert "base-model > base-optimization" in ended
    assert "GPU-hours    none, no GPU is taken" in ended
    assert "at most 19: 1 with the engine's own defaults, 14 to search, 4 to confirm the winner" in ended
    assert "at a time" not in ended
    assert (
        "at most 19, 3 at a time: 1 with"
        in autotune("run", "--profile", "balanced", "--dry-run", "--parallel-trials", "3").out
    )
    assert "objective    minimize_latency, by racing\n             the mean end-to-end latency over all" in ended


@pytest.mark.parametrize(
    ("slo", "targets"),
    [
        ("ttft=1,tpot=0.05", "ttft 1 s and tpot 0.05 s at most for 95% of requests"),
        ("ttft=1,attainment=0.9", "ttft 1 s at most for 90% of requests"),
        ("latency.p90=5,goodput=3", "latency.p90 5 s at most; goodput 3 requests/s at least"),
    ],
)
def test_a_plan_shows_the_targets(autotune, slo, targets):
    shown = autotune("run", "--profile", "quick-test", "--slo", slo, "--dry-run").out
    assert f"targets      {targets}\n" in shown


def test_a_plan_without_targets_shows_none(autotune):
    assert "targets" not in autotune("run", "--profile", "quick-test", "--dry-run").out


@pytest.mark.parametrize(
    ("reasons", "text"),
    [
        (["at best 1.03 times"], "1 candidate was not launched: at best 1.03 times. report.md names it."),
        (["a", "b", "b"], "3 candidates were not launched: b (2); a (1). report.md names them."),
        (
            ["a", "b", "b", "c"],
            "4 candidates were not launched: b (2); a (1); 1 for other reasons. report.md names them.",
        ),
    ],
)
def test_the_end_of_a_run_says_how_many_candidates_were_not_launched(reasons, text):
    skipped = [(Candidate("sim", {"n": n}), reason) for n, reason in enumerate(reasons)]
    assert skipped_text(skipped) == text


def test_a_path_that_doctor_shows_can_be_pasted(autotune, monkeypatch):
    path = "/srv/engines/a-long-name-of-a-folder/and-another-one/bin/vllm"
    finding = machine_checks.Finding("engine vllm", "missing", f"no executable {path}", f"Give {path} as an option.")
    monkeypatch.setattr(machine_checks, "check_machine", lambda: [finding])
    for columns in ("60", "80", "100"):
        assert autotune("doctor", columns=columns).out.count(path) == 2


def test_a_plan_says_what_all_candidates_share_once(autotune):
    ended = autotune(
        "run", "--model", "llama-3.1-70b", "--set", "parameters.tp-size=[4]", "--dry-run", columns="80"
    ).out
    table = ended.split("\ncandidates")[1]
    assert "tp-size" not in table.split("trial 1: ")[0]
    assert "trial 1: defaults (tp-size=4)\n" in table
    assert "All candidates: tp-size=4.\n" in table


@pytest.mark.parametrize(
    ("options", "window"),
    [
        ((), "20 s at least and 2:00 at most"),
        (("--duration", "30", "--max-duration", "45"), "30 s at least and 45 s at most"),
        (("--duration", "30", "--max-duration", "30"), "30 s"),
    ],
)
def test_a_plan_says_how_long_a_window_lasts_at_least_and_at_most(autotune, options, window):
    ended = " ".join(autotune("run", "--profile", "quick-test", *options, "--dry-run").out.split())
    assert f"a window of {window} estimate" in ended


CONFIRMED = (
    *("--profile", "production", "--model", "llama-3.1-70b", "--runtime", "vllm", "--evaluator", "simulated"),
    *("--gpu", "h100_sxm", "--total-gpus", "8", "--scenario", "D(100,100)", "--concurrency", "1"),
    *("--duration", "2", "--warmup", "0.1", "--max-iterations", "2", "--set", "optimization.confirm=1"),
    "--deployment",
    "process",  # not a container, where a Docker daemon answers
)


def test_the_launch_command_of_the_defaults_is_beside_the_winners(autotune, tmp_path):
    ended = autotune("run", *CONFIRMED, columns="80")
    assert ended.code == 0, ended.err
    output = ended.out
    assert "llama-3.1-70b: 2 candidates, 4 launches, best first\n" in output
    assert "trial 1: defaults (tp-size=2)\n" in output
    (sentence,) = re.findall(r"Winner: .*?[.]\n", output, re.DOTALL)
    assert re.fullmatch(
        r"Winner: trial 2 \(tp-size=\d mem-fraction-static=\S+ enable-chunked-prefill=\w+\): mean E2E latency "
        r"\S+ s \(\S+\) at D\(100,100\) @ 1, over 2 launches \(\S+ on 1 confirmation launch alone\); "
        r"undecided, simulated. ",
        re.sub(r"\s+", " ", sentence),
    )
    assert max(map(len, output.split("Launch command")[0].splitlines())) <= 80
    command = autotune("command", "--trial", "1").out
    assert " ".join(command.split()) == (
        "vllm serve llama-3.1-70b \\ --host 127.0.0.1 \\ --port 8000 \\ --tensor-parallel-size 2"
    )
    (report,) = (tmp_path / "runs").glob("*/report.md")
    winner, defaults = report.read_text().split("Launch command of ")[1:]
    assert winner.startswith("the winner:")
    assert defaults.startswith("the engine's defaults:")
    assert command.strip() in defaults


@pytest.mark.parametrize("width", ["80", "100"])
@pytest.mark.parametrize("arguments", [("--profile", "balanced"), ("--find-capacity", "--objective", "minimize_cost")])
def test_a_plan_fits_the_terminal(autotune, monkeypatch, width, arguments):
    ended = autotune("run", *arguments, "--dry-run", columns=width).out
    assert max(map(len, ended.splitlines())) <= int(width)


def test_a_plan_lists_what_does_not_fit(autotune):
    sizes = ("--set", "parameters.tp-size=[1,2]", "--set", "parameters.mem-fraction-static=[0.9]")
    plan = autotune("run", "--model", "llama-3.1-70b", *sizes, "--dry-run", "--json").data
    assert {candidate["tp-size"] for candidate in plan["candidates"]} == {2}
    assert all("does not fit: weights need 131.4 GiB" in refused["reason"] for refused in plan["refused"])
    assert plan["refused"]


RULES = (
    *("--set", "parameters.tp-size={from: 1, to: 8, factor: 2}", "--set", "parameters.pp-size=[1,2,4]"),
    *("--set", "parameters.max-batched-tokens={from: 2048, to: 16384, factor: 2}"),
    *("--set", "only_when.max-batched-tokens=enable-chunked-prefill", "--total-gpus", "4"),
    *("--set", "constraints.all-gpus=tp-size * pp-size == gpus"),
)


@pytest.mark.parametrize("strategy", ["racing", "grid_search", "random", "bayesian"])
def test_a_plan_keeps_to_conditions_and_constraints(autotune, strategy):
    plan = autotune("run", *RULES, "--strategy", strategy, "--max-iterations", "40", "--dry-run", "--json").data
    tried = [candidate for candidate in plan["candidates"] if "enable-chunked-prefill" in candidate]
    assert plan["combinations"] == 9 * 2 * (1 + 4)
    assert len(tried) == 3 * 2 * (1 + 4)
    assert all(candidate["tp-size"] * candidate["pp-size"] == 4 for candidate in tried)
    assert all(("max-batched-tokens" in candidate) == candidate["enable-chunked-prefill"] for candidate in tried)
    assert {refused["reason"] for refused in plan["refused"]} == {
        "breaks the constraint all-gpus: tp-size * pp-size == gpus"
    }
    assert len(plan["refused"]) == 6 * 2 * (1 + 4)


def test_a_plan_shows_what_is_refused_by_its_reason(autotune):
    ended = autotune("run", *RULES, "--dry-run").out
    assert "90 combinations, 60 refused" in ended
    assert "and 56 more" in ended
    assert "all-gpus" in ended


def test_a_plan_of_a_space_too_large_to_look_at_says_how_much_was_drawn(autotune):
    many = "parameters.max-running-requests={from: 1, to: 1000, step: 1}"
    ended = autotune("run", *RULES, "--set", many, "--strategy", "grid_search", "--dry-run").out
    (line,) = (line for line in ended.splitlines() if line.startswith("space"))
    assert re.fullmatch(r"space        90,000 combinations, 1\d,\d{3} of them drawn, \d+ refused", line)


def test_a_run_keeps_what_broke_a_constraint_and_why(autotune, tmp_path):
    short = ("--evaluator", "simulated", "--max-iterations", "2", "--duration", "2", "--warmup", "0.3")
    assert autotune("run", *RULES, *short).code == 0
    (file,) = tmp_path.glob("runs/*/refused.json")
    refused = json.loads(file.read_text())
    assert {row["reason"] for row in refused} == {"breaks the constraint all-gpus: tp-size * pp-size == gpus"}
    assert {"tp-size", "pp-size"} <= refused[0]["parameters"].keys()


def test_config_show_names_the_layer_of_a_range_and_of_a_rule(autotune):
    shown = autotune("config", "show", *RULES, "--json").data
    assert shown["config"]["parameters"]["max-batched-tokens"] == [2048, 4096, 8192, 16384]
    for path in ("parameters.max-batched-tokens", "only_when.max-batched-tokens", "constraints.all-gpus"):
        assert shown["provenance"][path] == "user_patch"
    table = autotune("config", "show", *RULES).out
    assert "tp-size * pp-size == gpus" in " ".join(table.split())


def test_a_profile_with_an_unknown_name_in_a_rule_does_not_check(autotune, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nlayers:\n  - name: l\n    data:\n      constraints:\n        a: tp-sise == gpus\n"
    )
    ended = autotune("profiles", "check", "mine.yaml")
    assert ended.code == 2
    assert "did you mean 'tp-size'" in " ".join(ended.err.split())


RECORDED = ("--scenario", "file:t.jsonl")


@pytest.mark.parametrize(
    ("arguments", "points"),
    [
        (RECORDED, ["file:t.jsonl @ 4/s"]),
        ((*RECORDED, "--rate", "8,trace"), ["file:t.jsonl @ 4/s", "file:t.jsonl @ 8/s"]),
        ((*RECORDED, "--concurrency", "2"), ["file:t.jsonl @ 2"]),
        ((*RECORDED, "--set", "benchmark.num_concurrency=[3]"), ["file:t.jsonl @ 3"]),
        ((*RECORDED, "--rate", "2", "--set", "benchmark.arrival=constant"), ["file:t.jsonl @ 2/s"]),
        ((*RECORDED, "--scenario", "D(5,5)"), ["file:t.jsonl @ 1", "D(5,5) @ 1"]),
    ],
)
def test_a_trace_names_a_load_where_nothing_else_does(autotune, tmp_path, arguments, points):
    rows = ({"timestamp": n / 4, "input_length": 20, "output_length": 3} for n in range(9))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = autotune("run", "--profile", "quick-test", *arguments, "--dry-run", "--json")
    assert plan.data["load_points"] == points


def test_a_run_on_a_replayed_trace_is_reported_without_its_file(autotune, tmp_path):
    rows = ({"timestamp": n / 4, "input_length": 20, "output_length": 3} for n in range(41))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    load = ("--evaluator", "simulated", "--set", "parameters.tp-size=[1]", "--duration", "30", "--warmup", "1")
    done = autotune("run", *RECORDED, *load, "--set", "optimization.confirm=0", "--json")
    assert done.code == 0, done.err
    (tmp_path / "t.jsonl").unlink()
    data = autotune("report", "--format", "json").data
    points = [point for trial in data["trials"] for point in trial["load_points"]]
    assert {point["rate"] for point in points} == {4.0}
    assert {point["metrics"]["requests"] for point in points} == {41}


def test_a_custom_profile_in_the_folder_profiles_is_found_by_name(autotune, tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text(
        "name: mine\nlayers:\n  - name: mine-params\n    data:\n      parameters:\n        tp-size: [2]\n"
    )
    shown = autotune("config", "show", "--profile", "mine", "--json").data
    assert shown["config"]["parameters"]["tp-size"] == [2]
    assert shown["provenance"]["parameters.tp-size"] == "profile:mine:mine-params"


def test_doctor_reports_every_part(installed):
    parts = {finding["part"]: finding for finding in installed("doctor", "--json").data}
    assert {"autotune", "Docker", "engine sim", "engine vllm", "load generator", "disk", "model cache"} <= set(parts)
    assert parts["engine sim"]["state"] == "ok"
    assert all(finding["remedy"] for finding in parts.values() if finding["state"] == "missing")


def report(autotune, runs, *arguments):
    return autotune("report", str(next(runs.iterdir())), *arguments)


def test_a_report_ranks_every_trial_with_its_source(autotune, finished_run):
    ended = report(autotune, finished_run)
    assert ended.code == 0
    assert ended.out.count("simulated") >= 2
    assert "\nSimulated on " in ended.out


def test_a_report_as_json_has_the_documented_shape(autotune, finished_run):
    data = report(autotune, finished_run, "--format", "json").data
    point = data["trials"][0]["load_points"][0]
    assert {"scenario", "concurrency", "source", "verdict", "metrics", "validity"} <= set(point)
    assert {"ttft", "tpot", "itl", "e2e", "output_throughput", "goodput", "attainment", "errors"} <= set(
        point["metrics"]
    )
    assert {"mean", "sd", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max", "n"} <= set(point["metrics"]["ttft"])


def test_a_report_as_csv_has_a_row_for_each_load_point(autotune, finished_run):
    rows = list(csv.DictReader(io.StringIO(report(autotune, finished_run, "--format", "csv").out)))
    assert len(rows) == 4


def test_a_report_as_markdown_has_a_table(autotune, finished_run):
    assert "| --- |" in report(autotune, finished_run, "--format", "markdown").out


def test_an_unknown_report_format_is_named(autotune, finished_run):
    ended = report(autotune, finished_run, "--format", "htm")
    assert ended.code == 2
    assert "Unknown format 'htm'" in ended.err


def test_the_printed_command_pasted_into_a_shell_starts_the_server_that_was_measured(autotune, finished_run):
    run = next(finished_run.iterdir())
    port = free_port()
    printed = autotune("command", str(run), "--port", str(port)).out
    winner = report(autotune, finished_run, "--format", "json").data["winner"]
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    spec = next(trial for trial in trials if trial["number"] == winner)["measurement"]["spec"]
    shell = subprocess.Popen(["bash", "-c", f"exec {printed}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert served_models(port, shell) == [spec["served_model"]]
        argv = Path(f"/proc/{shell.pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        measured = spec["argv"]
        position = measured.index("--port") + 1
        assert measured[position] == str(spec["port"])
        assert argv == [*measured[:position], str(port), *measured[position + 1 :]]
    finally:
        shell.terminate()
        shell.communicate(timeout=60)


def test_the_launch_command_is_written_as_a_script_with_what_was_simulated(autotune, finished_run, tmp_path):
    run = str(next(finished_run.iterdir()))
    ended = autotune("command", run, "--to", str(tmp_path / "deployed"))
    script = tmp_path / "deployed" / "command.sh"
    assert script.read_text().endswith(autotune("command", run).out)
    assert script.read_text().startswith("# Not measured: simulated on ")
    assert script.stat().st_mode & 0o100
    names = "command.sh, experiment.yaml, environment.json, README.md"
    assert f"Wrote {names} to {tmp_path / 'deployed'}" in ended.err
    assert (tmp_path / "deployed" / "experiment.yaml").read_text() == (Path(run) / "experiment.yaml").read_text()


def is_free(port: int) -> bool:
    """Whether a port can be listened on; those asked for are below the ports of outgoing connections."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_prefill_and_decode_servers_are_written_started_and_loaded(autotune, finished_run, tmp_path):
    port = next(
        port for port in range(21_000, 30_000, 7) if all(map(is_free, (port, port + 100, port + 200, port + 201)))
    )
    options = ["--prefill", "1", "--decode", "2", "--port", str(port), "--to", str(tmp_path)]
    assert autotune("command", str(next(finished_run.iterdir())), *options).code == 0
    script = subprocess.Popen(["bash", tmp_path / "command.sh"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert script.stdout is not None
        assert script.stdout.readline().decode() == f"ready: http://127.0.0.1:{port}\n"
        load = ["--scenario", "D(64,8)", "--concurrency", "2", "--max-requests", "6", "--warmup", "0", "--json"]
        ended = autotune("bench", f"http://127.0.0.1:{port}", *load)
        assert ended.code == 0, ended.err
        counters = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        finished = re.search(r"^autotune_sim_requests_finished_total (\d+)$", counters, re.MULTILINE)
        assert finished is not None
        assert int(finished[1]) >= 12  # each of six requests on a prefill and on a decode server
    finally:
        script.terminate()
        script.communicate(timeout=60)
    assert script.returncode == 143


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--prefill", "1"], "--prefill alone deploys nothing"),
        (["--decode", "1"], "--decode alone deploys nothing"),
        (["--replicas", "2", "--decode", "1"], "--replicas does not go with"),
        (["--prefill", "1", "--decode", "1"], "Several servers are several files. Give --to DIR"),
        (["--to", "/dev/null/x"], "Cannot write to /dev/null/x"),
        (["--replicas", "2", "--format", "compse", "--json"], "Unknown format 'compse'"),
    ],
)
def test_servers_that_cannot_be_deployed_together_are_refused(autotune, finished_run, options, what):
    ended = autotune("command", str(next(finished_run.iterdir())), *options)
    assert ended.code == 2
    assert what in " ".join(ended.err.split())


def served_models(port: int, server: subprocess.Popen[bytes]) -> list[str]:
    """Wait until a server answers, and list what it serves."""
    for _ in range(200):
        assert server.poll() is None, server.stderr.read()
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if answer.status_code == 200:
            return [model["id"] for model in answer.json()["data"]]
        time.sleep(0.1)
    raise AssertionError("the server never answered")


def test_a_report_is_written_to_a_file(autotune, finished_run, tmp_path):
    run = str(next(finished_run.iterdir()))
    for output_format, start in (("html", "<!DOCTYPE html>"), ("json", "{"), ("csv", "rank,"), ("markdown", "# ")):
        path = tmp_path / f"report.{output_format}"
        assert autotune("report", run, "--format", output_format, "--to", str(path)).out == f"{path}\n"
        assert path.read_text().startswith(start)
    assert "SIMULATED, NOT MEASURED" in (tmp_path / "report.html").read_text()


def test_a_table_is_written_to_no_file_and_a_file_into_no_missing_folder(autotune, finished_run, tmp_path):
    run = str(next(finished_run.iterdir()))
    table = autotune("report", run, "--to", str(tmp_path / "x"))
    assert (table.code, "Choose --format html" in " ".join(table.err.split())) == (2, True)
    missing = autotune("report", run, "--format", "html", "--to", str(tmp_path / "no" / "x.html"))
    assert missing.code == 2
    assert "No such file or directory. Name a file with --to" in " ".join(missing.err.split())


def test_the_simulated_engine_has_no_container_to_print(autotune, finished_run):
    ended = autotune("command", str(next(finished_run.iterdir())), "--format", "docker")
    assert ended.code == 2
    assert "simulated engine has none" in " ".join(ended.err.split())


def test_the_page_of_a_finished_run_says_nothing_of_going_on(finished_run):
    page = (next(finished_run.iterdir()) / "report.html").read_text()
    assert "The run goes on." not in page
    assert " so far" not in page
    assert '"state": "finished"' in page or '"state":"finished"' in page


def test_the_run_folder_holds_what_the_docs_say(finished_run):
    run = next(finished_run.iterdir())
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "experiment.yaml",
        "provenance.yaml",
        "trials.jsonl",
        "report.html",
        "report.md",
        "pareto.png",
        "best/command.sh",
        "trials/001/command.sh",
        "trials/001/server.log",
        "trials/001/records-1.npz",
        "trials/001/records-2.npz",
    } <= names


def test_what_is_printed_is_on_a_stable_port_and_what_was_run_on_its_own(autotune, finished_run):
    run = next(finished_run.iterdir())
    for text in (autotune("command", str(run)).out, (run / "best" / "command.sh").read_text()):
        assert "--port 8000 " in text
    assert "--port 8000 " in (run / "report.md").read_text()
    assert "--port 8000 " not in (run / "trials" / "001" / "command.sh").read_text()


NOT_MEASURED = "Not measured: simulated on H100; this is what would be started."
BUNDLED = "llama-3.1-8b is a name for predictions: give the engine the model's folder or Hugging Face id."


@pytest.mark.parametrize(
    ("runtime", "command", "port"),
    [("vllm", "vllm serve", 8000), ("sglang", "sglang serve", 30000), ("trtllm", "trtllm-serve serve", 8000)],
)
def test_another_engine_is_simulated_and_its_command_printed_without_being_there(
    autotune, tmp_path, monkeypatch, runtime, command, port
):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    arguments = (
        *("run", "--evaluator", "simulated", "--runtime", runtime, "--deployment", "process", "--gpu", "H100"),
        *("--model", "llama-3.1-8b", "--set", "parameters={tp-size: [1, 2]}", "--set", "optimization.confirm=0"),
        *("--concurrency", "4", "--scenario", "D(100,10)", "--max-requests", "20"),
    )
    ended = autotune(*arguments)
    assert ended.code == 0, ended.err
    assert ended.out.index(NOT_MEASURED) < ended.out.index(f"{command} ")
    assert f"--port {port}" in ended.out
    (run,) = (tmp_path / "runs").iterdir()
    for file in ("report.md", "best/command.sh", "trials/001/command.sh"):
        text = (run / file).read_text()
        assert text.index(f"# {NOT_MEASURED}") < text.index(f"{command} "), file
    printed = autotune("command", "--port", "9001")
    assert printed.err == f"{NOT_MEASURED}\n{BUNDLED}\n"
    assert printed.out.startswith(command)
    assert "--port 9001" in printed.out
    data = autotune("command", "--json").data
    assert (data["source"], data["note"]) == ("simulated", f"{NOT_MEASURED}\n{BUNDLED}")
    lines = {"kubernetes": "kind: Deployment", "ome": "kind: InferenceService", "engine": f"# {command} "}
    for format, line in lines.items():
        assert line in autotune("command", "--format", format, "--model-volume", "models").out
    for option, value in (("--namespace", "My_Space"), ("--toleration", "a:Never"), ("--node-selector", "a")):
        refused = autotune("command", "--format", "kubernetes", option, value)
        assert (refused.code, option in refused.err, value in refused.err) == (2, True, True)


SIMULATED = ("run", "--profile", "quick-test", "--evaluator", "simulated", "--max-requests", "20")


def test_the_newest_run_is_resumed_where_none_is_named(autotune, tmp_path):
    assert autotune(*SIMULATED).code == 0
    (first,) = (tmp_path / "runs").iterdir()
    trials = (first / "trials.jsonl").read_text().splitlines()
    assert autotune(*SIMULATED, "--set", "task_name=newest").code == 0
    newest = next((tmp_path / "runs").glob("newest-*"))
    (newest / "trials.jsonl").write_text(f"{trials[0]}\n")
    resumed = autotune("run", "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.data["run"] == f"runs/{newest.name}"
    assert len((newest / "trials.jsonl").read_text().splitlines()) == len(trials) == 2
    assert "complete" not in resumed.err


@pytest.mark.parametrize("name", [(), ("--fail-on", "none"), ("FOLDER",)])
def test_a_complete_run_that_is_resumed_says_so_and_is_ranked_again(autotune, tmp_path, name):
    first = autotune(*SIMULATED)
    (run,) = (tmp_path / "runs").iterdir()
    (run / "report.md").unlink()
    before = (run / "trials.jsonl").read_bytes()
    again = autotune("run", "--resume", *(run.name if word == "FOLDER" else word for word in name))
    assert again.code == 0, again.err
    assert "This run is complete: nothing remained to launch. Its 2 trials were ranked again." in again.err
    assert again.out == first.out
    assert (run / "trials.jsonl").read_bytes() == before
    assert (run / "report.md").exists()


def test_a_running_server_cannot_be_simulated(autotune):
    ended = autotune("run", "--evaluator", "simulated", "--url", "http://127.0.0.1:9", "--model", "m", "--dry-run")
    assert ended.code == 2
    assert "cannot be simulated" in ended.err


def test_a_dry_run_shows_predictions_for_each_candidate_marked_as_such(autotune):
    arguments = ("run", "--profile", "quick-test", "--gpu", "H100", "--dry-run")
    ended = autotune(*arguments)
    assert "predicted, not measured, at" in ended.out
    assert "TPOT" in ended.out
    data = autotune(*arguments, "--json").data
    assert len(data["predicted"]) == len(data["candidates"])
    assert {point["source"] for points in data["predicted"] for point in points} == {"predicted"}


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        (("--set", "hardware.price_per_gpu_hour=3.6"), "currency / 1M output tokens"),
        (("--set", "parameters.tp-size=[1,2]"), "GPU-s / 1M output tokens"),
        ((), None),
    ],
)
def test_a_plan_shows_what_tokens_cost_where_it_sets_candidates_apart(autotune, arguments, title):
    run = ("run", "--profile", "quick-test", "--gpu", "H100", *arguments, "--dry-run")
    shown = autotune(*run, columns="200").out
    assert ([name for name in ("currency / 1M output tokens", "GPU-s / 1M output tokens") if name in shown]) == (
        [title] if title else []
    )
    points = [point for points in autotune(*run, "--json").data["predicted"] for point in points]
    seconds, costs = ([p[f"{name}_per_million_output_tokens"] for p in points] for name in ("gpu_seconds", "cost"))
    assert seconds == pytest.approx([1e6 / point["output_throughput_per_gpu"] for point in points])
    assert costs == (pytest.approx([s / 1000 for s in seconds]) if "price" in str(arguments) else [None] * len(points))
