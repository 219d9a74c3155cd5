"""Shards against webdataset: ``python tests/benchmarks/bench_shards.py [--photos DIR] [--crops N]``.

Both sides do the same work on the same crops, one thread: encode, pack and write; read and decode. webdataset
writes with its default tar writer and Pillow and reads with ``decode("rgb8")``. Ours also syncs and hashes
what it writes and checks what it reads. Only the ratios inside one run mean much.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image, ImageDraw, ImageFilter

from shards.manifest import Manifest, ShardEntry, shard_name, write_manifest
from shards.reader import ShardSet
from shards.records import CropRecord
from shards.store import open_store
from shards.writer import write_shard

REPEATS = 5


def make_crops(count: int, photos: Path | None) -> list[CropRecord]:
    """Ellipses with soft edges, some 150 px, cut from photos, or from smooth noise without any."""
    random = np.random.default_rng(0)
    files = (
        sorted(p for p in photos.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"}) if photos else []
    )
    crops = []
    for index in range(count):
        width, height = (int(side) for side in random.integers(100, 177, 2))
        if files:
            with Image.open(files[index % len(files)]) as photo:
                image = photo.convert("RGB").resize((width, height))
        else:
            image = Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8)).resize((width, height))
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).ellipse((8, 8, width - 8, height - 8), fill=255)
        soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(1.5)))
        crops.append(CropRecord(f"c{index:08d}", "bird", np.asarray(image), soft, {"slot": index}))
    return crops


def pillow_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def write_with_webdataset(path: Path, crops: list[CropRecord]) -> None:
    with webdataset.TarWriter(str(path)) as writer:  # what ShardWriter uses for each shard
        for crop in crops:
            height, width = crop.mask.shape
            facts = {"label": crop.label, "origin": crop.origin, "width": width, "height": height}
            rgb, alpha = pillow_jpeg(crop.image, 90), pillow_jpeg(crop.mask, 95)
            writer.write({"__key__": crop.key, "rgb.jpg": rgb, "alpha.jpg": alpha, "json": facts})


def seconds(work: Callable[[], object]) -> float:
    """Median of five runs after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def drain(samples: object) -> int:
    return sum(1 for _ in samples)  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--crops", type=int, default=500)
    options = parser.parse_args()
    crops = make_crops(options.crops, options.photos)
    order = np.random.default_rng(1).permutation(len(crops)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        store, theirs = open_store(folder), Path(folder) / "webdataset.tar"
        written: list[ShardEntry] = []
        write_s = {
            "webdataset + Pillow": seconds(lambda: write_with_webdataset(theirs, crops)),
            "write_shard": seconds(lambda: written.append(write_shard(store, shard_name("crops", 0), crops))),
        }
        write_manifest(store, Manifest("crops", ("bird",), "bench", {}, (written[-1],), True))
        ours = ShardSet.open(folder)
        read_s = {
            "webdataset decode('rgb8')": seconds(
                lambda: drain(webdataset.WebDataset(str(theirs), shardshuffle=False).decode("rgb8"))
            ),
            "ShardSet.stream": seconds(lambda: drain(ours.stream())),
            "ShardSet[i], random order": seconds(lambda: drain(ours[i] for i in order)),
        }
        sizes = theirs.stat().st_size / len(crops), written[-1].bytes / len(crops)
        manifest = Manifest("crops", ("bird",), "bench", {}, million_records(), True)
        write_manifest(open_store(f"{folder}/million"), manifest)
        open_s = seconds(lambda: len(ShardSet.open(f"{folder}/million")))
    for title, table in (("write", write_s), ("read", read_s)):
        baseline = next(iter(table.values()))
        for name, spent in table.items():
            print(f"{title:<6}{name:<28}{len(crops) / spent:9.0f} crops/s{baseline / spent:7.1f} x")
    print(f"bytes a crop in the tar: webdataset {sizes[0]:.0f}, ours {sizes[1]:.0f}")
    print(f"opening a set of 1,000,000 records in 1000 shards: {open_s * 1e3:.0f} ms")


def million_records() -> tuple[ShardEntry, ...]:
    return tuple(
        ShardEntry(shard_name("crops", i), 1000, 10**7, "0" * 64, {"bird": 1000}) for i in range(1000)
    )


if __name__ == "__main__":
    main()
