"""The pictures of a load test, from request records."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from autotuner.core import LoadPoint, LoadPointResult, Observation, RequestRecord
from autotuner.report.bench.curves import draw_latency_curves, draw_tradeoff
from autotuner.report.bench.over_time import draw_distributions, draw_timeline
from autotuner.report.bench.trace import load_point_timeline
from autotuner.scoring.metrics import summarize
from autotuner.scoring.validity import check_validity
from tests.factories import load_test

NAMES = ("load.png", "tradeoff.png", "latencies.png", "timeline.png")


def request(sent, error=None, ttft=0.05, tpot=0.01):
    times = () if error else tuple(sent + ttft + tpot * i for i in range(20))
    finished = times[-1] if times else sent + 0.2
    return RequestRecord(0, sent, sent, finished, times, (1,) * len(times), 10, 20, finish_reason="length", error=error)


def make_observation(point, begin=0.0, count=40, error=None):
    load = point.concurrency or point.rate
    records = tuple(request(begin + 4 * i / count, error, ttft=0.02 * (1 + load / 8)) for i in range(count))
    return Observation(point, records, (begin, begin + 4.0), 0.001)


def draw_all(make_run, folder, observations, source="measured", slo=None):
    """Draw all four; the experiment is only there for its model's name and its targets."""
    experiment = make_run(slo=slo).experiment
    points = []
    for observation in observations:
        metrics = summarize(observation, experiment.slo)
        checks = check_validity(observation, metrics, experiment.slo)
        points.append(LoadPointResult(observation.load_point, source, metrics, checks))
    bench = load_test(experiment, points, source)
    timelines = [load_point_timeline(observation) for observation in observations]
    draw_latency_curves(bench, folder / "load.png")
    draw_tradeoff(bench, folder / "tradeoff.png")
    draw_distributions(bench, timelines, folder / "latencies.png")
    draw_timeline(bench, timelines, folder / "timeline.png")
    return [(folder / name).read_bytes() for name in NAMES]


def closed_loops(count, scenario="D(10,20)"):
    return [make_observation(LoadPoint(scenario, concurrency=2**i), begin=6.0 * i) for i in range(count)]


CASES = {
    "one load point": closed_loops(1),
    "many of several scenarios": [*closed_loops(9), *closed_loops(9, "N(100,10)/(200,20)")],
    "concurrencies and rates": [*closed_loops(2), make_observation(LoadPoint("D(10,20)", rate=3.5), begin=20.0)],
    "one request": [make_observation(LoadPoint("D(10,20)", concurrency=1), count=1)],
    "nothing answered": [make_observation(LoadPoint("D(10,20)", concurrency=1), error="http-500")],
    "no requests": [Observation(LoadPoint("D(10,20)", concurrency=1), (), (3.0, 3.0), 0.0)],
}


@pytest.mark.parametrize("observations", CASES.values(), ids=CASES)
def test_any_load_test_gives_pictures(make_run, tmp_path, observations):
    draw_all(make_run, tmp_path, observations)
    for name in NAMES:
        height, width, _ = imread(tmp_path / name).shape
        assert width == 1508
        assert height > 600


def test_equal_input_gives_equal_bytes(make_run, tmp_path):
    (tmp_path / "again").mkdir()
    assert draw_all(make_run, tmp_path, closed_loops(2)) == draw_all(make_run, tmp_path / "again", closed_loops(2))


@pytest.fixture
def texts(monkeypatch):
    """The texts of each picture that was written, in order."""
    texts_by_figure = []
    original = Figure.savefig

    def keep(figure, *args, **options):
        texts_by_figure.append(
            [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]
        )
        return original(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return texts_by_figure


def test_what_was_simulated_says_so_and_axes_have_units(make_run, tmp_path, texts):
    draw_all(make_run, tmp_path, closed_loops(3), source="simulated")
    assert all("SIMULATED, NOT MEASURED" in written for written in texts)
    load, trade, latencies, over_time = texts
    assert {"Time to first token (ms)", "Time per output token (ms)", "Concurrency (requests in flight)"} <= set(load)
    assert {"Output tokens/s", "c=4"} <= set(trade)
    assert "c=4 (n=40)" in latencies
    assert {"Output tokens/s", "Requests in flight", "Time since the first window began (s)"} <= set(over_time)


@pytest.mark.parametrize(("ttft", "near"), [(0.0235, True), (0.1, False), (0.01, False)])
def test_a_load_point_near_a_target_has_a_ring_that_the_legend_names(make_run, tmp_path, texts, ttft, near):
    # one request in flight has a TTFT of 22.5 ms
    draw_all(make_run, tmp_path, closed_loops(1), slo={"ttft": ttft})
    assert ["near a target" in written for written in texts] == [near, near, False, False]


def test_a_timeline_counts_every_token_and_request():
    observation = make_observation(LoadPoint("D(10,20)", concurrency=4))
    timeline = load_point_timeline(observation)
    received = sum(1 for r in observation.records for time in r.chunk_times if time <= 4.0)
    assert float(timeline.tokens_per_second @ np.diff(timeline.bin_edges)) == pytest.approx(received)
    assert len(timeline.ttft) == 40
    assert timeline.in_flight[0] == 1
    assert timeline.errors == 0


def test_a_request_that_failed_is_in_no_distribution_but_counts_in_its_share():
    point = LoadPoint("D(10,20)", concurrency=1)
    good, bad = make_observation(point), make_observation(point, error="http-500")
    timeline = load_point_timeline(Observation(point, good.records + bad.records, good.window, 0.0))
    assert (len(timeline.ttft), timeline.errors) == (40, 40)
    assert len(timeline.failure_times) == sum(record.finished <= 4.0 for record in bad.records)
