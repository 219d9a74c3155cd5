"""CUB-200-2011 (Wah et al. 2011) as it is distributed: one boxed bird a photo, text tables by image id."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from configs.errors import InputError
from trainer.boxed_data.annotations import (
    BoxList,
    check_split,
    find_root,
    log_dropped,
    parse_number,
    read_text,
)
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.imaging.images import read_size


class CubConfig(DatasetConfig):
    """The folder that holds ``images.txt``, ``bounding_boxes.txt`` (id x y w h) and ``images/``.

    split_file: table ``id value``; splits: the value of each split. The defaults are the official ones; the
    paper's own split (ids 0, 1, 2 for train, val, test) is another file and another mapping.
    The species are not told apart: every box gets the label of the single class asked for.
    """

    kind: Literal["cub"] = "cub"
    split_file: str = "train_test_split.txt"
    splits: Mapping[str, int] = {"train": 1, "test": 0}

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """See `DatasetConfig.read`. Order: ``images.txt``."""
        if len(classes) != 1:
            raise InputError(f"cub: {len(classes)} classes, wanted the one name that all of its birds get")
        root = find_root(self.root, home)
        check_split(root, split, self.splits)
        names = _read_table(root / "images.txt", 1)
        boxes = _read_table(root / "bounding_boxes.txt", 4)
        groups = _read_table(root / self.split_file, 1)
        _check_ids(root / "bounding_boxes.txt", boxes, names)
        _check_ids(root / self.split_file, groups, names)
        images = [
            _read_one(root, key, name, boxes[key])
            for key, (name,) in names.items()
            if groups[key] == [str(self.splits[split])]
        ]
        log_dropped(root, split, images)
        return images

    def split_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.split_names`."""
        return list(self.splits)


def _read_one(root: Path, key: str, name: str, box: Sequence[str]) -> BoxedImage:
    path = root / "images" / name
    width, height = read_size(path)
    x, y, w, h = (parse_number(text, f"{root / 'bounding_boxes.txt'}: image {key}") for text in box)
    objects = BoxList()
    objects.add((x, y, x + w, y + h), label=1)
    return objects.on_photo(Path(name).with_suffix("").as_posix(), path, width, height)


def _read_table(path: Path, num_values: int) -> dict[str, list[str]]:
    """Values by image id, in the file's order."""
    wanted = f"lines of an image id and {num_values} values"
    table: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(path, wanted).splitlines(), start=1):
        key, *values = line.split(maxsplit=num_values) or [""]
        if not key:
            continue
        if len(values) != num_values or key in table:
            found = f"image {key} again" if key in table else f"{line!r}"
            raise InputError(f"{path}:{number}: {found}, wanted {wanted}")
        table[key] = values
    return table


def _check_ids(path: Path, table: Mapping[str, object], names: Mapping[str, object]) -> None:
    if missing := names.keys() - table.keys():
        raise InputError(f"{path}: no line for image {min(missing)}, wanted one for each of images.txt")
    if foreign := table.keys() - names.keys():
        raise InputError(f"{path}: image {min(foreign)} is not in images.txt, wanted only images of it")
