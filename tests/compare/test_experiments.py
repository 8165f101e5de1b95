from autotuner.compare.experiments import (
    experiment_winners,
    experiments_markdown,
    experiments_record,
    experiments_table,
    undominated,
)
from tests.factories import Run

VIEWS = {"free": Run().view, "priced": Run(price=2.0).view, "slower": Run(count=1).view}


def test_a_winner_has_its_figures_at_the_load_at_which_it_is_ranked():
    first, priced, _ = experiment_winners(VIEWS)
    assert first.standing is not None
    assert first.result is not None
    assert first.result.load_point == first.standing.load_point
    assert first.throughput == first.result.metrics.output_throughput / 2
    assert (first.cost is None, priced.cost is not None) == (True, True)


def test_an_experiment_that_another_beats_in_all_has_no_mark():
    assert undominated(experiment_winners({name: VIEWS[name] for name in ("free", "slower")})) == {"free"}
    # equal figures beat nothing
    assert undominated(experiment_winners({"a": VIEWS["free"], "b": VIEWS["free"]})) == {"a", "b"}


def test_experiments_without_a_winner_are_listed_and_have_no_mark():
    views = {"met": Run().view, "missed": Run(slo={"ttft": 1e-6}).view}
    table = experiments_table(views)
    cells = table.cell_texts()
    assert cells[1]["winner"] == "none meets the targets"
    assert [row["Pareto"] for row in cells] == ["yes", ""]
    record = experiments_record(views, {"met": "runs/a", "missed": "runs/b"})["experiments"]
    assert [(row["run"], row["winner"] is None, row["pareto"]) for row in record] == [
        ("runs/a", False, True),
        ("runs/b", True, False),
    ]


def test_the_page_says_where_figures_are_from():
    views = {"real": Run().view, "simulated": Run(source="simulated").view}
    page = experiments_markdown(views)
    assert "Figures of different sources are not comparable." in page
    assert "not from a measured server" in page
