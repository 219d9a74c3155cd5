"""Pascal VOC's layout (Everingham et al. 2010): ``JPEGImages``, ``Annotations``, ``ImageSets/Main``."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from configs.errors import InputError
from trainer.boxed_data.annotations import (
    BoxList,
    check_class,
    check_split,
    find_root,
    log_dropped,
    parse_number,
    read_text,
)
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.imaging.images import read_size

_USUAL = ("train", "val", "trainval", "test")


class VocConfig(DatasetConfig):
    """A folder in VOC's layout. An object's ``name`` is its class; ``difficult`` objects are ignored ones.

    one_based: the corners are those of the original VOC, numbers of the first and last pixel counted from 1,
        so a box covers ``xmin - 1`` to ``xmax``. Off: they are edges, counted from 0.
    """

    kind: Literal["voc"] = "voc"
    one_based: bool = False

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """See `DatasetConfig.read`. Order: the split's list, one image name (no suffix) a line.

        Raises InputError also when the split has objects, but none of a class asked for.
        """
        root = find_root(self.root, home)
        lists = root / "ImageSets" / "Main"
        check_split(lists, split, (path.stem for path in lists.glob("*.txt")))
        names = [line.strip() for line in read_text(lists / f"{split}.txt", "image names").splitlines()]
        photos = _photos_by_name(root / "JPEGImages")
        labels = {name: label for label, name in enumerate(classes, start=1)}
        found: set[str] = set()
        images = []
        for name in filter(None, names):
            if name not in photos:
                raise InputError(
                    f"{lists / split}.txt: no photo '{name}' in {root / 'JPEGImages'}, wanted one"
                )
            width, height = read_size(photos[name])
            path = root / "Annotations" / f"{name}.xml"
            objects = self._read_objects(path, _parse(path, width, height), labels, found)
            images.append(objects.on_photo(name, photos[name], width, height))
        if found and not found & labels.keys():
            check_class(lists / f"{split}.txt", next(iter(classes), ""), found)
        log_dropped(root, split, images)
        return images

    def split_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.split_names`: not the lists of one class (``car_train.txt``)."""
        lists = find_root(self.root, home) / "ImageSets" / "Main"
        names = {path.stem for path in lists.glob("*.txt") if "_" not in path.stem}
        return [name for name in _USUAL if name in names] + sorted(names.difference(_USUAL))

    def class_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.class_names`: every name in every annotation, sorted."""
        folder = find_root(self.root, home) / "Annotations"
        nodes = (node for path in sorted(folder.glob("*.xml")) for node in _root(path).findall("object"))
        return sorted({(node.findtext("name") or "").strip() for node in nodes} - {""})

    def _read_objects(
        self, path: Path, tree: ElementTree.Element, labels: Mapping[str, int], found: set[str]
    ) -> BoxList:
        """The objects of the classes in labels; every name met is added to found."""
        objects = BoxList()
        shift = 1 if self.one_based else 0
        for number, node in enumerate(tree.findall("object"), start=1):
            place = f"{path}: object {number}"
            name = (node.findtext("name") or "").strip()
            if not name:
                raise InputError(f"{place}: no name, wanted its class")
            found.add(name)
            x0, y0, x1, y1 = (
                parse_number(node.findtext(f"bndbox/{side}"), f"{place}: {side}")
                for side in ("xmin", "ymin", "xmax", "ymax")
            )
            if name in labels:
                difficult = (node.findtext("difficult") or "0").strip() == "1"
                objects.add((x0 - shift, y0 - shift, x1, y1), labels[name], difficult)
        return objects


def _root(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_text(path, "VOC's XML").encode())
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter of a false encoding
        raise InputError(f"{path}: {error}, wanted well-formed XML") from error


def _parse(path: Path, width: int, height: int) -> ElementTree.Element:
    """The XML of a photo of this size. A size in it that differs (0 is unknown) tells of another photo."""
    tree = _root(path)
    texts = [tree.findtext(f"size/{side}") or "0" for side in ("width", "height")]
    said = [int(parse_number(text, f"{path}: size")) for text in texts]
    if 0 not in said and said != [width, height]:
        raise InputError(f"{path}: size is {said[0]}x{said[1]}, wanted {width}x{height} as its photo has")
    return tree


def _photos_by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, wanted the photos")
    return {path.stem: path for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
