"""The paged KV cache as counts: which blocks are free, held, or kept for their prefix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Holding:
    """The blocks one request holds: `own` nobody else can find, `shared` under their prefix hash.

    `hashes` has one chained hash for each full block of the prompt, `published` counts those
    that were offered to the cache.
    """

    hashes: Sequence[Hashable] = ()
    own: int = 0
    shared: list[Hashable] = field(default_factory=list)
    published: int = 0

    @property
    def blocks(self) -> int:
        """Blocks held in all."""
        return self.own + len(self.shared)


class BlockPool:
    """A fixed number of blocks: free + held by one + in the prefix cache is always `capacity`.

    A cached block that nobody holds stays until its room is needed, least recently used first,
    the end of a prefix before its start.
    """

    def __init__(self, capacity: int, *, prefix_caching: bool = True) -> None:
        self.capacity = capacity
        self.prefix_caching = prefix_caching
        self._free = capacity
        self._holders: dict[Hashable, int] = {}
        self._idle: OrderedDict[Hashable, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that can be taken now: the free ones and cached ones nobody holds."""
        return self._free + len(self._idle)

    @property
    def in_use(self) -> int:
        """Blocks held by requests."""
        return self.capacity - self.available

    @property
    def cached(self) -> int:
        """Blocks that can be found by their prefix, held or not."""
        return len(self._holders)

    def find(self, hashes: Sequence[Hashable]) -> int:
        """Count the leading blocks of a prompt that are in the cache."""
        if not self.prefix_caching:
            return 0
        holders = self._holders
        for count, digest in enumerate(hashes):
            if digest not in holders:
                return count
        return len(hashes)

    def admit(self, holding: Holding, hits: int, new: int, *, spare: int = 0) -> bool:
        """Take `hits` leading cached blocks and `new` others, or nothing when `spare` would not be left."""
        found = holding.hashes[:hits]
        idle_hits = sum(not self._holders[digest] for digest in found)
        if self.available - idle_hits < new + spare:
            return False
        for digest in found:
            self._hold(digest)
        holding.shared.extend(found)
        holding.published = hits
        return self.grow(holding, new)

    def grow(self, holding: Holding, new: int) -> bool:
        """Take `new` blocks for a request, or nothing when they are not to be had."""
        if new > self.available:
            return False
        for _ in range(new - self._free):
            evicted, _none = self._idle.popitem(last=False)
            del self._holders[evicted]
            self._free += 1
        self._free -= new
        holding.own += new
        return True

    def publish(self, holding: Holding, full_blocks: int) -> None:
        """Make a request's first `full_blocks` prompt blocks findable by others."""
        if not self.prefix_caching:
            return
        for digest in holding.hashes[holding.published : full_blocks]:
            # A second copy computed meanwhile stays its holder's own.
            if digest not in self._holders:
                self._holders[digest] = 1
                holding.shared.append(digest)
                holding.own -= 1
            holding.published += 1

    def release(self, holding: Holding) -> None:
        """Give back all a request holds; what is cached stays findable."""
        self._free += holding.own
        for digest in reversed(holding.shared):
            self._holders[digest] -= 1
            if not self._holders[digest]:
                self._idle[digest] = None
        holding.own, holding.published = 0, 0
        holding.shared.clear()

    def forget_prefixes(self) -> bool:
        """Empty the prefix cache of what nobody holds; whether it is empty now."""
        for digest in self._idle:
            del self._holders[digest]
        self._free += len(self._idle)
        self._idle.clear()
        return not self._holders

    def _hold(self, digest: Hashable) -> None:
        self._idle.pop(digest, None)
        self._holders[digest] += 1


def block_hashes(tokens: Sequence[Hashable], block_size: int) -> list[Hashable]:
    """Hash each full block of a prompt together with all that is before it."""
    digests: list[Hashable] = []
    digest: int = 0
    for start in range(0, len(tokens) - block_size + 1, block_size):
        digest = hash((digest, *tokens[start : start + block_size]))
        digests.append(digest)
    return digests
