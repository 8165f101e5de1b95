"""`measure` as callers use it: with workers in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.core import CUT_OFF_ERROR, LoadPoint, RequestRecord, Workload
from autotuner.errors import ConfigError, MachineError
from autotuner.launchers.orphans import LOAD_FOLDER_PATTERN
from autotuner.load import Endpoint, MeasurementInterrupted, measure
from tests.servers import ReceivedRequest, Server, complete

pytestmark = pytest.mark.processes

Serve = Callable[..., Server]
POINT = LoadPoint("D(20,5)", concurrency=2)
WORKLOAD = Workload((POINT,), duration=60.0, warmup=0.05, max_requests=6, request_timeout=5.0)


def ignore_phase(phase: str) -> None:
    pass


def process_parents() -> dict[int, int]:
    """Every living process and its parent."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(folder.name)] = int(parent)
    return parents


def children(parent: int) -> set[int]:
    """The living processes below `parent`, at any depth."""
    parents, descendants = process_parents(), {parent}
    while new := {child for child, ppid in parents.items() if ppid in descendants} - descendants:
        descendants |= new
    return descendants - {parent}


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def hang(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def test_measure_brings_back_an_observation(serve: Serve):
    server = serve()
    phases: list[str] = []
    observation = measure(Endpoint(server.url, "m"), POINT, WORKLOAD, salt="s", on_phase=phases.append)
    assert phases == ["warming-up", "measuring"]
    assert observation.load_point == POINT
    started = [record for record in observation.records if record.index >= 0]
    assert len(started) == 6
    assert [record.error for record in started] == [None] * 6
    assert [record.output_token_count for record in started] == [5] * 6
    assert list(observation.records) == sorted(observation.records, key=lambda record: record.sent)
    assert (observation.cut_off_requests, observation.abort_reason) == (0, None)
    assert observation.loop_lag_p99 >= 0
    assert observation.counters == {}


def test_another_salt_asks_for_other_prompts_of_the_same_lengths(serve: Serve):
    server = serve()
    point = LoadPoint("U(20,5)", concurrency=1)
    for salt in ("one", "two"):
        measure(Endpoint(server.url, "m"), point, WORKLOAD, salt=salt, on_phase=ignore_phase)
    prompts = [tuple(request.body["prompt"]) for request in server.requests]
    assert len(prompts) >= 12
    assert len({prompt[0] for prompt in prompts}) == len(prompts)


def test_the_engines_counters_are_differences_over_the_load_point(serve: Serve):
    server = serve()
    server.metrics = (
        "vllm:prefix_cache_queries_total 100\nvllm:prefix_cache_hits_total 40\nvllm:num_requests_running 1\n"
    )

    def on_phase(phase: str) -> None:
        server.metrics = (
            "vllm:prefix_cache_queries_total 180\nvllm:prefix_cache_hits_total 41\nvllm:num_requests_running 2\n"
        )

    observation = measure(Endpoint(server.url, "m"), POINT, WORKLOAD, salt="s", on_phase=on_phase)
    assert observation.counters == {"prefix_cache_queries": 80, "prefix_cache_hits": 1}


def test_headers_reach_the_server_and_not_the_process_table(serve: Serve):
    texts: list[str] = []
    before = children(os.getpid())

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        folders = [Path(f"/proc/{process}") for process in children(os.getpid()) - before]
        texts.extend((folder / name).read_text() for folder in folders for name in ("cmdline", "environ"))
        await complete(request, writer)

    server = serve(behave)
    measure(
        Endpoint(server.url, "m", {"Authorization": "Bearer k3y"}), POINT, WORKLOAD, salt="s", on_phase=ignore_phase
    )
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer k3y"}
    assert texts
    assert not any("k3y" in text for text in texts)


def test_no_server_is_an_observation_that_says_so():
    observation = measure(Endpoint("http://127.0.0.1:9", "m"), POINT, WORKLOAD, salt="s", on_phase=ignore_phase)
    assert {record.error for record in observation.records} == {"connection-refused"}
    assert observation.abort_reason is not None


@pytest.mark.parametrize(("url", "scenario"), [("http://127.0.0.1:9", "D(5)"), ("nowhere", "D(5,5)")])
def test_what_cannot_be_measured_is_refused_before_anything_starts(url: str, scenario: str):
    with pytest.raises(ConfigError):
        measure(Endpoint(url, "m"), LoadPoint(scenario, concurrency=1), WORKLOAD, salt="s", on_phase=ignore_phase)


def test_tls_is_spoken_and_verified(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    pem = Path(__file__).with_name("localhost.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = serve(tls=context)
    endpoint = Endpoint(server.url.replace("127.0.0.1", "localhost"), "m")
    unverified = measure(endpoint, POINT, WORKLOAD, salt="s", on_phase=ignore_phase)
    assert {record.error for record in unverified.records} == {"tls"}
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    verified = measure(endpoint, POINT, WORKLOAD, salt="s", on_phase=ignore_phase)
    assert {record.error for record in verified.records if record.index >= 0} == {None}


# a rule that says when enough is known

LONG = Workload((POINT,), duration=600.0, warmup=0.05, request_timeout=5.0)


def test_a_stop_rule_with_a_reason_ends_the_window(serve: Serve):
    server = serve()
    shown: list[list[RequestRecord]] = []

    def enough(records: Sequence[RequestRecord]) -> str | None:
        shown.append(list(records))
        return f"{len(records)} are enough" if len(records) >= 10 else None

    observation = measure(Endpoint(server.url, "m"), POINT, LONG, salt="s", on_phase=ignore_phase, stop_rule=enough)
    assert observation.stop_reason == f"{len(shown[-1])} are enough"
    assert observation.abort_reason is None
    assert observation.cut_off_requests <= 2
    start, end = observation.window
    assert end - start < 600
    assert max(record.sent for record in observation.records) <= end
    assert set(map(id, shown[-1])) <= set(map(id, observation.records))


def test_a_rule_is_shown_the_requests_of_the_window_in_the_order_of_their_ends(serve: Serve):
    shown: list[list[RequestRecord]] = []

    def enough(records: Sequence[RequestRecord]) -> str | None:
        shown.append(list(records))
        return "twice" if len(shown) == 2 else None

    point = LoadPoint("U(5,40)", concurrency=4)
    observation = measure(
        Endpoint(serve().url, "m"), point, LONG.for_load_point(point), salt="s", on_phase=ignore_phase, stop_rule=enough
    )
    first, second = shown
    assert second[: len(first)] == first
    assert len(second) > len(first)
    assert [record.finished for record in second] == sorted(record.finished for record in second)
    assert all(record.scheduled >= observation.window[0] and record.index >= 0 for record in second)


def test_chat_prompts_that_would_be_all_alike_are_refused_and_nothing_is_left(serve: Serve, tmp_path: Path):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text('{"model": {"type": "WordLevel", "vocab": {"<unk>": 0, "able": 1}}}')
    server, before = serve(), children(os.getpid())
    endpoint = Endpoint(server.url, "m", tokenizer_path=str(tokenizer))
    workload = replace(WORKLOAD, endpoint="chat", workers=2)
    with pytest.raises(ConfigError, match=r"tokenizer\.json', knows 1 of the words"):
        measure(endpoint, POINT, workload, salt="s", on_phase=ignore_phase)
    assert server.requests == []
    assert children(os.getpid()) == before


def test_what_is_in_flight_when_a_rule_decides_is_cut_off(serve: Serve):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (complete if request.number < 3 else hang)(request, writer)

    workload = replace(LONG, warmup=0.0, request_timeout=500.0)
    observation = measure(
        Endpoint(serve(behave).url, "m"), POINT, workload, salt="s", on_phase=ignore_phase, stop_rule=lambda _: "yes"
    )
    assert (len(observation.records), observation.cut_off_requests, observation.stop_reason) == (3, 2, "yes")


def test_the_window_of_a_decided_load_point_ends_where_all_requests_are_known(sim_url: str):
    point = LoadPoint("U(5,200)", concurrency=8)
    workload = Workload((point,), duration=60.0, warmup=0.5)
    rule = lambda records: "enough" if len(records) >= 25 else None  # noqa: E731
    observation = measure(
        Endpoint(sim_url, "llama-3.1-8b"), point, workload, salt="s", on_phase=ignore_phase, stop_rule=rule
    )
    start, end = observation.window
    indexes = sorted(record.index for record in observation.records if start <= record.scheduled <= end)
    assert indexes == list(range(len(indexes)))
    assert len(indexes) >= 10
    later = [record for record in observation.records if record.scheduled > end]
    assert len(indexes) + len(later) >= 25
    assert {record.error for record in observation.records} <= {None, CUT_OFF_ERROR}
    assert all(record.index < 0 for record in observation.records if record.error == CUT_OFF_ERROR)


def test_a_rule_without_a_reason_changes_nothing(serve: Serve):
    record_counts: list[int] = []

    def enough(records: Sequence[RequestRecord]) -> None:
        record_counts.append(len(records))

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        while request.number == 2 and not record_counts:
            await asyncio.sleep(0.01)
        await complete(request, writer)

    point = LoadPoint("D(5,200)", concurrency=1)
    workload = Workload((point,), duration=60.0, warmup=0.0, max_requests=3)
    observation = measure(
        Endpoint(serve(behave).url, "m"), point, workload, salt="s", on_phase=ignore_phase, stop_rule=enough
    )
    assert len(observation.records) == 3
    assert (observation.stop_reason, observation.cut_off_requests) == (None, 0)
    assert record_counts


@pytest.mark.parametrize("load", [{"concurrency": 8}, {"rate": 40.0}])
def test_a_rule_ends_a_load_point_on_the_simulated_engine(sim_url: str, load: dict[str, Any]):
    point = LoadPoint("D(50,10)", **load)
    observation = measure(
        Endpoint(sim_url, "llama-3.1-8b"),
        point,
        Workload((point,), duration=600.0, warmup=0.2),
        salt="s",
        on_phase=ignore_phase,
        stop_rule=lambda records: "30 requests" if len(records) >= 30 else None,
    )
    assert observation.stop_reason == "30 requests"
    answered = [record for record in observation.records if record.index >= 0]
    assert len(answered) >= 30
    assert {record.error for record in answered} == {None}
    assert {record.output_token_count for record in answered} == {10}


def test_a_trace_is_driven_to_its_end_whatever_the_rule_says(serve: Serve, tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(f'{{"timestamp": {n}, "input_length": 5, "output_length": 2}}\n' for n in range(20)))
    point = LoadPoint(f"file:{trace}", rate=25.0)
    workload = Workload((point,), duration=60.0, warmup=0.0, arrival="trace")
    observation = measure(
        Endpoint(serve().url, "m"), point, workload, salt="s", on_phase=ignore_phase, stop_rule=lambda _: "enough"
    )
    assert (len(observation.records), observation.stop_reason, observation.due_requests) == (
        20,
        "the trace ended with its 20 requests",
        20,
    )


def test_a_trace_at_its_own_rate_goes_out_when_it_was_recorded(serve: Serve, tmp_path: Path):
    times = [0.0, 0.0, 0.0, 0.03, 0.031, 0.2, 9.0]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(f'{{"timestamp": {t}, "input_length": 5, "output_length": 2}}\n' for t in times))
    point = LoadPoint(f"file:{trace}", rate=(len(times) - 1) / times[-1])
    workload = Workload((point,), duration=0.5, warmup=0.1, arrival="trace", workers=2)
    observation = measure(Endpoint(serve().url, "m"), point, workload, salt="s", on_phase=ignore_phase)
    played = sorted((record for record in observation.records if record.index >= 0), key=lambda record: record.index)
    assert [record.scheduled - observation.window[0] for record in played] == pytest.approx(times[:-1], abs=1e-9)
    assert all(record.sent >= record.scheduled for record in played)
    assert (observation.stop_reason, observation.due_requests) == (None, 6)


# an open loop


def test_an_open_loop_counts_requests_due_and_requests_held_back_by_a_limit(serve: Serve):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await complete(request, writer, gap=0.02)

    point = LoadPoint("D(5,5)", rate=40.0)
    workload = Workload((point,), duration=0.5, warmup=0.0, arrival="constant")
    server = serve(behave)
    free = measure(Endpoint(server.url, "m"), point, workload, salt="s", on_phase=ignore_phase)
    assert (free.due_requests, free.held_back_requests) == (20, None)
    bounded = measure(
        Endpoint(server.url, "m"), point, replace(workload, max_in_flight=1), salt="s", on_phase=ignore_phase
    )
    assert bounded.due_requests == 20
    assert bounded.held_back_requests is not None
    assert bounded.held_back_requests > 10


# several workers


def prompts_and_lengths(server: Server) -> set[tuple[tuple[int, ...], int]]:
    return {(tuple(request.body["prompt"]), request.body["max_tokens"]) for request in server.requests}


@pytest.mark.parametrize("load", [{"concurrency": 5}, {"rate": 100.0}])
def test_several_workers_send_what_one_would_have_sent(serve: Serve, load: dict[str, Any]):
    point = LoadPoint("N(30,10)/(8,3)", **load)
    servers, observations = {}, {}
    for workers in (1, 3):
        servers[workers] = serve()
        workload = Workload((point,), duration=60.0, warmup=0.0, max_requests=31, workers=workers, seed=4)
        endpoint = Endpoint(servers[workers].url, "m")
        observations[workers] = measure(endpoint, point, workload, salt="s", on_phase=ignore_phase)
    # besides what each sent to keep up the load until the last of the window had ended
    assert len(prompts_and_lengths(servers[3]) & prompts_and_lengths(servers[1])) >= 31
    lengths = {
        workers: sorted((r.index, r.prompt_tokens, r.output_token_count) for r in observation.records if r.index >= 0)
        for workers, observation in observations.items()
    }
    assert lengths[3] == lengths[1]
    assert [index for index, _, _ in lengths[3]] == list(range(31))
    assert observations[3].due_requests == observations[1].due_requests


def test_several_workers_keep_exactly_n_in_flight_and_share_one_window(serve: Serve):
    server = serve()
    point = LoadPoint("D(20,20)", concurrency=7)
    workload = Workload((point,), duration=0.5, warmup=0.1, workers=3)
    phases: list[str] = []
    observation = measure(Endpoint(server.url, "m"), point, workload, salt="s", on_phase=phases.append)
    assert phases == ["warming-up", "measuring"]
    assert max(server.in_flight_levels) == 7
    assert len({request.connection for request in server.requests}) == 7
    assert observation.window[1] - observation.window[0] == pytest.approx(0.5, abs=1e-9)
    indexes = [record.index for record in observation.records]
    assert len(set(indexes)) == len(indexes)


def test_several_workers_stop_together_when_enough_is_known(serve: Serve):
    point = LoadPoint("D(20,5)", concurrency=6)
    workload = replace(LONG.for_load_point(point), workers=3)
    rule = lambda records: "enough" if len(records) > 20 else None  # noqa: E731
    observation = measure(Endpoint(serve().url, "m"), point, workload, salt="s", on_phase=ignore_phase, stop_rule=rule)
    assert observation.stop_reason == "enough"
    assert observation.cut_off_requests <= 6
    started = [
        record.index
        for record in observation.records
        if observation.window[0] <= record.scheduled <= observation.window[1]
    ]
    assert len(started) == len(set(started)) > 5


def test_several_workers_give_up_together(serve: Serve):
    point = LoadPoint("D(20,5)", concurrency=6)
    workload = replace(LONG.for_load_point(point), workers=2)
    observation = measure(Endpoint("http://127.0.0.1:9", "m"), point, workload, salt="s", on_phase=ignore_phase)
    assert observation.abort_reason is not None
    assert {record.error for record in observation.records} == {"connection-refused"}


def test_several_workers_make_chat_prompts_from_one_count(serve: Serve):
    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        words = request.body["messages"][0]["content"].split()
        request.body["prompt"] = [0] * (2 * len(words) + 11)
        await complete(request, writer)

    server = serve(behave)
    point = LoadPoint("D(211,3)", concurrency=2)
    workload = Workload((point,), warmup=0.0, max_requests=6, endpoint="chat", workers=2)
    observation = measure(Endpoint(server.url, "m"), point, workload, salt="s", on_phase=ignore_phase)
    assert [record.prompt_tokens for record in observation.records] == [211] * 6
    assert len(server.requests) == 6 + 2


# interrupts


def test_an_interrupt_carries_the_partial_observation(serve: Serve):
    def enough(records: Sequence[RequestRecord]) -> None:
        if len(records) >= 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(MeasurementInterrupted) as caught:
        measure(Endpoint(serve().url, "m"), POINT, LONG, salt="s", on_phase=ignore_phase, stop_rule=enough)
    observation = caught.value.observation
    assert observation is not None
    assert len(observation.records) >= 5
    assert {record.error for record in observation.records} == {None}
    assert observation.window[1] - observation.window[0] < 600
    assert (observation.stop_reason, observation.abort_reason) == (None, None)


@pytest.mark.parametrize("interrupted", ["warming-up", "measuring"])
def test_an_interrupt_before_any_request_has_ended_brings_nothing(serve: Serve, interrupted: str):
    def on_phase(phase: str) -> None:
        if phase == interrupted:
            raise KeyboardInterrupt

    with pytest.raises(MeasurementInterrupted) as caught:
        measure(Endpoint(serve(hang).url, "m"), POINT, LONG, salt="s", on_phase=on_phase)
    assert caught.value.observation is None


def test_a_worker_that_dies_is_a_clear_error(serve: Serve):
    before = children(os.getpid())

    def kill(phase: str) -> None:
        for process in children(os.getpid()) - before:
            os.kill(process, signal.SIGKILL)

    with pytest.raises(MachineError, match="ended with status -9"):
        measure(Endpoint(serve(hang).url, "m"), POINT, WORKLOAD, salt="s", on_phase=kill)


def test_an_interrupt_leaves_no_process(serve: Serve):
    started: set[int] = set()
    before = children(os.getpid())

    def interrupt(phase: str) -> None:
        started.update(children(os.getpid()) - before)
        if phase == "measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(Endpoint(serve(hang).url, "m"), POINT, WORKLOAD, salt="s", on_phase=interrupt)
    assert started
    eventually(lambda: not started & process_parents().keys())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_parent_that_is_killed_leaves_no_process_and_no_file_for_long(
    serve: Serve, number: signal.Signals, tmp_path: Path
):
    server = serve(hang)
    code = (
        "from autotuner.core import *; from autotuner.load import *\n"
        "point = LoadPoint('D(20,5)', concurrency=2)\n"
        f"measure(Endpoint({server.url!r}, 'm'), point, Workload((point,), warmup=0), salt='s', on_phase=print)\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: server.in_flight == 2)
        started = children(parent.pid)
        assert len(started) == 2
    finally:
        parent.send_signal(number)
        parent.wait()
    eventually(lambda: not started & process_parents().keys())
    # the kernel ends the workers of a killed process at once; the next command knows their folder by its name
    left = [path.name for path in tmp_path.iterdir()]
    is_killed = number == signal.SIGKILL
    assert [name for name in left if not (is_killed and LOAD_FOLDER_PATTERN.match(name))] == []


def test_a_file_in_the_users_folder_does_not_shadow_a_module(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "random.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    measure(Endpoint(serve().url, "m"), POINT, WORKLOAD, salt="s", on_phase=ignore_phase)


def test_without_uvloop_the_worker_runs_on_asyncio(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    observation = measure(Endpoint(serve().url, "m"), POINT, WORKLOAD, salt="s", on_phase=ignore_phase)
    assert {record.error for record in observation.records if record.index >= 0} == {None}
