"""Small sets made in code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shards.manifest import Kind, Manifest, ShardEntry, fingerprint_of, shard_name, write_manifest
from shards.records import BackgroundRecord, CropRecord, Record
from shards.store import open_store
from shards.writer import write_shard

MakeSet = Callable[..., str]


def smooth_image(width: int, height: int, shift: int = 0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    channels = [x * 200 // width + 20, y * 200 // height + 20, np.full_like(x, 40 + shift % 160)]
    return np.stack(channels, axis=2).astype(np.uint8)


def disc(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) / width) ** 2 + ((y - height / 2) / height) ** 2 < 0.16
    return np.where(inside, 255, 0).astype(np.uint8)


def make_crop(index: int, label: str = "bird") -> CropRecord:
    width, height = 24 + index % 5, 32 + index % 3
    image, mask = smooth_image(width, height, index), disc(width, height)
    return CropRecord(f"c{index:08d}", label, image, mask, {"source": "test", "slot": index, "score": 0.5})


def make_background(index: int) -> BackgroundRecord:
    return BackgroundRecord(f"b{index:08d}", smooth_image(40, 30, index), {"file": f"{index}.jpg"})


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """make_set(kind, shards, records a shard, complete, location) -> its location."""

    def make(
        kind: Kind = "crops",
        shards: int = 3,
        each: int = 4,
        complete: bool = True,
        location: str | None = None,
    ) -> str:
        place = location or str(tmp_path / kind)
        store = open_store(place)
        entries: list[ShardEntry] = []
        for shard in range(shards):
            slots = range(shard * each, (shard + 1) * each)
            records: list[Record] = [make_crop(i) if kind == "crops" else make_background(i) for i in slots]
            entries.append(
                write_shard(store, shard_name(kind, shard), records, dropped={"small": 1}, seen=each + 1)
            )
        recipe = {"class": "bird", "seed": 0}
        classes = ("bird",) if kind == "crops" else ()
        write_manifest(
            store, Manifest(kind, classes, fingerprint_of(recipe), recipe, tuple(entries), complete)
        )
        return place

    return make
