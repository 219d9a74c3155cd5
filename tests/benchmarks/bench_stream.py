"""What loading takes: memory against the size of the crop set, scenes a second, and photos decoded once.

Run by hand: ``python tests/benchmarks/bench_stream.py [NUM_CROPS ...]`` (default 1000 10000 200000). Sets
are made in a temporary folder: one shard of 1,000 crops, copied. Memory is the peak of a fresh process while
it loads, above what its imports take, and of its largest worker, imports included: its own pages, and all
resident ones, which counts the pages of mapped shards that the system may take back. What a process
would fetch of a remote set is counted against draws from the whole set with 32 shards held.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from shards.local import LocalStore
from shards.manifest import Kind, Manifest, fingerprint_of, shard_name, write_manifest
from shards.reader import ShardSet
from shards.records import BackgroundRecord, CropRecord, Record
from shards.store import open_store
from shards.writer import write_shard
from trainer.compositing.config import CompositorConfig
from trainer.dataset import BoxedImage
from trainer.sample import make_target
from trainer.streaming.augment import AugmentConfig
from trainer.streaming.crop_pool import CropCollection, RecordPool, StreamConfig
from trainer.streaming.loader import batches
from trainer.streaming.stream import PhotoStream, SyntheticStream

_EACH = 1000
_SCENES = 3072
_BATCH = 32


def textured(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return cv2.resize(rng.integers(0, 256, (20, 20, 3), np.uint8), (width, height)).view(np.uint8)


def crop(rng: np.random.Generator, key: str) -> CropRecord:
    height, width = rng.integers(100, 200, 2).tolist()
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 2 - 4, height // 2 - 4), 0, 0, 360, 255, -1)
    return CropRecord(key, "bird", textured(rng, height, width), mask)


def make_set(folder: Path, kind: Kind, count: int) -> Path:
    """``count`` records: one shard's, hard-linked under as many names as it takes."""
    rng, store = np.random.default_rng(0), open_store(folder)
    keys = [f"{i:06d}" for i in range(min(_EACH, count))]
    records: list[Record] = (
        [crop(rng, key) for key in keys]
        if kind == "crops"
        else [BackgroundRecord(key, textured(rng, 360, 480)) for key in keys]
    )
    first = write_shard(store, shard_name(kind, 0), records)
    entries = [replace(first, name=shard_name(kind, i)) for i in range(count // len(keys))]
    for entry in entries[1:]:
        (folder / entry.name).write_bytes((folder / first.name).read_bytes())
    classes = ("bird",) if kind == "crops" else ()
    write_manifest(store, Manifest(kind, classes, fingerprint_of({}), {}, tuple(entries), complete=True))
    return folder


def memory_mb(process: int | str = "self") -> tuple[float, float]:
    """(own, all) resident MB now."""
    text = Path(f"/proc/{process}/status").read_text()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if " kB" in line}
    return kilobytes["RssAnon"] / 1024, kilobytes["VmRSS"] / 1024


def measure(crops: Path | None, backgrounds: Path, workers: int, config: StreamConfig) -> None:
    """Print one line of JSON: peak memory of this process and of its largest worker, scenes a second."""
    cv2.setNumThreads(1)
    before = memory_mb()
    if crops is None:
        return
    collection = CropCollection([ShardSet.open(crops)])
    stream = SyntheticStream(
        collection, ShardSet.open(backgrounds), CompositorConfig(size=96), {"bird": 1}, 0, config
    )
    peak, worker_peak = before, (0.0, 0.0)
    start = time.perf_counter()
    for step, _ in enumerate(batches(stream, _BATCH, 0, _SCENES // _BATCH, workers)):
        if step % 4 == 0:
            peak = max(peak[0], (now := memory_mb())[0]), max(peak[1], now[1])
            for child in multiprocessing.active_children() if workers else []:
                found = memory_mb(child.pid or "self")
                worker_peak = max(worker_peak[0], found[0]), max(worker_peak[1], found[1])
    seconds = time.perf_counter() - start
    shown = {"own": peak[0] - before[0], "all": peak[1] - before[1], "scenes_s": _SCENES / seconds}
    shown |= {"worker_own": worker_peak[0], "worker_all": worker_peak[1]}
    print(json.dumps({name: round(value) for name, value in shown.items()}))


class CountingStore(LocalStore):
    """A folder that counts the bytes of the shards it gives out."""

    given: ClassVar[list[int]] = []

    def view(self, name: str) -> memoryview:
        found = super().view(name)
        self.given.append(len(found))
        return found


def read_for_draws(folder: Path, scenes: int = 20_000) -> None:
    """What a process fetches where a shard is fetched whole, at two crops a scene."""
    draws, rng = 2 * 500, np.random.default_rng(0)
    found = ShardSet(CountingStore(folder), ShardSet.open(folder).manifest)
    for index in rng.integers(len(found), size=draws).tolist():
        found[index]
    whole = sum(CountingStore.given) / 500
    CountingStore.given.clear()
    config = StreamConfig()
    pool = RecordPool(CropCollection([found]), config.pool, config, [0])
    for block in range(scenes // config.block):
        pool.enter(block)
        for slot in rng.integers(len(pool), size=64).tolist():
            pool[slot]
    pooled = sum(CountingStore.given) / scenes
    print(f"fetched a scene: {whole / 1e6:.2f} MB from the whole set, {pooled / 1e6:.4f} MB from the pool")


def in_a_fresh_process(*args: object) -> None:
    process = multiprocessing.get_context("spawn").Process(target=measure, args=args)
    process.start()
    process.join()


def photos_again_and_again(folder: Path, count: int) -> None:
    """Rate of a finetune's stream with and without kept photos, taken in turn."""
    rng, photos = np.random.default_rng(1), []
    for i in range(count):
        path = folder / f"{i}.jpg"
        cv2.imwrite(str(path), textured(rng, 375, 500))
        photos.append(BoxedImage(str(i), path, 500, 375, make_target([[100, 100, 300, 300]])))
    rates: dict[int, list[float]] = {0: [], 64: []}
    streams = {mb: PhotoStream(photos, 300, AugmentConfig(), 0, mb) for mb in rates}
    for start in range(0, 6 * 5 * count, 5 * count):
        for mb, stream in streams.items():
            began = time.perf_counter()
            for index in range(start, start + 5 * count):
                stream[index]
            rates[mb].append(5 * count / (time.perf_counter() - began))
    without, kept = (max(rates[mb]) for mb in rates)
    print(f"{count} photos: {without:.0f} samples/s, decoded once {kept:.0f} ({kept / without:.2f}x)")


def main() -> None:
    counts = [int(text) for text in sys.argv[1:]] or [1000, 10_000, 200_000]
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="bench-stream-") as place:
        root = Path(place)
        backgrounds = make_set(root / "backgrounds", "backgrounds", 200)
        quick = StreamConfig(block=32)  # so that the scenes run through several passes of the smaller set
        for count in counts:
            crops = make_set(root / f"crops-{count}", "crops", count)
            megabytes = sum(path.stat().st_size for path in crops.iterdir()) / 1e6
            for workers in (0, 2):
                print(f"{count} crops, {megabytes:.0f} MB on disk, {workers} workers: ", end="", flush=True)
                in_a_fresh_process(crops, backgrounds, workers, quick)
        read_for_draws(crops)
        print("drawn from as a whole, its pages mapped: ", end="", flush=True)
        in_a_fresh_process(crops, backgrounds, 0, StreamConfig(pool=1 << 22))
        photos_again_and_again(root, 50)


if __name__ == "__main__":
    main()
