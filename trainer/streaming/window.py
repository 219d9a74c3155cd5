"""Which records of a set may be drawn at a time, so that a set of any size is read shard after shard.

A set's shards are laid end to end in a new seeded order every pass, endlessly. Scenes come in blocks, and the
pool of block ``b`` is the ``size`` records from place ``b * size / stay`` of that row on. So

* every record is in the pool of exactly ``stay`` blocks a pass, and every pool counts ``size`` records:
  where each block draws equally often, all are drawn equally often in expectation, however unequal the
  shards. How often one is drawn in a pass varies as uniform draws vary (variance = mean);
* two draws of one block show the same record with probability 1 / size, and the same shard with about
  records of a shard / size; drawn from the whole set it would be 1 / set and 1 / shards;
* pools of blocks d apart share max(0, 1 - d / stay) of their records, and then none until the next pass;
* a record is in a pool twice only where two passes meet;
* each shard is fetched once a pass, held for about ``stay`` blocks, and dropped.

The first ``size`` places of the first pass are in fewer blocks, as the row begins there. A set of at most
``size`` records is its own pool for good, each record once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows ``first`` to ``stop - 1`` of one shard."""

    shard: int
    first: int
    stop: int


class SlidingWindow:
    """The pools of one set: block -> stretches of its shards. A pure function of the arguments."""

    def __init__(self, records: Sequence[int], size: int, stay: int, seed: Sequence[int]) -> None:
        """records: of each shard. size: of the pool, a multiple of stay. seed: numbers for the orders."""
        self._records, self._seed = tuple(records), tuple(seed)
        self._starts = [0, *accumulate(self._records)]
        self._size, self._step = size, size // stay
        self.order_of_pass = lru_cache(maxsize=2)(self._order_of_pass)

    @property
    def is_whole(self) -> bool:
        """Whether every pool is the whole set."""
        return self._starts[-1] <= self._size

    def stretches(self, block: int) -> list[Stretch]:
        """The pool of a block, in the order of its row."""
        if self.is_whole:
            return [Stretch(shard, 0, count) for shard, count in enumerate(self._records)]
        found: list[Stretch] = []
        place, end = block * self._step, block * self._step + self._size
        while place < end:
            number, offset = divmod(place, self._starts[-1])
            order, ends = self.order_of_pass(number)
            position = int(np.searchsorted(ends, offset, side="right"))
            shard = int(order[position])
            stop = self._records[shard]
            first = offset - (int(ends[position]) - stop)
            stretch = Stretch(shard, first, min(stop, first + end - place))
            found.append(stretch)
            place += stretch.stop - stretch.first
        return found

    def indices(self, block: int) -> IntArray:
        """The pool's records as indices of the set: (size,), fewer for a set that is its own pool."""
        return np.concatenate(
            [
                np.arange(self._starts[s.shard] + s.first, self._starts[s.shard] + s.stop)
                for s in self.stretches(block)
            ]
        )

    def _order_of_pass(self, number: int) -> tuple[IntArray, IntArray]:
        """The shards in a pass's order, and how many records there are up to the end of each."""
        order = np.random.default_rng([*self._seed, number]).permutation(len(self._records))
        return order, np.cumsum(np.array(self._records, np.int64)[order])

    def __reduce__(self) -> tuple[object, ...]:
        return SlidingWindow, (self._records, self._size, self._size // self._step, self._seed)
