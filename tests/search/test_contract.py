"""What every searcher promises, run over the whole registry."""

import pytest

from autotuner.core import Candidate, Measurement, Trial
from autotuner.search.space import Space
from autotuner.search.strategies import SEARCHERS
from tests.search.problems import problem, rules

PLAIN = Space("sim", {"tp-size": [1, 2, 4], "mem-fraction-static": [0.8, 0.85, 0.9], "x": [True, False]})
# Three sizes without y, and twice three with one of three values of y, of which two break the constraint.
TIED = Space(
    "sim",
    {"tp-size": [1, 2, 4], "y": [4, 8, 16], "x": ["a", "b", "c"]},
    rules=rules({"y": "x != 'c'"}, {"few": "y < 16 when tp-size > 1", "one": "x == 'a' or tp-size < 4"}),
)


@pytest.fixture(params=sorted(SEARCHERS))
def strategy(request):
    return SEARCHERS[request.param]


@pytest.fixture(params=[PLAIN, TIED], ids=["plain", "tied"])
def space(request):
    return request.param


def finished(candidate: Candidate, number: int = 1) -> Trial:
    return Trial(number, candidate, Measurement("simulated", ()), 0.0, 1.0)


def all_of(searcher) -> list[Candidate]:
    return [launch.candidate for launch in iter(searcher.ask, None)]


def test_it_asks_for_candidates_of_the_space_only(strategy, space):
    assert set(all_of(strategy(problem(space, 100, 0)))) <= set(space.candidates)


def test_it_never_asks_for_a_candidate_twice(strategy, space):
    asked = all_of(strategy(problem(space, 100, 0)))
    assert set(asked) == set(space.candidates)
    assert len(asked) == len(set(asked))


def test_it_asks_for_no_more_than_the_limit(strategy, space):
    assert len(all_of(strategy(problem(space, 5, 0)))) == 5


def test_it_takes_parallel_asks_before_any_tell(strategy, space):
    searcher = strategy(problem(space, 4, 0))
    first, second = searcher.ask().candidate, searcher.ask().candidate
    assert first != second
    searcher.tell(finished(second))
    searcher.tell(finished(first))
    assert not {first, second} & set(all_of(searcher))


def test_the_same_seed_gives_the_same_candidates(strategy, space):
    assert all_of(strategy(problem(space, 7, 5))) == all_of(strategy(problem(space, 7, 5)))


@pytest.mark.parametrize("told", [0, 1, 3, 7])
def test_told_of_a_record_it_goes_on_where_that_ended(strategy, space, told):
    whole = all_of(strategy(problem(space, 7, 5)))
    resumed = strategy(problem(space, 7, 5))
    for number, candidate in enumerate(whole[:told], start=1):
        resumed.tell(finished(candidate, number))
    assert all_of(resumed) == whole[told:]


def test_an_empty_space_is_exhausted_at_once(strategy):
    nothing = Space("sim", {"tp-size": [1]}, lambda candidate: "no")
    assert strategy(problem(nothing, 5, 0)).ask() is None
