"""What scenes may draw from: weights, classes, and which shards a process reads and holds."""

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from configs.errors import InputError
from shards.errors import ShardError
from shards.local import LocalStore
from shards.manifest import Manifest, fingerprint_of, shard_name, write_manifest
from shards.reader import ShardSet
from shards.records import CropRecord
from shards.writer import write_shard
from trainer.streaming.crop_pool import CropCollection, RecordPool, StreamConfig
from trainer.streaming.held_shards import HeldShards

MakeCrops = Callable[..., ShardSet]
SMALL = StreamConfig(pool=12, background_pool=4, block=8, stay=4)  # 3 new crops a block


class CountingStore(LocalStore):
    """A folder that counts how often each shard was opened, by any thread."""

    opened: ClassVar[Counter[str]] = Counter()

    def view(self, name: str) -> memoryview:
        self.opened[name] += 1
        return super().view(name)


@pytest.fixture
def make_crops(tmp_path: Path) -> MakeCrops:
    """make_crops(labels of each shard's crops) -> a set; keys tell shard and row."""

    def make(shards: Sequence[Sequence[str]]) -> ShardSet:
        store = CountingStore(tmp_path / f"set-{len(list(tmp_path.iterdir()))}")
        store.opened.clear()
        entries = []
        for number, labels in enumerate(shards):
            image, mask = np.full((9, 8, 3), 10 * number, np.uint8), np.full((9, 8), 255, np.uint8)
            crops = [CropRecord(f"{number:03d}-{i:03d}", name, image, mask) for i, name in enumerate(labels)]
            entries.append(write_shard(store, shard_name("crops", number), crops))
        classes = tuple(sorted({name for labels in shards for name in labels}))
        manifest = Manifest("crops", classes, fingerprint_of({}), {}, tuple(entries), complete=True)
        write_manifest(store, manifest)
        return ShardSet(store, manifest)

    return make


def pool_of(collection: CropCollection, config: StreamConfig = SMALL, **options: object) -> RecordPool:
    return RecordPool(collection, config.pool, config, [5], **options)  # type: ignore[arg-type]


def labels_drawn(pool: RecordPool, count: int = 4000) -> Counter[str]:
    slots = np.random.default_rng(0).integers(len(pool), size=count)
    return Counter(
        record.label for record in map(pool.__getitem__, slots.tolist()) if isinstance(record, CropRecord)
    )


def test_slots_of_a_small_collection_are_its_indices(make_crops) -> None:
    crops = CropCollection([make_crops([["a"] * 3, ["a"] * 2]), make_crops([["b"] * 4])])
    pool = pool_of(crops)
    for block in (0, 3):
        pool.enter(block)
        assert [pool[slot].key for slot in range(len(pool))] == [crops[i].key for i in range(9)]


def test_a_large_set_is_opened_shard_by_shard_once_a_pass(make_crops) -> None:
    found = make_crops([["a"] * 6] * 10)
    pool = pool_of(
        CropCollection([found]), StreamConfig(pool=12, block=8, stay=4, background_pool=4, decoded_mb=0)
    )
    for block in range(20 * 3):  # 3 passes of 20 blocks
        pool.enter(block)
        keys = {pool[slot].key for slot in range(len(pool))}
        assert len(pool) == 12
        assert len(keys) >= 6
        assert len(pool._held[0]._open) <= 4  # 12 crops in up to 3 shards, and the next one
    reads = CountingStore.opened
    assert len(reads) == 10
    assert max(reads.values()) <= 4  # 3 passes, and the beginning of the next
    assert sum(reads.values()) <= 10 * 3 + 4


def test_a_pool_is_the_same_whichever_blocks_came_before(make_crops) -> None:
    crops = CropCollection([make_crops([["a"] * 6] * 10)])
    onward, jumping = pool_of(crops), pool_of(crops)
    seen = {}
    for block in range(12):
        onward.enter(block)
        seen[block] = [onward[slot].key for slot in range(len(onward))]
    for block in (11, 2, 7, 7, 0):
        jumping.enter(block)
        assert [jumping[slot].key for slot in range(len(jumping))] == seen[block]


