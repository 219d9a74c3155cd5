"""How many changed pictures the leak audit finds again, and how many others it takes for them.

Run by hand, on CUB-200-2011's layout and a set of crops of its photos (a copy of them in one flat folder):

    python -m factory.build --class birds-photos source.root=PHOTOS crops=100 --out CROPS
    python tests/benchmarks/bench_audit.py CUB_FOLDER CROPS

A row for each change: the share found at the audit's threshold, and how many wrong pairs of how many.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from shards.reader import ShardSet
from shards.records import CropRecord
from trainer.auditing.near_duplicates import Gallery, Print, compare, crop_print, photo_print
from trainer.dataset import BoxedImage
from trainer.datasets.cub import CubConfig
from trainer.imaging.images import read_image
from trainer.sample import UInt8Array

Frame = tuple[int, int, int, int]  # width, height of the source photo; x, y of the crop in it
_EVERY = 6  # photos that are changed; all are searched


def coded_anew(image: UInt8Array, quality: int = 50) -> UInt8Array:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def halved(image: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def mirrored(image: UInt8Array) -> UInt8Array:
    return np.ascontiguousarray(image[:, ::-1])


def cropped(image: UInt8Array, most: float, rng: np.random.Generator) -> UInt8Array:
    """Each side by up to ``most`` of the photo's."""
    height, width = image.shape[:2]
    left, right, top, bottom = rng.uniform(0, most, 4)
    rows = slice(int(top * height), height - int(bottom * height))
    return np.ascontiguousarray(image[rows, int(left * width) : width - int(right * width)])


def frame_of(record: CropRecord) -> Frame:
    width, height, x, y = (int(record.origin[name]) for name in ("frame_w", "frame_h", "frame_x", "frame_y"))
    return width, height, x, y


def windowed(record: CropRecord, window: tuple[float, float, float, float]) -> Print | None:
    """The print of a crop whose photo was cropped to ``window``, xyxy px of the frame, before."""
    width, height, x, y = frame_of(record)
    x0, y0 = max(0, int(window[0])), max(0, int(window[1]))
    x1, y1 = min(width, int(window[2])), min(height, int(window[3]))
    rows = slice(max(0, y0 - y), max(0, y1 - y))
    columns = slice(max(0, x0 - x), max(0, x1 - x))
    image, mask = record.image[rows, columns], record.mask[rows, columns]
    if min(image.shape[:2]) < 5:
        return None
    frame = (x1 - x0, y1 - y0, max(0, x - x0), max(0, y - y0))
    return crop_print(np.ascontiguousarray(image), np.ascontiguousarray(mask), frame)


def around_box(record: CropRecord, photo: BoxedImage, rng: np.random.Generator) -> Print | None:
    """As if somebody had cropped the photo to its box with 0 to 15 % of margin."""
    x0, y0, x1, y1 = photo.target.boxes[0] * frame_of(record)[0] / photo.width
    left, top, right, bottom = rng.uniform(0, 0.15, 4)
    w, h = x1 - x0, y1 - y0
    return windowed(record, (x0 - left * w, y0 - top * h, x1 + right * w, y1 + bottom * h))


def shrunk(record: CropRecord, rng: np.random.Generator) -> Print | None:
    """As if the photo had lost up to 5 % of each side."""
    width, height, *_ = frame_of(record)
    left, top, right, bottom = rng.uniform(0, 0.05, 4)
    return windowed(record, (left * width, top * height, width - right * width, height - bottom * height))


def report(name: str, prints: Sequence[Print | None], sources: Sequence[int], gallery: Gallery, read) -> None:
    found = compare(prints, gallery, read)
    right = {copy.query for copy in found.copies if copy.photo == sources[copy.query]}
    wrong = sum(copy.photo != sources[copy.query] for copy in found.copies)
    pairs = len(prints) * (len(gallery) - 1)
    print(f"{name:42} found {len(right) / len(prints):4.0%}, wrong {wrong} of {pairs:,}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cub", type=Path, metavar="CUB_FOLDER")
    parser.add_argument("crops", type=Path, metavar="CROPS")
    args = parser.parse_args()
    config = CubConfig(root=args.cub)
    photos = [photo for split in ("train", "test") for photo in config.read(split, ["bird"], Path())]
    images = [read_image(photo.path) for photo in photos]
    rng = np.random.default_rng(5)
    changes: dict[str, Callable[[UInt8Array], UInt8Array]] = {
        "coded anew, quality 50": coded_anew,
        "half the size": halved,
        "brighter": lambda image: np.clip(image * 1.2 + 15, 0, 255).astype(np.uint8),
        "mirrored": mirrored,
        "cropped by up to 5 %": lambda image: cropped(image, 0.05, rng),
        "the same, mirrored, halved, coded anew": lambda image: coded_anew(
            halved(mirrored(cropped(image, 0.05, rng)))
        ),
        "cropped by up to 10 %": lambda image: cropped(image, 0.1, rng),
    }
    whole = Gallery((image, photo.target.boxes[:0]) for image, photo in zip(images, photos, strict=True))
    chosen = range(0, len(images), _EVERY)
    for name, change in changes.items():
        prints = [photo_print(change(images[i])) for i in chosen]
        report(name, prints, chosen, whole, images.__getitem__)
    boxed = Gallery((image, photo.target.boxes) for image, photo in zip(images, photos, strict=True))
    number = {photo.path.name: i for i, photo in enumerate(photos)}
    records = list(ShardSet.open(args.crops).stream())
    sources = [number[Path(str(record.origin["file"])).name] for record in records]
    cut_out = [crop_print(record.image, record.mask, frame_of(record)) for record in records]
    report("object cut out", cut_out, sources, boxed, images.__getitem__)
    prints = [shrunk(record, rng) for record in records]
    report("object cut out after up to 5 % were cropped", prints, sources, boxed, images.__getitem__)
    prints = [around_box(record, photos[i], rng) for record, i in zip(records, sources, strict=True)]
    report("object cut out of box + 0-15 %", prints, sources, boxed, images.__getitem__)


if __name__ == "__main__":
    main()
