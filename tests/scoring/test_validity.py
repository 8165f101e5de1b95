import random

import pytest

from autotuner.core import LoadPoint, Verdict
from autotuner.experiment import Slo
from autotuner.scoring.metrics import summarize
from autotuner.scoring.validity import CHECK_VERDICTS, check_validity, max_client_seconds

NO_SLO = Slo()


def checked(observation, slo=NO_SLO):
    return {check.name: check for check in check_validity(observation, summarize(observation, slo), slo)}


def broken(observation, slo=NO_SLO):
    return [name for name, check in checked(observation, slo).items() if not check.ok]


def closed(make, streams, seconds, service, warmup=5.0):
    """A closed loop of `streams`, whose requests take what `service()` says, from `-warmup` to `seconds`."""
    records = []
    for _ in range(streams):
        now = -warmup
        while now < seconds:
            took = service()
            records.append(make.record(now, ttft=took / 2, gap=took / 20, tokens=11))
            now += took + 0.0005
    return make.observation(
        [record for record in records if record.finished > 0],
        window=(0.0, seconds),
        point=LoadPoint("D(100,11)", concurrency=streams),
    )


def opened(make, rate, seconds, servers, service, draw, warmup=5.0):
    """Poisson arrivals at `servers` first-come-first-served servers."""
    free, now, records = [-warmup] * servers, -warmup, []
    while (now := now + draw.expovariate(rate)) < seconds:
        begin = max(now, min(free))
        took = service()
        free[free.index(min(free))] = begin + took
        records.append(make.record(now, ttft=begin + took / 2 - now, gap=took / 20, tokens=11))
    return make.observation(
        [record for record in records if record.finished > 0],
        window=(0.0, seconds),
        point=LoadPoint("D(100,11)", rate=rate),
    )


@pytest.mark.parametrize(("streams", "took"), [(1, 1.0), (1, 0.3), (4, 2.0), (16, 5.0), (64, 9.0)])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.5])
def test_a_sound_closed_loop_passes_however_few_its_requests(make, streams, took, spread):
    draw = random.Random(streams)
    failed_checks = broken(closed(make, streams, 20.0, lambda: took * (1 + spread * draw.uniform(-1, 1))))
    assert failed_checks == []


@pytest.mark.parametrize("seed", range(20))
def test_a_sound_open_loop_passes(make, seed):
    draw = random.Random(seed)
    assert broken(opened(make, 8.0, 20.0, 10, lambda: draw.uniform(0.5, 1.2), draw)) == []


@pytest.mark.parametrize("seed", range(10))
def test_long_requests_that_still_fill_the_server_are_not_overload(make, seed):
    draw = random.Random(seed)
    failed_checks = broken(opened(make, 2.0, 20.0, 1000, lambda: draw.uniform(14, 16), draw))
    assert "completed-rate" not in failed_checks


@pytest.mark.parametrize("rate", [8.0, 12.0, 40.0])
def test_an_open_loop_above_capacity_is_saturated_and_nothing_else(make, rate):
    draw = random.Random(1)
    observation = opened(make, rate, 20.0, 5, lambda: 1.0, draw)  # capacity 5 requests/s
    assert set(broken(observation)) == {"completed-rate", "backlog-slope"}
    checks = checked(observation)
    assert checks["completed-rate"].value == pytest.approx(5 / rate, rel=0.2)
    assert checks["backlog-slope"].value == pytest.approx(rate - 5, rel=0.2)


def test_a_busy_server_is_seldom_taken_for_a_saturated_one(make):
    alarms = 0
    for seed in range(60):
        draw = random.Random(seed)
        alarms += "completed-rate" in broken(opened(make, 4.0, 20.0, 5, lambda draw=draw: draw.expovariate(1), draw))
    assert alarms <= 3


def test_a_request_limit_does_not_hide_overload(make):
    draw = random.Random(1)
    endless = opened(make, 10.0, 20.0, 5, lambda: 1.0, draw, warmup=0.0)
    drained = make.observation(
        endless.records, window=(0.0, max(r.finished for r in endless.records)), point=endless.load_point
    )
    assert "completed-rate" in broken(drained)


def test_a_request_limit_is_not_taken_for_a_slow_client(make):
    draw = random.Random(2)
    endless = opened(make, 5.0, 20.0, 100, lambda: 10.0, draw, warmup=0.0)
    drained = make.observation(
        endless.records, window=(0.0, max(r.finished for r in endless.records)), point=endless.load_point
    )
    assert broken(drained) == []


