"""How good masks made without labels are, on photos with true boxes and on scenes with exact opacities.

Run by hand, each kind with a weight file after a colon where it needs one:

    python tests/benchmarks/bench_masks.py cub CUB_FOLDER grabcut clustering redo:masks.safetensors whole
    python tests/benchmarks/bench_masks.py scenes grabcut clustering --set segmenter.max_iters=30

``cub``: IoU of the mask's box with the true one of CUB-200-2011. ``scenes``: cut-outs (PNG or WebP with
alpha) pasted on photos, IoU of the opacities, sum of the lesser over sum of the greater. Two rows a kind: all
images, and those that the gate keeps. Settings hold for every kind named. Times are of one thread.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from PIL import Image
from pydantic import SerializeAsAny

from configs.embedded import embedded
from configs.entry import run
from configs.errors import InputError
from configs.kinds import StrictModel, one_of
from configs.load import apply_overrides, validated
from factory.photos import list_photos, read_cut_out, read_photo
from factory.quality import QualityConfig, judge, solid_box
from factory.stages import ObjectImage, Segmentation, SegmenterConfig, UInt8Array
from shards.errors import ShardError
from shards.reader import ShardSet

Box = tuple[float, float, float, float]
Case = tuple[ObjectImage, Callable[[Segmentation], float]]  # an image, and how well a mask fits it, 0..1

_SCENE_PX = 192


class Trial(StrictModel):
    """What is measured."""

    segmenter: Annotated[SegmenterConfig, SerializeAsAny(), one_of("factory.segmenters", SegmenterConfig)]
    quality: QualityConfig = QualityConfig()


def read_cub(root: Path, split: str) -> Iterator[Case]:
    """Photos of a split (train, test or all), judged by their true boxes."""
    names, wanted = (
        dict(line.split() for line in (root / file).read_text().splitlines())
        for file in ("images.txt", "train_test_split.txt")
    )
    for line in (root / "bounding_boxes.txt").read_text().splitlines():
        key, *numbers = line.split()
        if split != "all" and (wanted[key] == "1") != (split == "train"):
            continue
        x, y, width, height = map(float, numbers)
        true = (x, y, x + width, y + height)
        with Image.open(root / "images" / names[key]) as photo:
            pixels = np.asarray(photo.convert("RGB"))
        yield ObjectImage(names[key], pixels), lambda found, true=true: box_iou(_box_of(found.mask), true)


def make_scenes(cut_outs: Path, backgrounds: Path, per_cut_out: int) -> Iterator[Case]:
    """Each cut-out on so many photos, 40 to 80 % of the frame, near its centre, judged by its exact opacity.

    Raises InputError where a cut-out is opaque everywhere.
    """
    photos = list(_read_backgrounds(backgrounds))
    for number, path in enumerate(list_photos(cut_outs)):
        pixels, alpha = read_cut_out(path, _SCENE_PX)
        if alpha is None:
            raise InputError(f"{path}: opaque everywhere, wanted a cut-out with alpha")
        rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
        tight = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for turn in range(per_cut_out):
            rng = np.random.default_rng([number, turn])
            photo = photos[int(rng.integers(len(photos)))]
            scene, true = _paste(pixels[tight], alpha[tight], photo, rng)
            name = f"{path.name}-{turn}"
            yield ObjectImage(name, scene), lambda found, true=true: opacity_iou(found.mask, true)


def _read_backgrounds(location: Path) -> Iterator[UInt8Array]:
    if (location / "manifest.json").is_file():
        yield from (record.image for record in ShardSet.open(location).stream())
    else:
        yield from (read_photo(path, 480) for path in list_photos(location))


def _paste(
    pixels: UInt8Array, alpha: UInt8Array, photo: UInt8Array, rng: np.random.Generator
) -> tuple[UInt8Array, UInt8Array]:
    """A square scene and the object's opacity in it."""
    side = min(photo.shape[:2])
    top, left = (int(rng.integers(room - side + 1)) for room in photo.shape[:2])
    square = photo[top : top + side, left : left + side]
    scene = cv2.resize(square, (_SCENE_PX, _SCENE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    scale = rng.uniform(0.4, 0.8) * _SCENE_PX / max(alpha.shape)
    width, height = (max(2, round(length * scale)) for length in alpha.shape[::-1])
    share = alpha.astype(np.float32) / 255
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    weighted = cv2.resize(pixels * share[..., None], (width, height), interpolation=how)
    share = cv2.resize(share, (width, height), interpolation=how)
    y, x = (
        round((_SCENE_PX - length) * float(np.clip(rng.normal(0.5, 0.15), 0, 1)))
        for length in (height, width)
    )
    place = np.s_[y : y + height, x : x + width]
    scene[place] = weighted + (1 - share[..., None]) * scene[place]
    true = np.zeros((_SCENE_PX, _SCENE_PX), np.float32)
    true[place] = share * 255
    return np.round(scene).astype(np.uint8), np.round(true).astype(np.uint8)


def _box_of(mask: UInt8Array) -> Box:
    return solid_box(mask) or (0, 0, 0, 0)


def box_iou(one: Box, other: Box) -> float:
    """Intersection over union of two xyxy boxes."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    shared = max(0.0, width) * max(0.0, height)
    total = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (total - shared)


def opacity_iou(mask: UInt8Array, true: UInt8Array) -> float:
    """Sum of the lesser opacities over sum of the greater."""
    return float(np.minimum(mask, true).sum(dtype=np.int64) / np.maximum(mask, true).sum(dtype=np.int64))


def measure(trial: Trial, cases: list[Case], name: str) -> None:
    """Print a kind's two rows."""
    segmenter = trial.segmenter.open(Path())
    started_s = time.process_time()
    masks = [segmenter.segment([image])[0] for image, _ in cases]
    spent_ms = (time.process_time() - started_s) / len(cases) * 1000
    fits = np.array([fit(found) for found, (_, fit) in zip(masks, cases, strict=True)])
    verdicts = [judge(found, trial.quality) for found in masks]
    reasons = Counter(verdict.reason for verdict in verdicts if not verdict.keep).most_common()
    dropped = ", ".join(f"{reason} {count}" for reason, count in reasons)
    print_row(f"{name}, all", fits, f"{spent_ms:.1f} ms an image")
    print_row(f"{name}, kept", fits[[verdict.keep for verdict in verdicts]], dropped)


def print_row(name: str, fits: np.ndarray, rest: str) -> None:
    """Mean IoU and how many reach 0.5 and 0.75."""
    shares = (
        f"{fits.mean():8.3f} {np.mean(fits >= 0.5):7.1%} {np.mean(fits >= 0.75):7.1%}" if len(fits) else ""
    )
    print(f"{name:28} {len(fits):6} {shares:24}  {rest}", flush=True)


def main(argv: list[str]) -> None:
    """Measure the kinds named, or the three that need no weights."""
    args = _parse(argv)
    cv2.setNumThreads(1)
    if args.what == "cub":
        cases = list(islice(read_cub(args.root, args.split), 0, None, args.every))
    else:
        cut_outs, photos = args.cutouts or embedded("cutouts"), args.backgrounds or embedded("backgrounds")
        cases = list(islice(make_scenes(cut_outs, photos, args.per_cutout), 0, None, args.every))
    print(f"{'':28} {'images':>6} {'mean IoU':>8} {'>= 0.5':>7} {'>= 0.75':>7}")
    for named in args.kinds or ["grabcut", "clustering", "whole"]:
        kind, _, weights = named.partition(":")
        chosen = [f"segmenter.weights={weights}"] if weights else []
        settings = apply_overrides({"segmenter": {"kind": kind}}, [*chosen, *args.settings])
        measure(validated(Trial, settings, kind), cases, f"{kind} {Path(weights).stem}".strip())


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = parser.add_subparsers(dest="what", required=True)
    cub, scenes = choices.add_parser("cub"), choices.add_parser("scenes")
    cub.add_argument("root", type=Path, metavar="CUB_FOLDER", help="the folder that holds images.txt")
    cub.add_argument("--split", choices=["train", "test", "all"], default="all")
    scenes.add_argument("--cutouts", type=Path, help="folder of cut-outs with alpha [the embedded ones]")
    scenes.add_argument("--backgrounds", type=Path, help="folder of photos, or a set [the embedded ones]")
    scenes.add_argument("--per-cutout", type=int, default=4, help="scenes of each cut-out [4]")
    for choice in (cub, scenes):
        choice.add_argument("kinds", nargs="*", metavar="KIND[:WEIGHTS]", help="[grabcut clustering whole]")
        choice.add_argument("--every", type=int, default=1, help="measure only every Nth image [1]")
        choice.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="settings")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main, ShardError)
