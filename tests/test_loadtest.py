"""Load tests of running servers from Python: what works, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import autotuner
from autotuner.core import LoadStep, Progress, Verdict, Workload
from autotuner.errors import ConfigError, EndpointError, MachineError, RunStoreError, UsageError
from autotuner.experiment import Slo
from autotuner.load import records
from autotuner.report.bench.record import bench_record
from autotuner.report.bench.result import BenchResult
from autotuner.report.bench.table import verdict_table
from autotuner.runs.store import RunStore
from autotuner.scoring.reasons import verdict_reason
from autotuner.search.launch import ListedLoads
from autotuner.session import Session
from tests.servers import HEAD, Behaviour, ReceivedRequest, Server, chunked, complete, reset, sse, status, token

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("on_a_busy_machine", "forked_load_workers")]

WITHOUT_PICTURES = pytest.mark.usefixtures("without_pictures")
Serve = Callable[..., Server]
DEFAULTS: dict[str, Any] = {
    "model": "m",
    "endpoint": "completions",
    "scenarios": ["D(20,5)"],
    "concurrency": [1],
    "duration": 5.0,
    "warmup": 0.0,
    "max_requests": 12,
}


def bench(url: str, **changes: Any) -> autotuner.BenchResult:
    return autotuner.bench(url, **DEFAULTS | changes)


def test_every_load_point_is_driven_and_judged(serve: Serve) -> None:
    progress_reports: list[Progress] = []
    result = bench(serve().url, concurrency=[1, 2], observe=progress_reports.append)
    assert [point.load_point.concurrency for point in result.load_points] == [1, 2]
    assert [point.answered_requests for point in result.load_points] == [12, 12]
    assert (result.source, result.planned, result.stopped, result.interrupted) == ("measured", 2, None, False)
    stages = [(progress.stage, progress.position) for progress in progress_reports]
    driven = [(stage, n) for n in (1, 2) for stage in ("warming-up", "measuring", "measured")]
    assert stages == [("starting", 0), ("ready", 0), *driven, ("stopping", 0), ("finished", 0)]
    assert {progress.total for progress in progress_reports[:-1]} == {2}


def test_an_open_loop_takes_rates_arrivals_and_a_cap(serve: Serve) -> None:
    server = serve()
    result = bench(server.url, concurrency=None, rates=[50.0], arrival="gamma:2", max_in_flight=1)
    assert [point.load_point.rate for point in result.load_points] == [50.0]
    assert max(server.in_flight_levels) == 1


@WITHOUT_PICTURES
@pytest.mark.parametrize(("rate", "requests"), [(0.01, 1), (10.0, 3), (100.0, 30)])
def test_an_open_loop_without_targets_lasts_its_duration(
    serve: Serve, tmp_path: Path, rate: float, requests: int
) -> None:
    load = {"concurrency": None, "rates": [rate], "arrival": "constant", "duration": 0.3, "max_requests": None}
    (point,) = bench(serve().url, output=tmp_path / "out", **load).load_points
    start, end = records.read(tmp_path / "out" / "trials/001/records-1.npz").window
    assert end - start == pytest.approx(0.3, abs=1e-9)
    assert point.metrics.requests == requests
    assert (point.ended_early, point.decided) == (None, None)


def trace(folder: Path, *times: float) -> str:
    rows = ({"timestamp": time, "input_length": 5 + n, "output_length": 2} for n, time in enumerate(times))
    (folder / "trace.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"file:{folder / 'trace.jsonl'}"


RECORDED: dict[str, Any] = {"concurrency": None, "max_requests": None}


@WITHOUT_PICTURES
@pytest.mark.parametrize("options", [{}, {"arrival": "trace"}, {"rates": ["trace"]}])
def test_a_trace_without_a_load_is_replayed_as_it_was_recorded(serve: Serve, tmp_path: Path, options: Any) -> None:
    times = (5.0, 5.0, 5.01, 5.25)
    result = bench(serve().url, scenarios=[trace(tmp_path, *times)], output=tmp_path / "out", **RECORDED | options)
    (point,) = result.load_points
    assert point.load_point.rate == 12.0
    assert point.decided == "the trace ended with its 4 requests"
    observation = records.read(tmp_path / "out" / "trials/001/records-1.npz")
    assert observation.stop_reason == point.decided
    played = [record.scheduled - observation.window[0] for record in observation.records]
    assert played == pytest.approx([time - 5 for time in times], abs=2e-6)
    assert observation.window[1] - observation.window[0] < DEFAULTS["duration"]
    assert point.metrics.ttft_from_schedule is not None


def test_targets_hold_a_replayed_trace_from_when_its_requests_were_due(serve: Serve, tmp_path: Path) -> None:
    scenarios = [trace(tmp_path, *[0.0] * 20, 0.01)]
    result = bench(serve().url, scenarios=scenarios, max_in_flight=1, slo={"ttft": 0.03}, **RECORDED)
    (point,) = result.load_points
    late, sent = point.metrics.ttft_from_schedule, point.metrics.ttft
    assert late is not None
    assert sent is not None
    assert late.mean > 0.03 > sent.mean
    assert point.metrics.attainment is not None
    assert point.metrics.attainment.value < 0.5


def test_each_of_several_traces_has_its_own_rate(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    scenarios = [trace(tmp_path, 0.0, 0.1, 0.2), trace(tmp_path / "other", 0.0, 0.05, 0.1)]
    result = bench(serve().url, scenarios=scenarios, **RECORDED)
    assert [point.load_point.rate for point in result.load_points] == pytest.approx([10.0, 20.0])


@pytest.mark.parametrize("options", [{"concurrency": [1]}, {"rates": [40.0]}, {"arrival": "poisson"}])
def test_a_trace_with_a_load_has_its_lengths_drawn(serve: Serve, tmp_path: Path, options: Any) -> None:
    scenarios = [trace(tmp_path, 0.0, 5.0, 10.0)]
    result = bench(serve().url, scenarios=scenarios, **{"concurrency": None, "max_requests": 12} | options)
    assert {point.metrics.requests for point in result.load_points} == {12}


def test_the_load_plan_can_be_replaced(serve: Serve) -> None:
    class Last(ListedLoads):
        def ask(self) -> LoadStep | None:
            while len(self._remaining_points) > 1:
                self._remaining_points.popleft()
            return super().ask()

    result = bench(serve().url, concurrency=[1, 2, 3], load_plan=Last)
    assert [point.load_point.concurrency for point in result.load_points] == [3]


def test_targets_in_what_are_probably_milliseconds_are_warned_of(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    bench(serve().url, max_requests=1, slo={"ttft": 500})
    assert [message for message in caplog.messages if "write 500ms or 0.5 if milliseconds are meant" in message]


def test_targets_are_judged(serve: Serve) -> None:
    met = bench(serve().url, slo={"ttft": 10.0})
    missed = bench(serve().url, slo={"ttft": 1e-6})
    assert met.meets_slo
    assert not missed.meets_slo
    assert missed.load_points[0].verdict is Verdict.INFEASIBLE
    assert "0% of requests good, target 95% (mean ttft 0.0" in missed.reason(missed.load_points[0])


def test_the_folder_holds_json_csv_pictures_and_records_that_can_be_read(serve: Serve, tmp_path: Path) -> None:
    result = bench(serve().url, output=tmp_path / "out")
    assert result.path == tmp_path / "out"
    data = json.loads((result.path / "bench.json").read_text())
    assert data["load_points"][0]["records"] == "trials/001/records-1.npz"
    assert (result.path / "load-points.csv").read_text().count("\n") == 2
    assert len(records.read(result.path / "trials/001/records-1.npz").records) == 12
    assert {path.stem for path in result.path.glob("*.png")} == {"load", "tradeoff", "latencies", "timeline"}


@WITHOUT_PICTURES
def test_the_folder_is_that_of_a_run_of_one_trial_which_is_not_resumed(serve: Serve, tmp_path: Path) -> None:
    headers = {"x-team": "a-hidden-team"}
    in_use: list[str] = []

    def observe(progress: Progress) -> None:
        if progress.stage == "measured":
            with pytest.raises(RunStoreError, match="in use") as caught, RunStore.open(tmp_path / "out").lock():
                pass
            in_use.append(caught.value.what)

    result = bench(serve().url, output=tmp_path / "out", slo={"ttft": 10.0}, headers=headers, observe=observe)
    assert len(in_use) == 1
    store = RunStore.open(tmp_path / "out")
    assert (store.kind, store.experiment.deployment.headers) == ("load-test", {})
    (trial,) = store.trials()
    assert trial.results == result.load_points
    assert store.environments()
    assert bench_record(BenchResult.from_store(store)) == bench_record(result)
    with pytest.raises(UsageError, match="is a load test, which is not resumed"):
        Session.resume(str(store.path), tmp_path)


@WITHOUT_PICTURES
def test_files_that_cannot_be_written_cost_no_measurement(serve: Serve, tmp_path: Path) -> None:
    def remove_trial(progress: Progress) -> None:
        if progress.stage == "measured" and progress.position == 2:
            shutil.rmtree(tmp_path / "out" / "trials")

    result = bench(serve().url, concurrency=[1, 2, 3], output=tmp_path / "out", observe=remove_trial)
    assert [point.answered_requests for point in result.load_points] == [12, 12]
    assert "No such file" in (result.stopped or "")
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["load_points"][1]["metrics"]["requests"] == 12


@WITHOUT_PICTURES
def test_a_folder_with_something_in_it_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    server = serve()
    with pytest.raises(UsageError, match="not empty"):
        bench(server.url, output=tmp_path)
    assert not server.requests


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"scenarios": ["X(1)"]}, ConfigError, "X"),
        ({"concurrency": [0]}, ConfigError, "at least 1"),
        ({"rates": [-1.0]}, ConfigError, "above 0"),
        ({"arrival": "gamma:-1"}, ConfigError, "gamma:SHAPE"),
        ({"endpoint": "cht"}, ConfigError, "did you mean 'chat'"),
        ({"duration": 0}, ConfigError, "duration"),
        ({"slo": {"ttfft": 1}}, ConfigError, "did you mean 'ttft'"),
        ({"slo": "no-such-slo"}, ConfigError, "no-such-slo"),
        ({"headers": {"a": "b\nc"}}, ConfigError, "line break"),
        ({"api_key_env": "AUTOTUNE_NO_SUCH_KEY"}, MachineError, "AUTOTUNE_NO_SUCH_KEY"),
        ({"insecure": True}, ConfigError, "begins with http://"),
    ],
)
def test_invalid_arguments_are_errors_before_any_load(
    serve: Serve, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    server = serve()
    with pytest.raises(error, match=message):
        bench(server.url, **changes)
    assert not server.requests


def test_an_invalid_url_is_named() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        bench("nonsense")


# errors of a server: counted by class, never raised


async def hang(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def garbage(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff not HTTP at all\r\n\r\n")
    await writer.drain()


async def broken(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + chunked(sse(b'{"choices": [')) + b"0\r\n\r\n")


async def drop(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + chunked(token()))
    await writer.drain()
    reset(writer)


FAULTS = [
    (status(404, "the model `m` does not exist"), "http-404", "does not exist"),
    (status(429, "slow down"), "http-429", "slow down"),
    (status(500, "oops"), "http-500", "oops"),
    (hang, "timeout", ""),
    (garbage, "malformed", ""),
    (broken, "malformed", ""),
    (drop, "reset", ""),
]


@pytest.mark.parametrize(("behave", "kind", "message"), FAULTS)
def test_a_test_without_any_success_ends_by_itself_and_says_why(
    serve: Serve, behave: Any, kind: str, message: str
) -> None:
    result = bench(serve(behave).url, concurrency=[1, 2], request_timeout=0.2)
    (point,) = result.load_points
    assert set(point.metrics.errors) == {kind}
    assert point.answered_requests == 0
    assert result.stopped is not None
    assert kind in result.stopped
    assert message in result.stopped


@pytest.mark.parametrize(
    ("url", "kind"), [("http://127.0.0.1:9", "connection-refused"), ("http://no-such-host.invalid", "dns")]
)
def test_a_server_that_cannot_be_reached_is_counted_too(url: str, kind: str) -> None:
    result = bench(url, concurrency=[1, 2])
    assert set(result.load_points[0].metrics.errors) == {kind}
    assert kind in (result.stopped or "")
    with pytest.raises(EndpointError, match="Nothing that serves a model answers"):
        bench(url, model=None)


def test_a_certificate_that_nobody_signed_is_refused(serve: Serve, certificate: ssl.SSLContext) -> None:
    server = serve(tls=certificate)
    result = bench(server.url)
    assert set(result.load_points[0].metrics.errors) == {"tls"}
    assert "its certificate is self-signed" in (result.stopped or "")
    with pytest.raises(EndpointError, match=r"its certificate is self-signed .*--ca-file FILE.*--insecure"):
        bench(server.url, model=None)


def test_a_certificate_of_an_authority_of_ones_own_is_accepted(
    serve: Serve, certificate: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert bench(serve(tls=certificate).url).load_points[0].answered_requests == 12


def test_a_certificate_is_trusted_by_its_file_or_not_checked_and_the_result_says_so(
    serve: Serve, certificate: ssl.SSLContext, tmp_path: Path
) -> None:
    url = serve(tls=certificate).url
    checked = bench(url, ca_file=tmp_path / "cert.pem")
    unchecked = bench(url, insecure=True)
    assert [checked.load_points[0].answered_requests, unchecked.load_points[0].answered_requests] == [12, 12]
    assert [bench_record(result)["insecure"] for result in (checked, unchecked)] == [False, True]


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A self-signed certificate for 127.0.0.1."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=t"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


@WITHOUT_PICTURES
def test_a_server_that_dies_under_load_ends_the_test_with_the_results_so_far(serve: Serve, tmp_path: Path) -> None:
    load_requests = 0

    async def die(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal load_requests
        load_requests += request.body["max_tokens"] == 5  # a check before the load asks for fewer tokens
        if load_requests <= 50:
            await complete(request, writer)
        else:
            reset(writer)

    result = bench(serve(die).url, concurrency=[1, 2, 3], max_requests=40, output=tmp_path / "out")
    assert [point.answered_requests for point in result.load_points] == [40, 10]
    assert "reset" in (result.stopped or "")
    assert (tmp_path / "out" / "trials/001/records-2.npz").exists()


def test_a_load_point_that_the_server_rejects_does_not_end_the_test(serve: Serve) -> None:
    async def short(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (status(400, "too long") if len(request.body["prompt"]) > 100 else complete)(request, writer)

    result = bench(serve(short).url, scenarios=["D(200,5)", "D(20,5)"])
    assert [point.answered_requests for point in result.load_points] == [0, 12]
    assert result.stopped is None


def test_rejected_requests_are_counted_as_errors(serve: Serve) -> None:
    async def every_third(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (complete if request.number % 3 else status(429))(request, writer)

    (point,) = bench(serve(every_third).url).load_points
    assert point.metrics.errors == {"http-429": 4}
    assert point.verdict is Verdict.INVALID


async def wait_a_second(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """Refuse every third request, for 0.2 s."""
    if request.number % 3:
        await complete(request, writer)
    else:
        writer.write(b"HTTP/1.1 429 No\r\nRetry-After: 0.2\r\nContent-Length: 0\r\n\r\n")


def test_a_pause_that_refusals_ask_for_is_named(serve: Serve) -> None:
    result = bench(serve(wait_a_second).url)
    (point,) = result.load_points
    assert result.pause_not_kept(point) == 0.2
    assert "asked for a pause of up to 0.2 s, which --honour-retry-after keeps" in result.reason(point)


@WITHOUT_PICTURES
def test_a_pause_that_refusals_ask_for_is_kept_on_demand(serve: Serve, tmp_path: Path) -> None:
    result = bench(serve(wait_a_second).url, honour_retry_after=True, output=tmp_path / "out")
    (point,) = result.load_points
    assert result.pause_not_kept(point) is None
    rows = records.read(tmp_path / "out" / "trials/001/records-1.npz").records
    pauses = [later.sent - row.finished for row, later in pairwise(rows) if row.error == "http-429"]
    assert pauses
    assert min(pauses) >= 0.199


@WITHOUT_PICTURES
def test_a_small_vocabulary_is_detected_before_the_load(serve: Serve, tmp_path: Path) -> None:
    async def small_vocabulary(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        max_id = max(request.body["prompt"])
        await (status(400, f"Token id {max_id} is out of vocabulary") if max_id >= 512 else complete)(request, writer)

    server = serve(small_vocabulary)
    result = bench(server.url, concurrency=[1, 2], output=tmp_path / "out")
    assert [point.answered_requests for point in result.load_points] == [12, 12]
    assert [point.metrics.errors for point in result.load_points] == [{}, {}]
    assert result.vocabulary is not None
    assert 505 <= result.vocabulary.size <= 512
    probes = [request for request in server.requests if len(request.body["prompt"]) == 1]
    assert len(probes) == result.vocabulary.requests <= 12
    assert server.requests[1 : 1 + len(probes)] == probes  # after the one that asks for the route
    written = json.loads((tmp_path / "out" / "bench.json").read_text())["vocabulary"]
    assert written == {"size": result.vocabulary.size, "origin": "server", "requests": len(probes)}


def test_chat_prompts_have_no_vocabulary(serve: Serve) -> None:
    assert bench(serve().url, endpoint="chat").vocabulary is None


@WITHOUT_PICTURES
def test_a_key_is_sent_and_never_written(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-very-secret"
    monkeypatch.setenv("THE_KEY", secret)
    server = serve(status(401, f"Incorrect API key provided: {secret}"))
    result = bench(server.url, api_key_env="THE_KEY", headers={"x-team": "a-hidden-team"}, output=tmp_path / "out")
    assert set(result.load_points[0].metrics.errors) == {"http-401"}
    assert server.requests[0].headers["authorization"] == f"Bearer {secret}"
    assert server.requests[0].headers["x-team"] == "a-hidden-team"
    assert "Incorrect API key provided: *****" in (result.stopped or "")
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    assert not any(secret.encode() in text or b"a-hidden-team" in text for text in written)


def strict(*refused: str) -> Any:
    """Answers a request that has one of these fields with an error that names it."""

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        named = next((name for name in refused if name in request.body), None)
        answer = complete if named is None else status(400, f"Unrecognized request argument supplied: {named}")
        await answer(request, writer)

    return behave


@pytest.mark.parametrize("field", ["ignore_eos", "stream_options", "temperature"])
def test_a_field_that_the_server_refuses_is_left_out_of_the_load_and_that_is_said(
    serve: Serve, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(strict(field))
    result = bench(server.url)
    assert result.load_points[0].answered_requests == 12
    assert not any(field in request.body for request in server.requests[-12:])
    request = bench_record(result)["request"]
    assert request["omit"] == (field,)
    assert f"The server refuses {field}, which is left out" in request["remarks"][0]
    assert request["remarks"][0] in caplog.messages


def test_answers_that_end_early_are_no_errors_where_their_length_was_not_asked_for(serve: Serve) -> None:
    async def short(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if "ignore_eos" in request.body:
            await status(400, "extra field: ignore_eos")(request, writer)
        else:
            writer.write(HEAD + chunked(token()) + chunked(token(finish="stop")) + b"0\r\n\r\n")

    (point,) = bench(serve(short).url).load_points
    assert point.answered_requests == 12
    failed = [check.name for check in point.validity if not check.ok]
    assert "output-length" in failed
    assert point.verdict is Verdict.INVALID


def test_fields_of_ones_own_are_sent_and_others_left_out(serve: Serve) -> None:
    server = serve()
    bench(server.url, extra_body={"min_p": 0.1, "stream_options": {"x": 1}}, omit=["temperature"])
    bodies = [request.body for request in server.requests]
    assert all(body["min_p"] == 0.1 and "temperature" not in body for body in bodies)
    assert bodies[-1]["stream_options"] == {"include_usage": True, "x": 1}


@pytest.mark.parametrize("counts_in_stream", [True, False])
def test_a_server_without_token_ids_is_sent_text_of_the_right_length(serve: Serve, counts_in_stream: bool) -> None:
    async def text_only(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if isinstance(request.body["prompt"], list):
            await status(500, "Unmapped prompt format. Your prompt is neither a list of strings nor a string.")(
                request, writer
            )
            return
        counts = {"prompt_tokens": 2 * len(request.body["prompt"].split()) + 7, "completion_tokens": 1}
        if not request.body.get("stream"):
            whole = json.dumps({"choices": [{"text": "a"}], "usage": counts}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(whole), whole))
            return
        output = request.body["max_tokens"]
        writer.write(HEAD + b"".join(chunked(token()) for _ in range(output - 1)) + chunked(token(finish="length")))
        if counts_in_stream:
            counts["completion_tokens"] = output
            writer.write(chunked(sse({"choices": [], "usage": counts})))
        writer.write(chunked(sse(b"[DONE]")) + b"0\r\n\r\n")

    server = serve(text_only)
    result = bench(server.url, endpoint=None, scenarios=["D(101,5)"])
    assert result.experiment.benchmark.prompts == "text"
    assert result.vocabulary is None
    assert result.load_points[0].answered_requests == 12
    assert len(server.requests[-1].body["prompt"].split()) == 47


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_body": {"messages": []}}, "images, audio and prompts of one's own"),
        ({"extra_body": {"modalities": ["audio"]}}, "audio and images in requests or answers are not supported"),
        ({"extra_body": {"input": "text"}}, "images, audio and prompts of one's own"),
        ({"extra_body": {"max_tokens": 5}}, "the scenario says how long answers are"),
        ({"extra_body": {"stream": False}}, "no token has a time"),
        ({"omit": ["stream"]}, "no token has a time"),
        ({"omit": ["model"]}, "no request is one without it"),
        ({"endpoint": "embeddings"}, "embeddings, which is not supported"),
        ({"endpoint": "rerank"}, "reranking, which is not supported"),
        ({"endpoint": "images"}, "images, which is not supported"),
        ({"ca_file": "no-such.pem"}, "No such file"),
    ],
)
def test_requests_that_no_load_is_made_of_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench("https://127.0.0.1:9", **changes)


def test_a_load_plan_is_made_from_the_whole_workload(serve: Serve) -> None:
    workloads: list[Workload] = []

    def load_plan(workload: Workload) -> ListedLoads:
        workloads.append(workload)
        return ListedLoads(workload)

    bench(serve().url, load_plan=load_plan, seed=7)
    assert (workloads[0].seed, workloads[0].max_requests, workloads[0].endpoint) == (7, 12, "completions")


# trace files of other tools


def write_mooncake(folder: Path) -> str:
    rows = [
        {"timestamp": 100 * n, "input_length": 40 + n, "output_length": 2, "hash_ids": [0, 1 + n]} for n in range(5)
    ]
    (folder / "mooncake.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"file:{folder / 'mooncake.jsonl'}"


def write_burst_gpt(folder: Path) -> str:
    rows = [f"{0.1 * n:.1f},GPT-4,{40 + n},2,{42 + n},API log" for n in range(5)]
    lines = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", *rows, "0.5,GPT-4,9,0,9,API log"]
    (folder / "burst.csv").write_text("\n".join(lines))
    return f"file:{folder / 'burst.csv'}"


def write_azure(folder: Path) -> str:
    rows = [f"2023-11-16 18:17:03.{n}000000,{40 + n},2" for n in range(5)]
    (folder / "azure.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    return f"file:{folder / 'azure.csv'}"


@WITHOUT_PICTURES
@pytest.mark.parametrize(("write", "unit"), [(write_mooncake, "ms"), (write_burst_gpt, "s"), (write_azure, "date")])
def test_a_trace_of_another_tool_is_replayed_in_its_own_unit(
    serve: Serve, tmp_path: Path, write: Callable[[Path], str], unit: str
) -> None:
    server = serve()
    result = bench(server.url, scenarios=[write(tmp_path)], output=tmp_path / "out", **RECORDED)
    (point,) = result.load_points
    assert point.load_point.rate == pytest.approx(10.0)
    assert [trace.time_unit for trace in result.traces] == [unit]
    assert point.decided == "the trace ended with its 5 requests"
    observation = records.read(tmp_path / "out" / "trials/001/records-1.npz")
    sent = sorted(observation.records, key=lambda record: record.index)
    assert [record.prompt_tokens for record in sent] == [40, 41, 42, 43, 44]
    due = [record.scheduled - observation.window[0] for record in sent]
    assert due == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4], abs=2e-6)


def test_equal_hash_ids_are_equal_text_for_the_server(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    bench(server.url, scenarios=[write_mooncake(tmp_path)], **RECORDED)
    prompts = [request.body["prompt"] for request in server.requests if len(request.body["prompt"]) >= 40][-5:]
    # two ids for 40 to 44 tokens: blocks of 32
    assert len({tuple(prompt[:32]) for prompt in prompts}) == 1
    assert len({prompt[32] for prompt in prompts}) == 5


@WITHOUT_PICTURES
@pytest.mark.parametrize(
    ("options", "seconds"),
    [({"trace_scale": 4}, 0.1), ({"time_unit": "us", "trace_scale": 0.001}, 0.4), ({"time_unit": "ms"}, 0.4)],
)
def test_a_trace_can_be_replayed_faster_or_in_another_unit(
    serve: Serve, tmp_path: Path, options: Any, seconds: float
) -> None:
    result = bench(serve().url, scenarios=[write_mooncake(tmp_path)], output=tmp_path / "out", **RECORDED | options)
    (point,) = result.load_points
    assert point.load_point.rate == pytest.approx(4 / seconds)
    observation = records.read(tmp_path / "out" / "trials/001/records-1.npz")
    due = sorted(record.scheduled - observation.window[0] for record in observation.records)
    assert due == pytest.approx([seconds * n / 4 for n in range(5)], abs=2e-6)


@pytest.mark.parametrize(
    ("options", "unused"),
    [
        ({"concurrency": [2]}, "in a closed loop"),
        ({"rates": [40.0]}, "with the arrival poisson"),
        ({"rates": [40.0], "arrival": "constant"}, "with the arrival constant"),
        ({"rates": [40.0], "arrival": "trace"}, None),
    ],
)
def test_times_that_are_not_used_are_said(serve: Serve, tmp_path: Path, options: Any, unused: str | None) -> None:
    scenario = write_burst_gpt(tmp_path)
    result = bench(serve().url, scenarios=[scenario], **{"concurrency": None, "max_requests": 5} | options)
    notes = result.notes(result.load_points[0])
    path = scenario.removeprefix("file:")
    found = f"{path}: BurstGPT CSV, 5 requests in 0.4 s (timestamps in s); 1 row without tokens skipped."
    assert list(notes) == [found, *([f"The times of {path} are not used {unused}."] if unused else [])]


def test_recorded_conversations_are_held_in_a_closed_loop_and_refused_at_a_rate(serve: Serve, tmp_path: Path) -> None:
    messages = [("human", 80), ("gpt", 8), ("human", 20), ("gpt", 12)]
    rows = [{"conversations": [{"from": role, "value": "x" * characters} for role, characters in messages]}] * 2
    (tmp_path / "chats.json").write_text(json.dumps(rows))
    scenarios = [f"file:{tmp_path / 'chats.json'}"]
    server = serve()
    result = bench(server.url, scenarios=scenarios, max_requests=4)
    assert result.load_points[0].metrics.requests == 4
    prompts = [request.body["prompt"] for request in server.requests][-4:]
    assert [len(prompt) for prompt in prompts] == [20, 27, 20, 27]
    assert prompts[1][:20] == prompts[0]
    with pytest.raises(ConfigError, match="cannot be driven at a rate"):
        bench(server.url, scenarios=scenarios, concurrency=None, rates=[5.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trace_scale": 0}, "trace_scale"),
        ({"concurrency": [2], "trace_scale": 2}, "trace_scale makes a trace faster"),
        ({"rates": [3.0], "arrival": "trace", "trace_scale": 2}, "trace_scale makes a trace faster"),
        ({"time_unit": "min"}, "trace_time_unit"),
    ],
)
def test_a_scale_or_unit_that_cannot_be_is_refused(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench("http://127.0.0.1:9", scenarios=[write_burst_gpt(tmp_path)], **RECORDED | options)


async def buffered(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """Stream behind a proxy that passes on the whole response at its end."""
    total = request.body["max_tokens"]
    await asyncio.sleep(0.003 * total)
    events = [token(finish="length" if number == total - 1 else None) for number in range(total)]
    body = b"".join(chunked(event) for event in (*events, sse(b"[DONE]")))
    writer.write(HEAD + body + b"0\r\n\r\n")
    await writer.drain()


def test_a_buffered_stream_meets_no_target_and_says_what_to_do(serve: Serve) -> None:
    (point,) = bench(serve(buffered).url, scenarios=["D(20,10)"], slo={"tpot": 0.5}).load_points
    assert point.answered_requests == 12
    assert point.verdict is Verdict.INVALID
    assert point.metrics.tpot is None
    reason = verdict_reason(point, Slo.model_validate({"tpot": 0.5}))
    assert "not streamed (proxy buffering?)" in reason
    assert "proxy_buffering off" in reason


async def without_usage(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """Report zeros in every event."""
    total = request.body["max_tokens"]
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    writer.write(HEAD)
    for number in range(total):
        await asyncio.sleep(0.002)
        reason = "length" if number == total - 1 else None
        writer.write(chunked(sse({"choices": [{"text": " a", "finish_reason": reason}], "usage": zeros})))
    writer.write(chunked(sse(b"[DONE]")) + b"0\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize(("behave", "source"), [(complete, "usage"), (without_usage, "events")])
def test_the_result_says_what_counted_the_tokens(serve: Serve, behave: Behaviour, source: str) -> None:
    result = bench(serve(behave).url)
    assert result.load_points[0].metrics.token_counts == {source: 12}
    assert bench_record(result)["load_points"][0]["metrics"]["token_counts"] == {source: 12}
    told = [note for note in verdict_table(result).notes if "counted by the events" in note]
    assert len(told) == (source == "events")


@WITHOUT_PICTURES
def test_a_bad_event_is_quoted_without_the_secrets_in_it(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "sk-very-secret"
    monkeypatch.setenv("THE_KEY", secret)

    async def every_third(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number % 3:
            await complete(request, writer)
        else:
            bad = b'data: {"key": "%s", "more": \x1b[31m%s\n\n' % (secret.encode(), b"x" * 1000)
            writer.write(HEAD + chunked(bad) + b"0\r\n\r\n")

    result = bench(serve(every_third).url, api_key_env="THE_KEY", output=tmp_path / "out")
    (message,) = result.load_points[0].error_messages.values()
    assert message.startswith('Not understood: {"key": "*****", "more": \\x1b[31mxxx')
    assert len(message) < 300
    assert any("malformed: Not understood: " in note for note in verdict_table(result).notes)
    assert not any(secret.encode() in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


async def created(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """Answer with a status of success that is not 200."""
    writer.write(HEAD.replace(b"200 OK", b"201 Created"))
    total = request.body["max_tokens"]
    for number in range(total):
        await asyncio.sleep(0.001)
        writer.write(chunked(token(finish="length" if number == total - 1 else None)))
    writer.write(b"0\r\n\r\n")


def test_another_status_of_success_is_an_answer(serve: Serve) -> None:
    assert bench(serve(created).url).load_points[0].answered_requests == 12
