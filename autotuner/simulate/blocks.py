"""The paged KV cache as counts: which blocks are free, held, or kept for their prefix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestBlocks:
    """The blocks one request holds: `own` nobody else can find, `shared` under their prefix hash.

    `hashes` has one chained hash for each full block of the prompt, `published` counts those
    that were offered to the cache.
    """

    prompt_hashes: Sequence[Hashable] = ()
    private_count: int = 0
    shared_hashes: list[Hashable] = field(default_factory=list)
    published_count: int = 0

    @property
    def total(self) -> int:
        """Blocks held in all."""
        return self.private_count + len(self.shared_hashes)


class BlockPool:
    """A fixed number of blocks: free + held by one + in the prefix cache is always `capacity`.

    A cached block that nobody holds stays until its room is needed, least recently used first,
    the end of a prefix before its start.
    """

    def __init__(self, capacity: int, *, prefix_caching: bool = True) -> None:
        self.capacity = capacity
        self.prefix_caching = prefix_caching
        self._free_blocks = capacity
        self._reference_counts: dict[Hashable, int] = {}
        self._evictable: OrderedDict[Hashable, None] = OrderedDict()

    @property
    def available_blocks(self) -> int:
        """Blocks that can be taken now: the free ones and cached ones nobody holds."""
        return self._free_blocks + len(self._evictable)

    @property
    def used_blocks(self) -> int:
        """Blocks held by requests."""
        return self.capacity - self.available_blocks

    @property
    def cached_blocks(self) -> int:
        """Blocks that can be found by their prefix, held or not."""
        return len(self._reference_counts)

    def count_prefix_hits(self, hashes: Sequence[Hashable]) -> int:
        """Count the leading blocks of a prompt that are in the cache."""
        if not self.prefix_caching:
            return 0
        holders = self._reference_counts
        for count, digest in enumerate(hashes):
            if digest not in holders:
                return count
        return len(hashes)

    def admit(self, blocks: RequestBlocks, prefix_hits: int, new_blocks: int, *, reserve: int = 0) -> bool:
        """Take `hits` leading cached blocks and `new` others, or nothing when `spare` would not be left."""
        found = blocks.prompt_hashes[:prefix_hits]
        idle_hits = sum(not self._reference_counts[digest] for digest in found)
        if self.available_blocks - idle_hits < new_blocks + reserve:
            return False
        for digest in found:
            self._acquire(digest)
        blocks.shared_hashes.extend(found)
        blocks.published_count = prefix_hits
        return self.allocate(blocks, new_blocks)

    def allocate(self, blocks: RequestBlocks, new_blocks: int) -> bool:
        """Take `new` blocks for a request, or nothing when they are not to be had."""
        if new_blocks > self.available_blocks:
            return False
        for _ in range(new_blocks - self._free_blocks):
            evicted, _none = self._evictable.popitem(last=False)
            del self._reference_counts[evicted]
            self._free_blocks += 1
        self._free_blocks -= new_blocks
        blocks.private_count += new_blocks
        return True

    def publish(self, blocks: RequestBlocks, full_blocks: int) -> None:
        """Make a request's first `full_blocks` prompt blocks findable by others."""
        if not self.prefix_caching:
            return
        for digest in blocks.prompt_hashes[blocks.published_count : full_blocks]:
            # A second copy computed meanwhile stays its holder's own.
            if digest not in self._reference_counts:
                self._reference_counts[digest] = 1
                blocks.shared_hashes.append(digest)
                blocks.private_count -= 1
            blocks.published_count += 1

    def release(self, blocks: RequestBlocks) -> None:
        """Give back all a request holds; what is cached stays findable."""
        self._free_blocks += blocks.private_count
        for digest in reversed(blocks.shared_hashes):
            self._reference_counts[digest] -= 1
            if not self._reference_counts[digest]:
                self._evictable[digest] = None
        blocks.private_count, blocks.published_count = 0, 0
        blocks.shared_hashes.clear()

    def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache of what nobody holds; whether it is empty now."""
        for digest in self._evictable:
            del self._reference_counts[digest]
        self._free_blocks += len(self._evictable)
        self._evictable.clear()
        return not self._reference_counts

    def _acquire(self, digest: Hashable) -> None:
        self._evictable.pop(digest, None)
        self._reference_counts[digest] += 1


def block_hashes(tokens: Sequence[Hashable], block_size: int) -> list[Hashable]:
    """Hash each full block of a prompt together with all that is before it."""
    digests: list[Hashable] = []
    digest: int = 0
    for start in range(0, len(tokens) - block_size + 1, block_size):
        digest = hash((digest, *tokens[start : start + block_size]))
        digests.append(digest)
    return digests
