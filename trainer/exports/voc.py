"""Pascal VOC's layout (Everingham et al. 2010): ``JPEGImages``, ``Annotations``, ``ImageSets``."""

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
from PIL import Image

from configs.errors import InputError
from trainer.exported import Entries, ExportConfig, ExportedScene, Split
from trainer.sample import UInt8Array

_VOID = 255  # of a mask: neither an object nor the background


class VocExport(ExportConfig):
    """An XML file for each scene. Corners are the original VOC's: first and last pixel, counted from 1, so a
    box covers ``xmin - 1`` to ``xmax``. Ignored objects are ``difficult``, those that the scene's edge cuts
    ``truncated``.

    masks: ``png`` writes ``SegmentationClass`` and ``SegmentationObject`` in VOC's palette, ignored objects
    as void (255); ``none`` leaves them out.
    """

    kind: Literal["voc"] = "voc"
    masks: Literal["png", "none"] = "png"

    def image_path(self, split: Split, name: str) -> str:
        """See `ExportConfig.image_path`: VOC keeps its splits in lists."""
        return f"JPEGImages/{name}"

    def check(self, classes: tuple[str, ...], size: int) -> None:
        """See `ExportConfig.check`: a mask's pixel is one byte."""
        if self.masks == "png" and len(classes) >= _VOID:
            raise InputError(
                f"masks: found {len(classes)} classes, VOC's masks hold {_VOID - 1}: wanted none"
            )

    def files(self, scene: ExportedScene, classes: tuple[str, ...]) -> Mapping[str, bytes]:
        """See `ExportConfig.files`: the XML, and the masks."""
        found = {f"Annotations/{scene.stem}.xml": _xml(scene, classes, segmented=self.masks == "png")}
        if self.masks == "png":
            by_class, by_object = _label_maps(scene)
            found[f"SegmentationClass/{scene.stem}.png"] = _palette_png(by_class)
            found[f"SegmentationObject/{scene.stem}.png"] = _palette_png(by_object)
        return found

    def note(self, scene: ExportedScene) -> Any:
        """See `ExportConfig.note`: nothing."""
        return None

    def documents(self, entries: Entries, classes: tuple[str, ...], size: int) -> Mapping[str, Iterator[str]]:
        """See `ExportConfig.documents`: the lists of names, of each split and of all (``trainval``)."""
        groups = ("Main", "Segmentation") if self.masks == "png" else ("Main",)
        wanted = {split: (split,) for split in self.splits} | {"trainval": self.splits}
        return {
            f"ImageSets/{group}/{name}.txt": _names(entries, splits)
            for group in groups
            for name, splits in wanted.items()
        }

    def reading(self, folder: str) -> str:
        """See `ExportConfig.reading`."""
        return f"as any VOC; here dataset='{{kind: voc, root: {folder}, one_based: true}}'"


def _names(entries: Entries, splits: tuple[Split, ...]) -> Iterator[str]:
    return (f"{entry.name.rpartition('.')[0]}\n" for entry in entries() if entry.split in splits)


def _xml(scene: ExportedScene, classes: tuple[str, ...], *, segmented: bool) -> bytes:
    root = ElementTree.Element("annotation")
    _add(root, folder="JPEGImages", filename=scene.name)
    _add(ElementTree.SubElement(root, "source"), database="composites made by Crop Foundry")
    _add(ElementTree.SubElement(root, "size"), width=scene.size, height=scene.size, depth=3)
    _add(root, segmented=int(segmented))
    for place, box in enumerate(scene.target.boxes):
        item = ElementTree.SubElement(root, "object")
        _add(item, name=classes[scene.target.labels[place] - 1], pose="Unspecified")
        _add(item, truncated=int(scene.truncated[place]), difficult=int(scene.target.ignore[place]))
        x0, y0, x1, y1 = (float(edge) for edge in box)
        corners = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
        _add(ElementTree.SubElement(item, "bndbox"), **{side: f"{at:.10g}" for side, at in corners.items()})
    ElementTree.indent(root)
    return (ElementTree.tostring(root, encoding="unicode") + "\n").encode()


def _add(parent: ElementTree.Element, **texts: object) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = str(text)


def _label_maps(scene: ExportedScene) -> tuple[UInt8Array, UInt8Array]:
    """Class and number, from 1, of the object that each pixel shows."""
    by_class, by_object = np.zeros_like(scene.owner), np.zeros_like(scene.owner)
    for place, label in enumerate(scene.target.labels):
        seen = scene.mask(place) != 0
        by_class[seen], by_object[seen] = (_VOID, _VOID) if scene.target.ignore[place] else (label, place + 1)
    return by_class, by_object


def _palette_png(indices: UInt8Array) -> bytes:
    picture = Image.fromarray(indices).convert("L")
    picture.putpalette(_palette())
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


@cache
def _palette() -> bytes:
    """VOC's: bit k of an index, by threes, sets red, green and blue from the highest bit down."""
    colours = [
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
        for index in range(256)
        for channel in range(3)
    ]
    return bytes(colours)