def test_requests_cut_off_in_overload_still_count_as_arrived(make):
    records = [make.record(i * 0.1, ttft=0.5) for i in range(50)]
    point = LoadPoint("D(100,11)", rate=10.0)
    assert "completed-rate" not in broken(make.observation(records, window=(0.0, 5.0), point=point))
    assert "completed-rate" in broken(make.observation(records, window=(0.0, 5.0), point=point, cut_off_requests=60))


@pytest.mark.parametrize(("threshold", "limit"), [(None, 0.010), (0.1, 0.010), (1.0, 0.050)])
def test_the_client_may_add_10_ms_or_5_percent_of_the_ttft_target(threshold, limit):
    slo = Slo.model_validate({"ttft": threshold}) if threshold else NO_SLO
    assert max_client_seconds(slo) == pytest.approx(limit)


def test_a_lagging_client_loop_is_client_limited(make):
    observation = closed(make, 4, 20.0, lambda: 1.0)
    slow = make.observation(observation.records, (0.0, 20.0), observation.load_point, loop_lag_p99=0.02)
    assert broken(slow) == ["loop-lag-p99"]
    assert CHECK_VERDICTS["loop-lag-p99"] is Verdict.CLIENT_LIMITED
    assert broken(slow, Slo.model_validate({"ttft": 1.0})) == []


def delayed(make, delays, ttft=0.1, **changes):
    """One stream whose first tokens were stamped so many seconds late, None where that is not known."""
    records = [make.record(i * 0.1, ttft=ttft, tokens=1, client_delay=delay) for i, delay in enumerate(delays)]
    return make.observation(records, (0.0, 0.1 * len(records)), **changes)


@pytest.mark.parametrize(
    ("delay", "ttft", "ok"),
    [(0.0029, 0.02, True), (0.0031, 0.02, False), (0.0049, 0.1, True), (0.0051, 0.1, False), (1.8, 3.0, False)],
)
def test_the_client_may_add_3_ms_or_5_percent_of_the_mean_ttft_to_it(make, delay, ttft, ok):
    result = checked(delayed(make, [delay, None] * 20, ttft))["client-delay"]
    assert result.value == pytest.approx(delay)
    assert result.ok is ok
    assert CHECK_VERDICTS["client-delay"] is Verdict.CLIENT_LIMITED


@pytest.mark.parametrize(("late", "ok"), [(1, True), (3, False)])
def test_the_slowest_stamps_of_a_client_are_checked_too_and_one_hiccup_is_none(make, late, ok):
    observation = delayed(make, [0.0001] * (100 - late) + [0.05] * late)
    assert checked(observation)["client-delay"].ok
    assert checked(observation)["client-delay-p99"].ok is ok
    assert checked(delayed(make, [0.0001] * 97 + [0.05] * 3, ttft=1.1))["client-delay-p99"].ok
    assert CHECK_VERDICTS["client-delay-p99"] is Verdict.CLIENT_LIMITED


def test_where_the_kernel_does_not_tell_the_lag_of_the_loop_is_what_the_client_adds(make):
    unknown = delayed(make, [None] * 40, loop_lag_mean=0.02)
    assert checked(unknown)["client-delay"].value == 0.02
    assert broken(unknown) == ["client-delay"]
    coalesced = delayed(make, [0.001] * 40, loop_lag_mean=0.02)
    assert checked(coalesced)["client-delay"].value == 0.02
    nothing = delayed(make, [None] * 40)
    assert checked(nothing)["client-delay"].value is None
    assert broken(nothing) == []


@pytest.mark.parametrize(("share", "ok"), [(None, True), (0.6, True), (0.95, False)])
def test_a_client_that_takes_nearly_a_whole_core_is_the_limit(make, share, ok):
    observation = delayed(make, [0.0001] * 40, client_cpu=share)
    assert broken(observation) == ([] if ok else ["client-cpu"])
    assert checked(observation)["client-cpu"].value == share
    assert CHECK_VERDICTS["client-cpu"] is Verdict.CLIENT_LIMITED


def test_late_dispatch_is_client_limited_and_one_hiccup_is_not(make):
    point = LoadPoint("D(100,11)", rate=5.0)

    def dispatched(count):
        sent = [i / 5 + 0.1 for i in range(100)]
        return make.observation(
            [make.record(t, ttft=0.3, scheduled=t - (0.03 if i < count else 0.0)) for i, t in enumerate(sent)],
            window=(0.0, 20.0),
            point=point,
        )

    assert broken(dispatched(1)) == []
    assert broken(dispatched(2)) == ["dispatch-delay-p99"]
    assert checked(dispatched(2))["dispatch-delay-p99"].value == pytest.approx(0.03)


