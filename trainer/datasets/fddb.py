"""FDDB (Jain and Learned-Miller 2010): ten folds of photos, each face an ellipse."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from configs.errors import InputError
from trainer.boxed_data.annotations import (
    BoxList,
    check_photos,
    check_split,
    find_root,
    log_dropped,
    parse_count,
    parse_number,
    read_text,
)
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.imaging.images import read_size
from trainer.metrics.fddb import ellipse_boxes


class FddbConfig(DatasetConfig):
    """The folder that holds the lists of faces and the photos; a face's box is the tight one of its ellipse.

    folds: the folder of ``FDDB-fold-XX-ellipseList.txt``, under root.
    images: the folder that ``2002`` and ``2003`` were unpacked to, under root.
    splits: the folds of each split. The defaults are the paper's.
    """

    kind: Literal["fddb"] = "fddb"
    folds: str = "FDDB-folds"
    images: str = "originalPics"
    splits: Mapping[str, tuple[int, ...]] = {"train": (1, 2, 3, 4, 5), "val": (6, 7), "test": (8, 9, 10)}

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """See `DatasetConfig.read`. Order: the folds', one after the other."""
        if len(classes) != 1:
            raise InputError(f"fddb: {len(classes)} classes, wanted the one name that all of its faces get")
        root = find_root(self.root, home)
        check_split(root, split, self.splits)
        faces: dict[str, BoxList] = {}
        for fold in self.splits[split]:
            faces |= _read_fold(root / self.folds / f"FDDB-fold-{fold:02d}-ellipseList.txt")
        photos = {name: root / self.images / f"{name}.jpg" for name in faces}
        check_photos(list(photos.values()), "FDDB's photos")
        images = [faces[name].on_photo(name, path, *read_size(path)) for name, path in photos.items()]
        log_dropped(root, split, images)
        return images

    def split_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.split_names`."""
        return list(self.splits)


def _read_fold(path: Path) -> dict[str, BoxList]:
    """The faces of each photo: its name, a count, and a line ``major minor angle x y 1`` a face."""
    lines = read_text(path, "FDDB's ellipses").splitlines()
    faces: dict[str, BoxList] = {}
    at = 0
    while at < len(lines):
        name = lines[at].strip()
        at += 1
        if not name:
            continue
        count = _count(lines, at, path)
        if name in faces:
            raise InputError(f"{path}:{at}: photo {name} again, wanted each photo once")
        faces[name] = BoxList()
        for number, line in enumerate(lines[at + 1 : at + 1 + count], start=at + 2):
            faces[name].add(_read_ellipse(line, f"{path}:{number}"), label=1)
        at += 1 + count
    return faces


def _count(lines: Sequence[str], at: int, path: Path) -> int:
    text = lines[at].strip() if at < len(lines) else "the file's end"
    count = parse_count(text)
    if count is None or at + count >= len(lines):
        raise InputError(f"{path}:{at + 1}: found {text}, wanted how many lines of ellipses follow")
    return count


def _read_ellipse(line: str, place: str) -> tuple[float, float, float, float]:
    values = [parse_number(text, place) for text in line.split()]
    if len(values) not in (5, 6) or min(values[:2]) < 0:
        raise InputError(f"{place}: {line!r}, wanted major and minor half-axis, angle, centre x and y, 1")
    x0, y0, x1, y1 = ellipse_boxes(values[:5])[0].tolist()
    return x0, y0, x1, y1
