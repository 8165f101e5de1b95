"""The driver on real connections, on uvloop and on asyncio's own loop."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop

from autotuner.core import LoadPoint, RequestRecord, Workload
from autotuner.endpoints import chat_tokens
from autotuner.endpoints.address import Endpoint
from autotuner.endpoints.chat_token_fit import ChatTokenFit
from autotuner.errors import ConfigError
from autotuner.load import loops, spool
from autotuner.load.driver import DriveOutcome
from autotuner.load.job import Job
from autotuner.load.worker import drive_load_point
from autotuner.workload import arrivals
from autotuner.workload.prompts import DEFAULT_WORDS
from autotuner.workload.tokenizer import PromptWords, too_few_words_error
from tests.servers import HEAD, ReceivedRequest, Server, chunked, complete, reset, sse, status, token, usage

Serve = Callable[..., Server]


@dataclass
class Driven:
    outcome: DriveOutcome
    records: list[RequestRecord]
    phases: list[str]

    @property
    def started(self) -> list[RequestRecord]:
        """Those due in the window."""
        given_up = self.outcome.ended_early is not None
        return [record for record in self.records if record.index >= 0 or given_up]

    @property
    def errors(self) -> Counter[str | None]:
        return Counter(record.error for record in self.started)


Drive = Callable[..., Driven]


def driven_on(factory: Callable[[], asyncio.AbstractEventLoop] | None) -> Drive:
    """Drive one load point in this process, on this event loop."""

    def run(url: str, scenario: str = "D(20,5)", tokenizer: str | None = None, **options: Any) -> Driven:
        load = {name: options.pop(name) for name in ("concurrency", "rate") if name in options}
        point = LoadPoint(scenario, **load)
        workload = Workload((point,), **{"duration": 60.0, "warmup": 0.0, "request_timeout": 5.0, **options})
        messages: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder:
            endpoint = Endpoint(url, "m", tokenizer_path=tokenizer)
            is_chat = workload.endpoint == "chat"
            fit = chat_tokens.fit_chat_tokens(endpoint, workload) if is_chat else ChatTokenFit()
            job = Job(endpoint, workload, "s", folder, token_fit=fit)
            with asyncio.Runner(loop_factory=factory) as runner:
                outcome = runner.run(drive_load_point(job, messages.append))
            spool.transcribe(job.spool_path, job.records_path)
            return Driven(
                outcome, spool.read(job.records_path), [message["phase"] for message in messages if "phase" in message]
            )

    return run


@pytest.fixture
def drive() -> Drive:
    return driven_on(uvloop.Loop)


@pytest.fixture(params=[uvloop.Loop, None], ids=["uvloop", "asyncio"])
def drive_on_either(request: pytest.FixtureRequest) -> Drive:
    return driven_on(request.param)


# closed loop


def test_a_closed_loop_keeps_exactly_n_in_flight_on_n_connections(serve: Serve, drive_on_either: Drive):
    server = serve()
    driven = drive_on_either(server.url, concurrency=7, warmup=0.1, max_requests=40)
    assert max(server.in_flight_levels) == 7
    assert server.connections == 7
    assert driven.errors == {None: 40}


def test_each_record_is_what_the_server_sent(serve: Serve, drive_on_either: Drive):
    driven = drive_on_either(serve().url, "D(20,5)", concurrency=2, max_requests=20)
    for record in driven.started:
        assert (record.prompt_tokens, record.output_tokens, record.output_token_count) == (20, 5, 5)
        assert (record.requested_prompt, record.requested_output) == (20, 5)
        assert list(record.chunk_tokens) == [1] * 5
        assert record.sent <= record.chunk_times[0] <= record.chunk_times[-1] <= record.finished
        assert record.scheduled == record.sent
        assert record.client_delay is None or record.client_delay < record.chunk_times[0] - record.sent
    assert driven.outcome.cpu is not None
    assert driven.outcome.loop_lag_mean is not None
    assert 0 <= driven.outcome.loop_lag_mean <= driven.outcome.loop_lag_p99
    assert sorted(record.index for record in driven.started) == list(range(len(driven.started)))


def test_the_window_follows_the_warm_up_without_a_drain(serve: Serve, drive: Drive):
    server = serve()
    driven = drive(server.url, concurrency=4, warmup=0.2, duration=0.3)
    start, end = driven.outcome.window
    assert end - start == pytest.approx(0.3, abs=1e-9)
    assert driven.phases == ["warming-up", "measuring"]
    overlapping = [record for record in driven.records if record.sent < start]
    assert overlapping
    assert all(record.finished > start and record.index < 0 for record in overlapping)
    assert all(record.sent < end for record in driven.started)
    assert len(server.requests) > len(driven.records)


def test_what_is_in_flight_at_the_end_of_the_window_may_finish(serve: Serve, drive: Drive):
    driven = drive(serve().url, "D(5,60)", concurrency=3, duration=0.2)
    end = driven.outcome.window[1]
    assert any(record.finished > end for record in driven.started)
    assert driven.errors == {None: len(driven.started)}
    assert driven.outcome.cut_off == 0


@pytest.mark.parametrize("load", [{"concurrency": 3}, {"rate": 40.0, "arrival": "constant"}])
def test_the_load_is_kept_up_until_the_last_request_of_the_window_has_ended(
    serve: Serve, drive: Drive, load: dict[str, Any]
):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await complete(request, writer, gap=0.02)

    server = serve(behave)
    driven = drive(server.url, "D(5,10)", warmup=0.1, duration=0.2, **load)
    start, end = driven.outcome.window
    assert end - start == pytest.approx(0.2, abs=1e-9)
    assert driven.errors == {None: len(driven.started)}
    assert max(record.finished for record in driven.started) > end + 0.05
    # the server was asked for more behind the window, of which nothing is kept
    assert len(server.requests) > len(driven.records)
    assert all(record.scheduled < end for record in driven.started)


def test_no_two_requests_have_the_same_prompt(serve: Serve, drive: Drive):
    server = serve()
    drive(server.url, concurrency=4, warmup=0.1, max_requests=40)
    prompts = [tuple(request.body["prompt"]) for request in server.requests]
    assert len(set(prompts)) == len(prompts)
    assert len({prompt[0] for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("load", [{"concurrency": 3}, {"rate": 200.0}])
def test_max_requests_is_exact_and_the_window_ends_with_the_last(serve: Serve, drive: Drive, load: dict[str, Any]):
    driven = drive(serve().url, max_requests=10, warmup=0.05, **load)
    assert len(driven.started) == 10
    assert driven.outcome.window[1] == max(record.finished for record in driven.started)


def test_fewer_max_requests_than_users_are_enough(serve: Serve, drive: Drive):
    driven = drive(serve().url, max_requests=2, concurrency=8)
    assert len(driven.started) == 2
    assert driven.outcome.ended_early is None


def test_a_prompt_of_50000_tokens_arrives_whole(serve: Serve, drive: Drive):
    server = serve()
    driven = drive(server.url, "D(50000,2)", concurrency=2, max_requests=3)
    assert [record.prompt_tokens for record in driven.started] == [50_000] * 3


def test_a_shared_prefix_is_shared_by_warm_up_and_window(serve: Serve, drive: Drive):
    server = serve()
    drive(server.url, "P(30,10,2)", concurrency=2, warmup=0.05, max_requests=4)
    assert len({tuple(request.body["prompt"][:30]) for request in server.requests}) == 1
    assert len({request.body["prompt"][30] for request in server.requests}) == len(server.requests)


def test_a_conversation_goes_on_with_its_own_history(serve: Serve, drive: Drive):
    server = serve()
    driven = drive(server.url, "C(3,20,6)", concurrency=2, warmup=0.1, max_requests=14)
    assert driven.errors == {None: len(driven.started)}
    assert {record.prompt_tokens for record in driven.started} == {20, 46, 72}
    assert all(record.prompt_tokens == record.requested_prompt for record in driven.started)
    begun: dict[int, list[list[int]]] = {}
    for request in server.requests:
        begun.setdefault(request.body["prompt"][0], []).append(request.body["prompt"])
    complete_conversations = [prompts for prompts in begun.values() if len(prompts) == 3]
    assert complete_conversations
    assert all(third[:46] == second and second[:20] == first for first, second, third in complete_conversations)
    indexes = [record.index for record in driven.records]
    assert len(set(indexes)) == len(indexes)


# faults


@pytest.mark.parametrize("code", [400, 429, 503])
def test_an_error_status_is_counted_under_its_class(serve: Serve, drive_on_either: Drive, code: int):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (status(code) if request.number % 2 else complete)(request, writer)

    driven = drive_on_either(serve(behave).url, concurrency=2, max_requests=12)
    assert driven.errors == {None: 6, f"http-{code}": 6}
    assert driven.outcome.ended_early is None


def test_a_server_that_dies_mid_stream_is_a_reset_and_is_not_asked_again(serve: Serve, drive_on_either: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number % 3 == 2:
            writer.write(HEAD + chunked(token()) + chunked(token()))
            await writer.drain()
            await asyncio.sleep(0.02)
            reset(writer)
        else:
            await complete(request, writer)

    server = serve(behave)
    driven = drive_on_either(server.url, concurrency=1, max_requests=9)
    assert driven.errors == {None: 6, "reset": 3}
    assert [len(record.chunk_times) for record in driven.started if record.error] == [2, 2, 2]
    assert len(server.requests) == 9


def test_a_server_that_never_answers_is_a_timeout(serve: Serve, drive_on_either: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number == 1:
            await asyncio.sleep(60)
        await complete(request, writer)

    driven = drive_on_either(serve(behave).url, concurrency=2, max_requests=6, request_timeout=0.5)
    assert driven.errors.keys() <= {None, "timeout"}  # a busy machine may be late with others too
    slow = [record for record in driven.started if record.error]
    assert slow
    assert all(record.finished - record.sent >= 0.45 for record in slow)


def test_garbage_is_malformed(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number % 2:
            writer.write(
                HEAD + chunked(b"data: {oops\n\n") + b"0\r\n\r\n" if request.number == 1 else b"not HTTP\r\n\r\n"
            )
        else:
            await complete(request, writer)

    assert drive(serve(behave).url, concurrency=1, max_requests=4).errors == {None: 2, "malformed": 2}


def test_no_done_and_an_early_stop_are_distinct_words(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        finish = "length" if request.number == 0 else "stop" if request.number == 1 else None
        last = request.body["max_tokens"] - (1 if finish == "length" else 2)
        events = [token(finish=finish if number == last else None) for number in range(last + 1)]
        writer.write(HEAD + b"".join(map(chunked, events)) + b"0\r\n\r\n")

    driven = drive(serve(behave).url, concurrency=1, max_requests=3)
    assert driven.errors == {None: 1, "early-stop": 1, "incomplete": 1}


# keep-alive


def test_a_server_that_closes_after_each_answer_causes_no_errors(serve: Serve, drive_on_either: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await complete(request, writer)
        reset(writer)

    server = serve(behave)
    driven = drive_on_either(server.url, concurrency=2, max_requests=10)
    assert driven.errors == {None: 10}
    assert server.connections >= 10


def test_a_request_that_met_a_closing_connection_is_sent_again_and_timed_from_then(
    serve: Serve, drive_on_either: Drive
):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number == 1:
            await asyncio.sleep(0.1)
            reset(writer)
        else:
            await complete(request, writer)

    server = serve(behave)
    driven = drive_on_either(server.url, concurrency=1, max_requests=3)
    assert driven.errors == {None: 3}
    assert server.requests[1].body == server.requests[2].body
    assert server.requests[1].connection != server.requests[2].connection
    gap = driven.started[1].sent - driven.started[0].finished
    assert gap >= 0.1


def test_a_request_is_sent_again_only_once(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number in (1, 2):
            reset(writer)
        else:
            await complete(request, writer)

    driven = drive(serve(behave).url, concurrency=1, max_requests=3)
    assert driven.errors == {None: 2, "reset": 1}


def test_a_new_connection_that_is_dropped_is_a_reset(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number == 0:
            reset(writer)
        else:
            await complete(request, writer)

    driven = drive(serve(behave).url, concurrency=1, max_requests=3)
    assert driven.errors == {None: 2, "reset": 1}


# nothing works


@pytest.mark.parametrize("load", [{"concurrency": 4}, {"rate": 100.0}])
def test_a_server_that_is_not_there_ends_the_run(drive_on_either: Drive, load: dict[str, Any]):
    driven = drive_on_either("http://127.0.0.1:9", **load)
    assert driven.outcome.ended_early is not None
    assert "connection-refused" in driven.outcome.ended_early
    assert driven.errors == {"connection-refused": len(driven.started)}
    assert len(driven.started) >= 5


def test_a_name_that_does_not_resolve_ends_the_run(drive: Drive):
    driven = drive("http://no-such-host.invalid", concurrency=1)
    assert set(driven.errors) == {"dns"}


def test_a_plain_server_behind_https_is_a_tls_failure(serve: Serve, drive_on_either: Drive):
    driven = drive_on_either(serve().url.replace("http:", "https:"), concurrency=1)
    assert set(driven.errors) == {"tls"}


def test_the_wrong_model_ends_the_run_with_what_the_server_said(serve: Serve, drive: Drive):
    driven = drive(serve(status(404, "The model `m` does not exist.")).url, concurrency=2)
    assert set(driven.errors) == {"http-404"}
    assert driven.outcome.ended_early is not None
    assert "The model `m` does not exist." in driven.outcome.ended_early


def test_a_server_that_only_streams_errors_ends_the_run_with_what_it_said(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(sse({"error": {"message": "Token id 9 is out of vocabulary."}})) + b"0\r\n\r\n")

    driven = drive(serve(behave).url, concurrency=2)
    assert set(driven.errors) == {"stream-error"}
    assert driven.outcome.ended_early is not None
    assert "Token id 9 is out of vocabulary." in driven.outcome.ended_early


def test_a_server_that_dies_during_the_run_ends_it_and_what_was_measured_stays(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number < 30:
            await complete(request, writer)
        else:
            reset(writer)

    driven = drive(serve(behave).url, concurrency=4)
    assert driven.errors[None] == 30
    assert driven.errors["reset"] >= 5
    assert driven.outcome.ended_early is not None
    start, end = driven.outcome.window
    assert end - start < 600


def test_rejections_beside_a_slow_success_do_not_end_the_run(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number == 0:
            await complete(request, writer, gap=0.1)
        else:
            await status(429)(request, writer)

    driven = drive(serve(behave).url, "D(5,4)", rate=60.0, duration=0.3)
    assert driven.errors[None] == 1
    assert driven.outcome.ended_early is None


def test_what_fails_in_the_warm_up_is_the_observation_when_the_run_ends_there(drive: Drive):
    driven = drive("http://127.0.0.1:9", concurrency=1, warmup=600.0)
    start, end = driven.outcome.window
    assert end - start < 600
    assert driven.errors == {"connection-refused": 5}


# open loop


def test_an_open_loop_follows_the_absolute_schedule(serve: Serve, drive_on_either: Drive):
    driven = drive_on_either(serve().url, rate=80.0, duration=0.5, seed=5)
    point = LoadPoint("D(20,5)", rate=80.0)
    offsets = islice(arrivals.steady_offsets(80.0, "poisson", Random(f"5 {point} arrivals")), len(driven.started))
    scheduled = sorted(record.scheduled for record in driven.started)
    start = driven.outcome.window[0]
    assert [time - start for time in scheduled] == pytest.approx(list(offsets), abs=1e-6)
    assert all(record.sent >= record.scheduled for record in driven.started)
    assert scheduled[-1] < driven.outcome.window[1]


def test_an_open_loop_does_not_wait_for_slow_answers(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await complete(request, writer, gap=0.1)

    server = serve(behave)
    driven = drive(server.url, "D(5,5)", rate=100.0, duration=0.3, arrival="constant")
    assert len(driven.started) == 30
    assert max(server.in_flight_levels) >= 30
    assert driven.errors == {None: 30}


def test_an_open_loop_opens_more_connections_when_it_needs_them(
    serve: Serve, drive: Drive, monkeypatch: pytest.MonkeyPatch
):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await complete(request, writer, gap=0.1)

    monkeypatch.setattr(loops, "_MAX_PREOPENED_CONNECTIONS", 2)
    server = serve(behave)
    driven = drive(server.url, "D(5,2)", rate=60.0, duration=0.3, arrival="constant")
    assert max(server.in_flight_levels) > 6
    assert driven.errors == {None: 18}


def test_idle_connections_that_the_server_closes_are_replaced(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await complete(request, writer)
        reset(writer)

    server = serve(behave)
    driven = drive(server.url, rate=25.0, arrival="constant", max_requests=10)
    assert driven.errors == {None: 10}
    assert server.connections > 10


def test_requests_that_wait_for_a_place_do_not_wait_for_a_dead_server(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.number < 2:
            await asyncio.sleep(0.2)
        reset(writer)

    driven = drive(serve(behave).url, rate=200.0, arrival="constant", max_requests=20, max_in_flight=2)
    # all of the window's, and what kept up the load until they had failed
    assert driven.errors["reset"] + driven.outcome.cut_off >= 20


def test_a_cap_bounds_what_is_in_flight_and_loses_no_request(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await complete(request, writer, gap=0.01)

    server = serve(behave)
    driven = drive(server.url, rate=100.0, duration=0.2, arrival="constant", max_in_flight=3)
    assert max(server.in_flight_levels) == 3
    assert driven.errors == {None: 20}
    assert max(record.sent - record.scheduled for record in driven.started) > 0.01
    assert 10 < driven.outcome.held_back <= 17


def test_a_cap_that_is_never_reached_holds_nothing_back(serve: Serve, drive: Drive):
    driven = drive(serve().url, rate=50.0, duration=0.2, arrival="constant", max_in_flight=500)
    assert driven.outcome.held_back == 0


def test_a_trace_is_replayed_row_by_row_at_its_own_times(serve: Serve, drive: Drive, tmp_path: Path):
    rows = [(0.0, 10, 3), (1.0, 11, 2), (1.0, 12, 4), (4.0, 13, 1)]
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        "\n".join(
            f'{{"timestamp": {time}, "input_length": {prompt}, "output_length": {output}}}'
            for time, prompt, output in rows
        )
    )
    driven = drive(serve().url, f"file:{trace}", rate=10.0, arrival="trace", warmup=0.1, max_requests=4)
    played = sorted(driven.started, key=lambda record: record.index)
    assert [(record.prompt_tokens, record.output_token_count) for record in played] == [row[1:] for row in rows]
    begin = driven.outcome.window[0]
    assert [record.scheduled - begin for record in played] == pytest.approx([0, 0.075, 0.075, 0.3], abs=1e-6)
    assert driven.outcome.window[1] == max(record.finished for record in played)


def test_warm_up_and_window_of_an_open_loop_are_one_schedule(serve: Serve, drive: Drive):
    driven = drive(serve().url, rate=100.0, warmup=0.205, duration=0.2, arrival="constant")
    start = driven.outcome.window[0]
    scheduled = sorted(record.scheduled - start for record in driven.started)
    assert len(scheduled) == 20
    assert scheduled[0] == pytest.approx(0.005, abs=1e-6)


# the end of a window, whose next arrival is further away than the test may take


@pytest.mark.parametrize(
    ("load", "requests_due"),
    [
        ({"arrival": "constant"}, 1),
        ({"arrival": "constant", "warmup": 0.1}, 0),
        ({"arrival": "constant", "max_requests": 10}, 1),
        ({"arrival": "ramp:1-2"}, 0),
        # the longest window of a stop rule, which is asked only when requests end
        ({"arrival": "constant", "duration": 0.1, "max_duration": 0.2}, 1),
    ],
    ids=["constant", "none in the window", "with a request limit", "ramp", "with a stop rule"],
)
def test_a_window_ends_when_its_time_is_up_however_far_the_next_arrival_is(
    serve: Serve, drive_on_either: Drive, load: dict[str, Any], requests_due: int
):
    driven = drive_on_either(serve().url, rate=0.001, **{"duration": 0.2, "request_timeout": 0.5, **load})
    start, end = driven.outcome.window
    assert end - start == pytest.approx(0.2, abs=1e-9)
    assert driven.outcome.ended_early is None
    assert driven.errors == ({None: requests_due} if requests_due else {})


def test_a_window_ends_in_the_gap_of_a_trace(serve: Serve, drive: Drive, tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    times = [0.0, 0.05, 2000.0]
    trace.write_text("\n".join(f'{{"timestamp": {time}, "input_length": 9, "output_length": 2}}' for time in times))
    driven = drive(serve().url, f"file:{trace}", rate=0.001, arrival="trace", duration=0.2, max_requests=3)
    assert driven.errors == {None: 2}
    assert driven.outcome.ended_early is None


def test_a_window_waits_for_its_own_requests_and_not_for_the_next_arrival(serve: Serve, drive: Drive):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await complete(request, writer, gap=0.1)

    driven = drive(serve(behave).url, "D(5,4)", rate=0.001, arrival="constant", duration=0.2)
    assert driven.errors == {None: 1}
    assert driven.started[0].finished > driven.outcome.window[1]
    assert driven.outcome.ended_early is None


def test_a_window_ends_while_all_users_of_a_closed_loop_are_busy_with_requests_of_the_warm_up(
    serve: Serve, drive_on_either: Drive
):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(token()))
        await asyncio.Event().wait()

    driven = drive_on_either(serve(behave).url, concurrency=2, warmup=0.1, duration=0.2, request_timeout=30.0)
    start, end = driven.outcome.window
    assert end - start == pytest.approx(0.2, abs=1e-9)
    # what they had answered by then counts towards throughput
    assert [(record.error, len(record.chunk_times)) for record in driven.records] == [("cut-off", 1)] * 2


# chat


def test_chat_prompts_are_fitted_to_the_servers_own_count(serve: Serve, drive: Drive):
    """The server makes 2 tokens of a word and adds 11."""

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        words = request.body["messages"][0]["content"].split()
        request.body["prompt"] = [0] * (2 * len(words) + 11)
        await complete(request, writer)

    server = serve(behave)
    driven = drive(server.url, "D(211,3)", concurrency=1, max_requests=3, endpoint="chat")
    assert [record.prompt_tokens for record in driven.started] == [211, 211, 211]
    assert {request.path for request in server.requests} == {"/v1/chat/completions"}


def test_chat_prompts_have_the_length_of_the_models_own_tokenizer_unless_the_server_counts_otherwise(
    serve: Serve, drive: Drive, monkeypatch: pytest.MonkeyPatch
):
    """The first server makes one token of these words, the second two; both add 11."""
    own_words = tuple(f"word{letter}" for letter in "abcdefghijklmnop")
    monkeypatch.setattr(chat_tokens, "usable_words", lambda path: PromptWords(own_words, one_token_each=True))
    for per_word in (1, 2):

        async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter, per_word: int = per_word) -> None:
            words = request.body["messages"][0]["content"].split()
            request.body["prompt"] = [0] * (per_word * len(words) + 11)
            await complete(request, writer)

        server = serve(behave)
        driven = drive(server.url, "D(211,3)", concurrency=1, max_requests=3, endpoint="chat", tokenizer="t.json")
        assert [record.prompt_tokens for record in driven.started] == [211] * 3
        used = set(server.requests[-1].body["messages"][0]["content"].split())
        assert (used <= set(own_words)) is (per_word == 1)


async def count_words(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    request.body["prompt"] = [0] * len(request.body["messages"][0]["content"].split())
    await complete(request, writer)


def numbered(known_words: int) -> Callable[[str], list[int]]:
    """A tokenizer that knows so many of our words, and has one unknown token for all others."""
    ids = {word: number for number, word in enumerate(DEFAULT_WORDS[:known_words], start=1)}
    return lambda text: [ids.get(word, 0) for word in text.split()]


def test_a_chat_server_is_only_sent_words_that_it_tells_apart(serve: Serve, drive: Drive):
    server = serve(count_words, tokenize=numbered(12))
    driven = drive(server.url, "D(40,3)", concurrency=2, max_requests=12, endpoint="chat")
    assert [record.prompt_tokens for record in driven.started] == [40] * 12
    contents = [request.body["messages"][0]["content"].split() for request in server.requests]
    assert {word for content in contents for word in content} <= set(DEFAULT_WORDS[:12])
    assert len({tuple(content[:15]) for content in contents}) == len(contents)


def test_a_chat_server_that_tells_hardly_any_words_apart_is_not_loaded(serve: Serve, drive: Drive):
    server = serve(count_words, tokenize=numbered(9))
    with pytest.raises(ConfigError, match=r"all alike.* 9 of the words"):
        drive(server.url, "D(40,3)", concurrency=2, max_requests=4, endpoint="chat")
    assert server.requests == []


@pytest.mark.parametrize("known_words", [None, 30])
def test_a_tokenizer_of_too_few_words_is_refused_unless_the_server_has_another(
    serve: Serve, drive: Drive, monkeypatch: pytest.MonkeyPatch, known_words: int | None
):
    def refuse(path: str) -> PromptWords:
        raise too_few_words_error(path, 3)

    monkeypatch.setattr(chat_tokens, "usable_words", refuse)
    server = serve(count_words, tokenize=known_words and numbered(known_words))
    options = {"concurrency": 1, "max_requests": 3, "endpoint": "chat", "tokenizer": "t.json"}
    if known_words:
        assert [record.prompt_tokens for record in drive(server.url, "D(40,3)", **options).started] == [40] * 3
        return
    with pytest.raises(ConfigError, match=r"t\.json, knows 3"):
        drive(server.url, "D(40,3)", **options)


def test_a_chat_conversation_repeats_the_servers_own_words(serve: Serve, drive: Drive):
    """The server adds 3 tokens to each message, and answers in words."""

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        contents = [message["content"] for message in request.body["messages"]]
        request.body["prompt"] = [0] * sum(len(content.split()) + 3 for content in contents)
        words = [{"content": f"w{number} "} for number in range(request.body["max_tokens"])]
        events: list[dict[str, Any]] = [{"choices": [{"delta": word, "finish_reason": None}]} for word in words]
        events[-1]["choices"][0]["finish_reason"] = "length"
        body = [sse(event) for event in events] + [usage(request.prompt_tokens, len(words)), sse(b"[DONE]")]
        writer.write(HEAD + b"".join(map(chunked, body)) + b"0\r\n\r\n")

    server = serve(behave)
    driven = drive(server.url, "C(3,20,4)", concurrency=1, max_requests=6, endpoint="chat")
    assert [record.prompt_tokens for record in driven.started] == [20, 44, 68] * 2
    last = next(request.body["messages"] for request in server.requests if len(request.body["messages"]) == 5)
    assert [message["content"].strip() for message in last[1::2]] == ["w0 w1 w2 w3"] * 2


def test_a_chat_server_that_does_not_count_gets_one_word_per_token(serve: Serve, drive: Drive):
    server = serve(status(500))
    drive(server.url, "D(50,3)", concurrency=1, endpoint="chat")
    assert len(server.requests[-1].body["messages"][0]["content"].split()) == 50
