"""From a shard's index to its crops: source -> segmenter -> gate -> cut. Pure; knows nothing of Ray.

What a shard holds depends on the recipe, its index and its limit only: every shard draws from slots of its
own, and near-duplicates are looked for within the shard.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from configs.errors import InputError
from factory.crops import cut
from factory.output_set import describe_drops
from factory.quality import DuplicateGate, judge
from factory.recipe import Recipe, recipe_identity
from factory.stages import ObjectImage, Segmentation, Unreadable
from shards.records import CropRecord

BATCH = 32  # images segmented together; part of what fixes the bytes of a network's masks
ENDLESS_STRIDE = 1 << 32  # slots that a shard of an endless source has to itself
PATIENCE = 1024  # slots looked at before a gate that keeps less than one in a hundred is called an error


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to make. limit: crops to keep at most, from 1 (None: all that its slots give)."""

    index: int
    limit: int | None


@dataclass(slots=True)
class ShardTally:
    """What became of the slots that a shard looked at, so far."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unreadable: list[Unreadable] = field(default_factory=list)
    seen: int = 0


class CropLine:
    """A recipe with its source and segmenter opened (weights loaded): makes any shard of the recipe."""

    def __init__(self, recipe: Recipe, home: Path) -> None:
        """Raises InputError when photos or weights are missing."""
        self.recipe = recipe
        self.source = recipe.source.open(recipe.seed, home)
        self.segmenter = recipe.segmenter.open(home)

    def identity(self) -> dict[str, object]:
        """See `recipe_identity`."""
        return recipe_identity(self.recipe, self.source, self.segmenter)

    def slots_of(self, index: int) -> int | None:
        """How many slots a shard has; None when endless."""
        if self.source.size is None:
            return None
        size = self.recipe.shard_size
        return max(0, min(size, self.source.size - index * size))

    def crops(self, task: ShardTask, tally: ShardTally) -> Iterator[CropRecord]:
        """The crops of one shard, as they get done; ``tally`` is kept up to date on the way.

        Raises InputError when an endless source's crops are nearly all refused.
        """
        bits = self.recipe.quality.duplicate_bits
        duplicates = None if bits is None else DuplicateGate(bits)
        for item in self._segmented(task.index):
            tally.seen += 1
            record = self._taken(item, task.index, tally, duplicates)
            if record is not None:
                tally.kept += 1
                yield record
            if tally.kept == task.limit:  # before the next batch is made, of which none would be taken
                break
            self._check_patience(tally)

    def _segmented(self, index: int) -> Iterator[Unreadable | tuple[ObjectImage, Segmentation]]:
        slots = self.slots_of(index)
        start = index * (self.recipe.shard_size if slots is not None else ENDLESS_STRIDE)
        items = self.source.images(start, ENDLESS_STRIDE if slots is None else slots)
        while batch := list(islice(items, BATCH)):
            images = [item for item in batch if isinstance(item, ObjectImage)]
            masks = iter(self.segmenter.segment(images) if images else [])
            for item in batch:
                yield (item, next(masks)) if isinstance(item, ObjectImage) else item

    def _taken(
        self,
        item: Unreadable | tuple[ObjectImage, Segmentation],
        index: int,
        tally: ShardTally,
        duplicates: DuplicateGate | None,
    ) -> CropRecord | None:
        """The crop of one slot; None where it is dropped, which the tally notes."""
        if isinstance(item, Unreadable):
            tally.unreadable.append(item)
            tally.dropped["unreadable"] += 1
            return None
        image, segmentation = item
        verdict = judge(segmentation, self.recipe.quality)
        if not verdict.keep:
            tally.dropped[verdict.reason] += 1
            return None
        key = f"{index:06d}-{tally.kept:05d}"
        record = cut(key, self.recipe.label, image, segmentation, self.recipe.crop, verdict.scores)
        if duplicates and duplicates.is_duplicate(record.image):
            tally.dropped["near_duplicate"] += 1
            return None
        return record

    def _check_patience(self, tally: ShardTally) -> None:
        if self.source.size is not None or tally.seen < PATIENCE or tally.seen < 100 * tally.kept:
            return
        raise InputError(
            f"source {self.recipe.source.kind}: {tally.kept} of {tally.seen} images kept "
            f"({describe_drops(tally.dropped)}): loosen quality.* or choose another segmenter"
        )
