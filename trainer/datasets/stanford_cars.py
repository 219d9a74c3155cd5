"""Stanford Cars (Krause et al. 2013) as it is distributed: one boxed car a photo, MATLAB's tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from configs.errors import InputError
from trainer.boxed_data.annotations import (
    BoxList,
    check_photos,
    check_split,
    find_root,
    log_dropped,
    parse_number,
)
from trainer.boxed_data.matlab import read_mat
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.imaging.images import read_size

_SIDES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


class StanfordCarsConfig(DatasetConfig):
    """The folder that holds one of the two distributions, its tables there or in ``devkit``.

    Either ``cars_train_annos.mat``, ``cars_test_annos.mat`` (or ``…_withlabels.mat``) and the photos in
    ``cars_train``, ``cars_test``; or ``cars_annos.mat`` and ``car_ims``, with other names in another order.
    The models are not told apart: every box gets the label of the single class asked for.

    val: how many of the training table's first photos are the split ``val``; the paper's split has 1000.
    one_based: the corners are numbers of the first and last pixel counted from 1, so a box covers ``x1 - 1``
        to ``x2``. Off: they are edges, counted from 0, as the paper took them.
    """

    kind: Literal["stanford_cars"] = "stanford_cars"
    val: int = Field(default=0, ge=0)
    one_based: bool = False

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """See `DatasetConfig.read`. Order: the table's."""
        if len(classes) != 1:
            raise InputError(f"stanford_cars: {len(classes)} classes, wanted the one name that all cars get")
        root = find_root(self.root, home)
        check_split(root, split, self.split_names(home))
        table, path = _rows(root, "test" if split == "test" else "train")
        if split != "test" and self.val >= len(table):
            raise InputError(f"{path}: {len(table)} photos, val: wanted fewer than these, found {self.val}")
        rows = {"train": table[self.val :], "val": table[: self.val], "test": table}[split]
        check_photos([photo for photo, _ in rows], "the photos of Stanford Cars")
        images = [self._read_one(photo, corners, path) for photo, corners in rows]
        log_dropped(root, split, images)
        return images

    def split_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.split_names`."""
        return ["train", "val", "test"] if self.val else ["train", "test"]

    def _read_one(self, photo: Path, corners: Sequence[Any], table: Path) -> BoxedImage:
        x0, y0, x1, y1 = (parse_number(_scalar(value), f"{table}: {photo.name}") for value in corners)
        shift = 1 if self.one_based else 0
        objects = BoxList()
        objects.add((x0 - shift, y0 - shift, x1, y1), label=1)
        return objects.on_photo(f"{photo.parent.name}/{photo.stem}", photo, *read_size(photo))


def _rows(root: Path, part: str) -> tuple[list[tuple[Path, list[Any]]], Path]:
    """Photo and corners of each row of an official part; the table they are from."""
    names = (f"cars_{part}_annos_withlabels.mat", f"cars_{part}_annos.mat", "cars_annos.mat")
    paths = [folder / name for name in names for folder in (root, root / "devkit")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(f"{root}: no {names[1]} nor {names[2]}, wanted one, here or in devkit")
    annotations = read_mat(path, ["annotations"])["annotations"].reshape(-1)
    together = path.name == "cars_annos.mat"
    name = "relative_im_path" if together else "fname"
    fields = (name, *_SIDES, *(["test"] if together else []))
    if missing := [each for each in fields if each not in (annotations.dtype.names or ())]:
        raise InputError(f"{path}: annotations have no field '{missing[0]}', wanted {', '.join(fields)}")
    if together:
        annotations = [row for row in annotations if bool(_scalar(row["test"])) == (part == "test")]
    folder = root if together else root / f"cars_{part}"
    return [(folder / str(_scalar(row[name])), [row[side] for side in _SIDES]) for row in annotations], path


def _scalar(value: Any) -> Any:
    """What MATLAB's 1 x 1 array holds; None of an empty one."""
    values = np.asarray(value).reshape(-1)
    return values[0] if len(values) else None
