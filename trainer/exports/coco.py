"""COCO's layout (Lin et al. 2014): ``annotations/instances_SPLIT.json``, ``images/SPLIT/``."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from trainer.exported import Entries, ExportConfig, ExportedScene, Split
from trainer.exporting.outlines import outlines, run_lengths

_IDS_PER_SCENE = 1000  # a scene has at most 200 objects


class CocoExport(ExportConfig):
    """masks: ``rle`` is exact, as lists of numbers, which every reader knows; ``polygons`` are outer edges,
    holes filled, for trainers that want those; ``none`` leaves them out.

    Ignored objects are crowds (``iscrowd: 1``), always as RLE: COCO's evaluation ignores them, and trainers
    leave them out. Boxes are [x, y, width, height], edges counted from 0; areas are the masks'. Categories
    count from 1, and so do ids: COCO's evaluation takes an annotation 0 for none. A scene's ids depend on
    its number alone, so exports with different --start can be put together.
    """

    kind: Literal["coco"] = "coco"
    masks: Literal["rle", "polygons", "none"] = "rle"

    def files(self, scene: ExportedScene, classes: tuple[str, ...]) -> Mapping[str, bytes]:
        """See `ExportConfig.files`: none."""
        return {}

    def note(self, scene: ExportedScene) -> list[dict[str, Any]]:
        """The scene's annotations."""
        return [self._annotation(scene, place) for place in range(len(scene.target))]

    def _annotation(self, scene: ExportedScene, place: int) -> dict[str, Any]:
        x0, y0, x1, y1 = (float(edge) for edge in scene.target.boxes[place])
        ignored = bool(scene.target.ignore[place])
        area, shape = (x1 - x0) * (y1 - y0), dict[str, Any]()
        if self.masks != "none":
            mask = scene.mask(place)
            area = int(mask.sum())
            if self.masks == "rle" or ignored:
                shape = {"segmentation": {"size": [scene.size, scene.size], "counts": run_lengths(mask)}}
            else:
                shape = {"segmentation": [[c for xy in ring for c in xy] for ring in outlines(mask)]}
        return {
            "id": scene.number * _IDS_PER_SCENE + place + 1,
            "image_id": scene.number + 1,
            "category_id": int(scene.target.labels[place]),
            "bbox": [_plain(value) for value in (x0, y0, x1 - x0, y1 - y0)],
            "area": _plain(area),
            "iscrowd": int(ignored),
            **shape,
        }

    def documents(self, entries: Entries, classes: tuple[str, ...], size: int) -> Mapping[str, Iterator[str]]:
        """See `ExportConfig.documents`."""
        return {
            f"annotations/instances_{split}.json": _document(entries, split, classes, size)
            for split in self.splits
        }

    def reading(self, folder: str) -> str:
        """See `ExportConfig.reading`."""
        return (
            f"pycocotools.coco.COCO('{folder}/annotations/instances_train.json'), or here dataset="
            f"'{{kind: coco, root: {folder}, annotations: {{train: annotations/instances_train.json}}, "
            'images: "images/{split}"}\''
        )


def _document(entries: Entries, split: Split, classes: tuple[str, ...], size: int) -> Iterator[str]:
    """The JSON, an entry a line, so that it never has to be in memory as a whole."""
    info = {"description": "composites made by Crop Foundry", "version": "1"}
    categories = [{"id": k, "name": name, "supercategory": "object"} for k, name in enumerate(classes, 1)]
    yield f'{{"info": {_json(info)}, "licenses": [], "categories": {_json(categories)},\n"images": ['
    photos = (
        _json({"id": entry.number + 1, "file_name": entry.name, "width": size, "height": size})
        for entry in entries()
        if entry.split == split
    )
    yield from _lines(photos)
    yield '],\n"annotations": ['
    notes = (_json(note) for entry in entries() if entry.split == split for note in entry.note)
    yield from _lines(notes)
    yield "]}\n"


def _lines(items: Iterator[str]) -> Iterator[str]:
    for k, item in enumerate(items):
        yield (",\n" if k else "\n") + item


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(value: float) -> float:
    """Whole numbers without a point."""
    return int(value) if value == int(value) else value
