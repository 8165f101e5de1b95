"""Finished trials become rows that what-if questions find, and ratios that correct others."""

import math
import sqlite3

import pytest
import yaml

from autotuner.cli import app
from autotuner.core import (
    Candidate,
    Distribution,
    LoadPoint,
    LoadPointResult,
    Measurement,
    Metrics,
    Progress,
    Trial,
    Verdict,
)
from autotuner.engines import engine
from autotuner.errors import ConfigError, UsageError
from autotuner.experiment import Experiment
from autotuner.forecaster import Forecaster
from autotuner.launchers import launcher
from autotuner.local_data import (
    calibrate,
    forecast_layouts,
    read_calibration_data,
    record_trial,
    recording_observer,
)
from autotuner.predict import database
from autotuner.predict.layout import Layout
from autotuner.predict.load_curve import LoadCurve
from autotuner.predict.measured_lookup import MeasuredLookup
from autotuner.predict.traffic import Software, Traffic
from autotuner.report.forecast_table import FORECAST_TITLE, forecast_table
from autotuner.report.markdown import markdown_report
from autotuner.report.run_view import RunView
from autotuner.runs.store import RunStore

CONFIG = {
    "task_name": "t",
    "model": {"id_or_path": "qwen3-8b"},
    "base_runtime": "vllm",
    "parameters": {"tp-size": [1]},
    "hardware": {"gpu_type": "H100", "total_gpus": 8},
    "benchmark": {"traffic_scenarios": ["D(1000,200)"], "num_concurrency": [1]},
}
TRAFFIC = Traffic(1000, 200)


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOTUNE_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def store(tmp_path):
    return RunStore.create(tmp_path / "runs", CONFIG, {})


def forecaster(store):
    experiment: Experiment = store.experiment
    return Forecaster.from_experiment(
        experiment, engine(experiment.base_runtime), launcher(experiment.deployment.mode, experiment.deployment)
    )


def load_curve(tp=1) -> LoadCurve:
    return LoadCurve(
        Software("vllm", kv_dtype=None).deploy("qwen3-8b", "h100", Layout(tp=tp)), TRAFFIC, bundled_only=True
    )


def summary(mean):
    quantiles = dict.fromkeys(("min", "p25", "p50", "p75", "p90", "p95", "p99", "max"), mean)
    return Distribution(100, mean, 0.0, **quantiles, intervals={"mean": (0.97 * mean, 1.03 * mean)})


def result(concurrency, ttft, tpot, source="measured", scenario="D(1000,200)", verdict=Verdict.FEASIBLE):
    requests = concurrency / (ttft + 199 * tpot)
    metrics = Metrics(
        requests=100,
        ttft=summary(ttft),
        ttfo=None,
        tpot=summary(tpot),
        itl=None,
        chunk_gap=None,
        e2e=None,
        interactivity=None,
        output_throughput=200 * requests,
        throughput=1200 * requests,
        request_throughput=requests,
        goodput=0.0,
        token_goodput=0.0,
        attainment=None,
        errors={},
    )
    return LoadPointResult(LoadPoint(scenario, concurrency=concurrency), source, metrics, verdict=verdict)


def trial(number, results, tp=1, source="measured", **parameters):
    candidate = Candidate("vllm", {"tp-size": tp, **parameters})
    return Trial(number, candidate, Measurement(source, tuple(results), server={"version": "0.32.0"}), 0.0, 1.7e9)


def slower(concurrency, tp=1, ttft=1.0, tpot=1.0, source="measured"):
    """A load point measured at the prediction times these factors."""
    prediction = load_curve(tp).at_concurrency(concurrency)
    return result(concurrency, prediction.ttft * ttft, prediction.tpot * tpot, source)


def test_a_measured_trial_is_found_by_the_question_it_answers(store):
    assert record_trial(store, forecaster(store), trial(3, [result(8, 0.08, 0.011)])) == 1
    lookup = MeasuredLookup(LoadCurve(load_curve().deployment, TRAFFIC)).at_concurrency(8)
    assert lookup.source == "measured"
    assert (lookup.prediction.ttft, lookup.prediction.tpot) == (0.08, 0.011)
    assert lookup.prediction.ttft_interval == pytest.approx((0.97 * 0.08, 1.03 * 0.08))
    assert "trial 3 at D(1000,200) @ 8" in lookup.explanation


def test_between_two_measured_loads_it_is_interpolated_along_the_prediction(store):
    loads = [slower(8, tpot=1.2), slower(32, tpot=1.2)]
    record_trial(store, forecaster(store), trial(1, loads))
    lookup = MeasuredLookup(LoadCurve(load_curve().deployment, TRAFFIC)).at_concurrency(16)
    assert lookup.source == "interpolated"
    assert lookup.prediction.tpot == pytest.approx(slower(16, tpot=1.2).metrics.tpot.mean, rel=0.02)
    assert lookup.prediction.tpot_interval.lower < lookup.prediction.tpot < lookup.prediction.tpot_interval.upper


