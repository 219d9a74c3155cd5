"""YOLO's layout (Ultralytics): ``data.yaml``, ``images/SPLIT``, ``labels/SPLIT``, a text file an image."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import yaml

from trainer.exported import Entries, ExportConfig, ExportedScene
from trainer.exporting.outlines import joined, outlines


class YoloExport(ExportConfig):
    """Lines ``class cx cy width height`` in ``labels``: classes from 0, lengths as shares of the side.

    masks: ``polygons`` writes the same objects as ``class x y x y …`` in ``segments``, for trainers of masks,
    which look for them in ``labels``; parts of an object are joined by a line. ``none`` leaves them out.
    Ignored objects are left out: the format has no word for them. Without a split ``val`` its key names the
    training images, since readers want one.
    """

    kind: Literal["yolo"] = "yolo"
    masks: Literal["polygons", "none"] = "polygons"

    def files(self, scene: ExportedScene, classes: tuple[str, ...]) -> Mapping[str, bytes]:
        """See `ExportConfig.files`: labels, and polygons."""
        name = f"{scene.split}/{scene.stem}.txt"
        kept = [place for place, ignored in enumerate(scene.target.ignore) if not ignored]
        found = {f"labels/{name}": [_box_line(scene, place) for place in kept]}
        if self.masks == "polygons":
            found[f"segments/{name}"] = [_polygon_line(scene, place) for place in kept]
        return {path: "".join(f"{line}\n" for line in lines).encode() for path, lines in found.items()}

    def note(self, scene: ExportedScene) -> Any:
        """See `ExportConfig.note`: nothing."""
        return None

    def documents(self, entries: Entries, classes: tuple[str, ...], size: int) -> Mapping[str, Iterator[str]]:
        """See `ExportConfig.documents`. Its paths are relative to it, so the folder can be moved."""
        content = {
            "train": "images/train",
            "val": f"images/{self.splits[-1]}",
            "nc": len(classes),
            "names": dict(enumerate(classes)),
        }
        return {"data.yaml": iter([yaml.safe_dump(content, sort_keys=False, allow_unicode=True)])}

    def reading(self, folder: str) -> str:
        """See `ExportConfig.reading`."""
        return f"yolo detect train data={folder}/data.yaml"


def _box_line(scene: ExportedScene, place: int) -> str:
    x0, y0, x1, y1 = (float(edge) / scene.size for edge in scene.target.boxes[place])
    return _line(scene, place, ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0))


def _polygon_line(scene: ExportedScene, place: int) -> str:
    ring = joined(outlines(scene.mask(place)))
    return _line(scene, place, tuple(value / scene.size for point in ring for value in point))


def _line(scene: ExportedScene, place: int, shares: tuple[float, ...]) -> str:
    """Ten digits: what is read back is the same float32 in pixels."""
    numbers = " ".join(f"{share:.10g}" for share in shares)
    return f"{scene.target.labels[place] - 1} {numbers}"
