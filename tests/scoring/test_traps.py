"""Two mistakes that made earlier tuners recommend broken configurations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import Check
from autotuner.scoring.objective import OBJECTIVES
from autotuner.scoring.rank import rank

GREAT = {"e2e": 0.001, "ttft": 0.0001, "tpot": 0.0001, "throughput": 1e6}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("points", [0, 1, 2])
def test_trap_5_a_crash_never_looks_best_whatever_is_optimised(make, objective, points):
    survived = [make.result(concurrency, **GREAT) for concurrency in (1, 8)][:points]
    crashed = make.trial(1, *survived, failure=make.OOM)
    poor = make.trial(2, make.result(1, e2e=90.0), make.result(8, e2e=90.0))
    ranking = rank([crashed, poor], make.experiment(objective, (1, 8)))
    assert [standing.trial_number for standing in ranking.standings] == [2, 1]
    assert ranking.winner.trial_number == 2
    last = ranking.standings[-1]
    assert (last.failure.kind, last.value, last.score, last.verdict) == (make.OOM, None, None, None)
    assert last.reason.startswith("out-of-memory-under-load")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_trap_5_when_everything_crashed_nothing_wins(make, objective):
    trials = [make.trial(number, failure=make.OOM) for number in (1, 2)]
    ranking = rank(trials, make.experiment(objective))
    assert ranking.winner is None
    assert [standing.trial_number for standing in ranking.standings] == [1, 2]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_trap_5_a_miss_never_outranks_a_target_met(make, objective):
    slo = {"latency": {"threshold": 100.0}}
    missed = make.trial(1, make.result(1, **GREAT | {"good": 0}))
    met = make.trial(2, make.result(1, e2e=90.0))
    ranking = rank([missed, met], make.experiment(objective, slo=slo))
    assert ranking.winner.trial_number == 2


@pytest.mark.parametrize("objective", ["minimize_latency", "minimize_ttft", "minimize_tpot"])
def test_trap_6_surviving_only_light_loads_wins_nothing(make, objective):
    # at equal load trial 2 is twice as fast; averaged over what survived, trial 1 looks faster
    light_only = make.trial(1, make.result(1, e2e=2.0, ttft=0.2, tpot=0.02))
    every_load = make.trial(
        2, make.result(1, e2e=1.0, ttft=0.1, tpot=0.01), make.result(64, e2e=16.0, ttft=1.6, tpot=0.16)
    )
    ranking = rank([light_only, every_load], make.experiment(objective, (1, 64)))
    assert [standing.trial_number for standing in ranking.standings] == [2, 1]
    assert ranking.winner.trial_number == 2
    assert ranking.standings[1].reason == "no figure at D(100,100) @ 64"
    assert ranking.standings[1].value is None


def test_trap_6_an_invalid_heavy_load_is_not_left_out_of_the_mean(make):
    errors = [Check("error-share", 0.4, "<= 0.01", False)]
    fails_heavy = make.trial(1, make.result(1, e2e=1.0), make.result(64, e2e=1.0, validity=errors))
    sound = make.trial(2, make.result(1, e2e=2.0), make.result(64, e2e=9.0))
    ranking = rank([fails_heavy, sound], make.experiment("minimize_latency", (1, 64)))
    assert ranking.winner.trial_number == 2
    assert ranking.standings[1].reason == "error-share 0.4, not <= 0.01 at D(100,100) @ 64"


@given(st.data())
def test_traps_5_and_6_whatever_the_trials_only_complete_ones_win(make, data):
    loads = (1, 8, 64)
    objective = data.draw(st.sampled_from(list(OBJECTIVES)))
    trials = []
    for number in range(1, data.draw(st.integers(1, 6)) + 1):
        have = data.draw(st.lists(st.sampled_from(loads), unique=True))
        failure = make.OOM if data.draw(st.booleans()) else None
        results = [
            make.result(load, e2e=data.draw(st.sampled_from([0.5, 1.0, 7.0])), throughput=100.0 * load) for load in have
        ]
        trials.append(make.trial(number, *results, failure=failure))
    ranking = rank(trials, make.experiment(objective, loads))
    assert [standing.rank for standing in ranking.standings] == list(range(1, len(trials) + 1))
    assert {standing.trial_number for standing in ranking.standings} == {trial.number for trial in trials}
    by_number = {trial.number: trial for trial in trials}
    failed = [by_number[standing.trial_number].failed for standing in ranking.standings]
    assert failed == sorted(failed)
    if ranking.winner is not None:
        winner = by_number[ranking.winner.trial_number]
        assert not winner.failed
        if objective in ("minimize_latency", "minimize_ttft", "minimize_tpot"):
            assert len(winner.measurement.load_points) == len(loads)
    else:
        assert all(
            trial.failed or len(trial.measurement.load_points) < (3 if OBJECTIVES[objective].at_equal_load else 1)
            for trial in trials
        )
