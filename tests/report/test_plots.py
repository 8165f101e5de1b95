from dataclasses import replace
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from autotuner.core import Candidate
from autotuner.report import plots
from autotuner.report.label_placement import Label, place_labels
from autotuner.report.plots import draw_pareto
from autotuner.report.run_view import RunView
from autotuner.scoring.pareto import AXES, pareto_points
from tests.factories import scored_result


def picture(run, path):
    draw_pareto(run.view, path)
    return path.read_bytes()


def texts(monkeypatch, run, path):
    """Every text of the picture."""
    all_texts: list[str] = []
    original = Figure.savefig

    def keep(figure, *args, **options):
        all_texts.extend(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))
        return original(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    picture(run, path)
    return [text for text in all_texts if text]


@pytest.mark.parametrize(
    ("objective", "count"),
    [("maximize_throughput", 1), ("minimize_latency", 2), ("maximize_throughput", 3), ("minimize_latency", 40)],
)
def test_any_number_of_trials_gives_a_picture(make_run, tmp_path, objective, count):
    run = make_run(objective, count=count, slo={"tpot": 0.006, "ttft": {"p90": 0.06}})
    picture(run, tmp_path / "p.png")
    height, width, _ = imread(tmp_path / "p.png").shape
    assert (width, height) == (1764, 980)


def test_a_relaunched_candidate_is_one_marker_with_metrics_pooled_over_launches(make_run, tmp_path, monkeypatch):
    run = make_run(loads=(16,))
    again = replace(run.trials[1].measurement, load_points=(scored_result(16, 0.062, 0.0066, run.experiment),))
    run.trials.append(replace(run.trials[1], number=4, measurement=again, purpose="confirmation"))
    markers: list[tuple[int, Any]] = []
    monkeypatch.setattr(
        plots,
        "_draw_markers",
        lambda axes, points, *_: markers.extend((point.trial.number, point.coordinates) for point in points),
    )
    picture(run, tmp_path / "p.png")
    # TPOT of 5.6 and 6.6 ms, TTFT of 52 and 62 ms, on two GPUs
    throughput = pytest.approx((800 / 0.6064 + 800 / 0.7154) / 2)
    assert [coordinates for number, coordinates in markers if number in (2, 4)] == [
        (pytest.approx(1 / 0.0061), throughput),
        (pytest.approx(57.0), throughput),
    ]


def test_no_trials_give_a_picture_that_says_so(make_run, tmp_path, monkeypatch):
    run = make_run()
    run.trials = []
    assert "No load point has these metrics." in texts(monkeypatch, run, tmp_path / "p.png")


def test_equal_input_gives_equal_bytes(make_run, tmp_path):
    assert picture(make_run(count=6), tmp_path / "a.png") == picture(make_run(count=6), tmp_path / "b.png")


def test_a_simulated_picture_says_so_and_a_measured_one_does_not(make_run, tmp_path, monkeypatch):
    assert "SIMULATED, NOT MEASURED" in texts(monkeypatch, make_run(source="simulated"), tmp_path / "p.png")
    assert not any("SIMULATED" in text for text in texts(monkeypatch, make_run(), tmp_path / "p.png"))


def test_points_are_labelled_with_their_loads_and_a_key_names_candidates_by_what_differs(
    make_run, tmp_path, monkeypatch
):
    shown_texts = texts(monkeypatch, make_run(), tmp_path / "p.png")
    assert {"trial 2\nc=16", "c=4"} <= set(shown_texts)
    assert "#1 trial 2: tp-size=2 enable-chunked-prefill=false" in shown_texts
    assert not any("mem-fraction-static" in text for text in shown_texts)


@pytest.mark.parametrize(
    ("slo", "frontier", "near"), [({}, True, False), ({"ttft": 0.055}, True, True), ({"ttft": 0.001}, False, False)]
)
def test_the_legend_has_what_is_in_the_picture(make_run, tmp_path, monkeypatch, slo, frontier, near):
    shown_texts = texts(monkeypatch, make_run(slo=slo), tmp_path / "p.png")
    assert ("Pareto frontier" in shown_texts, "near a target" in shown_texts) == (frontier, near)


def test_axes_have_units_and_targets_are_named(make_run, tmp_path, monkeypatch):
    run = make_run(slo={"tpot": 0.02, "ttft": {"p90": 0.5}})
    shown_texts = texts(monkeypatch, run, tmp_path / "p.png")
    assert "Output tokens/s per GPU" in shown_texts
    assert "Interactivity (tokens/s per user, 1 / mean TPOT)" in shown_texts
    assert "Time to first token (p90, ms)" in shown_texts
    assert "target: TPOT ≤ 20 ms for 95% of requests" in shown_texts
    assert "target: TTFT p90 ≤ 500 ms (outside this axis)" not in shown_texts


def test_names_that_look_like_formulas_or_lack_a_glyph_are_drawn_as_they_are(make_run, tmp_path, monkeypatch):
    run = make_run(model="/models/$x_{$/模型" + "y" * 200)
    (title,) = [text for text in texts(monkeypatch, run, tmp_path / "p.png") if text.startswith("/models")]
    assert title.startswith("/models/$x_{$/??y")
    assert title.endswith("y on vllm")
    assert len(title) < 80


def test_candidates_at_one_place_are_labelled_once(make_run):
    run = make_run()
    twin = replace(run.trials[1], number=9, candidate=Candidate("vllm", {"tp-size": 2, "other": True}))
    view = RunView.of([*run.trials, twin], run.experiment)
    points = pareto_points(view.pooled_trials, run.experiment, (AXES["interactivity"], AXES["throughput"]))
    labels = plots._point_labels([point for point in points if point.on_frontier], view, {})
    assert sum(point.on_frontier for point in points) == 4
    assert sorted(label.texts[-1] for label in labels) == ["c=16", "c=4"]


def test_few_candidates_have_colours_the_winner_the_first(make_run):
    run = make_run(count=12)
    run.trials = [replace(each, candidate=Candidate("vllm", {"tp-size": 1, "i": each.number})) for each in run.trials]
    view = run.view
    points = pareto_points(view.pooled_trials, view.experiment, (AXES["interactivity"], AXES["throughput"]))
    colours = plots._trial_colours(points, view.ranking)
    assert next(iter(colours)) == view.ranking.winner.trial_number
    assert len(colours) == len(set(colours.values())) == plots.MAX_COLOURED_CANDIDATES


def test_the_heading_names_the_type_of_gpu(make_run, tmp_path, monkeypatch):
    shown_texts = texts(monkeypatch, make_run(source="simulated", count=1), tmp_path / "p.png")
    assert "tiny on vllm, simulated H100 SXM" in shown_texts


def test_scenarios_have_their_own_frontiers(make_run):
    run = make_run(scenarios=("D(100,100)", "D(200,100)"))
    chosen = (AXES["interactivity"], AXES["throughput"])
    lines = plots._frontiers(pareto_points(run.trials, run.experiment, chosen))
    assert [{point.result.load_point.scenario for point in line} for line in lines] == [{"D(100,100)"}, {"D(200,100)"}]


@pytest.mark.parametrize("count", [2, 30, 80])
def test_labels_lie_on_no_label_and_on_no_point(count):
    figure = Figure(figsize=(8, 6), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [(float(i * 37 % count), float(i * 11 % count)) for i in range(count)]
    axes.set(xlim=(-1, count), ylim=(-1, count))
    labels = [Label(point, (f"tp-size={i}\nc={i}", f"c={i}"), "black") for i, point in enumerate(points)]
    label_count = place_labels(axes, labels, [(x, y, 4.0) for x, y in points], [])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == label_count
    assert label_count >= min(count, 25)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(*axes.transData.transform(point)) for point in points)
