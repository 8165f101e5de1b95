"""What a setting is worth, from pairs that differ in it alone."""

import pytest

from autotuner.core import Candidate, Measurement, Trial
from autotuner.report.run_view import RunView
from autotuner.report.setting_effects import setting_effects, unmatched_parameters
from tests.factories import experiment, scored_result

PARAMETERS = {"a": [1, 2, 4], "b": [False, True]}


def run_view(tpot_by_settings, parameters=PARAMETERS, objective="maximize_throughput", **slo):
    given = experiment(
        base_runtime="vllm",
        parameters=parameters,
        benchmark={"traffic_scenarios": ["D(100,100)"], "num_concurrency": [4]},
        optimization={"objective": objective},
        slo=slo,
    )
    trials = [
        Trial(
            number,
            Candidate("vllm", dict(zip(parameters, settings, strict=True))),
            Measurement("measured", (scored_result(4, 0.0001, tpot, given),)),
            0.0,
            1.0,
        )
        for number, (settings, tpot) in enumerate(tpot_by_settings.items(), start=1)
    ]
    return RunView.of(trials, given)


def test_a_ratio_compares_candidates_that_differ_in_nothing_else():
    """Most candidates with b are slow ones, so that its marginal median is worse; in each pair it is better."""
    view = run_view({(1, False): 0.010, (2, False): 0.005, (1, True): 0.008, (4, True): 0.020})
    effects = {(effect.parameter, effect.before, effect.after): effect for effect in setting_effects(view)}
    assert effects["b", False, True].ratios == pytest.approx([1.25], rel=0.01)
    assert effects["a", 1, 2].ratios == pytest.approx([2.0], rel=0.01)
    assert ("a", 2, 4) not in effects
    assert unmatched_parameters(view, list(effects.values())) == []


def test_the_largest_effect_comes_first_whichever_way_it_goes():
    view = run_view({(1, False): 0.010, (2, False): 0.040, (1, True): 0.005})
    assert [(effect.parameter, round(effect.median or 0, 2)) for effect in setting_effects(view)] == [
        ("a", 0.25),
        ("b", 2.0),
    ]


def test_a_change_that_gains_or_loses_the_targets_is_counted_and_gives_no_ratio():
    slow, fast = 0.020, 0.005
    (lost,) = setting_effects(run_view({(1, False): fast, (1, True): slow}, tpot={"mean": 0.010}))
    (gained,) = setting_effects(run_view({(1, False): slow, (1, True): fast}, tpot={"mean": 0.010}))
    assert (lost.ratios, lost.lost, lost.gained) == ((), 1, 0)
    assert (gained.ratios, gained.lost, gained.gained) == ((), 0, 1)
    assert lost.median is None


def test_where_lower_is_better_a_ratio_above_one_is_less_of_it():
    (effect,) = setting_effects(run_view({(1, False): 0.010, (1, True): 0.005}, objective="minimize_tpot"))
    assert effect.ratios == pytest.approx([2.0], rel=0.01)


def test_a_setting_that_no_pair_isolates_is_named():
    view = run_view({(1, False): 0.010, (2, True): 0.005})
    assert setting_effects(view) == []
    assert unmatched_parameters(view, []) == ["a", "b"]
    assert unmatched_parameters(view, setting_effects(view)) == ["a", "b"]
