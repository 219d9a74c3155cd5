"""Shards against webdataset: ``python tests/benchmarks/bench_shards.py [--photos DIR] [--sides 64 140]``.

The same crops on one core, every row in turn and the best of some rounds: a busy machine moves the figures,
so only the ratios inside one table mean much. webdataset works the stock way: Pillow makes ``jpg`` (quality
and sampling as ours) and ``png``, `ShardWriter` packs them, ``decode("rgb8")`` reads them. Ours also hashes
and syncs what it writes, and checks what it reads.

First the same pixels in both, cut and flattened by us; then the same frames: an image with its mask, as a
generator gives them, which webdataset's users store as they are and the factory cuts.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image, ImageDraw, ImageFilter

from factory.crops import CropConfig, cut, flatten
from factory.stages import ObjectImage, Segmentation
from shards.codec import ALPHA_QUALITY, RGB_QUALITY, encode
from shards.manifest import Manifest, ShardEntry, shard_name, write_manifest
from shards.reader import ShardSet
from shards.records import CropRecord
from shards.store import Store, open_store
from shards.writer import pack_shard, pack_tar, write_shard

SHARDS = 4
MARGIN_PX = FEATHER_PX = 4  # as the factory cuts
Members = dict[str, bytes]


def make_crops(count: int, side: int, photos: Path | None, outside: str) -> list[CropRecord]:
    """Ellipses with soft edges, ``side`` px give or take a quarter, cut from photos or from smooth noise.

    outside: "flat" as the factory cuts (one colour away from the object) or "keep".
    """
    random = np.random.default_rng(0)
    files = (
        sorted(p for p in photos.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"}) if photos else []
    )
    crops = []
    for index in range(count):
        width, height = (int(side) for side in random.integers(side * 3 // 4, side * 5 // 4 + 1, 2))
        if files:
            with Image.open(files[index % len(files)]) as photo:
                image = photo.convert("RGB").resize((width, height))
        else:
            image = Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8)).resize((width, height))
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).ellipse((MARGIN_PX, MARGIN_PX, width - MARGIN_PX, height - MARGIN_PX), fill=255)
        soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(1.5)))
        pixels = flatten(np.asarray(image), soft, FEATHER_PX) if outside == "flat" else np.asarray(image)
        crops.append(CropRecord(f"c{index:08d}", "bird", pixels, soft, {"source": "bench", "slot": index}))
    return crops


def make_frames(count: int, side: int, photos: Path | None) -> tuple[list[CropRecord], list[CropRecord]]:
    """Square frames whose objects cover about 27 %, whole, and as the factory cuts them."""
    random = np.random.default_rng(0)
    whole = []
    for crop in make_crops(count, side, photos, "keep"):
        axes = side * np.sqrt(0.27 / np.pi) * random.uniform(0.85, 1.15, 2)
        centre = side / 2 + random.uniform(-0.1, 0.1, 2) * side
        mask = Image.new("L", (side, side))
        ImageDraw.Draw(mask).ellipse((*(centre - axes), *(centre + axes)), fill=255)
        soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(1.5)))
        pixels = np.asarray(Image.fromarray(crop.image).resize((side, side)))
        whole.append(CropRecord(crop.key, crop.label, pixels, soft, crop.origin))
    config = CropConfig(max_side_px=side)
    tight = [
        cut(crop.key, crop.label, ObjectImage(crop.key, crop.image), Segmentation(crop.mask, 1.0), config, {})
        for crop in whole
    ]
    return whole, tight


def pillow_bytes(pixels: np.ndarray, kind: str, **settings: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


def pillow_members(crop: CropRecord, *, opacity: str) -> Members:
    """opacity: "png", the stock way, or "alpha.jpg", our members."""
    height, width = crop.mask.shape
    facts = {"label": crop.label, "origin": dict(crop.origin), "width": width, "height": height}
    rgb = pillow_bytes(crop.image, "JPEG", quality=RGB_QUALITY, subsampling=0)
    text = json.dumps(facts).encode()
    if opacity == "png":
        return {"jpg": rgb, "png": pillow_bytes(crop.mask, "PNG"), "json": text}
    return {"rgb.jpg": rgb, "alpha.jpg": pillow_bytes(crop.mask, "JPEG", quality=ALPHA_QUALITY), "json": text}


def write_with_webdataset(folder: Path, samples: Callable[[], Iterator[tuple[str, Members]]]) -> None:
    """SHARDS times the samples, a shard each."""
    for shard in range(SHARDS):
        with webdataset.ShardWriter(f"{folder}/theirs-%06d.tar", start_shard=shard, verbose=0) as writer:
            for key, members in samples():
                writer.write({"__key__": key, **members})


def write_behind(store: Store, crops: list[CropRecord]) -> None:
    """Each shard is synced by a thread while the next one is encoded, as a job does."""
    with ThreadPoolExecutor(1) as thread:
        writes = []
        for shard in range(SHARDS):
            name = shard_name("crops", shard)
            _, packed = pack_shard(name, crops)
            writes.append(thread.submit(store.write, name, packed))
        for write in writes:
            write.result()


def pack_and_write(place: Store | Path, samples: list[tuple[str, Members]]) -> None:
    """place: a store syncs what it writes; a file, as webdataset writes, does not."""
    for shard in range(SHARDS):
        packed = pack_tar(named(samples))
        if isinstance(place, Path):
            place.write_bytes(packed)
        else:
            place.write(shard_name("crops", shard), packed)


def named(samples: list[tuple[str, Members]]) -> Iterator[tuple[str, bytes]]:
    return ((f"{key}.{extension}", data) for key, group in samples for extension, data in group.items())


def read_with_webdataset(folder: Path, stem: str) -> int:
    urls = [str(path) for path in sorted(folder.glob(f"{stem}-*.tar"))]
    return drain(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))


def drain(samples: object) -> int:
    return sum(1 for _ in samples)  # type: ignore[attr-defined]


def best_seconds(rows: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The best of the rounds of each row; one more round before them warms up."""
    best = dict.fromkeys(rows, float("inf"))
    for turn in range(rounds + 1):
        for name, work in rows.items():
            start = time.perf_counter()
            work()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def report(title: str, rows: dict[str, Callable[[], object]], crops: int, rounds: int) -> None:
    """Prints crops/s of each row and how many times the first row's rate that is."""
    best = best_seconds(rows, rounds)
    baseline = next(iter(best.values()))
    for name, spent in best.items():
        print(f"{title:<7}{name:<44}{crops / spent:9.0f} crops/s{baseline / spent:7.1f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--outside", choices=["flat", "keep"], default="flat")
    parser.add_argument(
        "--sides", type=int, nargs="*", default=[64, 140], help="64: the embedded generators'"
    )
    parser.add_argument("--frames", type=int, nargs="*", default=[64, 128, 256], help="their sides")
    parser.add_argument("--crops", type=int, default=500, help="in a shard")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for side in options.sides:
        print(f"crops of {side} px")
        crops = make_crops(options.crops, side, options.photos, options.outside)
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), crops, crops, options.rounds)
    for side in options.frames:
        print(f"frames of {side} px")
        whole, tight = make_frames(options.crops, side, options.photos)
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), whole, tight, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        measure_opening(folder)


