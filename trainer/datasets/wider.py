"""WIDER FACE (Yang et al. 2016): the official lists and ``.mat`` tables, RetinaFace's ``label.txt``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    parse_count,
    parse_number,
    read_text,
)
from trainer.boxed_data.matlab import read_mat
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.imaging.images import read_size

_NUM_ATTRIBUTES = 6  # blur, expression, illumination, invalid, occlusion, pose
_INVALID = 3
_LANDMARKS = 5


@dataclass(frozen=True, slots=True)
class Face:
    """A face as annotated. xywh: left, top, width, height in px. landmarks: both eyes, nose, both corners of
    the mouth, (x, y) px each; None where there are none, which the coordinates alone do not always tell.
    """

    xywh: tuple[float, ...]
    invalid: bool = False
    landmarks: tuple[tuple[float, float], ...] | None = None


class WiderConfig(DatasetConfig):
    """A folder with WIDER FACE's photos and one of its annotations, told apart by what they hold.

    annotations: the official ``…_bbx_gt.txt`` or ``.mat``, or RetinaFace's ``label.txt``, whose faces may
        have landmarks; images: the folder that the names in it begin at. ``{split}`` in both stands for the
        split's name. RetinaFace's layout is ``annotations: "{split}/label.txt"``, ``images:
        "{split}/images"``.
    counted: one of the evaluation's ``wider_{easy,medium,hard}_val.mat``: other faces than its are ignored.
    min_side_px: faces with a smaller width or height are ignored. Those that are marked invalid always are.
    """

    kind: Literal["wider"] = "wider"
    annotations: str = "wider_face_split/wider_face_{split}_bbx_gt.txt"
    images: str = "WIDER_{split}/images"
    splits: tuple[str, ...] = ("train", "val")
    counted: str = ""
    min_side_px: float = Field(default=0, ge=0)

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """See `DatasetConfig.read`. Order: the annotations'."""
        if len(classes) != 1:
            raise InputError(f"wider: {len(classes)} classes, wanted the one name that all of its faces get")
        root = find_root(self.root, home)
        check_split(root, split, self.splits)
        path = root / self.annotations.replace("{split}", split)
        faces = read_faces(path)
        counted = _counted(root / self.counted, path, faces) if self.counted else None
        folder = root / self.images.replace("{split}", split)
        check_photos([folder / name for name in faces], f"the photos of {path}")
        images = []
        for name, found in faces.items():
            objects = BoxList()
            for number, face in enumerate(found):
                x, y, w, h = face.xywh
                ignored = face.invalid or min(w, h) < self.min_side_px
                if counted is not None:
                    ignored = number not in counted[name]
                objects.add((x, y, x + w, y + h), 1, ignored, face.landmarks)
            key = name.rpartition(".")[0]
            images.append(objects.on_photo(key, folder / name, *read_size(folder / name)))
        log_dropped(path, split, images)
        return images

    def split_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.split_names`."""
        return list(self.splits)


def read_faces(path: Path) -> dict[str, list[Face]]:
    """The faces of each photo of an annotation file, by the photo's name ``EVENT/NAME.jpg``. InputError."""
    if path.suffix == ".mat":
        return _faces_of_mat(path)
    lines = read_text(path, "WIDER FACE's list of faces").splitlines()
    first = next((line for line in lines if line.strip()), "")
    blocks = _label_blocks(lines, path) if first.startswith("#") else _counted_blocks(lines, path)
    faces: dict[str, list[Face]] = {}
    for place, name, found in blocks:
        if name in faces:
            raise InputError(f"{place}: photo {name} again, wanted each photo once")
        faces[name] = found
    return faces


def _counted_blocks(lines: Sequence[str], path: Path) -> Iterator[tuple[str, str, list[Face]]]:
    """The official text: a name, a count, a line a face; a photo without faces has a line of zeros."""
    at = 0
    while at < len(lines):
        place, name = f"{path}:{at + 1}", lines[at].strip()
        at += 1
        if not name:
            continue
        text = lines[at].strip() if at < len(lines) else "the file's end"
        count = parse_count(text)
        if count is None or at + count >= len(lines):
            raise InputError(f"{path}:{at + 1}: found {text}, wanted how many lines of faces follow")
        rows = lines[at + 1 : at + 1 + count]
        yield place, name, [_official_face(row, f"{path}:{at + 2 + i}") for i, row in enumerate(rows)]
        at += 1 + count
        if not count and at < len(lines) and set(lines[at].split()) == {"0"}:
            at += 1


def _official_face(line: str, place: str) -> Face:
    """``x y w h``, and the attributes where the list has them."""
    values = [parse_number(text, place) for text in line.split()]
    if len(values) not in (4, 4 + _NUM_ATTRIBUTES):
        raise InputError(f"{place}: {len(values)} values, wanted x y w h and {_NUM_ATTRIBUTES} attributes")
    return Face(tuple(values[:4]), invalid=len(values) > 4 and values[4 + _INVALID] == 1)


def _label_blocks(lines: Sequence[str], path: Path) -> Iterator[tuple[str, str, list[Face]]]:
    """RetinaFace's text: ``# NAME``, then ``x y w h (x y flag)x5 blur`` or ``x y w h`` a face."""
    place, name, found = "", "", list[Face]()
    for number, line in enumerate(lines, start=1):
        if line.startswith("#"):
            if name:
                yield place, name, found
            place, name, found = f"{path}:{number}", line[1:].strip(), []
        elif line.strip():
            found.append(_labelled_face(line, f"{path}:{number}"))
    if name:
        yield place, name, found


def _labelled_face(line: str, place: str) -> Face:
    """Absent landmarks are -1, and zeros in some copies: five points in the photo's corner are none too."""
    values = [parse_number(text, place) for text in line.split()]
    if len(values) not in (4, 4 + 3 * _LANDMARKS, 5 + 3 * _LANDMARKS):
        raise InputError(
            f"{place}: {len(values)} values, wanted x y w h and five landmarks x y flag, or none"
        )
    points = tuple((values[i], values[i + 1]) for i in range(4, 4 + 3 * _LANDMARKS, 3)) if values[4:] else ()
    absent = not points or min(map(min, points)) < 0 or max(map(max, points)) == 0
    return Face(tuple(values[:4]), landmarks=None if absent else points)


def _faces_of_mat(path: Path) -> dict[str, list[Face]]:
    """The official tables of a split, as the evaluation reads them too."""
    names = ["event_list", "file_list", "face_bbx_list", "invalid_label_list"]
    return {
        name: [
            Face(tuple(parse_number(side, f"{path}: {name}") for side in box), bool(invalid))
            for box, invalid in zip(boxes, flags, strict=True)
        ]
        for name, boxes, flags in _boxes_and_flags(path, _by_photo(path, names))
    }


def _boxes_and_flags(path: Path, photos: dict[str, list[Any]]) -> Iterator[tuple[str, Any, Any]]:
    """Name, (N, 4) and (N,) of each photo."""
    for name, (boxes, flags) in photos.items():
        if boxes.size != 4 * flags.size:
            raise InputError(f"{path}: {name}: {boxes.size} sides of {flags.size} faces, wanted 4 of each")
        yield name, boxes.reshape(-1, 4), flags.reshape(-1)


def _counted(mat: Path, path: Path, faces: dict[str, list[Face]]) -> dict[str, set[int]]:
    """Of each photo the numbers, from 0, of the faces that an evaluation counts; the file's are from 1."""
    table = _by_photo(mat, ["event_list", "file_list", "gt_list"])
    if missing := faces.keys() - table.keys():
        raise InputError(f"{mat}: no photo {min(missing)}, wanted all of {path}")
    counted = {
        name: {int(parse_number(value, f"{mat}: {name}")) - 1 for value in table[name][0].reshape(-1)}
        for name in faces
    }
    for name, numbers in counted.items():
        if numbers and not 0 <= min(numbers) <= max(numbers) < len(faces[name]):
            found = f"counts a face {max(numbers) + 1} of {name}"
            raise InputError(f"{mat}: {found}, wanted 1 to {len(faces[name])} as in {path}")
    return counted


def _by_photo(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each photo: of the variables after the lists of events and files, in their order."""
    events, files, *columns = (variable.reshape(-1) for variable in read_mat(path, names).values())
    photos: dict[str, list[Any]] = {}
    try:
        for number, event in enumerate(events):
            for place, file in enumerate(files[number].reshape(-1)):
                name = f"{np.asarray(event).item()}/{np.asarray(file).item()}.jpg"
                if name.splitlines() != [name]:
                    raise ValueError(f"a photo named {name!r}")
                photos[name] = [np.asarray(column[number].reshape(-1)[place]) for column in columns]
    except (AttributeError, IndexError, ValueError) as error:  # no cell, too few, or more than a name
        raise InputError(f"{path}: {error}, wanted events and files of one length each") from error
    return photos