def test_a_client_that_sends_too_slowly_is_client_limited(make):
    records = [make.record(i / 5, ttft=0.3) for i in range(100)]
    observation = make.observation(records, (0.0, 20.0), LoadPoint("D(100,11)", rate=10.0))
    assert checked(observation)["sent-rate"].value == pytest.approx(0.5)
    assert "sent-rate" in broken(observation)


def test_requests_that_the_schedule_held_and_that_did_not_go_out_are_the_clients_fault(make):
    records = [make.record(sent=0.1 * n) for n in range(60)]
    point = LoadPoint("D(100,11)", rate=10.0)
    observation = make.observation(records, (0.0, 10.0), point, due_requests=100)
    assert checked(observation)["sent-rate"].value == pytest.approx(0.6)
    assert "sent-rate" in broken(observation)


def test_a_schedule_below_the_load_points_rate_is_kept_when_all_of_it_went_out(make):
    records = [make.record(sent=0.2 * n) for n in range(50)]
    point = LoadPoint("file:part-of-a-trace", rate=10.0)
    assert broken(make.observation(records, (0.0, 10.0), point, due_requests=50)) == []


@pytest.mark.parametrize(("held_back", "ok"), [(0, True), (1, False)])
def test_a_bound_on_requests_in_flight_that_held_one_back_is_told(make, held_back: int, ok: bool):
    records = [make.record(sent=0.1 * n) for n in range(100)]
    observation = make.observation(
        records, (0.0, 10.0), LoadPoint("D(100,11)", rate=10.0), held_back_requests=held_back
    )
    assert checked(observation)["rate-capped"].ok is ok
    assert CHECK_VERDICTS["rate-capped"] is Verdict.CLIENT_LIMITED


def test_without_a_bound_nothing_is_said_of_one(make):
    records = [make.record(sent=0.1 * n) for n in range(100)]
    assert "rate-capped" not in checked(make.observation(records, (0.0, 10.0), LoadPoint("D(100,11)", rate=10.0)))


def test_streams_that_stand_idle_break_littles_law(make):
    # 8 streams, each busy 1 s of every 2 s
    records = [make.record(2 * i + 0.01 * s, ttft=0.9, gap=0.01) for i in range(20) for s in range(8)]
    observation = make.observation(records, (0.0, 40.0), LoadPoint("D(100,11)", concurrency=8))
    assert broken(observation) == ["littles-law"]
    assert checked(observation)["littles-law"].value == pytest.approx(0.5, abs=0.01)


def test_answers_of_the_wrong_length_are_invalid(make):
    good = [make.record(i * 0.2) for i in range(45)]
    short = [make.record(9 + i * 0.2, tokens=5, requested_output=11, finish_reason="stop") for i in range(5)]
    assert "output-length" in broken(make.observation(good + short))
    assert checked(make.observation(good + short))["output-length"].value == pytest.approx(0.9)
    assert "output-length" not in broken(make.observation(good + short[:2]))


def test_prompts_of_the_wrong_length_are_invalid_and_uncounted_ones_are_not(make):
    longer = [make.record(i * 0.2, prompt_tokens=130) for i in range(49)]
    assert "prompt-length" in broken(make.observation(longer))
    uncounted = [make.record(i * 0.2, prompt_tokens=None) for i in range(49)]
    assert "prompt-length" not in broken(make.observation(uncounted))
    assert checked(make.observation(uncounted))["prompt-length"].value is None


def test_one_error_in_a_hundred_passes_and_two_do_not(make):
    records = [make.record(i * 0.1) for i in range(98)]
    one = [*records, make.record(9.85), make.failed(9.9)]
    two = [*records, make.failed(9.85), make.failed(9.9)]
    assert "error-share" not in broken(make.observation(one))
    assert "error-share" in broken(make.observation(two))


