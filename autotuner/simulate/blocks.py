"""Block accounting of a paged KV cache with prefix caching: free, allocated and evictable blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestBlocks:
    """The KV cache blocks of one request: `private_count` unshared ones, and shared ones by prefix hash.

    `prompt_hashes` has one chained hash per full block of the prompt; the first `published_count`
    of them were offered to the prefix cache.
    """

    prompt_hashes: Sequence[Hashable] = ()
    private_count: int = 0
    shared_hashes: list[Hashable] = field(default_factory=list)
    published_count: int = 0

    @property
    def total(self) -> int:
        """Blocks held, private and shared."""
        return self.private_count + len(self.shared_hashes)


class BlockPool:
    """A fixed number of blocks: free + private + in the prefix cache is always `capacity`.

    A cached block without a holder stays until its space is needed; eviction takes the least recently
    used first, and the end of a prefix before its start.
    """

    def __init__(self, capacity: int, *, prefix_caching: bool = True) -> None:
        self.capacity = capacity
        self.prefix_caching = prefix_caching
        self._free_blocks = capacity
        self._reference_counts: dict[Hashable, int] = {}
        self._evictable: OrderedDict[Hashable, None] = OrderedDict()

    @property
    def available_blocks(self) -> int:
        """Blocks that can be allocated now: free or evictable."""
        return self._free_blocks + len(self._evictable)

    @property
    def used_blocks(self) -> int:
        """Blocks held by requests."""
        return self.capacity - self.available_blocks

    @property
    def cached_blocks(self) -> int:
        """Blocks in the prefix cache, with or without a holder."""
        return len(self._reference_counts)

    def count_prefix_hits(self, hashes: Sequence[Hashable]) -> int:
        """Count the leading blocks of a prompt that are in the prefix cache."""
        if not self.prefix_caching:
            return 0
        for count, digest in enumerate(hashes):
            if digest not in self._reference_counts:
                return count
        return len(hashes)

    def admit(self, blocks: RequestBlocks, prefix_hits: int, new_blocks: int, *, reserve: int = 0) -> bool:
        """Acquire `prefix_hits` cached blocks and allocate `new_blocks`.

        Returns False, and changes nothing, if fewer than `reserve` blocks would remain available.
        """
        hit_hashes = blocks.prompt_hashes[:prefix_hits]
        evictable_hits = sum(not self._reference_counts[digest] for digest in hit_hashes)
        if self.available_blocks - evictable_hits < new_blocks + reserve:
            return False
        for digest in hit_hashes:
            self._acquire(digest)
        blocks.shared_hashes.extend(hit_hashes)
        blocks.published_count = prefix_hits
        return self.allocate(blocks, new_blocks)

    def allocate(self, blocks: RequestBlocks, new_blocks: int) -> bool:
        """Allocate `new_blocks` to a request, evicting if necessary; False if too few are available."""
        if new_blocks > self.available_blocks:
            return False
        for _ in range(new_blocks - self._free_blocks):
            evicted_hash, _none = self._evictable.popitem(last=False)
            del self._reference_counts[evicted_hash]
            self._free_blocks += 1
        self._free_blocks -= new_blocks
        blocks.private_count += new_blocks
        return True

    def publish(self, blocks: RequestBlocks, full_blocks: int) -> None:
        """Put a request's first `full_blocks` prompt blocks into the prefix cache."""
        if not self.prefix_caching:
            return
        for digest in blocks.prompt_hashes[blocks.published_count : full_blocks]:
            # If another request has published the same prefix meanwhile, this copy stays private.
            if digest not in self._reference_counts:
                self._reference_counts[digest] = 1
                blocks.shared_hashes.append(digest)
                blocks.private_count -= 1
            blocks.published_count += 1

    def release(self, blocks: RequestBlocks) -> None:
        """Free all blocks of a request; its cached ones become evictable."""
        self._free_blocks += blocks.private_count
        for digest in reversed(blocks.shared_hashes):
            self._reference_counts[digest] -= 1
            if not self._reference_counts[digest]:
                self._evictable[digest] = None
        blocks.private_count, blocks.published_count = 0, 0
        blocks.shared_hashes.clear()

    def reset_prefix_cache(self) -> bool:
        """Evict every cached block without a holder; return whether the cache is empty now."""
        for digest in self._evictable:
            del self._reference_counts[digest]
        self._free_blocks += len(self._evictable)
        self._evictable.clear()
        return not self._reference_counts

    def _acquire(self, digest: Hashable) -> None:
        self._evictable.pop(digest, None)
        self._reference_counts[digest] += 1


def block_hashes(tokens: Sequence[Hashable], block_size: int) -> list[Hashable]:
    """Hash each full block of a prompt together with everything before it."""
    digests: list[Hashable] = []
    digest: int = 0
    for start in range(0, len(tokens) - block_size + 1, block_size):
        digest = hash((digest, *tokens[start : start + block_size]))
        digests.append(digest)
    return digests
