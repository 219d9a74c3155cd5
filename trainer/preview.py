"""Look at what a detector will be shown: ``python -m trainer.preview``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_home, packaged_names
from shards.errors import ShardError
from trainer.anchoring.anchor_maps import lay_out
from trainer.anchoring.boxes import cxcywh_to_xyxy
from trainer.detector import Detector
from trainer.imaging.drawing import contact_sheet, draw_objects, stacked, titled, write_png
from trainer.runs.config import RunConfig, load_run
from trainer.runs.open_scenes import open_photos, open_scenes
from trainer.sample import FloatArray, Sample, Target, UInt8Array

_COLUMNS = 4
_CELL_PX = 300

_EXAMPLES = """examples:
  python -m trainer.preview birds --out birds.png
  python -m trainer.preview offline --anchors --count 8 --seed 3
  python -m trainer.preview my-run.yaml compositor.max_objects=8 compositor.blend=hard augment=none

Composites first, then photos of the training split as augmented: the first that a training with this seed
sees. Each object has its number and class; ignored ones, neither learnt nor blamed, are dashed."""


def main(argv: list[str]) -> int:
    """Parse, draw, say where the sheet is."""
    args = _parse(argv)
    config, home = load_run(args.config, args.overrides), find_home()
    seed = config.seeds[0] if args.seed is None else args.seed
    scenes = open_scenes(config, home, seed)
    composites = [scenes.stream[number] for number in range(args.count)]
    size = f"{scenes.size} px, seed {seed}"
    sections = [_section(f"{config.name}: composites, {size}", composites, scenes.classes)]
    try:
        photos = open_photos(config, home, seed)
    except InputError as error:
        print(f"photos are left out: {error}")
        photos = None
    if photos is not None:
        augmented = [photos[number] for number in range(args.count)]
        sections.append(_section(f"photos as augmented, {size}", augmented, scenes.classes))
    if args.anchors:
        anchors = _anchors_of(config, len(scenes.classes), home)
        matched = [anchors.matched(sample.target) for sample in composites]
        title = f"anchors that answer for each object: {_counted(matched, composites)}"
        sections.append(_section(title, composites, scenes.classes, matched))
    write_png(args.out, stacked(sections))
    print(f"{args.out}: {args.count} composites, {0 if photos is None else args.count} photos")
    return 0


def _section(
    title: str,
    samples: Sequence[Sample],
    names: Sequence[str],
    anchors: Sequence[list[FloatArray]] | None = None,
) -> UInt8Array:
    """A titled sheet, the samples' keys below their pictures."""
    scale = _CELL_PX / samples[0].image.shape[0]
    drawn = [
        draw_objects(sample.image, sample.target, names, scale, anchors[k] if anchors else None)
        for k, sample in enumerate(samples)
    ]
    captions = [f"{Path(sample.key).name}: {_counted_objects(sample.target)}" for sample in samples]
    return titled(contact_sheet(drawn, min(_COLUMNS, len(drawn)), _CELL_PX, captions), title)


def _counted_objects(target: Target) -> str:
    ignored = int(target.ignore.sum())
    objects = f"{len(target)} object{'' if len(target) == 1 else 's'}"
    return f"{objects}, {ignored} ignored" if ignored else objects


class _Anchors:
    """A detector's anchors and its rule of who answers for what."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._corners = cxcywh_to_xyxy(lay_out(detector.anchor_maps()))

    def matched(self, target: Target) -> list[FloatArray]:
        """Of each object the anchors (A_n, 4), xyxy px, that are taught to find it."""
        objects = (torch.from_numpy(part) for part in (target.boxes, target.labels, target.ignore))
        labels, index = self._detector.match(self._corners, *objects)
        return [self._corners[(labels > 0) & (index == k)].numpy() for k in range(len(target))]


def _anchors_of(config: RunConfig, num_classes: int, home: Path) -> _Anchors:
    return _Anchors(config.detector.without_weights().build(num_classes, home))


def _counted(matched: Sequence[list[FloatArray]], samples: Sequence[Sample]) -> str:
    """How many an object has."""
    counts = [
        len(own)
        for anchors, sample in zip(matched, samples, strict=True)
        for own, ignored in zip(anchors, sample.target.ignore, strict=True)
        if not ignored
    ]
    if not counts:
        return "no object"
    none = counts.count(0)
    return f"{min(counts)} to {max(counts)}, median {np.median(counts):g}; {none} of {len(counts)} have none"


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "trainer.preview",
        "A sheet of composites and augmented photos, with boxes, as a training would see them.",
        _EXAMPLES,
    )
    known = ", ".join(packaged_names("runs"))
    parser.add_argument("arguments", nargs="*", metavar="CONFIG key=value", help=f"{known}, or a YAML file")
    parser.add_argument("--out", type=Path, default=Path("preview.png"), help="[preview.png]")
    parser.add_argument("--count", type=int, default=12, help="pictures of each sort [12]")
    parser.add_argument("--seed", type=int, help="[the run's first]")
    parser.add_argument("--anchors", action="store_true", help="also the anchors matched with each object")
    args = parser.parse_intermixed_args(argv)
    names = [text for text in args.arguments if "=" not in text]
    if len(names) > 1:
        raise InputError(f"found the configurations {', '.join(names)}: wanted one")
    for name, least in (("count", 1), ("seed", 0)):
        found = getattr(args, name)
        if found is not None and found < least:
            raise InputError(f"--{name}: found {found}, wanted at least {least}")
    args.config = names[0] if names else "offline"
    args.overrides = [text for text in args.arguments if "=" in text]
    return args


if __name__ == "__main__":
    run(main, ShardError)
