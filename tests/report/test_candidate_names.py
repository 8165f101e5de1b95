import pytest

from autotuner.core import Candidate, Measurement, Trial
from autotuner.report.candidate_names import CandidateNames
from autotuner.scoring.rank import rank
from tests.factories import experiment

BASE = Candidate("vllm", {"tp-size": 4})
ONE = Candidate("vllm", {"tp-size": 4, "mem-fraction-static": 0.95, "chunked-prefill-size": 2048})
TWO = Candidate("vllm", {"tp-size": 4, "mem-fraction-static": 0.95, "chunked-prefill-size": 4096})
PLAIN = Candidate("vllm")


@pytest.mark.parametrize(
    ("baseline", "short", "sentence", "shared"),
    [
        (
            BASE,
            "chunked-prefill-size=2048",
            "trial 2 (mem-fraction-static=0.95 chunked-prefill-size=2048)",
            ["All candidates: tp-size=4.", "All candidates except the defaults: mem-fraction-static=0.95."],
        ),
        (
            PLAIN,
            "chunked-prefill-size=2048",
            "trial 2 (tp-size=4 mem-fraction-static=0.95 chunked-prefill-size=2048)",
            ["All candidates except the defaults: tp-size=4 mem-fraction-static=0.95."],
        ),
        (
            None,
            "chunked-prefill-size=2048",
            "trial 2 (chunked-prefill-size=2048)",
            ["All candidates: tp-size=4 mem-fraction-static=0.95."],
        ),
    ],
)
def test_a_name_has_the_first_trial_and_the_distinguishing_parameters(baseline, short, sentence, shared):
    names = CandidateNames.from_candidates([ONE, TWO], baseline, {ONE.key: 2})
    assert (names.short_name(ONE), names.full_name(ONE), names.shared_settings()) == (short, sentence, shared)


@pytest.mark.parametrize(
    ("baseline", "text"), [(PLAIN, "trial 1, the defaults"), (BASE, "trial 1, the defaults (tp-size=4)")]
)
def test_the_defaults_are_named_with_the_settings_that_the_model_needs(baseline, text):
    names = CandidateNames.from_candidates([baseline, ONE], baseline, {baseline.key: 1})
    assert names.full_name(baseline) == text
    assert names.full_name(baseline, 7) == text


def test_a_single_candidate_is_named_by_all_its_settings():
    names = CandidateNames.from_candidates([PLAIN, ONE], PLAIN)
    assert names.short_name(ONE) == "tp-size=4 mem-fraction-static=0.95 chunked-prefill-size=2048"
    assert names.shared_settings() == []


def test_a_candidate_with_only_shared_settings_is_named_by_all_of_them():
    names = CandidateNames.from_candidates([Candidate("vllm", {"a": 1}), Candidate("vllm", {"a": 1, "b": 2})])
    assert names.short_name(Candidate("vllm", {"a": 1})) == "a=1"
    assert names.short_name(Candidate("vllm", {"a": 1, "b": 2})) == "b=2"


def test_true_and_one_are_different_settings():
    assert (
        CandidateNames.from_candidates(
            [Candidate("vllm", {"a": True, "b": 0}), Candidate("vllm", {"a": 1, "b": 1})]
        ).common_parameters
        == {}
    )


def test_a_long_value_has_its_middle_left_out():
    value = '{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":8}'
    text = CandidateNames.from_candidates([Candidate("vllm", {"speculative-config": value})]).short_name(
        Candidate("vllm", {"speculative-config": value})
    )
    assert text == 'speculative-config={"method":"ngram","..ompt_lookup_max":8}'
    assert len(text) == len("speculative-config=") + 40


def test_a_number_is_that_of_the_search_and_not_of_a_confirmation():
    def trial(number, candidate, purpose):
        return Trial(number, candidate, Measurement("measured", ()), 0.0, 1.0, purpose)

    trials = [trial(1, BASE, "baseline"), trial(2, ONE, "search"), trial(3, ONE, "confirmation")]
    names = CandidateNames.from_ranking(rank(trials, experiment()))
    assert (names.baseline, names.trial_numbers[ONE.key], names.trial_numbers[BASE.key]) == (BASE, 2, 1)
