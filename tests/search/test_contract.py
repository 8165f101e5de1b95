"""The contract of every searcher in the registry."""

import pytest

from autotuner.core import Candidate, Measurement, Trial
from autotuner.search.space import Space
from autotuner.search.strategies import SEARCHERS
from tests.factories import problem, rules

PLAIN = Space("sim", {"tp-size": [1, 2, 4], "mem-fraction-static": [0.8, 0.85, 0.9], "x": [True, False]})
# 3 tp sizes without y, and 3 sizes x 2 values of x with one of 3 values of y, some of which break a constraint
COUPLED = Space(
    "sim",
    {"tp-size": [1, 2, 4], "y": [4, 8, 16], "x": ["a", "b", "c"]},
    rules=rules({"y": "x != 'c'"}, {"few": "y < 16 when tp-size > 1", "one": "x == 'a' or tp-size < 4"}),
)


@pytest.fixture(params=sorted(SEARCHERS))
def strategy(request):
    return SEARCHERS[request.param]


@pytest.fixture(params=[PLAIN, COUPLED], ids=["plain", "coupled"])
def space(request):
    return request.param


def finished(candidate: Candidate, number: int = 1) -> Trial:
    return Trial(number, candidate, Measurement("simulated", ()), 0.0, 1.0)


def all_candidates(searcher) -> list[Candidate]:
    return [launch.candidate for launch in iter(searcher.ask, None)]


def told_candidates(searcher, first_number: int) -> list[Candidate]:
    """The candidates of a search of which every launch ends before the next one."""
    candidates = []
    while (launch := searcher.ask()) is not None:
        candidates.append(launch.candidate)
        searcher.tell(finished(launch.candidate, first_number + len(candidates) - 1))
    return candidates


def test_it_proposes_candidates_of_the_space_only(strategy, space):
    assert set(all_candidates(strategy(problem(space, 100, 0)))) <= set(space.candidates)


def test_it_never_proposes_a_candidate_twice(strategy, space):
    candidates = all_candidates(strategy(problem(space, 100, 0)))
    assert set(candidates) == set(space.candidates)
    assert len(candidates) == len(set(candidates))


def test_it_proposes_no_more_than_the_limit(strategy, space):
    assert len(all_candidates(strategy(problem(space, 5, 0)))) == 5


def test_a_preview_has_the_launches_of_the_search_and_changes_nothing(strategy, space):
    searcher = strategy(problem(space, 5, 0))
    previewed = [launch.candidate for launch in searcher.preview()]
    assert len(previewed) == len(set(previewed)) == 5
    assert searcher.preview() == searcher.preview()
    assert all_candidates(searcher) == all_candidates(strategy(problem(space, 5, 0)))


def test_it_takes_parallel_asks_before_any_tell(strategy, space):
    searcher = strategy(problem(space, 4, 0))
    first, second = searcher.ask().candidate, searcher.ask().candidate
    assert first != second
    searcher.tell(finished(second))
    searcher.tell(finished(first))
    assert not {first, second} & set(all_candidates(searcher))


def test_the_same_seed_gives_the_same_candidates(strategy, space):
    assert all_candidates(strategy(problem(space, 7, 5))) == all_candidates(strategy(problem(space, 7, 5)))


@pytest.mark.parametrize("trial_count", [0, 1, 3, 7])
def test_after_the_trials_of_a_record_it_goes_on_where_that_ended(strategy, space, trial_count):
    uninterrupted = told_candidates(strategy(problem(space, 7, 5)), 1)
    resumed = strategy(problem(space, 7, 5))
    for number, candidate in enumerate(uninterrupted[:trial_count], start=1):
        resumed.tell(finished(candidate, number))
    assert told_candidates(resumed, trial_count + 1) == uninterrupted[trial_count:]


def test_an_empty_space_is_exhausted_at_once(strategy):
    empty = Space("sim", {"tp-size": [1]}, lambda candidate: "no")
    assert strategy(problem(empty, 5, 0)).ask() is None
