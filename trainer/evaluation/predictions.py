"""Detections written for others: JSON, CSV and drawn pictures, one picture after the other."""

import csv
import io
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, TextIO

from trainer.imaging.drawing import draw_named, encode_image
from trainer.sample import Detections, UInt8Array

FORMATS = ("json", "csv", "images")
_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
_COLUMNS = ("image", "frame", "width", "height", "label", "score", "x0", "y0", "x1", "y1")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A photo, or a video's frame of this number. name: where its drawing lies below ``images``."""

    path: Path
    frame: int | None
    name: PurePosixPath
    pixels: UInt8Array  # (H, W, 3) RGB


class Predictions:
    """A folder of predictions. Its files are whole or not there: they get their names when all is written.

    ``detections.json``: the values of ``about``, and ``images``: each ``image`` (path), of a video ``frame``
    (from 0), ``width``, ``height`` px and ``detections``, best first: ``label`` (name), ``score`` 0..1,
    ``box`` ``[x0, y0, x1, y1]`` in pixels of the file, ``landmarks``, five ``[x, y]``, where the detector
    gives them; ``unreadable``: each ``image`` and ``why``.
    ``detections.csv``: a line for each detection, of the same values.
    ``images``: the pictures with the detections on them, below their own names.
    """

    def __init__(
        self, folder: Path, formats: Collection[str], classes: Sequence[str], about: Mapping[str, Any]
    ) -> None:
        self._folder, self._classes, self._draws = folder, classes, "images" in formats
        folder.mkdir(parents=True, exist_ok=True)
        self._json = _Growing(folder / "detections.json") if "json" in formats else None
        self._csv = _Growing(folder / "detections.csv") if "csv" in formats else None
        self.pictures = self.detections = 0
        self.unreadable: list[dict[str, str]] = []
        if self._json:
            self._json.write(f'{json.dumps(about, ensure_ascii=False)[:-1]}, "images": [')

    def add(self, picture: Picture, found: Detections) -> None:
        """What was found in the next picture."""
        if self._csv:
            self._csv.write(self._lines_of(picture, found))
        if self._json:
            record = json.dumps(self._record_of(picture, found), ensure_ascii=False)
            self._json.write(f"{',' if self.pictures else ''}\n{record}")
        if self._draws:
            path = self._folder / "images" / picture.name
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".tmp-{os.getpid()}{path.suffix}")
            drawn = draw_named(picture.pixels, found, self._classes)
            beside.write_bytes(encode_image(drawn, path.suffix.lower()))
            beside.replace(path)
        self.pictures += 1
        self.detections += len(found)

    def leave_out(self, path: Path, why: str) -> None:
        """A picture that cannot be read."""
        self.unreadable.append({"image": str(path), "why": why})

    def __enter__(self) -> "Predictions":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._json and error is None:
            self._json.write(f'\n], "unreadable": {json.dumps(self.unreadable, ensure_ascii=False)}}}\n')
        for file in filter(None, (self._json, self._csv)):
            file.close(keep=error is None)

    def _record_of(self, picture: Picture, found: Detections) -> dict[str, Any]:
        height, width = picture.pixels.shape[:2]
        frame = {} if picture.frame is None else {"frame": picture.frame}
        values = [self._values_of(found, number) for number in range(len(found))]
        return {"image": str(picture.path), **frame, "width": width, "height": height, "detections": values}

    def _values_of(self, found: Detections, number: int) -> dict[str, Any]:
        values: dict[str, Any] = {
            "label": self._classes[found.labels[number] - 1],
            "score": round(float(found.scores[number]), 5),
            "box": _rounded(found.boxes[number]),
        }
        if found.landmarks is not None:
            values["landmarks"] = [_rounded(point) for point in found.landmarks[number]]
        return values

    def _lines_of(self, picture: Picture, found: Detections) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self.pictures:
            names = () if found.landmarks is None else _POINTS
            writer.writerow([*_COLUMNS, *(f"{name}_{axis}" for name in names for axis in "xy")])
        height, width = picture.pixels.shape[:2]
        frame = "" if picture.frame is None else picture.frame
        for number in range(len(found)):
            values = self._values_of(found, number)
            points = [value for point in values.get("landmarks", ()) for value in point]
            row = [picture.path, frame, width, height, values["label"], values["score"]]
            writer.writerow([*row, *values["box"], *points])
        return text.getvalue()


def _rounded(values: Any) -> list[float]:
    """Hundredths of a px."""
    return [round(float(value), 2) for value in values]


class _Growing:
    """A text file that gets its name when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path, self._beside = path, path.with_name(f".{path.name}.tmp-{os.getpid()}")
        self._file: TextIO = self._beside.open("w", encoding="utf-8", newline="")

    def write(self, text: str) -> None:
        self._file.write(text)

    def close(self, keep: bool) -> None:
        self._file.close()
        if keep:
            self._beside.replace(self._path)
        else:
            self._beside.unlink()
