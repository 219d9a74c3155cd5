"""YOLO's layout (Ultralytics): ``data.yaml``, folders of images, and a text file an image in ``labels``."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from configs.errors import InputError
from trainer.boxed_data.annotations import (
    BoxList,
    check_class,
    check_photos,
    check_split,
    find_root,
    is_file,
    log_dropped,
    parse_count,
    parse_number,
    read_text,
)
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.imaging.images import read_size

_PHOTOS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_SPLITS = ("train", "val", "test")
_SLACK = 0.01  # shares of the side may be rounded past 0 and 1


class YoloConfig(DatasetConfig):
    """A folder that holds ``data.yaml`` and what it names: for each split a folder of images, a text file of
    their paths, or a list of such. An image's labels lie where the last ``images`` of its path is ``labels``:
    lines ``class cx cy width height``, classes from 0, lengths as shares of the side, or polygons ``class x y
    x y x y …``, which get their box. An image without a file of labels has no objects.

    Paths are taken from data.yaml's ``path`` under root, where there is such a folder, else from root:
    folders are moved and unpacked elsewhere, so a ``path`` or ``../`` of another machine is passed over.
    """

    kind: Literal["yolo"] = "yolo"
    data: str = "data.yaml"

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """See `DatasetConfig.read`. Order: by name in a folder, as listed in a file."""
        root = find_root(self.root, home)
        content = _read_data(root / self.data)
        check_split(root / self.data, split, [name for name in _SPLITS if name in content])
        names = _names(content["names"], root / self.data)
        for name in classes:
            check_class(root / self.data, name, set(names.values()))
        wanted = {name: label for label, name in enumerate(classes, start=1)}
        labels = {key: wanted.get(name, 0) for key, name in names.items()}
        photos = self._photos(_base(root, content), content[split], split)
        check_photos(photos, f"the photos of split '{split}'")
        images = [_read_one(photo, labels, root) for photo in photos]
        log_dropped(root, split, images)
        return images

    def split_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.split_names`."""
        content = _read_data(find_root(self.root, home) / self.data)
        return [name for name in _SPLITS if name in content]

    def class_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.class_names`: in the order of their numbers."""
        path = find_root(self.root, home) / self.data
        return list(_names(_read_data(path)["names"], path).values())

    def _photos(self, base: Path, sources: Any, split: str) -> list[Path]:
        """What a split's entries name."""
        entries = sources if isinstance(sources, list) else [sources]
        photos: list[Path] = []
        for entry in map(str, entries):
            path = _found(base, entry)
            if _is_folder(path):
                photos += sorted(p for p in path.rglob("*") if p.suffix.lower() in _PHOTOS)
            elif is_file(path):
                lines = read_text(path, "paths of images").split("\n")
                photos += [_found(base, line.strip()) for line in lines if line.strip()]
            else:
                raise InputError(f"{path}: no such folder or list, wanted the images of split '{split}'")
        return photos


def _read_data(path: Path) -> dict[str, Any]:
    """The mapping; every scalar is text, so that a class may be called ``no``."""
    try:
        content = yaml.load(read_text(path, "YOLO's data.yaml"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}, wanted YAML") from error
    names = content.get("names") if isinstance(content, dict) else None
    if not isinstance(names, (dict, list)) or not names:
        raise InputError(f"{path}: no 'names', wanted the classes and folders of images")
    return {key: value for key, value in content.items() if value not in ("", "null", [])}


def _names(names: Mapping[str, str] | Sequence[str], path: Path) -> dict[int, str]:
    """Class by number, from 0."""
    if isinstance(names, Mapping):
        if not all(parse_count(str(key)) is not None for key in names):
            raise InputError(f"{path}: names: {', '.join(map(repr, names))}: wanted numbers of classes")
        return {int(key): str(name) for key, name in names.items()}
    return {key: str(name) for key, name in enumerate(names)}


def _base(root: Path, content: Mapping[str, Any]) -> Path:
    named = root / str(content.get("path", "."))
    return named if _is_folder(named) else root


def _found(base: Path, entry: str) -> Path:
    """The file or folder that an entry means; exporters write one ``../`` too many."""
    path = base / entry
    is_there = is_file(path) or _is_folder(path)
    return base / entry[3:] if entry.startswith("../") and not is_there else path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # what no file system takes for a name
        return False


def _read_one(photo: Path, labels: Mapping[int, int], root: Path) -> BoxedImage:
    width, height = read_size(photo)
    objects = BoxList()
    path = _labels_path(photo)
    lines = read_text(path, "YOLO's labels").splitlines() if is_file(path) else []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{path}:{number}"
            key, (x0, y0, x1, y1) = _parse(line, place)
            if key not in labels:
                raise InputError(f"{place}: class {key}, wanted one of 0 to {max(labels, default=0)}")
            if labels[key]:
                objects.add((x0 * width, y0 * height, x1 * width, y1 * height), labels[key])
    inside = photo.relative_to(root) if photo.is_relative_to(root) else photo
    return objects.on_photo(inside.with_suffix("").as_posix(), photo, width, height)


def _labels_path(photo: Path) -> Path:
    parts = list(PurePosixPath(photo.as_posix()).parts)
    at = max((i for i, part in enumerate(parts[:-1]) if part == "images"), default=None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def _parse(line: str, place: str) -> tuple[int, tuple[float, float, float, float]]:
    """Class, and the box as shares of the photo's sides, of a box's line or a polygon's."""
    key, *texts = line.split()
    values = [parse_number(text, place) for text in texts]
    number = parse_count(key)
    if number is None or len(values) < 4 or len(values) % 2:
        raise InputError(f"{place}: {len(values)} values of class {key}, wanted cx cy width height or x y …")
    if not -_SLACK <= min(values) <= max(values) <= 1 + _SLACK:
        raise InputError(f"{place}: {min(values):g} to {max(values):g}, wanted shares of the side, 0 to 1")
    if len(values) == 4:
        cx, cy, w, h = values
        return number, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    return number, (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
