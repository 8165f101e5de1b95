"""Every situation a run can end in, and the sentences of the report."""

import dataclasses
import re

import pytest

from autotuner.core import Check, FailureKind, LoadPlanSummary
from autotuner.report.run_view import RunView
from autotuner.report.search_summary import search_record, search_sentences
from autotuner.scoring.conclusion import Situation
from autotuner.scoring.rank import rank
from autotuner.search.protocol import SearchReport

SLO = {"ttft": 1.0}
UNSTEADY = [Check("stationarity", 1.5, "within 25% of 1", False)]
WINNER, DEFAULTS = {"tp-size": 2}, {"tp-size": 1}
KINDS = {
    "b": ("baseline", DEFAULTS),
    "s": ("search", WINNER),
    "w": ("confirmation", WINNER),
    "d": ("confirmation", DEFAULTS),
}


def launches(make, plan):
    """Trials of "b" the defaults, "s" a candidate, "w" and "d" either again: (kind, tokens/s per GPU, share good)."""
    trials = []
    for number, (kind, value, good) in enumerate(plan, start=1):
        purpose, parameters = KINDS[kind]
        gpus = parameters["tp-size"]
        if isinstance(value, FailureKind):
            trials.append(make.trial(number, failure=value, purpose=purpose, parameters=parameters))
            continue
        validity = UNSTEADY if good is None else ()
        result = make.result(throughput=value * gpus, good=100 if good is None else good, validity=validity)
        trials.append(make.trial(number, result, purpose=purpose, parameters=parameters))
    return trials


