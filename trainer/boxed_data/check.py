"""What a split of a boxed data set holds, and what in it is odd."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from configs.errors import InputError
from trainer.anchoring.boxes import pairwise_iou
from trainer.dataset import BoxedImage
from trainer.imaging.images import read_boxed_image, read_size

_OUTSIDE_PX = 0.5  # less is rounding
_SAME_IOU = 0.9
_LONG = 10.0  # one side of a box against the other
_WHOLE_SHARE = 0.99


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something found in many places. broken: training on it would fail, not only suffer."""

    what: str
    places: tuple[str, ...]
    broken: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SplitContent:
    """A split in numbers. Every array has one number an object that is not ignored, or one an image.

    counts: objects of each label, ignored ones aside. box_sides: the square root of a box's area, px.
    box_shares: a box's area as a share of its photo's. photo_sides: a photo's longer side, px.
    """

    images: int
    empty: int
    ignored: int
    counts: Mapping[int, int]
    box_sides: npt.NDArray[np.float64]
    box_shares: npt.NDArray[np.float64]
    objects_per_image: npt.NDArray[np.int64]
    photo_sides: npt.NDArray[np.int64]


def content_of(images: Sequence[BoxedImage]) -> SplitContent:
    """The numbers of a split."""
    kept = [image.target.boxes[~image.target.ignore] for image in images]
    labels = [image.target.labels[~image.target.ignore] for image in images]
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in kept]
    shares = [area / (image.width * image.height) for area, image in zip(areas, images, strict=True)]
    return SplitContent(
        images=len(images),
        empty=sum(not len(image.target) for image in images),
        ignored=sum(int(image.target.ignore.sum()) for image in images),
        counts=Counter(int(label) for each in labels for label in each),
        box_sides=np.sqrt(np.concatenate([np.zeros(0), *areas])),
        box_shares=np.concatenate([np.zeros(0), *shares]),
        objects_per_image=np.array([len(boxes) for boxes in kept], np.int64),
        photo_sides=np.array([max(image.width, image.height) for image in images], np.int64),
    )


@dataclass(slots=True)
class _Places:
    """Where each oddity was seen."""

    seen: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, place: str, count: int = 1) -> None:
        if count:
            self.seen[what] += [place] * count

    def oddities(self, broken: bool = False) -> list[Oddity]:
        return [Oddity(what, tuple(places), broken) for what, places in self.seen.items()]


def odd_boxes(images: Iterable[BoxedImage]) -> list[Oddity]:
    """Boxes that are out of their photo, lost, doubled, very long, or as large as their photo."""
    places = _Places()
    for image in images:
        boxes = image.target.boxes
        size = np.array([image.width, image.height])
        if image.annotated is not None:
            low, high = image.annotated[:, :2], image.annotated[:, 2:]
            outside = (np.maximum(-low, high - size) > _OUTSIDE_PX).any(axis=1)
            places.add("boxes that reach out of their photo (clipped)", image.key, int(outside.sum()))
            lost = len(image.annotated) - len(boxes)
            places.add("boxes with a side under 1 px inside their photo (dropped)", image.key, lost)
        places.add("boxes that stand twice (same class, IoU 0.9 or more)", image.key, _num_doubled(image))
        sides = boxes[:, 2:] - boxes[:, :2]
        long = (sides.max(axis=1) > _LONG * sides.min(axis=1)).sum() if len(sides) else 0
        places.add("boxes over 10 times as long as wide", image.key, int(long))
        whole = (sides.prod(axis=1) >= _WHOLE_SHARE * size.prod()).sum()
        places.add("boxes as large as their photo", image.key, int(whole))
    return places.oddities()


def odd_photos(images: Sequence[BoxedImage], decode: bool) -> list[Oddity]:
    """Photos of another size than annotated, and with ``decode`` those that cannot be read whole."""
    places = _Places()
    for image in images:
        try:
            if decode:
                read_boxed_image(image)
            elif read_size(image.path) != (image.width, image.height):
                places.add("photos of another size than annotated", image.key)
        except InputError as error:
            places.add("photos that cannot be used", str(error))
    return places.oddities(broken=True)


def doubled_photos(splits: Mapping[str, Sequence[BoxedImage]]) -> list[Oddity]:
    """Photos with the same bytes: within a split, and in two splits, where the second tells of the first."""
    owners: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    paths = {image.path for images in splits.values() for image in images}
    digests = _digests(paths)
    for split, images in splits.items():
        for image in images:
            if image.path in digests:
                owners[digests[image.path]].append((split, image.key))
    places = _Places()
    for found in owners.values():
        names = [f"{split}: {key}" for split, key in found]
        for number, (split, _) in enumerate(found[1:], start=1):
            apart = split != found[0][0]
            what = "in two splits" if apart else "twice in a split"
            places.add(what, f"{names[0]} = {names[number]}")
    return places.oddities()


def unlisted_photos(images: Iterable[BoxedImage]) -> list[Oddity]:
    """Files of the same sorts, in the same folders, that no split lists."""
    listed = {image.path for image in images}
    suffixes = {path.suffix.lower() for path in listed}
    files = (each for folder in sorted({path.parent for path in listed}) for each in sorted(folder.iterdir()))
    places = _Places()
    for path in files:
        if path.suffix.lower() in suffixes and path not in listed and not path.name.startswith("."):
            places.add("beside the listed ones, in no split", path.name)
    return places.oddities()


def _num_doubled(image: BoxedImage) -> int:
    """Boxes with an earlier one of their class in nearly the same place."""
    boxes, labels = torch.from_numpy(image.target.boxes), image.target.labels
    same = (pairwise_iou(boxes, boxes) >= _SAME_IOU).numpy() & (labels[:, None] == labels[None])
    return int(np.tril(same, -1).any(axis=1).sum())


def _digests(paths: set[Path]) -> dict[Path, bytes]:
    """Of each photo that could have a double. Files of a length of their own are not read."""
    lengths = _grouped(paths, lambda path: path.stat().st_size)
    alike = [path for group in lengths.values() if len(group) > 1 for path in group]
    digests = {path: hashlib.blake2b(path.read_bytes()).digest() for path in alike}
    alone = {path: str(path).encode() for group in lengths.values() if len(group) == 1 for path in group}
    return digests | alone


def _grouped(paths: Iterable[Path], key: Callable[[Path], int]) -> dict[int, list[Path]]:
    groups: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return groups
