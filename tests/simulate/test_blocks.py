from __future__ import annotations

from collections.abc import Hashable, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from autotuner.simulate.blocks import BlockPool, RequestBlocks, block_hashes


def admitted(pool: BlockPool, hashes: Sequence[Hashable], new: int) -> RequestBlocks:
    blocks = RequestBlocks(hashes)
    assert pool.admit(blocks, pool.count_prefix_hits(hashes), new)
    return blocks


def test_a_block_is_hashed_with_all_that_precedes_it():
    first, second = block_hashes([1, 2, 3, 4, 5], 2), block_hashes([9, 2, 3, 4, 5], 2)
    assert len(first) == 2
    assert first[1] != second[1]
    assert block_hashes([1, 2, 3, 4, 9], 2) == first


def test_a_released_prefix_stays_in_the_cache():
    pool = BlockPool(4)
    blocks = admitted(pool, ["a", "b"], 3)
    pool.publish(blocks, 2)
    pool.release(blocks)
    assert (pool.count_prefix_hits(["a", "b", "c"]), pool.available_blocks, pool.used_blocks) == (2, 4, 0)


def test_the_end_of_the_least_recently_used_prefix_is_evicted_first():
    pool = BlockPool(4)
    for hashes in (["a", "b"], ["c", "d"]):
        blocks = admitted(pool, hashes, 2)
        pool.publish(blocks, 2)
        pool.release(blocks)
    admitted(pool, [], 1)
    assert (pool.count_prefix_hits(["a", "b"]), pool.count_prefix_hits(["c", "d"])) == (1, 2)


def test_a_prefix_in_use_is_never_evicted():
    pool = BlockPool(2)
    blocks = admitted(pool, ["a"], 1)
    pool.publish(blocks, 1)
    other = RequestBlocks()
    assert pool.allocate(other, 1)
    assert not pool.allocate(other, 1)
    assert pool.count_prefix_hits(["a"]) == 1


def test_admission_does_not_count_evictable_hits_as_available():
    pool = BlockPool(2)
    blocks = admitted(pool, ["a", "b"], 2)
    pool.publish(blocks, 2)
    pool.release(blocks)
    assert not pool.admit(RequestBlocks(["a", "b"]), 2, 1)
    assert pool.available_blocks == 2


def test_without_prefix_caching_there_are_no_hits():
    pool = BlockPool(2, prefix_caching=False)
    blocks = admitted(pool, ["a"], 1)
    pool.publish(blocks, 1)
    assert pool.count_prefix_hits(["a"]) == 0


def test_a_reset_keeps_blocks_in_use():
    pool = BlockPool(4)
    for hashes in (["a"], ["b"]):
        blocks = admitted(pool, hashes, 1)
        pool.publish(blocks, 1)
    pool.release(blocks)
    assert not pool.reset_prefix_cache()
    assert (pool.count_prefix_hits(["a"]), pool.count_prefix_hits(["b"])) == (1, 0)


class BlockPoolMachine(RuleBasedStateMachine):
    """Any sequence of operations keeps every block accounted for."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12)
        self.requests: list[RequestBlocks] = []

    @rule(prompt=st.lists(st.integers(0, 2), max_size=6), extra=st.integers(0, 4), reserve=st.integers(0, 3))
    def admit(self, prompt, extra, reserve):
        hashes = block_hashes(prompt, 1)
        hits = self.pool.count_prefix_hits(hashes)
        blocks, before = RequestBlocks(hashes), self.pool.available_blocks
        if self.pool.admit(blocks, hits, len(hashes) - hits + extra, reserve=reserve):
            self.requests.append(blocks)
            assert self.pool.available_blocks >= reserve
        else:
            assert (blocks.total, self.pool.available_blocks) == (0, before)

    @rule(index=st.integers(0, 20), count=st.integers(0, 6))
    def publish(self, index, count):
        if self.requests:
            blocks = self.requests[index % len(self.requests)]
            total = blocks.total
            self.pool.publish(blocks, min(count, len(blocks.prompt_hashes)))
            assert blocks.total == total
            assert blocks.private_count >= 0

    @rule(index=st.integers(0, 20), new_blocks=st.integers(1, 3))
    def allocate(self, index, new_blocks):
        if self.requests:
            blocks = self.requests[index % len(self.requests)]
            is_available = new_blocks <= self.pool.available_blocks
            assert self.pool.allocate(blocks, new_blocks) == is_available

    @rule(index=st.integers(0, 20))
    def release(self, index):
        if self.requests:
            self.pool.release(self.requests.pop(index % len(self.requests)))

    @rule()
    def reset(self):
        self.pool.reset_prefix_cache()

    @invariant()
    def every_block_is_accounted_for(self):
        shared = {digest for blocks in self.requests for digest in blocks.shared_hashes}
        private = sum(blocks.private_count for blocks in self.requests)
        assert self.pool.used_blocks == private + len(shared)
        assert 0 <= self.pool.used_blocks <= self.pool.capacity
        assert self.pool.cached_blocks <= self.pool.capacity - private

    def teardown(self):
        for blocks in self.requests:
            self.pool.release(blocks)
        assert self.pool.available_blocks == self.pool.capacity


BlockPoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBlockPool = BlockPoolMachine.TestCase