def test_classes_are_drawn_alike_where_they_are_told_to_be(make_crops) -> None:
    crops = CropCollection([make_crops([["a"] * 3 + ["b"], ["a"] * 4]), make_crops([["b", "c"]])])
    pool = pool_of(crops)
    pool.enter(0)
    assert labels_drawn(pool)["a"] == pytest.approx(4000 * 0.7, rel=0.05)
    pool = pool_of(crops, balance="equal")
    pool.enter(0)
    drawn = labels_drawn(pool)
    assert [drawn[name] for name in "abc"] == pytest.approx([4000 / 3] * 3, rel=0.1)
    pool = pool_of(crops, balance={"a": 0.0, "b": 1.0, "c": 3.0})
    pool.enter(0)
    drawn = labels_drawn(pool)
    assert drawn["a"] == 0
    assert drawn["c"] == pytest.approx(3000, rel=0.05)


def test_classes_are_balanced_in_every_pool_of_a_large_mixed_set(make_crops) -> None:
    pool = pool_of(CropCollection([make_crops([["a"] * 5 + ["b"]] * 10)]), balance="equal")
    for block in range(5, 40, 7):
        pool.enter(block)
        assert labels_drawn(pool)["b"] == pytest.approx(2000, rel=0.1)


def test_sets_are_drawn_by_weight_also_when_one_is_larger_than_its_pool(make_crops) -> None:
    crops = CropCollection([make_crops([["a"] * 6] * 10), make_crops([["b"] * 5])], weights=[1, 3])
    natural = CropCollection(crops.sets)
    for block in (0, 9):
        pool = pool_of(crops)
        pool.enter(block)
        assert labels_drawn(pool)["b"] == pytest.approx(3000, rel=0.05)
        pool = pool_of(natural)
        pool.enter(block)
        assert labels_drawn(pool)["a"] == pytest.approx(4000 * 60 / 65, rel=0.05)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "weights: found 1, wanted one for each of 2 sets"),
        ([1.0, -1.0], r"weights: found \(1.0, -1.0\), wanted none below 0 and one over it"),
        ([0.0, 0.0], r"weights: found \(0.0, 0.0\), wanted none below 0 and one over it"),
    ],
)
def test_weights_that_do_not_fit_the_sets_are_refused(make_crops, weights, message) -> None:
    found = make_crops([["a"]])
    with pytest.raises(InputError, match=message):
        CropCollection([found, found], weights)


def test_a_pool_that_cannot_move_in_equal_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool: found 100, wanted a multiple of stay \(16\)"):
        StreamConfig(pool=100)


def test_a_damaged_shard_is_named_when_it_is_used_not_when_it_is_fetched(make_crops) -> None:
    found = make_crops([["a"] * 6] * 3)
    path = Path(found.store.location) / shard_name("crops", 1)
    path.write_bytes(path.read_bytes()[:2048])
    held = HeldShards(found)
    held.fetch_ahead([0, 1, 2])
    assert held[5].key == "000-005"
    assert held[12].key == "002-000"
    with pytest.raises(ShardError, match=r"crops-000001.tar: 2048 bytes, the manifest says"):
        held[6]


def test_shards_in_use_stay_behind_when_a_set_travels(make_crops) -> None:
    held = HeldShards(make_crops([["a"] * 6] * 3))
    held.fetch_ahead([0, 1])
    assert held[0].key == "000-000"
    again = pickle.loads(pickle.dumps(held))
    assert not again._open
    assert again[7].key == "001-001"


def test_a_fork_opens_shards_of_its_own(make_crops, monkeypatch) -> None:
    held = HeldShards(make_crops([["a"] * 6] * 3))
    held.fetch_ahead([0])
    held[0]
    monkeypatch.setattr("trainer.streaming.held_shards.os.getpid", lambda: -1)
    assert held[1].key == "000-001"
    assert CountingStore.opened["crops-000000.tar"] == 2


def test_a_set_of_very_many_shards_holds_a_bounded_number_open(make_crops, monkeypatch) -> None:
    monkeypatch.setattr("trainer.streaming.held_shards._MAX_OPEN", 4)
    held = HeldShards(make_crops([["a"]] * 20))
    assert [held[i].key for i in range(20)] == [f"{i:03d}-000" for i in range(20)]
    assert len(held._open) == 4
    assert held[0].key == "000-000"
