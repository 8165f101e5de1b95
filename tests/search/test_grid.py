import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.core import Candidate
from autotuner.search.grid import GridSearch, balanced_order, balanced_subset
from autotuner.search.space import Space
from tests.factories import problem

parameter_spaces = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    min_size=1,
)


def test_without_a_limit_the_whole_grid_is_proposed_in_its_own_order():
    grid = GridSearch(problem(Space("sim", {"tp-size": [1, 2], "x": [True, False]})))
    proposals = [dict(launch.candidate.parameters) for launch in iter(grid.ask, None)]
    assert proposals == [
        {"tp-size": 1, "x": True},
        {"tp-size": 1, "x": False},
        {"tp-size": 2, "x": True},
        {"tp-size": 2, "x": False},
    ]


def test_a_limit_on_the_balanced_profile_keeps_every_tp_size():
    """The first 15 of 18 combinations would lack most of tp-size 4."""
    space = Space(
        "sglang",
        {
            "tp-size": [1, 2, 4],
            "mem-fraction-static": [0.8, 0.85, 0.9],
            "schedule-policy": ["lpm"],
            "enable-torch-compile": [True, False],
        },
    )
    chosen = balanced_subset(space.candidates, 15, seed=0)
    counts = {tp: sum(candidate.parameters["tp-size"] == tp for candidate in chosen) for tp in (1, 2, 4)}
    assert len(chosen) == 15
    assert counts == {1: 5, 2: 5, 4: 5}


@given(parameter_spaces, st.integers(1, 30))
def test_a_balanced_subset_covers_every_value_it_has_room_for(parameters, limit):
    space = Space("sim", parameters)
    chosen = balanced_subset(space.candidates, limit, seed=0)
    assert len(chosen) == min(limit, space.combination_count)
    assert len(set(chosen)) == len(chosen)
    for name, values in parameters.items():
        covered = {candidate.parameters[name] for candidate in chosen}
        assert len(covered) == min(len(values), len(chosen))


def test_the_balanced_subset_of_a_large_space_is_the_same_for_the_same_seed():
    space = Space("sim", {name: list(range(8)) for name in "abcde"})
    assert balanced_subset(space.candidates, 20, seed=3) == balanced_subset(space.candidates, 20, seed=3)
    assert len(balanced_subset(space.candidates, 20, seed=3)) == 20


def test_refused_combinations_are_never_proposed():
    def refuse(candidate: Candidate) -> str | None:
        return "too many GPUs" if candidate.parameters["tp-size"] == 4 else None

    space = Space("sim", {"tp-size": [1, 2, 4]}, refuse)
    proposals = [launch.candidate.parameters["tp-size"] for launch in iter(GridSearch(problem(space)).ask, None)]
    assert proposals == [1, 2]
    assert [(candidate.parameters["tp-size"], reason) for candidate, reason in space.refusals] == [(4, "too many GPUs")]


@pytest.mark.parametrize("values", [[1, 1, 2], [2, 1, 2, 1]])
def test_a_value_listed_twice_is_one_candidate(values):
    assert len(Space("sim", {"tp-size": values}).candidates) == 2


@given(parameter_spaces, st.integers(1, 12))
def test_the_next_candidate_is_the_one_whose_values_and_then_pairs_were_chosen_least(parameters, limit):
    candidates = Space("sim", {**parameters, "same": [1]}).candidates
    chosen = balanced_order(candidates, limit, seed=0)

    def rarity(candidate, earlier):
        matches = [sum(candidate.parameters[n] == v for n, v in other.parameters.items()) for other in earlier]
        return sum(matches), sum(count * (count - 1) // 2 for count in matches), candidates.index(candidate)

    for position, candidate in enumerate(chosen):
        earlier = chosen[:position]
        assert candidate == min((c for c in candidates if c not in earlier), key=lambda c: rarity(c, earlier))