def test_between_two_measured_lengths_it_is_interpolated_too(store):
    rows = [result(8, 0.05, 0.012, scenario="D(500,200)"), result(8, 0.2, 0.012, scenario="D(1900,200)")]
    record_trial(store, forecaster(store), trial(1, rows))
    lookup = MeasuredLookup(LoadCurve(load_curve().deployment, TRAFFIC)).at_concurrency(8)
    assert lookup.source == "interpolated"
    assert 0.05 < lookup.prediction.ttft < 0.2


@pytest.mark.parametrize("concurrency", [4, 64])
def test_beyond_what_was_measured_it_is_predicted(store, concurrency):
    record_trial(store, forecaster(store), trial(1, [slower(8), slower(32)]))
    assert MeasuredLookup(LoadCurve(load_curve().deployment, TRAFFIC)).at_concurrency(concurrency).source == "predicted"


def test_loads_too_far_apart_are_not_interpolated(store):
    record_trial(store, forecaster(store), trial(1, [slower(1), slower(64)]))
    assert MeasuredLookup(LoadCurve(load_curve().deployment, TRAFFIC)).at_concurrency(16).source == "predicted"


def test_another_layout_or_an_invalid_load_point_answers_nothing(store):
    record_trial(store, forecaster(store), trial(1, [slower(8, tp=2)], tp=2))
    record_trial(store, forecaster(store), trial(2, [result(8, 9.0, 9.0, verdict=Verdict.INVALID)]))
    assert MeasuredLookup(LoadCurve(load_curve().deployment, TRAFFIC)).at_concurrency(8).source == "predicted"
    assert database.count_rows() == 2


def test_the_candidate_with_the_fewest_parameters_stands_for_a_deployment(store):
    record_trial(store, forecaster(store), trial(1, [result(8, 0.5, 0.5)], **{"schedule-policy": "lpm"}))
    record_trial(store, forecaster(store), trial(2, [result(8, 0.08, 0.011)]))
    assert MeasuredLookup(LoadCurve(load_curve().deployment, TRAFFIC)).at_concurrency(8).prediction.ttft == 0.08


def test_simulated_figures_are_never_kept(store):
    assert (
        record_trial(store, forecaster(store), trial(1, [result(8, 0.1, 0.01, "simulated")], source="simulated")) == 0
    )
    assert not database.path().exists()


def test_a_trial_recorded_twice_is_one_row(store):
    for _ in range(2):
        record_trial(store, forecaster(store), trial(1, [result(8, 0.1, 0.01)]))
    assert database.count_rows() == 1


def test_a_database_that_cannot_be_written_costs_no_trial(store, tmp_path, caplog):
    database.path().parent.mkdir()
    database.path().write_text("this is no database" * 100)
    observed: list[Progress] = []
    watch = recording_observer(store, forecaster(store), observed.append)
    progress = Progress("finished", 1, Candidate("vllm"), finished_trial=trial(1, [result(8, 0.1, 0.01)]))
    watch(progress)
    assert observed == [progress]
    assert "not added" in caplog.text


def test_a_database_of_another_version_is_left_alone(store):
    record_trial(store, forecaster(store), trial(1, [result(8, 0.1, 0.01)]))
    with sqlite3.connect(database.path()) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    assert record_trial(store, forecaster(store), trial(2, [result(8, 0.1, 0.01)])) == 0


def measured(store, factors, source="measured"):
    ttft, tpot = factors
    for number, tp in ((1, 1), (2, 2)):
        store.append(trial(number, [slower(load, tp, ttft, tpot, source) for load in (1, 8, 32)], tp, source))
    return store.path


def test_launches_tighten_what_is_predicted_of_other_layouts(store):
    store.append(trial(1, [slower(load, 1, 1.3, 1.3) for load in (1, 8, 32)]))
    candidates = [Candidate("vllm", {"tp-size": tp, "max-running-requests": n}) for tp in (1, 2, 4) for n in (64, 99)]
    forecasts = forecast_layouts(store, forecaster(store), candidates)
    assert [forecast.sizes["tp-size"] for forecast in forecasts] == [2, 4]
    for forecast in forecasts:
        true = slower(1, forecast.sizes["tp-size"], 1.3, 1.3).metrics
        for metric in ("ttft", "tpot"):
            before, after = forecast.before[metric], forecast.after[metric]
            assert after[1] / after[0] < before[1] / before[0]
            assert after[0] < getattr(true, metric).mean < after[1]
    store.save_forecasts(forecasts)
    assert store.load_forecasts() == forecasts
    view = RunView.from_store(store)
    assert [row["layout"] for row in forecast_table(view).rows] == ["tp-size=2", "tp-size=4"]
    assert FORECAST_TITLE in markdown_report(view)


def test_nothing_is_told_of_layouts_where_all_were_launched_or_nothing_was_measured(store):
    both = [Candidate("vllm", {"tp-size": tp}) for tp in (1, 2)]
    assert forecast_layouts(store, forecaster(store), both) == []
    store.append(trial(1, [slower(8)]))
    assert forecast_layouts(store, forecaster(store), both[:1]) == []


