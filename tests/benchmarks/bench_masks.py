"""How well masks made without labels box birds: IoU of their boxes with the true ones of CUB-200-2011.

Run by hand: ``python tests/benchmarks/bench_masks.py CUB_FOLDER [KIND ...] [--set KEY=VALUE ...]``, for
example ``grabcut --set segmenter.rounds=3 quality.min_confidence=0.6``; settings hold for every kind named.
Each kind has two rows: all photos, and those that the gate keeps. Times are of one thread.
"""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from PIL import Image
from pydantic import SerializeAsAny

from configs.kinds import StrictModel, one_of
from configs.load import apply_overrides, validated
from factory.quality import QualityConfig, judge, solid_box
from factory.stages import ObjectImage, SegmenterConfig

Box = tuple[float, float, float, float]


class Trial(StrictModel):
    """What is measured."""

    segmenter: Annotated[SegmenterConfig, SerializeAsAny(), one_of("factory.segmenters", SegmenterConfig)]
    quality: QualityConfig = QualityConfig()


def read_cub(root: Path) -> list[tuple[ObjectImage, Box]]:
    """Photos with their true xyxy boxes, px."""
    names = dict(line.split() for line in (root / "images.txt").read_text().splitlines())
    photos = []
    for line in (root / "bounding_boxes.txt").read_text().splitlines():
        key, *numbers = line.split()
        x, y, width, height = map(float, numbers)
        with Image.open(root / "images" / names[key]) as photo:
            pixels = np.asarray(photo.convert("RGB"))
        photos.append((ObjectImage(names[key], pixels), (x, y, x + width, y + height)))
    return photos


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two xyxy boxes."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    shared = max(0.0, width) * max(0.0, height)
    total = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (total - shared)


def print_row(name: str, fits: np.ndarray, rest: str) -> None:
    """Mean IoU and how many boxes reach 0.5 and 0.75."""
    shares = (
        f"{fits.mean():8.3f} {np.mean(fits >= 0.5):7.1%} {np.mean(fits >= 0.75):7.1%}" if len(fits) else ""
    )
    print(f"{name:16} {len(fits):6} {shares:24}  {rest}")


def measure(trial: Trial, photos: list[tuple[ObjectImage, Box]]) -> None:
    """Print a kind's two rows."""
    segmenter = trial.segmenter.open(Path())
    started_s = time.process_time()
    masks = [segmenter.segment([photo])[0] for photo, _ in photos]
    spent_ms = (time.process_time() - started_s) / len(photos) * 1000
    boxes = (solid_box(found.mask) or (0, 0, 0, 0) for found in masks)
    fits = np.array([iou(box, true) for box, (_, true) in zip(boxes, photos, strict=True)])
    verdicts = [judge(found, trial.quality) for found in masks]
    reasons = Counter(verdict.reason for verdict in verdicts if not verdict.keep).most_common()
    dropped = ", ".join(f"{reason} {count}" for reason, count in reasons)
    print_row(f"{trial.segmenter.kind}, all", fits, f"{spent_ms:.1f} ms a photo")
    print_row(f"{trial.segmenter.kind}, kept", fits[[verdict.keep for verdict in verdicts]], dropped)


def main() -> None:
    """Measure the kinds named, or the two that need no weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="CUB_FOLDER", help="the folder that holds images.txt")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="default: grabcut whole")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="settings")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    photos = read_cub(arguments.root)
    print(f"{'':16} {'photos':>6} {'mean IoU':>8} {'>= 0.5':>7} {'>= 0.75':>7}")
    for kind in arguments.kinds or ["grabcut", "whole"]:
        settings = apply_overrides({"segmenter": {"kind": kind}}, arguments.settings)
        measure(validated(Trial, settings, kind), photos)


if __name__ == "__main__":
    main()