OOM, FLAG = FailureKind.OUT_OF_MEMORY_AT_START, FailureKind.BAD_FLAG
CASES = {
    "every launch failed with one cause": (
        [("b", OOM, 0), ("s", OOM, 0)],
        Situation.NOTHING_MEASURED,
        "Every launch failed the same way: out-of-memory-at-start.",
    ),
    "every launch failed": ([("b", OOM, 0), ("s", FLAG, 0)], Situation.NOTHING_MEASURED, "Every launch failed."),
    "all infeasible": (
        [("b", 900, 10), ("s", 1200, 20)],
        Situation.NOTHING_FEASIBLE,
        "No candidate tried meets the targets.",
    ),
    "the defaults alone": (
        [("b", 900, 100)],
        Situation.DEFAULTS_ALONE,
        "Only the engine's own defaults were measured.",
    ),
    "the defaults are best": (
        [("b", 900, 100), ("s", 700, 100)],
        Situation.DEFAULTS_ARE_BEST,
        "No candidate tried is better than the engine's own defaults.",
    ),
    "the defaults failed": (
        [("b", OOM, 0), ("s", 700, 100)],
        Situation.DEFAULTS_FAILED,
        "No gain is claimed: the engine's own defaults gave no result to compare with.",
    ),
    "the defaults say nothing": (
        [("b", 900, None), ("s", 1200, 100)],
        Situation.DEFAULTS_FAILED,
        "No gain is claimed: the engine's own defaults gave no result to compare with.",
    ),
    "only the winner meets the targets, at less throughput": (
        [("b", 1000, 20), ("s", 720, 100), ("w", 720, 100), ("w", 721, 100)],
        Situation.DEFAULTS_MISS,
        "Confirmed on 2 fresh launches: the winner meets the targets, which the engine's own defaults miss.",
    ),
    "only the winner meets the targets, in one launch": (
        [("b", 1000, 20), ("s", 720, 100)],
        Situation.DEFAULTS_MISS,
        "Not confirmed on fresh launches: the winner meets the targets, which the engine's own defaults miss.",
    ),
    "a gain": (
        [("b", 1000, 100), ("s", 1300, 100), ("w", 1205, 100), ("d", 1000, 100), ("w", 1195, 100), ("d", 1001, 100)],
        Situation.GAIN,
        r"Confirmed: 1\.20x the total throughput per GPU of the engine's own defaults "
        r"\(95% confidence interval 1\.1\d to 1\.2\d; 2 and 3 launches\)\.",
    ),
    "no more than noise": (
        [("b", 1000, 100), ("s", 1300, 100), ("w", 1100, 100), ("d", 1060, 100), ("w", 990, 100), ("d", 980, 100)],
        Situation.TIE,
        r"No significant gain, so the defaults are kept: 1\.0\dx the total throughput .* launches\)\.",
    ),
    "the search was luck": (
        [("b", 1000, 100), ("s", 2200, 100), ("w", 900, 100), ("d", 1000, 100), ("w", 901, 100), ("d", 1001, 100)],
        Situation.LOSS,
        r"The confirmation launches do not reproduce the gain: 0\.90x the total throughput .*\.",
    ),
    "nothing was launched again": (
        [("b", 1000, 100), ("s", 1560, 100)],
        Situation.UNCONFIRMED,
        r"No gain is claimed: the run ended before .* the variation between launches is unknown\.",
    ),
    "no defaults": ([("s", 1560, 100)], Situation.DEFAULTS_NOT_LAUNCHED, None),
    "a world without chance": (
        [("b", 1000, 100), ("s", 1200, 100), ("w", 1200, 100), ("d", 1000, 100), ("w", 1200, 100), ("d", 1000, 100)],
        Situation.GAIN,
        r"Confirmed: 1\.20x .* \(deterministic: every launch gave the same result; 2 and 3 launches\)\.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_situation_is_told_from_its_facts(make, case):
    plan, situation, expected = CASES[case]
    experiment = make.experiment("maximize_throughput", slo=SLO)
    trials = launches(make, plan)
    view = RunView.of(trials, experiment, search_report=SearchReport("every candidate was tried", (), 2))
    assert view.conclusion.situation is situation
    texts = search_sentences(view)
    assert expected is None or any(re.fullmatch(expected, sentence) for sentence in texts), texts
    assert search_record(view)["situation"] == situation.value
    claims = [sentence for sentence in texts if re.search(r"\dx |times", sentence)]
    assert bool(claims) == (situation in (Situation.GAIN, Situation.TIE, Situation.LOSS))


def test_nothing_at_all_is_a_situation_too(make):
    experiment = make.experiment()
    assert RunView.of([], experiment).conclusion.situation is Situation.NOTHING_RAN


def test_a_refuted_winner_is_named_with_what_refuted_it(make):
    experiment = make.experiment("maximize_throughput", slo=SLO)
    trials = launches(make, [("b", 900, 100), ("s", 1200, 100), ("w", 600, 70), ("w", 400, 47), ("d", 900, 100)])
    view = RunView.of(trials, experiment)
    conclusion = view.conclusion
    assert (view.ranking.winner.trial_number, conclusion.situation) == (1, Situation.DEFAULTS_ARE_BEST)
    assert [standing.trial_number for standing in conclusion.refuted_standings] == [2]
    assert (
        "Trial 2 was best after the search but, with 2 confirmation launches, misses the targets: "
        "72.3% of requests good, target 95%, over 3 launches." in search_sentences(view)
    )


def test_without_confirmations_the_noise_between_launches_is_said_to_be_unknown(make):
    experiment = make.experiment("maximize_throughput")
    never = experiment.model_copy(update={"optimization": experiment.optimization.model_copy(update={"confirm": 0})})
    trials = launches(make, [("b", 1000, 100), ("s", 1560, 100)])
    texts = search_sentences(RunView.of(trials, never))
    assert any(sentence.startswith("No gain is claimed: optimization.confirm is 0") for sentence in texts)


@pytest.mark.parametrize(
    ("candidates", "tried", "expected"),
    [
        (
            18,
            4,
            "The search took 4 launches and 4 load points; a grid search over all 18 candidates needs 18 launches",
        ),
        (4, 4, "The search took 4 launches and 4 load points."),
        (None, 1, "The search took 1 launch and 1 load point."),
    ],
)
def test_what_was_spent_is_held_against_all_that_could_have_been_launched(make, candidates, tried, expected):
    experiment = make.experiment("maximize_throughput")
    trials = [make.trial(number, make.result(throughput=100.0 + number)) for number in range(1, tried + 1)]
    texts = search_sentences(RunView.of(trials, experiment, search_report=SearchReport(None, (), candidates)))
    assert texts[0].startswith(expected)


def test_ties_are_named(make):
    experiment = make.experiment("maximize_throughput")
    trials = launches(make, [("b", 1000, 100), ("s", 1005, 100)])
    texts = search_sentences(RunView.of(trials, experiment))
    assert "Tied with the winner (no significant difference): trial 2." in texts
    apart = launches(make, [("b", 1000, 100), ("s", 1015, 100)])
    assert not any(line.startswith("Tied") for line in search_sentences(RunView.of(apart, experiment)))


def test_nobody_is_told_to_set_flags_for_nothing(make):
    """0.5% is tied with the defaults, and neither is a gain that fresh launches do not prove."""
    experiment = make.experiment("maximize_throughput")
    for plan in (
        [("b", 1000, 100), ("s", 1005, 100)],
        [("b", 1000, 100), ("s", 1100, 100), ("w", 1090, 100), ("d", 1060, 100), ("w", 990, 100), ("d", 980, 100)],
    ):
        trials = launches(make, plan)
        assert rank(trials, experiment).winner.trial_number == 1
        assert rank(trials, experiment, prefer_defaults=False).winner.trial_number == 2


def test_a_pruned_candidate_is_no_rival(make):
    experiment = make.experiment("maximize_throughput")
    pruned = make.trial(2, make.result(throughput=5000.0))
    outcome = LoadPlanSummary(gave_up="cannot beat trial 1")
    pruned = dataclasses.replace(pruned, measurement=dataclasses.replace(pruned.measurement, outcome=outcome))
    ranking = rank([make.trial(1, make.result(throughput=100.0)), pruned], experiment)
    assert ranking.winner.trial_number == 1
    assert ranking.standings[1].reason == "pruned: cannot beat trial 1"
    assert not ranking.standings[1].is_tied


def test_a_run_whose_every_request_failed_names_the_errors(make):
    """Targets were not missed: nothing was measured that could be held against them."""
    empty = dict.fromkeys(("ttft", "ttfo", "tpot", "itl", "e2e"))
    silent = make.result(throughput=0.0, errors={"http-500": 41, "reset": 2})
    silent = dataclasses.replace(silent, metrics=dataclasses.replace(silent.metrics, **empty))
    experiment = make.experiment("maximize_throughput")
    trials = [make.trial(1, silent, purpose="baseline")]
    view = RunView.of(trials, experiment)
    assert view.ranking.standings[0].reason == "no figure at D(100,100): http-500 41 times, reset 2 times"
    assert view.conclusion.situation is Situation.NOTHING_MEASURED
    texts = search_sentences(view)
    assert "No request was answered: http-500 41 times, reset 2 times." in texts


def test_load_points_that_say_nothing_are_named_though_nothing_stands_on_them(make):
    experiment = make.experiment("maximize_throughput", (1, 8))
    trials = [make.trial(1, make.result(1, throughput=100.0), make.result(8, throughput=900.0, validity=UNSTEADY))]
    texts = search_sentences(RunView.of(trials, experiment))
    assert "Not judged: trial 1 at D(100,100) @ 8 is invalid (stationarity 1.5, not within 25% of 1)." in texts