def measure(folder: Path, theirs: list[CropRecord], crops: list[CropRecord], rounds: int) -> None:
    """theirs: what webdataset stores of the same objects."""
    stock, ours = folder / "stock", folder / "ours"
    stock.mkdir()
    store, total = open_store(ours), SHARDS * len(crops)

    def pillow(opacity: str) -> Callable[[], Iterator[tuple[str, Members]]]:
        return lambda: ((crop.key, pillow_members(crop, opacity=opacity)) for crop in theirs)

    def write_all() -> list[ShardEntry]:
        return [write_shard(store, shard_name("crops", shard), crops) for shard in range(SHARDS)]

    writers: dict[str, Callable[[], object]] = {
        "ShardWriter + Pillow jpg, png": lambda: write_with_webdataset(stock, pillow("png")),
        "ShardWriter + Pillow, our members": lambda: write_with_webdataset(folder, pillow("alpha.jpg")),
        "write_shard (sha256, fsync)": write_all,
        "pack_shard, write behind (sha256, fsync)": lambda: write_behind(store, crops),
    }
    report("write", writers, total, rounds)
    encoded = [(crop.key, encode(crop)) for crop in crops]
    packers: dict[str, Callable[[], object]] = {
        "ShardWriter, bytes given": lambda: write_with_webdataset(folder, lambda: iter(encoded)),
        "pack_tar, store.write (fsync)": lambda: pack_and_write(store, encoded),
        "pack_tar, plain write": lambda: pack_and_write(folder / "plain.tar", encoded),
    }
    report("pack", packers, total, rounds)
    write_manifest(store, Manifest("crops", ("bird",), "bench", {}, tuple(write_all()), True))
    crop_set = ShardSet.open(ours)
    order = np.random.default_rng(1).permutation(len(crop_set)).tolist()
    readers: dict[str, Callable[[], object]] = {
        "decode('rgb8') of jpg, png": lambda: read_with_webdataset(stock, "theirs"),
        "decode('rgb8') of our set": lambda: read_with_webdataset(ours, "crops"),
        "ShardSet.stream": lambda: drain(crop_set.stream()),
        "ShardSet[i], random order": lambda: drain(crop_set[i] for i in order),
    }
    report("read", readers, total, rounds)
    sizes = (sum(path.stat().st_size for path in place.glob("*.tar")) / total for place in (stock, ours))
    print("bytes a crop in the tar: webdataset's jpg, png {:.0f}, ours {:.0f}".format(*sizes))


def measure_opening(location: str) -> None:
    manifest = Manifest("crops", ("bird",), "bench", {}, million_records(), True)
    write_manifest(open_store(location), manifest)
    (opening_s,) = best_seconds({"": lambda: len(ShardSet.open(location))}, 5).values()
    print(f"opening a set of 1,000,000 records in 1000 shards: {opening_s * 1e3:.0f} ms")


def million_records() -> tuple[ShardEntry, ...]:
    return tuple(
        ShardEntry(shard_name("crops", i), 1000, 10**7, "0" * 64, {"bird": 1000}) for i in range(1000)
    )


if __name__ == "__main__":
    main()
