"""What the readers of boxed data sets share: finding files, refusing bad ones, clipping boxes."""

import difflib
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from configs.errors import InputError
from trainer.dataset import BoxedImage
from trainer.sample import NUM_LANDMARKS, Target, make_target

logger = logging.getLogger(__name__)

_LARGEST = 1e15  # float32 holds it, and sums of it, with room to spare
MIN_SIDE_PX = 1.0  # a box with a smaller side, after clipping, shows nothing

Points = Sequence[Sequence[float]]
_NO_POINTS: Points = ((0.0, 0.0),) * NUM_LANDMARKS


def find_root(root: Path, home: Path) -> Path:
    """A data set's folder, relative to the working directory, else to home. Raises InputError without one."""
    tried = list(dict.fromkeys([Path.cwd() / root, home / root]))  # one, where the root is absolute
    for path in tried:
        if path.is_dir():
            return path
    raise InputError(f"{' or '.join(map(str, tried))}: no such folder, wanted a data set")


def read_text(path: Path, what: str) -> str:
    """The text of an annotation file. Raises InputError, saying what was wanted of it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, wanted {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}, wanted {what}") from error


def check_split(place: Path, split: str, available: Iterable[str]) -> None:
    """Raises InputError, naming the splits that there are, for an unknown one."""
    names = sorted(available)
    if split not in names:
        raise InputError(f"{place}: no split '{split}'{_hint(split, names)}, wanted one of {_listed(names)}")


def check_class(place: Path, name: str, available: Iterable[str]) -> None:
    """Raises InputError, naming the classes that there are, for an unknown one."""
    names = sorted(available)
    if name not in names:
        found = f"no class '{_short(name)}'{_hint(name, names)}"
        raise InputError(f"{place}: {found}, wanted one of {_listed(names)}")


def parse_number(text: object, place: str) -> float:
    """A finite number of an annotation, 1e15 at most. Raises InputError at the place."""
    try:
        number = float(text)  # type: ignore[arg-type]  # whatever it is, float says no to it
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= _LARGEST:
        raise InputError(f"{place}: {_short(repr(text))}, wanted a finite number")
    return number


def parse_count(text: str) -> int | None:
    """A whole number of up to nine digits; None of any other text."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


def is_file(path: Path) -> bool:
    """Whether it is there; also False for what no file system takes for a name."""
    try:
        return path.is_file()
    except OSError:
        return False


@dataclass(slots=True)
class BoxList:
    """The objects of one image while they are read. Boxes are xyxy pixels, as annotated.

    landmarks: the (x, y) px of each object's five points, see `Target`; None for an object without.
    """

    boxes: list[Sequence[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ignore: list[bool] = field(default_factory=list)
    landmarks: list[Points | None] = field(default_factory=list)

    def add(
        self, box: Sequence[float], label: int, ignore: bool = False, landmarks: Points | None = None
    ) -> None:
        """One more object."""
        self.boxes.append(box)
        self.labels.append(label)
        self.ignore.append(ignore)
        self.landmarks.append(landmarks)

    def clipped(self, width: int, height: int) -> Target:
        """Its Target: boxes clipped to the image; those with a side under 1 px left are dropped.

        Landmarks stay where they were annotated; a Target of objects that all lack them has none.
        """
        boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        boxes = np.clip(boxes, 0, [width, height, width, height])
        keep = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE_PX).all(axis=1)
        labels, ignore = np.asarray(self.labels)[keep], np.asarray(self.ignore)[keep]
        known = np.array([points is not None for points in self.landmarks], bool)[keep]
        if not known.any():
            return make_target(boxes[keep], labels, ignore)
        points = np.asarray([each or _NO_POINTS for each in self.landmarks], np.float32)[keep]  # (N, 5, 2)
        return make_target(boxes[keep], labels, ignore, points, known)

    def on_photo(self, key: str, path: Path, width: int, height: int) -> BoxedImage:
        """The annotated photo, of that size in px."""
        annotated = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        return BoxedImage(key, path, width, height, self.clipped(width, height), annotated)


def check_photos(paths: Sequence[Path], what: str) -> None:
    """Raises InputError for missing photos: the first one's place, and how many they are."""
    missing = [path for path in paths if not is_file(path)]
    if missing:
        more = f" (nor {len(missing) - 1} more of {len(paths)})" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: no such file{more}, wanted {what}")


def log_dropped(place: Path, split: str, images: Sequence[BoxedImage]) -> None:
    """Says how many degenerate boxes a split lost."""
    dropped = sum(len(i.annotated) - len(i.target) for i in images if i.annotated is not None)
    if dropped:
        logger.warning(
            "%s: %s: dropped %d boxes with a side under 1 px inside the image", place, split, dropped
        )


def _hint(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return "".join(f" (did you mean '{_short(match)}'?)" for match in near)


def _short(text: str) -> str:
    """On one line, and not a page of it."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def _listed(names: Sequence[str], limit: int = 20) -> str:
    if not names:
        return "none, there are none"
    rest = len(names) - limit
    return ", ".join(map(_short, names[:limit])) + (f" and {rest} more" if rest > 0 else "")
