"""What a user names to look at: photos, folders of them, globs, and videos frame by frame."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from configs.errors import InputError
from trainer.sample import UInt8Array

PHOTOS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # that are read and written alike
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@dataclass(frozen=True, slots=True)
class Source:
    """A photo or a video. name: unique among those found together, relative, without ``..``."""

    path: Path
    name: PurePosixPath

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS


def find_sources(places: Sequence[str], left_out: Path) -> list[Source]:
    """The photos and videos of files, folders (with all below them) and globs, each once, in order.

    A name is the path from the deepest folder that holds them all. Files of other sorts are left out where
    they are not named themselves; so are hidden ones, and all below the folder ``left_out``.
    Raises InputError for a place that holds none.
    """
    found: dict[Path, Path] = {}  # as named, by where they are
    for place in places:
        paths = _paths_of(place, _normal(left_out))
        if not paths:
            raise InputError(f"{place}: found no photo or video, wanted one")
        for path in paths:
            found.setdefault(_normal(path), path)
    top = os.path.commonpath([where.parent for where in found])
    sources = [Source(path, _name_of(where.relative_to(top))) for where, path in found.items()]
    names: dict[PurePosixPath, Path] = {}
    for source in sources:
        if source.name in names:
            both = f"{names[source.name]} and {source.path}"
            raise InputError(f"{both}: would both be written as {source.name}: wanted other names")
        names[source.name] = source.path
    return sources


def _paths_of(place: str, left_out: Path) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        below = sorted(path.rglob("*"))
    elif glob.has_magic(place):
        below = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 absolute ones
    else:
        raise InputError(f"{place}: found nothing there, wanted a photo, a video, a folder or a glob")
    return [
        each
        for each in below
        if each.suffix.lower() in PHOTOS + VIDEOS
        and not each.name.startswith(".")
        and left_out not in _normal(each).parents
        and each.is_file()
    ]


def _normal(path: Path) -> Path:
    """Absolute, without ``..``; a link keeps its own name."""
    return Path(os.path.normpath(path.expanduser().absolute()))


def _name_of(path: Path) -> PurePosixPath:
    """A file of another sort gets a suffix that can be written."""
    name = PurePosixPath(path.as_posix())
    known = name.suffix.lower() in PHOTOS + VIDEOS
    return name if known else name.with_name(f"{name.name}.png")


def video_frames(path: Path, every: int = 1) -> Iterator[tuple[int, UInt8Array]]:
    """Each ``every``-th frame, numbered from 0, uint8 (H, W, 3) RGB, turned upright where the file says so.

    Raises InputError where nothing can be decoded.
    """
    logged = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our error says it in a line
    video = cv2.VideoCapture(str(path))
    cv2.utils.logging.setLogLevel(logged)
    number = 0
    try:
        while video.grab():
            if number % every == 0:
                is_whole, pixels = video.retrieve()
                if not is_whole:
                    break
                yield number, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            number += 1
    finally:
        video.release()
    if not number:
        raise InputError(f"{path}: no frame can be decoded, wanted a video that OpenCV reads")
