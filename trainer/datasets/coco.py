"""COCO's layout (Lin et al. 2014): a JSON file of images, categories and boxes, photos in a folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from configs.errors import InputError
from trainer.boxed_data.annotations import (
    BoxList,
    check_class,
    check_split,
    find_root,
    is_file,
    log_dropped,
    parse_number,
    read_text,
)
from trainer.dataset import BoxedImage, DatasetConfig


class CocoConfig(DatasetConfig):
    """A folder in COCO's layout.

    annotations: the JSON file of each split, under root; by default one file and one split, ``all``.
    images: the folder of the photos, under root; ``{split}`` in it stands for the split's name.
    COCO 2017 is ``annotations: {train: annotations/instances_train2017.json, …}``, ``images: "{split}2017"``.
    Crowds (``iscrowd``) are ignored objects.
    """

    kind: Literal["coco"] = "coco"
    annotations: Mapping[str, str] = {"all": "instances.json"}
    images: str = "images"

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """See `DatasetConfig.read`. Order: the JSON's ``images``."""
        root = find_root(self.root, home)
        check_split(root, split, self.annotations)
        path = root / self.annotations[split]
        content = _read_json(path)
        labels = _labels_by_category(path, content, classes)
        objects = {entry["id"]: BoxList() for entry in content["images"]}
        for annotation in content["annotations"]:
            _add(path, annotation, labels, objects)
        photos = root / self.images.replace("{split}", split)
        images = [_boxed(path, entry, photos, objects[entry["id"]]) for entry in content["images"]]
        log_dropped(path, split, images)
        return images

    def split_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.split_names`."""
        return list(self.annotations)

    def class_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.class_names`: the categories of the first file, in its order."""
        path = find_root(self.root, home) / next(iter(self.annotations.values()), "")
        return [str(entry["name"]) for entry in _read_json(path)["categories"]]


_ID = (int, float, str)
_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": _ID, "file_name": str, "width": object, "height": object},
    "annotations": {"id": _ID, "image_id": _ID, "category_id": _ID, "bbox": object},
    "categories": {"id": _ID, "name": str},
}


def _read_json(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The three lists that are read here, every entry with the fields that are read here."""
    try:
        content = json.loads(read_text(path, "COCO's JSON"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}, wanted JSON") from error
    for name, fields in _FIELDS.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise InputError(f"{path}: no list '{name}', wanted images, annotations and categories")
        for number, entry in enumerate(entries):
            missing = [f for f in fields if f not in entry] if isinstance(entry, dict) else list(fields)
            if missing:
                raise InputError(f"{path}: {name}[{number}]: no '{missing[0]}', wanted {', '.join(fields)}")
            for field, kind in fields.items():
                _check_type(entry[field], kind, f"{path}: {name}[{number}]: {field}")
    return dict(content)


def _check_type(value: object, kind: type | tuple[type, ...], place: str) -> None:
    if not isinstance(value, kind):
        raise InputError(f"{place} is {value!r}, wanted {'a text' if kind is str else 'a number or text'}")
    if kind is str and str(value).splitlines() != [value]:
        raise InputError(f"{place} is {value!r}, wanted a text of one line")


def _labels_by_category(path: Path, content: Mapping[str, Any], classes: Sequence[str]) -> dict[Any, int]:
    """Label of each category id that is wanted, 0 of every other."""
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    for name in classes:
        check_class(path, name, set(names.values()))
    labels = {name: label for label, name in enumerate(classes, start=1)}
    return {key: labels.get(name, 0) for key, name in names.items()}


def _add(
    path: Path, annotation: Mapping[str, Any], labels: Mapping[Any, int], objects: Mapping[Any, BoxList]
) -> None:
    """Enter one annotation; those of other classes only have to be well-formed."""
    place = f"{path}: annotation {annotation['id']!r}"
    image, category, box = (annotation[name] for name in ("image_id", "category_id", "bbox"))
    if image not in objects:
        raise InputError(f"{place}: image {image!r} is not among the images, wanted one of them")
    if category not in labels:
        raise InputError(f"{place}: category {category!r} is not among the categories, wanted one of them")
    if not isinstance(box, list) or len(box) != 4:
        raise InputError(f"{place}: bbox is {box!r}, wanted [x, y, width, height]")
    if labels[category]:
        x, y, w, h = (parse_number(value, f"{place}: bbox") for value in box)
        objects[image].add((x, y, x + w, y + h), labels[category], bool(annotation.get("iscrowd", 0)))


def _boxed(path: Path, entry: Mapping[str, Any], photos: Path, objects: BoxList) -> BoxedImage:
    place = f"{path}: image {entry['id']!r}"
    width, height = (int(parse_number(entry[side], f"{place}: {side}")) for side in ("width", "height"))
    if min(width, height) < 1:
        raise InputError(f"{place}: size is {width}x{height}, wanted sides of 1 px or more")
    photo = photos / entry["file_name"]
    if not is_file(photo):
        raise InputError(f"{photo}: no such file, wanted the photo of {place}")
    key = Path(entry["file_name"]).with_suffix("").as_posix()
    return objects.on_photo(key, photo, width, height)
