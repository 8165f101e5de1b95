"""Load points in virtual time, against the rules by which the load generator drives a real server."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autotuner.core import LoadPoint, LoadStep, Observation, RequestRecord, Workload
from autotuner.experiment import Slo
from autotuner.scoring import metrics, validity
from autotuner.simulate.settings import parse_settings
from autotuner.simulate.virtual_time import TURNAROUND_SECONDS, EngineDiedError, VirtualServer
from autotuner.simulate.world import build_world
from autotuner.workload import arrivals, scenarios
from autotuner.workload.requests import draw_lengths

SLO = Slo()


def server(*flags: str) -> VirtualServer:
    settings = parse_settings(["--model", "qwen3-0.6b", *flags])
    return VirtualServer(settings, build_world(settings))


def step(scenario: str = "D(100,20)", enough=None, **given) -> LoadStep:
    load = {key: given.pop(key) for key in ("concurrency", "rate") if key in given} or {"concurrency": 4}
    return LoadStep(Workload((LoadPoint(scenario, **load),), **{"duration": 5.0, "warmup": 1.0} | given), enough)


def in_flight(seen: Observation, at: float) -> int:
    return sum(record.sent <= at < record.finished for record in seen.records)


def window(seen: Observation) -> list[RequestRecord]:
    return [record for record in seen.records if record.index >= 0]


def test_a_closed_loop_keeps_its_concurrency_in_flight():
    seen = server().drive(step("N(300,50)/(30,5)", concurrency=7))
    start, end = seen.window
    instants = [start + (end - start) * part / 50 for part in range(1, 50)]
    # A lane is empty only from its answer to its next request.
    assert sum(in_flight(seen, instant) for instant in instants) / len(instants) > 6.9
    gaps = [after.sent - before.finished for before in seen.records for after in seen.records if after is not before]
    assert min(gap for gap in gaps if gap >= 0) == pytest.approx(TURNAROUND_SECONDS)


def test_lengths_and_arrivals_are_those_the_load_generator_draws():
    asked = step("U(50,400)/(5,60)", rate=20.0, seed=3)
    seen = server().drive(asked)
    sent = sorted(window(seen), key=lambda record: record.index)
    drawn = draw_lengths(scenarios.parse("U(50,400)/(5,60)"), seed=3, phase="window")
    assert [(record.requested_prompt, record.requested_output) for record in sent] == [next(drawn) for _ in sent]
    due = [offset for offset, _ in zip(arrivals.offsets(asked.load_point, asked.workload), range(400), strict=False)]
    assert [record.sent for record in sent] == pytest.approx([offset for offset in due if 1.0 <= offset < 6.0])


def test_the_window_follows_the_warm_up_and_what_is_in_flight_may_finish():
    virtual = server()
    seen = virtual.drive(step(duration=3.0, warmup=1.0))
    assert seen.window == (1.0, 4.0)
    assert all(1.0 <= record.sent < 4.0 for record in window(seen))
    warm = [record for record in seen.records if record.index < 0]
    assert warm
    assert all(record.sent < 1.0 < record.finished for record in warm)
    last = max(record.finished for record in seen.records)
    assert virtual.clock == pytest.approx(last, abs=2 * TURNAROUND_SECONDS)
    assert last > 4.0


def test_a_second_load_point_goes_on_where_the_first_ended():
    virtual = server()
    virtual.drive(step())
    ended = virtual.clock
    assert virtual.drive(step()).window[0] == pytest.approx(ended + 1.0)


def test_a_request_limit_ends_the_window_with_the_last_of_them():
    seen = server().drive(step(max_requests=10))
    assert len(window(seen)) == 10
    assert seen.window[1] == max(record.finished for record in window(seen)) < 6.0


def test_a_rule_that_has_enough_ends_the_window_and_cuts_off_what_is_in_flight():
    asked: list[int] = []

    def enough(ended: Sequence[RequestRecord]) -> str | None:
        asked.append(len(ended))
        assert all(record.index >= 0 for record in ended)
        return "thirty are enough" if len(ended) >= 30 else None

    virtual = server()
    seen = virtual.drive(step(concurrency=8, duration=60, enough=enough))
    assert seen.stop_reason == "thirty are enough"
    assert asked == sorted(set(asked))
    assert seen.window[1] < virtual.clock < 10.0
    assert 0 < seen.cut_off_requests <= 8
    indexes = sorted(record.index for record in window(seen))
    assert indexes == list(range(len(indexes)))
    assert virtual.scheduler.is_idle
    assert virtual.scheduler.block_pool.used_blocks == 0


def test_a_request_that_takes_too_long_is_given_up_and_its_lane_pauses():
    seen = server("--fixed-step-ms", "100").drive(step("D(10,50)", concurrency=3, request_timeout=2.0, duration=20))
    assert {record.error for record in seen.records} == {"timeout"}
    assert all(record.finished - record.sent == pytest.approx(2.0) for record in seen.records)
    assert all(15 < len(record.chunk_times) < 21 for record in seen.records)
    assert seen.abort_reason is not None


def test_a_request_that_no_engine_would_take_is_an_error():
    seen = server("--max-model-len", "64").drive(step("D(60,20)"))
    assert {record.error for record in seen.records} == {"http-400"}
    assert seen.abort_reason == "The last 5 requests failed: http-400."


def test_faults_are_the_ones_asked_for():
    seen = server("--fault-rate-limited", "0.2", "--fault-malformed", "0.2", "--fault-early-stop", "0.2").drive(
        step(duration=20)
    )
    kinds = {record.error for record in seen.records}
    assert kinds == {None, "http-429", "malformed"}
    assert {record.finish_reason for record in seen.records if record.error is None} == {"length", "stop"}


@pytest.mark.parametrize(("fault", "status"), [("crash", 139), ("hang", None)])
def test_an_engine_that_dies_says_how_and_when(fault, status):
    virtual = server(f"--fault-{fault}-after", "20")
    with pytest.raises(EngineDiedError) as died:
        virtual.drive(step(request_timeout=30.0))
    assert died.value.status == status
    assert died.value.seconds > (30.0 if status is None else 0.0)


def test_only_a_shared_prefix_is_found_in_the_cache():
    alone, shared = server(), server()
    assert alone.drive(step("D(320,8)")).counters["prefix_cache_hits"] == 0
    counters = shared.drive(step("P(160,160,8)")).counters
    assert counters["prefix_cache_hits"] / counters["prefix_cache_queries"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("scenario", ["D(320,8)", "P(160,160,8)", "C(3,160,16)"])
def test_an_equal_load_point_on_the_same_server_finds_nothing_of_the_one_before(scenario: str):
    virtual = server()
    first, second = (virtual.drive(step(scenario, concurrency=1, max_requests=8)).counters for _ in range(2))
    assert second == first


def test_equal_seeds_give_equal_records_and_others_do_not():
    first, second, other = (server().drive(step("U(10,500)/(5,90)", seed=seed)) for seed in (1, 1, 2))
    assert first == second
    assert first.records != other.records


@pytest.mark.parametrize("load", [{"concurrency": 16}, {"rate": 8.0}])
def test_what_comes_out_passes_every_validity_check(load):
    seen = server().drive(step("N(500,100)/(60,20)", duration=20.0, warmup=3.0, **load))
    figures = metrics.summarize(seen, SLO)
    assert [check.name for check in validity.check_validity(seen, figures, SLO) if not check.ok] == []


def test_a_trace_is_replayed_once_row_by_row(tmp_path):
    rows = [(0.0, 100, 10), (0.5, 200, 5), (3.0, 50, 8)]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(f'{{"timestamp":{t},"input_length":{i},"output_length":{o}}}\n' for t, i, o in rows))
    seen = server().drive(step(f"file:{trace}", rate=2 / 3, arrival="trace", enough=lambda records: "enough"))
    played = sorted(window(seen), key=lambda record: record.index)
    assert [(record.requested_prompt, record.requested_output) for record in played] == [row[1:] for row in rows]
    assert [record.sent - seen.window[0] for record in played] == pytest.approx([0.0, 0.5, 3.0])
    assert (seen.stop_reason, seen.due_requests) == ("the trace ended with its 3 requests", 3)


def test_a_conversation_finds_its_own_history_in_the_cache():
    seen = server().drive(step("C(4,200,50)", concurrency=3, duration=20.0))
    asked = {record.requested_prompt for record in window(seen)}
    assert asked == {200, 450, 700, 950}
    found = seen.counters["prefix_cache_hits"] / seen.counters["prefix_cache_queries"]
    assert 0.4 < found < (200 + 450 + 700) / (200 + 450 + 700 + 950)


def test_a_bound_on_requests_in_flight_holds_the_others_back():
    free = server().drive(step("D(100,200)", rate=20.0))
    assert (free.held_back_requests, free.due_requests) == (None, len(window(free)))
    bounded = server().drive(step("D(100,200)", rate=20.0, max_in_flight=2))
    start, end = bounded.window
    assert max(in_flight(bounded, start + (end - start) * part / 200) for part in range(200)) == 2
    late = [record for record in window(bounded) if record.sent > record.scheduled]
    assert bounded.held_back_requests == len(late) > 10
