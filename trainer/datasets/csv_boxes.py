"""A table of boxes: a CSV file with a line an object, photos in a folder."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from configs.errors import InputError
from trainer.boxed_data.annotations import (
    BoxList,
    check_class,
    check_photos,
    check_split,
    find_root,
    log_dropped,
    parse_number,
    read_text,
)
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.imaging.images import read_size

_SIDES = ("x0", "y0", "x1", "y1")
_TRUTH = {"1": True, "true": True, "0": False, "false": False, "": False}


class CsvBoxesConfig(DatasetConfig):
    """Columns ``file,x0,y0,x1,y1``, and where there are such ``label`` and ``ignore`` (0, 1, false, true).

    Boxes are xyxy pixels, edges counted from 0. A line with a file and no numbers is an image without
    objects. Without labels every box gets the single class asked for.

    annotations: the CSV file of each split, under root. images: the folder of the photos, under root.
    columns: other names of columns, ``{file: image_id, x0: xmin, …}``.
    """

    kind: Literal["csv_boxes"] = "csv_boxes"
    annotations: Mapping[str, str] = {"all": "boxes.csv"}
    images: str = "images"
    columns: Mapping[str, str] = {}

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """See `DatasetConfig.read`. Order: the files' first lines."""
        root = find_root(self.root, home)
        check_split(root, split, self.annotations)
        path = root / self.annotations[split]
        objects = self._objects(path, classes)
        photos = {name: root / self.images / name for name in objects}
        check_photos(list(photos.values()), f"the photos of {path}")
        images = [
            boxes.on_photo(Path(name).with_suffix("").as_posix(), photos[name], *read_size(photos[name]))
            for name, boxes in objects.items()
        ]
        log_dropped(path, split, images)
        return images

    def _objects(self, path: Path, classes: Sequence[str]) -> dict[str, BoxList]:
        """The objects of each file's name."""
        rows = list(self._rows(path))
        named = {row["label"] for _, row in rows if row.get("label")}
        if not named and len(classes) != 1:
            raise InputError(f"{path}: no labels, {len(classes)} classes, wanted one")
        if named and not named & set(classes):
            check_class(path, next(iter(classes), ""), named)
        labels = {name: label for label, name in enumerate(classes, start=1)}
        objects: dict[str, BoxList] = {}
        for place, row in rows:
            found = objects.setdefault(row["file"], BoxList())
            box, ignored = _box(row, place), _flag(row, place)
            if box and named and not row.get("label"):
                raise InputError(f"{place}: no label, wanted one, as other lines have")
            label = labels.get(row["label"], 0) if named else 1
            if box and label:
                found.add(box, label, ignored)
        return objects

    def split_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.split_names`."""
        return list(self.annotations)

    def class_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.class_names`: every label of every file, sorted."""
        root = find_root(self.root, home)
        paths = [root / name for name in self.annotations.values()]
        return sorted({row["label"] for path in paths for _, row in self._rows(path) if row.get("label")})

    def _rows(self, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
        """Place and values by our names of columns, of each line."""
        lines = _lines(path)
        header = [name.strip() for name in next(lines, (1, []))[1]]
        theirs = {name: self.columns.get(name, name) for name in ("file", *_SIDES, "label", "ignore")}
        for name in ("file", *_SIDES):
            if theirs[name] not in header:
                raise InputError(f"{path}:1: no column '{theirs[name]}', wanted {', '.join(theirs.values())}")
        for number, line in lines:
            if not line:
                continue
            place = f"{path}:{number}"
            if len(line) != len(header):
                raise InputError(f"{place}: {len(line)} values, wanted {len(header)} as in line 1")
            values = dict(zip(header, (text.strip() for text in line), strict=True))
            yield place, {ours: values[name] for ours, name in theirs.items() if name in values}


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and values of each line."""
    lines = csv.reader(read_text(path, "a CSV file of boxes").splitlines())
    try:
        for values in lines:
            yield lines.line_num, values
    except csv.Error as error:
        raise InputError(f"{path}:{lines.line_num}: {error}, wanted a CSV file of boxes") from error


def _box(row: Mapping[str, str], place: str) -> list[float] | None:
    """The corners; None where no number is given."""
    if not row["file"]:
        raise InputError(f"{place}: no file, wanted a photo's")
    texts = [row[side] for side in _SIDES]
    return [parse_number(text, place) for text in texts] if any(texts) else None


def _flag(row: Mapping[str, str], place: str) -> bool:
    text = row.get("ignore", "").lower()
    if text not in _TRUTH:
        raise InputError(f"{place}: ignore is {text!r}, wanted 0, 1, false or true")
    return _TRUTH[text]
