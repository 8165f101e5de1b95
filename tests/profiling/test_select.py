import pytest

from autotuner.predict.layout import Layout
from autotuner.predict.model_on_gpus import model_on_gpus
from autotuner.profiling.expectations import Expectations
from autotuner.profiling.mappings import ParallelMapping
from autotuner.profiling.predicted import WorkerForecast
from autotuner.profiling.record import ProfileRecord
from autotuner.profiling.select import best_per_mapping, select
from tests.profiling.points import decode, prefill, sla_request

TP1, TP2, TP4 = (ParallelMapping("tp", gpus) for gpus in (1, 2, 4))


def record_of(points, tmp_path, **request):
    record = ProfileRecord(tmp_path, sla_request(ttft=0.2, itl=0.02, **request))
    for mapping, point in points:
        record.points.setdefault(mapping, {})[point.key] = point
    return record


def test_the_most_tokens_per_gpu_within_the_target_win(tmp_path):
    points = [(TP1, prefill(600, 0.15)), (TP2, prefill(600, 0.3)), (TP1, decode(4, 0.01)), (TP1, decode(9, 0.015))]
    selection = select(record_of(points, tmp_path))
    assert selection.prefill_pick.mapping == TP1
    assert selection.decode_pick.point.concurrency == 9
    assert selection.missed_targets == ()
    assert [worker.point.concurrency for worker in best_per_mapping(selection.decode)] == [9]


def test_without_a_worker_within_the_target_the_nearest_is_named(tmp_path):
    points = [(TP1, prefill(600, 0.5)), (TP2, prefill(600, 0.3)), (TP1, decode(4, 0.03)), (TP1, decode(1, 0.025))]
    selection = select(record_of(points, tmp_path))
    assert selection.prefill_pick.mapping == TP2
    assert selection.prefill_pick.target_ratio == pytest.approx(1.5)
    assert selection.decode_pick.point.concurrency == 1
    assert selection.missed_targets == ("prefill", "decode")


def test_rejected_points_and_other_lengths_are_not_chosen(tmp_path):
    prefills = [(TP1, prefill(100, 0.01)), (TP1, prefill(600, 0.1, rejection="cached"))]
    decodes = [(TP1, decode(9, 0.01, rejection="saturated")), (TP1, decode(9, 0.001, prompt_tokens=64))]
    selection = select(record_of([*prefills, *decodes], tmp_path))
    assert selection.prefill_pick is None
    assert selection.decode_pick is None


def forecasts():
    return {
        mapping: WorkerForecast(model_on_gpus("llama-3.1-8b", "h100", Layout(tp=mapping.gpus), engine="vllm"))
        for mapping in (TP1, TP2, TP4)
    }


def with_predictions(mapping, forecasts, tmp_path, factor=1.0, **request):
    """A record in which one mapping was measured `factor` times as slow as predicted."""
    expectations = Expectations(record_of([], tmp_path, **request), forecasts, [])
    ttft = expectations.expected("prefill", mapping)
    itl = expectations.expected("decode", mapping)
    size = round(itl.throughput_per_gpu * itl.latency * mapping.gpus)
    points = [(mapping, prefill(600, factor * ttft.latency)), (mapping, decode(size, factor * itl.latency))]
    return record_of(points, tmp_path, **request)


def test_measured_workers_correct_what_is_expected_of_the_others(tmp_path):
    known = forecasts()
    plain = Expectations(record_of([], tmp_path), known, []).expected("prefill", TP2)
    record = with_predictions(TP1, known, tmp_path, factor=2.0)
    corrected = Expectations(record, known, [TP2]).expected("prefill", TP2)
    assert corrected.latency == pytest.approx(2 * plain.latency, rel=0.01)


def test_a_slow_engine_is_expected_with_as_few_requests_as_its_target_allows(tmp_path):
    """Else a mapping that meets the target with fewer requests would be skipped for missing it."""
    known = forecasts()
    record = with_predictions(TP1, known, tmp_path, factor=3.0)
    corrected = Expectations(record, known, [TP4]).expected("decode", TP4)
    assert 0.01 < corrected.latency <= 0.02


def test_what_cannot_be_predicted_is_launched_first_and_never_skipped(tmp_path):
    known = forecasts()
    del known[TP4]
    record = with_predictions(TP1, known, tmp_path)
    expectations = Expectations(record, known, [TP2, TP4])
    assert expectations.in_order()[0] == TP4
    assert expectations.why_hopeless(TP4) is None


def test_a_mapping_that_can_win_neither_phase_is_hopeless_with_figures(tmp_path):
    """With loose targets one GPU is by far the most efficient; eight times as many cannot catch up."""
    known = forecasts()
    record = with_predictions(TP1, known, tmp_path, isl=600)
    record = ProfileRecord(record.path, sla_request(ttft=5.0, itl=1.0), points=record.points)
    reason = Expectations(record, known, [TP4]).why_hopeless(TP4)
    assert reason is None or "tokens/s per GPU" in reason


def test_only_the_best_so_far_leads_and_only_if_none_is_expected_to_beat_it(tmp_path):
    known = forecasts()
    points = [(TP1, prefill(600, 0.05)), (TP2, prefill(600, 0.06))]
    expectations = Expectations(record_of(points, tmp_path), {}, [])
    assert expectations.leads_prefill(TP1)
    assert not expectations.leads_prefill(TP2)
    assert not expectations.leads_decode(TP1)
    slow = record_of([(TP2, prefill(600, 0.19))], tmp_path)
    assert not Expectations(slow, {TP1: known[TP1]}, [TP1]).leads_prefill(TP2)