@pytest.mark.parametrize(
    ("counters", "prompt", "hit", "limit", "ok"),
    [
        ({"prefix_cache_queries": 2000.0, "prefix_cache_hits": 1600.0}, 100, 0.8, "<= 0.32", False),
        ({"prefix_cache_queries": 2000.0, "prefix_cache_hits": 0.0}, 100, 0.0, "<= 0.32", True),
        ({"prefix_cache_queries": 2500.0, "prefix_cache_hits": 320.0}, 100, 0.128, "<= 0.32", True),
        ({"prefix_cache_queries": 1e5, "prefix_cache_hits": 7300.0}, 1000, 0.073, "<= 0.05 of", False),
        ({"prefix_cache_queries": 1e5, "prefix_cache_hits": 7300.0}, 400, 0.073, "<= 0.08", True),
        ({"prefix_cache_queries": 1e5, "prefix_cache_hits": 8100.0}, 400, 0.081, "<= 0.08", False),
        ({"prefix_cache_queries": 1e3, "prefix_cache_hits": 600.0}, 20, 0.6, "<= 0.5 of", False),
        ({"preemptions": 3.0}, 100, None, "<= 0.32", True),
    ],
)
def test_cache_hits_are_read_from_the_engines_counters_and_held_to_the_limit_that_is_shown(
    make, counters, prompt, hit, limit, ok
):
    records = [make.record(i * 0.5, prompt_tokens=prompt, requested_prompt=prompt) for i in range(20)]
    result = checked(make.observation(records, counters=counters))["cache-hits"]
    assert result.value == (None if hit is None else pytest.approx(hit))
    assert result.limit.startswith(limit)
    assert result.ok is ok


@pytest.mark.parametrize(
    ("cached", "hit"), [([100] * 20, 0.1), ([None] * 19 + [400], 0.02), ([0] * 20, 0.0), ([1000] * 20, 1.0)]
)
def test_what_the_answers_say_was_cached_goes_before_the_engines_counters(make, cached, hit):
    records = [
        make.record(i * 0.5, prompt_tokens=1000, requested_prompt=1000, cached_tokens=n) for i, n in enumerate(cached)
    ]
    others = {"prefix_cache_queries": 2000.0, "prefix_cache_hits": 900.0}
    result = checked(make.observation(records, counters=others))["cache-hits"]
    assert result.value == pytest.approx(hit)
    assert result.ok is (hit <= 0.05)


@pytest.mark.parametrize(
    ("whole", "share", "ok"), [(0, 0.0, True), (1, 0.01, True), (2, 0.02, False), (100, 1.0, False)]
)
def test_answers_without_a_tpot_are_invalid_where_there_is_a_target_for_it(make, whole, share, ok):
    streamed = [make.record(i * 0.05) for i in range(100 - whole)]
    at_once = [make.record(9.9, tokens=1, output_tokens=11, chunk_tokens=(11,)) for _ in range(whole)]
    observation = make.observation(streamed + at_once)
    result = checked(observation, Slo.model_validate({"tpot": 0.05}))["tpot-defined"]
    assert result.value == pytest.approx(share)
    assert result.ok is ok
    assert "tpot-defined" not in checked(observation, Slo.model_validate({"ttft": 1.0}))
    assert CHECK_VERDICTS["tpot-defined"] is Verdict.INVALID


@pytest.mark.parametrize("scenario", ["P(1000,100,11)", "file:trace.jsonl"])
def test_cache_hits_are_welcome_where_prefixes_are_shared(make, scenario):
    counters = {"prefix_cache_queries": 2000.0, "prefix_cache_hits": 1600.0}
    observation = make.observation(
        [make.record(i * 0.5) for i in range(20)], point=LoadPoint(scenario, concurrency=1), counters=counters
    )
    assert checked(observation)["cache-hits"].ok


def test_a_server_that_slows_down_is_not_steady(make):
    records = [make.record(i * 0.2, ttft=0.1 if i < 25 else 0.15, gap=0.004) for i in range(50)]
    check = checked(make.observation(records))["stationarity"]
    assert check.value == pytest.approx(0.19 / 0.14)
    assert not check.ok


def test_few_requests_are_not_asked_to_be_steady(make):
    records = [make.record(i * 0.5, ttft=0.1 if i < 10 else 0.4, gap=0.0) for i in range(19)]
    assert checked(make.observation(records))["stationarity"].value is None


def test_few_requests_leave_a_load_point_undecided_and_none_make_it_invalid(make):
    assert broken(make.observation([make.record(i * 0.6, ttft=0.5) for i in range(9)], (0.0, 5.4))) == ["sample-size"]
    assert CHECK_VERDICTS["sample-size"] is Verdict.UNDECIDED
    nothing = broken(make.observation([]))
    assert "completed" in nothing
    assert CHECK_VERDICTS["completed"] is Verdict.INVALID


@pytest.mark.parametrize("point", [LoadPoint("D(1,1)", concurrency=2), LoadPoint("D(1,1)", rate=2.0)])
@pytest.mark.parametrize("window", [(0.0, 10.0), (0.0, 0.0)])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_check_has_a_consequence_and_survives_nothing(make, point, window, count):
    for records in ([make.record(0.0)] * count, [make.failed(0.0)] * count):
        names = checked(make.observation(records, window, point))
        assert set(names) <= set(CHECK_VERDICTS)
        assert "completed" in names
