"""The schedule of a launch against an engine whose answers are computed."""

from dataclasses import replace

from autotuner.profiling.mappings import ParallelMapping
from autotuner.profiling.phase_schedule import PhaseSchedule
from autotuner.profiling.points import NOT_CACHED, SATURATED, CacheFill, DecodeLoad, PrefillLoad
from tests.profiling.points import decode, prefill, sla_request

TP1 = ParallelMapping("tp", 1)
KV_TOKENS, MAX_CONTEXT = 20_000, 2000


class Leads:
    """A leader that asks for curves or not."""

    def __init__(self, prefill=True, decode=True):
        self.prefill, self.decode = prefill, decode

    def leads_prefill(self, mapping):
        return self.prefill

    def leads_decode(self, mapping):
        return self.decode


class FakeEngine:
    """Answers loads as an engine that runs `limit` requests at once and caches prompts that were filled."""

    def __init__(self, limit=1000, caches=True):
        self.limit, self.caches = limit, caches
        self.filled: dict[int, int] = {}
        self.loads: list[object] = []

    def answer(self, load):
        self.loads.append(load)
        if isinstance(load, CacheFill):
            self.filled = {load.prompt_tokens: load.requests}
            return None
        if isinstance(load, PrefillLoad):
            return prefill(load.prompt_tokens, 0.01 + load.prompt_tokens / 50_000)
        point = decode(load.concurrency, 0.005 + load.concurrency / 10_000, load.prompt_tokens)
        point = replace(point, output_tokens=load.output_tokens)
        if load.concurrency > self.limit:
            return replace(point, running=self.limit, rejection=f"{SATURATED}: {self.limit} ran")
        if not self.caches or self.filled.get(load.prompt_tokens, 0) < load.concurrency:
            return replace(point, cached_share=0.0, rejection=f"{NOT_CACHED}: 0%")
        return point


def follow(engine, leader=None, points=None, **request):
    """Run a schedule to its end; the recorded points and the schedule."""
    recorded = dict(points or {})

    def record(point):
        assert point.key not in recorded, "a point was measured twice"
        recorded[point.key] = point

    schedule = PhaseSchedule(sla_request(**request), TP1, dict(recorded), leader or Leads(), record)
    schedule.begin(KV_TOKENS, MAX_CONTEXT, None)
    while (load := schedule.next_load) is not None:
        schedule.add(engine.answer(load))
    return recorded, schedule


def test_one_launch_serves_prefill_decode_and_curves():
    engine = FakeEngine()
    points, _ = follow(engine)
    lengths = [key[1] for key in points if key[0] == "prefill"]
    contexts = {key[1] for key in points if key[0] == "decode"}
    assert 600 in lengths
    assert len(lengths) == 5
    assert len(contexts) == 3


def test_a_mapping_that_does_not_lead_has_no_curves():
    points, _ = follow(FakeEngine(), Leads(prefill=False, decode=False))
    assert {key[1] for key in points if key[0] == "prefill"} == {600}
    assert {key[1] for key in points if key[0] == "decode"} == {600}


def test_one_fill_of_the_cache_warms_all_batch_sizes_of_a_context():
    engine = FakeEngine()
    follow(engine)
    fills = [load.prompt_tokens for load in engine.loads if isinstance(load, CacheFill)]
    assert len(fills) == len(set(fills)) == 3
    sizes = [load.concurrency for load in engine.loads if isinstance(load, DecodeLoad)]
    assert sizes[0] == max(sizes[:3])


def test_a_limit_of_running_requests_is_learned_and_no_point_lies_above_it():
    points, schedule = follow(FakeEngine(limit=16))
    good = [point for point in points.values() if point.key[0] == "decode" and point.rejection is None]
    saturated = [point for point in points.values() if point.rejection is not None]
    assert max(point.concurrency for point in good) == 16
    assert len(saturated) == 1
    assert schedule.running_limit == 16


def test_an_endpoint_that_caches_nothing_is_given_up():
    engine = FakeEngine(caches=False)
    points, schedule = follow(engine)
    assert schedule.caches_nothing
    assert all(point.lacks_cache for point in points.values() if point.key[0] == "decode")
    assert [key for key in points if key[0] == "prefill"]
    assert len({load.prompt_tokens for load in engine.loads if isinstance(load, DecodeLoad)}) == 1


def test_more_requests_are_sent_where_ttft_spreads():
    class Jittery(FakeEngine):
        def answer(self, load):
            point = super().answer(load)
            return (
                replace(point, interval=(0.5 * point.ttft, 2 * point.ttft)) if isinstance(load, PrefillLoad) else point
            )

    engine = Jittery()
    points, _ = follow(engine, Leads(prefill=False, decode=False))
    assert sum(isinstance(load, PrefillLoad) for load in engine.loads) == 2
    assert len([key for key in points if key[0] == "prefill"]) == 1


def test_a_schedule_that_is_killed_at_any_instant_repeats_no_point():
    whole, _ = follow(FakeEngine(limit=16))
    for instant in range(1, len(whole) + 1):
        recorded = dict(list(whole.items())[:instant])
        resumed, _ = follow(FakeEngine(limit=16), points=recorded)
        assert resumed.keys() == whole.keys()


def test_data_parallel_replicas_get_equally_many_requests():
    schedule = PhaseSchedule(sla_request(), ParallelMapping("dep", 4), {}, Leads(), lambda point: None)
    schedule.begin(KV_TOKENS, MAX_CONTEXT, None)
    loads = []
    engine = FakeEngine()
    while (load := schedule.next_load) is not None:
        loads.append(load)
        schedule.add(engine.answer(load))
    assert {load.concurrency % 4 for load in loads if isinstance(load, DecodeLoad)} == {0}
    assert {load.concurrency for load in loads if isinstance(load, PrefillLoad)} == {4}


def test_prompts_too_short_for_the_cache_cost_their_row_alone():
    class LongBlocks(FakeEngine):
        def answer(self, load):
            point = super().answer(load)
            if isinstance(load, DecodeLoad) and load.prompt_tokens < 600:
                return replace(point, cached_share=0.0, rejection=f"{NOT_CACHED}: 0%")
            return point

    engine = LongBlocks()
    points, schedule = follow(engine)
    assert not schedule.caches_nothing
    good = {key[1] for key, point in points.items() if key[0] == "decode" and point.rejection is None}
    assert len(good) == 2
    assert sum(point.rejection is not None for point in points.values()) == 1
