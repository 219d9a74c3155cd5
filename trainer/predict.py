"""Find objects in photos and videos: ``python -m trainer.predict``."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from configs.entry import Parser, names_in, run
from configs.errors import InputError
from configs.home import find_home
from configs.kinds import did_you_mean
from trainer.evaluation.detection import Shown, Size, detect_all, made_ahead, resized
from trainer.evaluation.predictions import FORMATS, Picture, Predictions
from trainer.imaging.images import read_image
from trainer.imaging.pictures import Source, find_sources, video_frames
from trainer.runs.given_detector import add_detector_arguments, check_folder, open_given
from trainer.sample import UInt8Array

_EXAMPLES = """examples:
  python -m trainer.predict photos --checkpoint runs/birds/seed-0/n-50/finetune --out found
  python -m trainer.predict 'photos/*.jpg' clip.mp4 --every 10 --checkpoint best.pt --out found
  python -m trainer.predict photos --out found --names face \\
      --detector retinaface checkpoint=mobilenet0.25_Final.pth

OUT gets detections.json, detections.csv and images/, the pictures with boxes, below their own names:
  {"classes": ["bird"], ..., "images": [{"image": "photos/a.jpg", "width": 640, "height": 480,
    "detections": [{"label": "bird", "score": 0.93, "box": [x0, y0, x1, y1]}]}], "unreadable": []}
Boxes are pixels of the picture as it is meant to be seen (EXIF orientation). A video's pictures have a
"frame", from 0. A detector of faces with landmarks gives five [x, y] each: both eyes, nose, both corners of
the mouth. A picture that cannot be read is named and left out; the exit status is 1 then."""


def main(argv: list[str]) -> int:
    """Parse, detect, write, say how much was found."""
    args = _parse(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sources = find_sources(args.images, args.out)
    trained, size = open_given(args.checkpoint, args, find_home(), device)
    labels = _labels(args.only, trained.classes)
    about = {
        "detector": trained.config.kind,
        "checkpoint": str(trained.path),
        "classes": trained.classes,
        "threshold": args.threshold,
        "size": size,
    }
    square_px = trained.config.image_size
    with Predictions(args.out, args.format, trained.classes, about) as written:
        shown = _readable(made_ahead(partial(_show, size, square_px), _items(sources, args.every)), written)
        for picture, found in detect_all(trained.detector, _watched(shown, sources), square_px, device):
            wanted = (found.scores >= args.threshold) & np.isin(found.labels, labels)
            written.add(picture, found.chosen(wanted))
    left_out = f", {len(written.unreadable)} cannot be read" if written.unreadable else ""
    print(f"{args.out}: {written.detections} detections in {written.pictures} pictures{left_out}")
    return int(bool(written.unreadable))


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """A photo, not yet read, or a video's frame."""

    source: Source
    frame: int | None = None
    pixels: UInt8Array | None = None


@dataclass(frozen=True, slots=True)
class _Unreadable:
    path: Path
    why: str


def _items(sources: Sequence[Source], every: int) -> Iterator[_Item | _Unreadable]:
    for source in sources:
        if not source.is_video:
            yield _Item(source)
            continue
        try:
            for number, pixels in video_frames(source.path, every):
                yield _Item(source, number, pixels)
        except InputError as error:
            yield _Unreadable(source.path, str(error))


def _show(size: Size, square_px: int, item: _Item | _Unreadable) -> Shown[Picture] | _Unreadable:
    if isinstance(item, _Unreadable):
        return item
    source, pixels = item.source, item.pixels
    try:
        pixels = read_image(source.path, is_upright=True) if pixels is None else pixels
    except InputError as error:
        return _Unreadable(source.path, str(error))
    name = source.name if item.frame is None else source.name / f"{item.frame:06d}.jpg"
    height, width = pixels.shape[:2]
    picture = Picture(source.path, item.frame, name, pixels)
    return Shown(picture, resized(pixels, size, square_px), width, height, kept_px=width * height)


def _readable(made: Iterable[Shown[Picture] | _Unreadable], written: Predictions) -> Iterator[Shown[Picture]]:
    for each in made:
        if isinstance(each, _Unreadable):
            written.leave_out(each.path, each.why)
            print(each.why, file=sys.stderr)
        else:
            yield each


def _watched(shown: Iterable[Shown[Picture]], sources: Sequence[Source]) -> Iterable[Shown[Picture]]:
    """With a bar on a terminal."""
    total = None if any(source.is_video for source in sources) else len(sources)
    console = Console(stderr=True)
    return track(shown, "detecting", total, console=console, disable=not sys.stderr.isatty())


def _labels(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Of the classes that are asked for, all without."""
    for name in names:
        if name not in classes:
            raise InputError(f"--class: unknown {did_you_mean(name, classes)}")
    return [number for number, name in enumerate(classes, start=1) if not names or name in names]


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "trainer.predict", "Find objects in photos and videos with a trained detector.", _EXAMPLES
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="photos, videos, folders, globs")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint, or the folder of a training")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--threshold", type=float, default=0.3, help="the least score, 0..1 [0.3]")
    parser.add_argument("--class", dest="only", action="append", default=[], help="repeat it [all classes]")
    parser.add_argument("--format", type=_formats, default=FORMATS, help=f"[{','.join(FORMATS)}]")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th frame of a video [1]")
    add_detector_arguments(parser)
    args = parser.parse_args(argv)
    check_folder(args.out)
    if not 0 <= args.threshold <= 1:
        raise InputError(f"--threshold: found {args.threshold}, wanted 0 to 1")
    if args.every < 1:
        raise InputError(f"--every: found {args.every}, wanted at least 1")
    return args


def _formats(text: str) -> list[str]:
    names = names_in(text)
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(did_you_mean(name, FORMATS))
    return names


if __name__ == "__main__":
    run(main)
