import pytest

from autotuner.core import Candidate, Measurement, Trial
from autotuner.report.candidate_names import Names

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
            ["All candidates: tp-size=4.", "All candidates but the defaults: mem-fraction-static=0.95."],
        ),
        (
            PLAIN,
            "chunked-prefill-size=2048",
            "trial 2 (tp-size=4 mem-fraction-static=0.95 chunked-prefill-size=2048)",
            ["All candidates but the defaults: tp-size=4 mem-fraction-static=0.95."],
        ),
        (
            None,
            "chunked-prefill-size=2048",
            "trial 2 (chunked-prefill-size=2048)",
            ["All candidates: tp-size=4 mem-fraction-static=0.95."],
        ),
    ],
)
def test_a_candidate_is_its_first_trial_and_what_sets_it_apart(baseline, short, sentence, shared):
    names = Names.among([ONE, TWO], baseline, {ONE.key: 2})
    assert (names.short(ONE), names.named(ONE), names.shared()) == (short, sentence, shared)


@pytest.mark.parametrize(
    ("baseline", "text"), [(PLAIN, "trial 1, the defaults"), (BASE, "trial 1, the defaults (tp-size=4)")]
)
def test_the_defaults_are_called_so_with_what_the_model_needs(baseline, text):
    names = Names.among([baseline, ONE], baseline, {baseline.key: 1})
    assert names.named(baseline) == text
    assert names.named(baseline, 7) == text


def test_a_single_candidate_shares_nothing_and_is_told_in_full():
    names = Names.among([PLAIN, ONE], PLAIN)
    assert names.short(ONE) == "tp-size=4 mem-fraction-static=0.95 chunked-prefill-size=2048"
    assert names.shared() == []


def test_a_candidate_that_sets_only_what_all_share_is_told_by_all_it_sets():
    names = Names.among([Candidate("vllm", {"a": 1}), Candidate("vllm", {"a": 1, "b": 2})])
    assert names.short(Candidate("vllm", {"a": 1})) == "a=1"
    assert names.short(Candidate("vllm", {"a": 1, "b": 2})) == "b=2"


def test_true_and_one_are_different_settings():
    assert Names.among([Candidate("vllm", {"a": True, "b": 0}), Candidate("vllm", {"a": 1, "b": 1})]).common == {}


def test_a_long_value_has_its_middle_left_out():
    value = '{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":8}'
    text = Names.among([Candidate("vllm", {"speculative-config": value})]).short(
        Candidate("vllm", {"speculative-config": value})
    )
    assert text == 'speculative-config={"method":"ngram","..ompt_lookup_max":8}'
    assert len(text) == len("speculative-config=") + 40


def test_a_number_is_that_of_the_search_and_not_of_a_confirmation():
    def trial(number, candidate, purpose):
        return Trial(number, candidate, Measurement("measured", ()), 0.0, 1.0, purpose)

    trials = [trial(1, BASE, "baseline"), trial(2, ONE, "search"), trial(3, ONE, "confirmation")]
    names = Names.of(trials)
    assert (names.baseline, names.numbers[ONE.key], names.numbers[BASE.key]) == (BASE, 2, 1)
