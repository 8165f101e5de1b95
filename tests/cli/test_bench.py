"""`autotune bench` as a user runs it, on a simulated engine that runs already."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from autotuner.load import records
from tests.servers import HEAD, QUICK, chunked, complete, simulated_engine, status, token

pytestmark = pytest.mark.processes


def test_load_points_are_shown_as_a_table_with_checks(autotune, sim):
    ended = autotune("bench", sim, *QUICK, "--concurrency", "1,4")
    assert ended.code == 0, ended.err
    assert "llama-3.1-8b at http://127.0.0.1" in ended.out
    for word in ("TTFT p99 ms", "E2E p50 s", "output tokens/s", "errors", "verdict", "simulated", "littles-law"):
        assert word in ended.out
    assert "[2/2] D(32,4) @ 4: TTFT" in ended.err


def test_json_output_has_the_documented_shape(autotune, sim):
    data = autotune("bench", sim, *QUICK, "--concurrency", "2", "--endpoint", "chat", "--json").data
    (point,) = data["load_points"]
    assert {"scenario", "concurrency", "source", "verdict", "metrics", "validity"} <= set(point)
    assert {"mean", "sd", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max", "n"} <= set(point["metrics"]["ttft"])
    figures = {"output_throughput", "request_throughput", "goodput", "attainment", "errors"}
    assert figures <= set(point["metrics"])
    assert data["endpoint"] == "chat"
    assert (data["source"], point["source"], point["metrics"]["requests"]) == ("simulated", "simulated", 12)


def test_a_trace_is_replayed_as_recorded_and_says_how_much_of_it(autotune, sim, tmp_path):
    rows = ({"timestamp": n / 40, "input_length": 20, "output_length": 3} for n in range(41))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    load = ("--scenario", "file:t.jsonl", "--warmup", "0")
    whole = autotune("bench", sim, *load, "--duration", "5")
    assert whole.code == 0, whole.err
    assert "file:t.jsonl @ 40/s: the trace ended with its 41 requests." in whole.out
    part = autotune("bench", sim, *load, "--rate", "trace", "--duration", "0.5", "--json").data
    (point,) = part["load_points"]
    assert (point["rate"], point["metrics"]["requests"], point["decided"]) == (40.0, 20, None)
    assert part["recorded"] == [{"scenario": "file:t.jsonl", "requests": 41, "seconds": 1.0}]
    assert part["arrival"] == "trace"


def test_a_trace_of_milliseconds_is_said_to_be_one_before_and_after_the_load(autotune, sim, tmp_path):
    rows = ({"timestamp": 50 * n, "input_length": 20, "output_length": 3, "hash_ids": [n]} for n in range(21))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    load = ("--scenario", "file:t.jsonl", "--warmup", "0", "--duration", "5", "--trace-scale", "2")
    ended = autotune("bench", sim, *load, columns="200")
    found = (
        "t.jsonl: Mooncake JSON lines, 21 requests in 1 s (timestamps in ms); prefixes shared in blocks of 512 tokens"
    )
    assert found in " ".join(ended.err.split())
    assert f"{found}." in " ".join(ended.out.split())
    assert "file:t.jsonl @ 40/s: the trace ended with its 21 requests." in ended.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--time-unit", "min"), "--time-unit 'min' is not a unit. Use s, ms, us, ns."),
        (("--trace-scale", "2"), "--trace-scale makes a trace faster that is replayed at its"),
    ],
)
def test_a_unit_that_is_none_and_a_scale_without_a_trace_are_refused(autotune, sim, options, message):
    ended = autotune("bench", sim, *options, columns="200")
    assert (ended.code, message in " ".join(ended.err.split())) == (2, True), ended.err


def test_a_window_in_which_no_request_was_due_is_said_to_have_had_none(autotune, sim):
    load = ("--rate", "0.01", "--arrival", "constant", "--warmup", "0.2", "--duration", "0.2")
    ended = autotune("bench", sim, "--scenario", "D(32,4)", *load)
    assert (ended.code, "No request was sent in a window." in ended.err) == (3, True)


def test_an_engine_with_few_token_ids_gets_no_others(autotune, tiny_url):
    ended = autotune("bench", tiny_url, *QUICK, "--concurrency", "2", "--json")
    shown = autotune("bench", tiny_url, *QUICK, "--concurrency", "2")
    assert ended.code == 0, ended.err
    assert ended.data["endpoint"] == "completions"
    (point,) = ended.data["load_points"]
    assert (point["metrics"]["requests"], point["metrics"]["errors"]) == (12, {})
    assert 505 <= ended.data["vocabulary"]["size"] <= 512
    assert f"token ids below {ended.data['vocabulary']['size']}, which this server accepts" in shown.out


def test_the_highest_load_within_the_targets_is_found(autotune, sim):
    load = ("--scenario", "D(32,8)", "--concurrency", "1,8", "--duration", "2", "--max-requests", "40", "--warmup", "0")
    ended = autotune("bench", sim, *load, "--find-capacity", "--slo", "ttft=5.0", "--json")
    (capacity,) = ended.data["capacities"]
    assert (capacity["scenario"], capacity["unit"], capacity["value"]) == ("D(32,8)", "concurrency", 8)
    assert capacity["load_points"] == len(ended.data["load_points"]) > 1


def test_without_a_load_inside_the_targets_the_capacity_is_none(autotune, sim):
    load = ("--scenario", "D(32,8)", "--concurrency", "1,2", "--duration", "1", "--max-requests", "30", "--warmup", "0")
    ended = autotune("bench", sim, *load, "--find-capacity", "--slo", "ttft=0.000001")
    assert ended.code == 1
    assert "No load of D(32,8) meets the targets; the lowest tried was 1 in flight." in ended.out


def test_csv_output_has_a_row_for_each_load_point(autotune, sim):
    arguments = ("--scenario", "D(16,2),U(8,16)/(2,4)", "--rate", "80", "--arrival", "constant", "--csv")
    rows = list(csv.DictReader(io.StringIO(autotune("bench", sim, *QUICK, *arguments).out)))
    assert [row["scenario"] for row in rows] == ["D(32,4)", "D(16,2)", "U(8,16)/(2,4)"]
    assert {(row["rate"], row["n"], row["source"]) for row in rows} == {("80.0", "12", "simulated")}


def test_a_missed_target_exits_1_with_what_was_measured(autotune, sim):
    ended = autotune("bench", sim, *QUICK, "--concurrency", "1", "--slo", "ttft=0.000001")
    assert ended.code == 1
    assert "infeasible" in ended.out
    assert "No load point met the targets" in ended.err


def test_a_server_that_dies_is_counted_in_the_table_and_exits_3(autotune, tmp_path):
    with simulated_engine(tmp_path, "--fault-crash-after", "5") as url:
        ended = autotune("bench", url, *QUICK, "--concurrency", "1", "--endpoint", "completions")
    assert ended.code == 3, ended
    assert "connection-refused: " in ended.out
    assert "The load test ended early" in ended.err
    assert "1 of 1 load points" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--json", "--csv"), 2, "Choose one"),
        (("--concurrency", "1,a"), 2, "--concurrency '1,a'"),
        (("--concurrency", "99999999999"), 2, "more connections than a host has ports"),
        (("--header", "secret"), 2, "NAME:VALUE"),
        (("--rate", "2,x"), 2, "--rate '2,x' is not a list of numbers"),
        (("--rate", ""), 2, "--rate '' is not a list of numbers"),
        (("--rate", "trace"), 2, "Scenario 'D(100,100)' has no times to replay"),
        (("--rate", "trace", "--find-capacity"), 2, "no times to replay"),
        (("--model", "another"), 3, "It serves: llama-3.1-8b"),
    ],
)
def test_a_mistake_is_named_before_any_load(autotune, sim, arguments, code, message):
    ended = autotune("bench", sim, *arguments)
    assert ended.code == code, ended
    assert message in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert not ended.out or set(ended.data) == {"error"}


def finished_requests(url: str) -> int:
    """Requests that a simulated engine has answered."""
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    (count,) = re.findall(r"^\S*requests_finished_total\S* (\d+)", text, re.MULTILINE)
    return int(count)


@pytest.mark.parametrize(("number", "output"), [(signal.SIGINT, ("--output", "out")), (signal.SIGTERM, ())])
def test_an_interrupted_test_keeps_what_was_measured(autotune, sim, tmp_path, number, output):
    scenarios = ("--scenario", "D(32,4)", "--scenario", "D(32,100)")
    load = (*scenarios, "--warmup", "0", "--concurrency", "2", "--duration", "600", "--max-requests", "60")
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "autotune"), "bench", sim, *load, *output, "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("[2/2]"):
            break
    before = finished_requests(sim)
    while finished_requests(sim) < before + 4:  # the load point has 60, of half a second each
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    data = json.loads(out)
    assert data["interrupted"]
    first, second = data["load_points"]
    assert first["metrics"]["requests"] > 0
    assert second["metrics"]["requests"] > 0
    assert second["ended_early"] == "the window was cut short"
    assert second["reason"].endswith("the window was cut short")
    assert second["verdict"] != "feasible"
    if output:
        reported = autotune("report", "out", "--json")
        assert (reported.code, reported.data) == (0, data)
        assert json.loads((tmp_path / "out" / "bench.json").read_text()) == data
        start, end = records.read(tmp_path / "out" / "trials/001/records-2.npz").window
        assert end - start < 600
    assert "Traceback" not in err


def test_a_server_that_is_not_there_is_named(autotune):
    ended = autotune("bench", "http://127.0.0.1:9")
    assert ended.code == 3
    assert "Connection refused" in " ".join(ended.err.split())


@pytest.mark.parametrize("text", ["{", "[1]", "min_p=0.1"])
def test_an_extra_body_that_is_no_json_object_is_refused(autotune, text):
    ended = autotune("bench", "http://127.0.0.1:9", "--extra-body", text)
    assert ended.code == 2
    assert "--extra-body is not a JSON object. Write it as" in ended.err


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/audio/speech"])
def test_an_endpoint_that_is_not_supported_is_named(autotune, path):
    ended = autotune("bench", f"http://127.0.0.1:9{path}")
    assert ended.code == 2
    assert "is not supported" in ended.err


def test_a_server_that_ends_every_answer_early_is_measured_as_it_is_and_named(autotune, serve):
    async def short(request, writer):
        writer.write(HEAD + chunked(token()) + chunked(token(finish="stop")) + b"0\r\n\r\n")

    ended = autotune("bench", serve(short).url, "--model", "m", *QUICK, "--concurrency", "1", "--json")
    (point,) = ended.data["load_points"]
    assert ended.code == 1
    assert (point["metrics"]["errors"], point["validity"]["output-length"]["ok"]) == ({}, False)
    assert "The server ends its answers before their length, as it does not hold ignore_eos" in flat(ended.err)
    assert "The server sends no token counts" in flat(ended.err)
    assert len(ended.data["request"]["remarks"]) == 2


@pytest.mark.parametrize("width", [80, 100])
def test_what_a_server_refuses_is_said_within_the_width_of_the_terminal(autotune, serve, width):
    async def strict(request, writer):
        refused = next((name for name in ("ignore_eos", "stream_options") if name in request.body), None)
        await (status(400, f"unknown field '{refused}'") if refused else complete)(request, writer)

    options = ("--model", "m", *QUICK, "--concurrency", "1", "--json")
    ended = autotune("bench", serve(strict).url, *options, columns=str(width))
    assert "The server refuses stream_options, which is left out: without its token counts" in flat(ended.err)
    assert max(map(len, ended.err.splitlines())) <= width
    assert ended.data["request"]["omit"] == ["ignore_eos", "stream_options"]


def flat(text):
    """A text without its line breaks."""
    return " ".join(text.split())
