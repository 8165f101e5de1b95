from autotuner.search.random import RandomSearch
from autotuner.search.space import Space
from tests.factories import problem

SPACE = Space("sim", {"tp-size": [1, 2, 4], "mem-fraction-static": [0.8, 0.85, 0.9]})


def test_other_seeds_give_other_orders():
    orders = {tuple(iter(RandomSearch(problem(SPACE, 9, seed)).ask, None)) for seed in range(5)}
    assert len(orders) > 1