def test_ratios_of_the_runs_to_their_predictions_are_found_again(store):
    (ratios,) = calibrate([measured(store, (1.3, 0.8))]).ratios.values()
    assert [math.exp(ratio.ttft) for ratio in ratios.ratios] == pytest.approx([1.3] * 6)
    assert [math.exp(ratio.tpot) for ratio in ratios.ratios] == pytest.approx([0.8] * 6)
    assert ratios.before is not None
    assert ratios.after is not None
    assert max(ratios.after) < 0.06 < min(ratios.before)
    assert ratios.launches == 2


def test_a_run_that_is_given_twice_counts_once(store):
    path = measured(store, (1.3, 0.8))
    for paths in ([path, path], [path, f"{path}/."], [path, path / ".." / path.name]):
        (ratios,) = calibrate(paths).ratios.values()
        assert (len(ratios.ratios), ratios.launches, len(ratios.runs)) == (6, 2, 1)


def test_a_launch_measured_here_corrects_predictions_of_other_layouts(store):
    record_trial(store, forecaster(store), trial(1, [slower(load, 1, 1.3, 1.3) for load in (8, 32)]))
    bundled = load_curve(tp=2).at_concurrency(64)
    lookup = MeasuredLookup(LoadCurve(load_curve(tp=2).deployment, TRAFFIC)).at_concurrency(64)
    assert 1.1 < lookup.prediction.tpot / bundled.tpot < 1.3
    assert "corrected by 2 load points" in lookup.explanation


def test_simulated_runs_are_refused_unless_asked_for(store):
    path = measured(store, (1.0, 1.0), "simulated")
    with pytest.raises(UsageError, match="simulated, not measured"):
        read_calibration_data([path])
    assert read_calibration_data([path], simulated=True).source == "simulated"


def test_runs_without_a_known_gpu_say_what_is_missing(store):
    config = {**CONFIG, "hardware": {}}
    (store.path / "experiment.yaml").write_text(yaml.safe_dump(config))
    path = measured(store, (1.0, 1.0))
    with pytest.raises(UsageError, match="Name the GPU with --gpu"):
        read_calibration_data([path])
    assert read_calibration_data([path], gpu="H100").points
    with pytest.raises(ConfigError, match="Unknown GPU 'H1000'; did you mean 'H100'"):
        read_calibration_data([path], gpu="H1000")


def test_one_load_point_is_enough(store):
    store.append(trial(1, [slower(8, ttft=2.0)]))
    result = calibrate([store.path])
    assert result.kept_keys == tuple(result.ratios)
    (ratios,) = result.ratios.values()
    assert ratios.after is None


def exit_code(*arguments):
    with pytest.raises(SystemExit) as ended:
        app(list(arguments))
    return ended.value.code


def test_the_command_fits_shows_and_forgets(store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert exit_code("calibrate", str(measured(store, (1.3, 0.8)))) == 0
    output = capsys.readouterr()
    assert "vllm h100_sxm" in output.out
    assert "->" in output.out
    assert "calibration.json" in output.err
    question = ("--model", "qwen3-8b", "--gpu", "H100", "--isl", "1000", "--osl", "200")
    assert exit_code("predict", "point", *question) == 0
    assert "Calibrated on 2 launches of your own runs" in capsys.readouterr().out
    assert exit_code("predict", "rank", *question, "--total-gpus", "2") == 0
    assert "Calibrated on 2 launches" in capsys.readouterr().out
    assert exit_code("predict", "point", *question, "--predicted") == 0
    assert "Calibrated" not in capsys.readouterr().out
    assert exit_code("calibrate", "--forget") == 0
    assert exit_code("calibrate") == 0
    assert "Nothing was calibrated" in capsys.readouterr().out


def test_the_command_refuses_simulated_runs_or_says_it_loudly(store, capsys):
    run = str(measured(store, (1.3, 0.8), "simulated"))
    assert exit_code("calibrate", run) == 2
    assert "simulated, not measured" in capsys.readouterr().err
    assert exit_code("calibrate", run, "--simulated") == 0
    assert "SIMULATED" in capsys.readouterr().out


def test_ratios_that_do_not_help_are_not_kept(store, capsys):
    assert exit_code("calibrate", str(measured(store, (1.0, 1.0)))) == 1
    assert "Nothing was saved" in capsys.readouterr().err


def test_the_command_says_what_was_measured(store, capsys):
    record_trial(store, forecaster(store), trial(3, [result(8, 0.08, 0.011)]))
    question = ("--model", "qwen3-8b", "--gpu", "H100", "--isl", "1000", "--osl", "200")
    assert exit_code("predict", "point", *question, "--concurrency", "8") == 0
    output = capsys.readouterr().out
    assert "Measured here" in output
    assert "80.0 ms" in output
    assert exit_code("predict", "point", *question, "--concurrency", "8", "--json") == 0
    assert '"source": "measured"' in capsys.readouterr().out
    assert exit_code("predict", "rank", *question, "--total-gpus", "2", "--json") == 0
    assert '"source": "measured"' in capsys.readouterr().out
