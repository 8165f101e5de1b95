from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from autotuner.simulate.blocks import BlockPool, RequestBlocks, block_hashes


def held(pool: BlockPool, hashes: list[object], new: int) -> RequestBlocks:
    holding = RequestBlocks(hashes)
    assert pool.admit(holding, pool.count_prefix_hits(hashes), new)
    return holding


def test_a_block_is_hashed_with_all_that_precedes_it():
    first, second = block_hashes([1, 2, 3, 4, 5], 2), block_hashes([9, 2, 3, 4, 5], 2)
    assert len(first) == 2
    assert first[1] != second[1]
    assert block_hashes([1, 2, 3, 4, 9], 2) == first


def test_a_released_prefix_is_found_again_and_not_computed_twice():
    pool = BlockPool(4)
    holding = held(pool, ["a", "b"], 3)
    pool.publish(holding, 2)
    pool.release(holding)
    assert (pool.count_prefix_hits(["a", "b", "c"]), pool.available_blocks, pool.used_blocks) == (2, 4, 0)


def test_the_end_of_the_least_recently_used_prefix_is_evicted_first():
    pool = BlockPool(4)
    for hashes in (["a", "b"], ["c", "d"]):
        holding = held(pool, hashes, 2)
        pool.publish(holding, 2)
        pool.release(holding)
    held(pool, [], 1)
    assert (pool.count_prefix_hits(["a", "b"]), pool.count_prefix_hits(["c", "d"])) == (1, 2)


def test_a_prefix_in_use_is_never_evicted():
    pool = BlockPool(2)
    holding = held(pool, ["a"], 1)
    pool.publish(holding, 1)
    other = RequestBlocks()
    assert pool.allocate(other, 1)
    assert not pool.allocate(other, 1)
    assert pool.count_prefix_hits(["a"]) == 1


def test_admission_counts_idle_hits_as_taken():
    pool = BlockPool(2)
    holding = held(pool, ["a", "b"], 2)
    pool.publish(holding, 2)
    pool.release(holding)
    assert not pool.admit(RequestBlocks(["a", "b"]), 2, 1)
    assert pool.available_blocks == 2


def test_without_prefix_caching_nothing_is_found():
    pool = BlockPool(2, prefix_caching=False)
    holding = held(pool, ["a"], 1)
    pool.publish(holding, 1)
    assert pool.count_prefix_hits(["a"]) == 0


def test_forgetting_keeps_what_is_in_use():
    pool = BlockPool(4)
    for hashes in (["a"], ["b"]):
        holding = held(pool, hashes, 1)
        pool.publish(holding, 1)
    pool.release(holding)
    assert not pool.reset_prefix_cache()
    assert (pool.count_prefix_hits(["a"]), pool.count_prefix_hits(["b"])) == (1, 0)


class Pool(RuleBasedStateMachine):
    """Any sequence of operations keeps every block accounted for."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12)
        self.holdings: list[RequestBlocks] = []

    @rule(prompt=st.lists(st.integers(0, 2), max_size=6), extra=st.integers(0, 4), spare=st.integers(0, 3))
    def admit(self, prompt, extra, spare):
        hashes = block_hashes(prompt, 1)
        hits = self.pool.count_prefix_hits(hashes)
        holding, before = RequestBlocks(hashes), self.pool.available_blocks
        if self.pool.admit(holding, hits, len(hashes) - hits + extra, reserve=spare):
            self.holdings.append(holding)
            assert self.pool.available_blocks >= spare
        else:
            assert (holding.total, self.pool.available_blocks) == (0, before)

    @rule(index=st.integers(0, 20), count=st.integers(0, 6))
    def publish(self, index, count):
        if self.holdings:
            holding = self.holdings[index % len(self.holdings)]
            blocks = holding.total
            self.pool.publish(holding, min(count, len(holding.prompt_hashes)))
            assert holding.total == blocks
            assert holding.private_count >= 0

    @rule(index=st.integers(0, 20), new=st.integers(1, 3))
    def grow(self, index, new):
        if self.holdings:
            holding = self.holdings[index % len(self.holdings)]
            enough = new <= self.pool.available_blocks
            assert self.pool.allocate(holding, new) == enough

    @rule(index=st.integers(0, 20))
    def release(self, index):
        if self.holdings:
            self.pool.release(self.holdings.pop(index % len(self.holdings)))

    @rule()
    def forget(self):
        self.pool.reset_prefix_cache()

    @invariant()
    def every_block_is_accounted_for(self):
        shared = {digest for holding in self.holdings for digest in holding.shared_hashes}
        own = sum(holding.private_count for holding in self.holdings)
        assert self.pool.used_blocks == own + len(shared)
        assert 0 <= self.pool.used_blocks <= self.pool.capacity
        assert self.pool.cached_blocks <= self.pool.capacity - own

    def teardown(self):
        for holding in self.holdings:
            self.pool.release(holding)
        assert self.pool.available_blocks == self.pool.capacity


Pool.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = Pool.TestCase
