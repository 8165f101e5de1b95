"""Load points in virtual time, against the rules by which the load generator drives a real server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from autotuner.core import LoadPoint, LoadStep, Observation, RequestRecord, Workload
from autotuner.experiment import Slo
from autotuner.scoring import metrics, validity
from autotuner.simulate.fast_scheduler import FastScheduler
from autotuner.simulate.settings import parse_settings
from autotuner.simulate.started_engine import start_engine
from autotuner.simulate.virtual_time import TURNAROUND_SECONDS, EngineDiedError, VirtualServer
from autotuner.workload import arrivals, scenarios
from autotuner.workload.requests import draw_shapes

SLO = Slo()


def server(*flags: str) -> VirtualServer:
    settings = parse_settings(["--model", "qwen3-0.6b", *flags])
    return VirtualServer(settings, start_engine(settings))


def step(scenario: str = "D(100,20)", stop_rule=None, **options) -> LoadStep:
    load = {key: options.pop(key) for key in ("concurrency", "rate") if key in options} or {"concurrency": 4}
    return LoadStep(Workload((LoadPoint(scenario, **load),), **{"duration": 5.0, "warmup": 1.0} | options), stop_rule)


def in_flight(observation: Observation, time: float) -> int:
    return sum(record.sent <= time < record.finished for record in observation.records)


def window(observation: Observation) -> list[RequestRecord]:
    return [record for record in observation.records if record.index >= 0]


def test_a_closed_loop_keeps_its_concurrency_in_flight():
    observation = server().drive(step("N(300,50)/(30,5)", concurrency=7))
    start, end = observation.window
    instants = [start + (end - start) * part / 50 for part in range(1, 50)]
    # A user is idle only from the end of a response to its next request.
    assert sum(in_flight(observation, instant) for instant in instants) / len(instants) > 6.9
    gaps = [
        after.sent - before.finished
        for before in observation.records
        for after in observation.records
        if after is not before
    ]
    assert min(gap for gap in gaps if gap >= 0) == pytest.approx(TURNAROUND_SECONDS)


def test_lengths_and_arrivals_are_those_the_load_generator_draws():
    load_step = step("U(50,400)/(5,60)", rate=20.0, seed=3)
    observation = server().drive(load_step)
    sent = sorted(window(observation), key=lambda record: record.index)
    drawn = draw_shapes(scenarios.parse("U(50,400)/(5,60)"), seed=3, phase="window")
    assert [(record.requested_prompt, record.requested_output) for record in sent] == [next(drawn)[:2] for _ in sent]
    due = [
        offset
        for offset, _ in zip(arrivals.offsets(load_step.load_point, load_step.workload), range(400), strict=False)
    ]
    assert [record.sent for record in sent] == pytest.approx([offset for offset in due if 1.0 <= offset < 6.0])


def test_the_window_follows_the_warm_up_and_requests_in_flight_may_finish():
    virtual = server()
    observation = virtual.drive(step(duration=3.0, warmup=1.0))
    assert observation.window == (1.0, 4.0)
    assert all(1.0 <= record.sent < 4.0 for record in window(observation))
    warm = [record for record in observation.records if record.index < 0]
    assert warm
    assert all(record.sent < 1.0 < record.finished for record in warm)
    last = max(record.finished for record in observation.records)
    assert virtual.clock == pytest.approx(last, abs=2 * TURNAROUND_SECONDS)
    assert last > 4.0


def test_a_second_load_point_continues_where_the_first_ended():
    virtual = server()
    virtual.drive(step())
    ended = virtual.clock
    assert virtual.drive(step()).window[0] == pytest.approx(ended + 1.0)


def test_a_request_limit_ends_the_window_with_the_last_of_them():
    observation = server().drive(step(max_requests=10))
    assert len(window(observation)) == 10
    assert observation.window[1] == max(record.finished for record in window(observation)) < 6.0


def test_a_stop_rule_ends_the_window_and_cuts_off_requests_in_flight():
    counts: list[int] = []

    def stop_rule(finished: Sequence[RequestRecord]) -> str | None:
        counts.append(len(finished))
        assert all(record.index >= 0 for record in finished)
        return "thirty are enough" if len(finished) >= 30 else None

    virtual = server()
    observation = virtual.drive(step(concurrency=8, duration=60, stop_rule=stop_rule))
    assert observation.stop_reason == "thirty are enough"
    assert counts == sorted(set(counts))
    assert observation.window[1] < virtual.clock < 10.0
    assert 0 < observation.cut_off_requests <= 8
    indexes = sorted(record.index for record in window(observation))
    assert indexes == list(range(len(indexes)))
    assert virtual.scheduler.is_idle
    assert isinstance(virtual.scheduler, FastScheduler)
    assert virtual.scheduler.block_pool.used_blocks == 0


def test_a_request_that_takes_too_long_times_out_and_its_user_pauses():
    observation = server("--fixed-step-ms", "100").drive(
        step("D(10,50)", concurrency=3, request_timeout=2.0, duration=20)
    )
    assert {record.error for record in observation.records} == {"timeout"}
    assert all(record.finished - record.sent == pytest.approx(2.0) for record in observation.records)
    assert all(15 < len(record.chunk_times) < 21 for record in observation.records)
    assert observation.abort_reason is not None


def test_a_request_that_is_too_long_is_an_error():
    observation = server("--max-model-len", "64").drive(step("D(60,20)"))
    assert {record.error for record in observation.records} == {"http-400"}
    assert observation.abort_reason == "The last 5 requests failed: http-400."


def test_faults_become_errors_of_records():
    observation = server("--fault-rate-limited", "0.2", "--fault-malformed", "0.2", "--fault-early-stop", "0.2").drive(
        step(duration=20)
    )
    kinds = {record.error for record in observation.records}
    assert kinds == {None, "http-429", "malformed"}
    assert {record.finish_reason for record in observation.records if record.error is None} == {"length", "stop"}


@pytest.mark.parametrize(("fault", "status"), [("crash", 139), ("hang", None)])
def test_an_engine_that_dies_reports_how_and_when(fault, status):
    virtual = server(f"--fault-{fault}-after", "20")
    with pytest.raises(EngineDiedError) as caught:
        virtual.drive(step(request_timeout=30.0))
    assert caught.value.status == status
    assert caught.value.seconds > (30.0 if status is None else 0.0)


def test_only_a_shared_prefix_hits_the_cache():
    alone, shared = server(), server()
    assert alone.drive(step("D(320,8)")).counters["prefix_cache_hits"] == 0
    counters = shared.drive(step("P(160,160,8)")).counters
    assert counters["prefix_cache_hits"] / counters["prefix_cache_queries"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("scenario", ["D(320,8)", "P(160,160,8)", "C(3,160,16)"])
def test_an_equal_load_point_gets_no_prefix_cache_hits_from_the_one_before(scenario: str):
    virtual = server()
    first, second = (virtual.drive(step(scenario, concurrency=1, max_requests=8)).counters for _ in range(2))
    assert second == first


def test_equal_seeds_give_equal_records_and_others_do_not():
    first, second, other = (server().drive(step("U(10,500)/(5,90)", seed=seed)) for seed in (1, 1, 2))
    assert first == second
    assert first.records != other.records


@pytest.mark.parametrize("load", [{"concurrency": 16}, {"rate": 8.0}])
def test_observations_pass_every_validity_check(load):
    observation = server().drive(step("N(500,100)/(60,20)", duration=20.0, warmup=3.0, **load))
    summary = metrics.summarize(observation, SLO)
    assert [check.name for check in validity.check_validity(observation, summary, SLO) if not check.ok] == []


def test_a_trace_is_replayed_once_row_by_row(tmp_path):
    rows = [(0.0, 100, 10), (0.5, 200, 5), (3.0, 50, 8)]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(f'{{"timestamp":{t},"input_length":{i},"output_length":{o}}}\n' for t, i, o in rows))
    observation = server().drive(step(f"file:{trace}", rate=2 / 3, arrival="trace", stop_rule=lambda records: "enough"))
    played = sorted(window(observation), key=lambda record: record.index)
    assert [(record.requested_prompt, record.requested_output) for record in played] == [row[1:] for row in rows]
    assert [record.sent - observation.window[0] for record in played] == pytest.approx([0.0, 0.5, 3.0])
    assert (observation.stop_reason, observation.due_requests) == ("the trace ended with its 3 requests", 3)


def test_a_conversation_hits_its_own_history_in_the_cache():
    observation = server().drive(step("C(4,200,50)", concurrency=3, duration=20.0))
    prompt_lengths = {record.requested_prompt for record in window(observation)}
    assert prompt_lengths == {200, 450, 700, 950}
    hit_rate = observation.counters["prefix_cache_hits"] / observation.counters["prefix_cache_queries"]
    assert 0.4 < hit_rate < (200 + 450 + 700) / (200 + 450 + 700 + 950)


def test_a_bound_on_requests_in_flight_holds_the_others_back():
    free = server().drive(step("D(100,200)", rate=20.0))
    assert (free.held_back_requests, free.due_requests) == (None, len(window(free)))
    bounded = server().drive(step("D(100,200)", rate=20.0, max_in_flight=2))
    start, end = bounded.window
    assert max(in_flight(bounded, start + (end - start) * part / 200) for part in range(200)) == 2
    late = [record for record in window(bounded) if record.sent > record.scheduled]
    assert bounded.held_back_requests == len(late) > 10


@pytest.mark.parametrize(
    ("options", "requests_due"),
    [
        ({"rate": 0.001, "arrival": "constant"}, 1),
        ({"rate": 0.001, "arrival": "constant", "warmup": 2.0}, 0),
        ({"rate": 0.001, "arrival": "constant", "max_requests": 10}, 1),
        ({"rate": 0.001, "arrival": "ramp:1-2"}, 0),
        ({"rate": 0.001, "arrival": "constant", "stop_rule": lambda records: None, "max_duration": 6.0}, 1),
    ],
)
def test_a_window_ends_when_its_time_is_up_however_far_the_next_arrival_is(options, requests_due):
    engine = server()
    phases: list[str] = []
    options = {"duration": 4.0, "warmup": 0.0, **options}
    observation = engine.drive(step(**options), phases.append)
    length = options.get("max_duration", 4.0)
    assert observation.window == (options["warmup"], options["warmup"] + length)
    assert engine.clock == options["warmup"] + length
    assert len(window(observation)) == observation.due_requests == requests_due
    assert phases == ["warming-up", "measuring"]


def test_a_window_ends_in_the_gap_of_a_trace(tmp_path):
    trace = tmp_path / "trace.jsonl"
    rows = [f'{{"timestamp": {time}, "input_length": 100, "output_length": 20}}' for time in (0.0, 1.0, 2000.0)]
    trace.write_text("\n".join(rows))
    engine = server()
    observation = engine.drive(step(f"file:{trace}", rate=0.001, arrival="trace", duration=4.0, warmup=0.0))
    assert engine.clock == 4.0
    assert len(window(observation)) == 2


def test_a_window_ends_while_all_users_are_busy_with_requests_of_the_warm_up():
    engine = server()
    observation = engine.drive(step("D(100,20000)", concurrency=2, duration=4.0, warmup=1.0))
    # the iteration that was under way at the end of the window ends it
    assert 5.0 <= engine.clock < 5.1
    assert [record.error for record in observation.records] == ["cut-off"] * 2


def mooncake(folder: Path, *rows: tuple[float, int, list[int]]) -> str:
    lines = ({"timestamp": t, "input_length": n, "output_length": 8, "hash_ids": ids} for t, n, ids in rows)
    (folder / "mooncake.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return f"file:{folder / 'mooncake.jsonl'}"


def test_rows_of_a_trace_hit_the_cache_on_the_blocks_that_they_share(tmp_path: Path):
    rows = [(1000 * number, 1040, [0, 1, 2 + number]) for number in range(5)]
    scenario = mooncake(tmp_path, *rows)
    counters = server().drive(step(scenario, rate=1.0, arrival="trace", duration=9.0, warmup=0.0)).counters
    # 1024 tokens from the second request on
    assert counters["prefix_cache_hits"] == 4 * 1024
    again = server().drive(step(scenario, concurrency=1, max_requests=10, warmup=0.0)).counters
    assert again["prefix_cache_hits"] == 2 * 4 * 1024


def test_a_block_of_a_trace_that_is_no_multiple_of_the_engines_is_hit_as_far_as_whole_blocks_go(tmp_path: Path):
    scenario = mooncake(tmp_path, (0, 200, [0, 1, 2]), (1000, 201, [0, 1, 3]), (2000, 203, [0, 4, 3]))
    counters = server().drive(step(scenario, rate=1.0, arrival="trace", duration=9.0, warmup=0.0)).counters
    # of blocks of 68 tokens the second request shares two, the third one; the engine's have 16
    assert counters["prefix_cache_hits"] == 136 // 16 * 16 + 68 // 16 * 16


def test_recorded_conversations_have_their_own_lengths_and_history(tmp_path: Path):
    turns = [("human", 400), ("gpt", 80), ("human", 40), ("gpt", 40)]
    row = {"conversations": [{"from": role, "value": "x" * characters} for role, characters in turns]}
    (tmp_path / "chats.json").write_text(json.dumps([row, {"conversations": row["conversations"][:2]}]))
    load_step = step(f"file:{tmp_path / 'chats.json'}", concurrency=1, max_requests=6, warmup=0.0)
    sent = window(server().drive(load_step))
    assert [(record.requested_prompt, record.requested_output) for record in sent] == [
        (100, 20),
        (130, 10),
        (100, 20),
    ] * 2
