"""What the scenes of a block may show: records of several sets, drawn by weight, read shard after shard."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from configs.errors import InputError
from configs.kinds import StrictModel
from shards.reader import ShardSet
from shards.records import CropRecord, Record
from trainer.streaming.decoded import DecodedCache
from trainer.streaming.held_shards import HeldShards
from trainer.streaming.mixing import Balance, Group, Slots, balanced, label_weights
from trainer.streaming.window import IntArray, SlidingWindow


class StreamConfig(StrictModel):
    """How a stream of scenes reads its sets. All but ``decoded_mb`` decides what the scenes show.

    pool, background_pool: records of each set that scenes may draw from at a time; a set of at most so many
    is drawn from as a whole. What a process holds of a set is its pool's shards, and the next ones.
    block: scenes until the pool moves on. stay: blocks that a record is in the pool; with m objects a scene a
    crop is drawn about block * stay * m / pool times a pass (`trainer.streaming.window` has the statistics).
    balance: of the crops' classes: ``natural``, each crop alike; ``equal``, each class alike; or a weight for
    each class. Classes that a pool has no crop of are left out of its scenes.
    num_scenes: scenes that there are, over and over; without it no two are the same. For comparisons by the
    amount of synthetic data, as the paper's Tables III and IV.
    decoded_mb: decoded pictures kept for their next use, for crops, backgrounds and photos each, in every
    process that loads.
    """

    pool: int = Field(default=8192, ge=1)
    background_pool: int = Field(default=2048, ge=1)
    block: int = Field(default=1024, ge=1)
    stay: int = Field(default=16, ge=1)
    balance: Balance = "natural"
    num_scenes: int | None = Field(default=None, ge=1)
    decoded_mb: int = Field(default=128, ge=0)

    @model_validator(mode="after")
    def _pools_move_in_equal_steps(self) -> Self:
        for name, size in (("pool", self.pool), ("background_pool", self.background_pool)):
            if size % self.stay:
                raise ValueError(f"{name}: found {size}, wanted a multiple of stay ({self.stay})")
        return self


class Collection:
    """Several sets of one kind behind one index, with the share of the draws that goes to each.

    weights: one a set, as numbers in proportion; without any each record counts alike.
    Raises InputError when they do not fit the sets.
    """

    def __init__(self, sets: Sequence[ShardSet], weights: Sequence[float] | None = None) -> None:
        self.sets = tuple(sets)
        self.classes = tuple(dict.fromkeys(name for found in sets for name in found.classes))
        self.weights = tuple(float(len(found)) for found in sets) if weights is None else tuple(weights)
        if len(self.weights) != len(self.sets):
            raise InputError(f"weights: found {len(self.weights)}, wanted one for each of {len(sets)} sets")
        if min(self.weights, default=0) < 0 or not any(self.weights):
            raise InputError(f"weights: found {self.weights}, wanted none below 0 and one over it")
        self._ends = list(accumulate(len(found) for found in sets))

    def __len__(self) -> int:
        return self._ends[-1]

    def start_of(self, number: int) -> int:
        """Index of a set's first record."""
        return self._ends[number] - len(self.sets[number])

    def place_of(self, index: int) -> tuple[int, int]:
        """Number of the set that a record is in, and its index there."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - self.start_of(number)


class CropCollection(Collection):
    """A collection of crop sets: ``crops[i]`` is a CropRecord."""

    def __getitem__(self, index: int) -> CropRecord:
        number, inside = self.place_of(index)
        record = self.sets[number][inside]
        assert isinstance(record, CropRecord)
        return record


class RecordPool:
    """The records of a collection that scenes of the block last entered draw from, by slot.

    ``pool[slot]`` for slots 0 to ``len(pool) - 1``, each equally likely, has the collection's weights and the
    config's balance. Where every record counts alike and all are in the pool, slots are the records' indices.
    """

    def __init__(
        self,
        collection: Collection,
        size: int,
        config: StreamConfig,
        seed: Sequence[int],
        balance: Balance = "natural",
    ) -> None:
        """seed: numbers for the orders of shards, apart from those of other pools. Raises InputError."""
        self._collection = collection
        self._weights = label_weights(balance, collection.classes)
        self._held = [HeldShards(found) for found in collection.sets]
        self._windows = [
            SlidingWindow([entry.records for entry in found.manifest.shards], size, config.stay, [*seed, k])
            for k, found in enumerate(collection.sets)
        ]
        self._decoded = DecodedCache[Record](config.decoded_mb << 20, _decoded_bytes)
        self._block: int | None = None
        self._slots = Slots([])

    def enter(self, block: int) -> None:
        """Draw from this block's pool from now on: a function of the block, whichever came before."""
        is_first = self._block is None
        if block == self._block or not (is_first or self._moves):
            return
        self._block = block
        for window, held in zip(self._windows, self._held, strict=True):
            if not window.is_whole:
                now, then = ({s.shard for s in window.stretches(b)} for b in (block, block + 1))
                held.keep(now | then)
                held.fetch_ahead(then - now)
        self._slots = Slots(self._groups(block))

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, slot: int) -> Record:
        """Shared with later draws: not to be changed. Raises ShardError."""
        index = self._slots[slot]
        return self._decoded.get(index, lambda: self._read(index))

    def index_of(self, slot: int) -> int:
        """The collection's index of a slot's record."""
        return self._slots[slot]

    @cached_property
    def _moves(self) -> bool:
        return not all(window.is_whole for window in self._windows)

    def _read(self, index: int) -> Record:
        number, inside = self._collection.place_of(index)
        return self._held[number][inside]

    def _groups(self, block: int) -> list[Group]:
        numbered = enumerate(self._collection.weights)
        if self._weights is None:
            return [Group(self._members(number, block), weight) for number, weight in numbered]
        labelled = [part for number, weight in numbered for part in self._by_label(number, block, weight)]
        return balanced(labelled, self._weights)

    def _members(self, number: int, block: int) -> IntArray:
        return self._windows[number].indices(block) + self._collection.start_of(number)

    def _by_label(self, number: int, block: int, weight: float) -> list[tuple[str, Group]]:
        """A set's pool in its labels, each at its share of the whole set."""
        found, held = self._collection.sets[number], self._held[number]
        rows = [held.labels(s.shard)[s.first : s.stop] for s in self._windows[number].stretches(block)]
        labels, members = np.concatenate(rows), self._members(number, block)
        counts = [sum(entry.labels.get(name, 0) for entry in found.manifest.shards) for name in found.classes]
        return [
            (name, Group(members[labels == place], weight * counts[place] / len(found)))
            for place, name in enumerate(found.classes)
        ]


def _decoded_bytes(record: Record) -> int:
    return record.image.nbytes + (record.mask.nbytes if isinstance(record, CropRecord) else 0)
