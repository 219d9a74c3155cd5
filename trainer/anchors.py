"""How well a detector's anchors cover a data set, and better ones: ``python -m trainer.anchors``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_home, packaged_names
from shards.errors import ShardError
from trainer.anchoring.anchor_fit import Coverage, boxes_of, coverage, fit_anchors
from trainer.anchoring.anchor_picture import IOU_LEVELS, draw_anchors, size_bins
from trainer.dataset import BoxedImage
from trainer.detector import DetectorConfig
from trainer.imaging.drawing import stacked, write_png
from trainer.runs.config import RunConfig, load_run
from trainer.runs.data import RunData
from trainer.sample import Target, make_target

_EXAMPLES = """examples:
  python -m trainer.anchors birds
  python -m trainer.anchors faces --fit --out faces.png
  python -m trainer.anchors my-run.yaml --fit 9 --split val detector.kind=ssd
  python -m trainer.anchors offline --scenes 200

Boxes are those of the run's photos as they are, in px of the detector's square, or with --scenes those of its
composites. An object is without an anchor when none is taught to find it. --fit looks for sizes and ratios
that overlap the boxes more, and prints them to paste into the run's file. They suit the boxes, not what each
map can see: a training shows whether they help."""


def main(argv: list[str]) -> int:
    """Parse, measure, fit, draw."""
    args = _parse(argv)
    config, home = load_run(args.config, args.overrides), find_home()
    what, targets, num_classes = _targets(args, config, home)
    boxes = boxes_of(targets)
    if not len(boxes):
        raise InputError(f"{what}: found no object that counts, wanted one")
    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    chosen = {"anchors": config.detector}
    detector = config.detector.without_weights().build(num_classes, home)
    if args.fit is not None:
        chosen["fitted"] = fit_anchors(config.detector, detector.anchor_maps(), boxes, args.fit or None)
    pictures = []
    for name, settings in chosen.items():
        detector = settings.without_weights().build(num_classes, home)
        maps, cover = detector.anchor_maps(), coverage(detector, targets)
        title = f"{name}: {config.name}, {_name_of(settings)}, {sum(map(len, maps))} anchors; {what}"
        console.print(_table(title, cover))
        pictures.append(draw_anchors(title, maps, boxes, cover, settings.image_size))
    if "fitted" in chosen:
        print(_pasted(chosen["fitted"]))
    write_png(args.out, stacked(pictures))
    print(f"{args.out}: boxes against anchors")
    return 0


def _targets(args: argparse.Namespace, config: RunConfig, home: Path) -> tuple[str, list[Target], int]:
    """What the boxes are of, they, in px of the detector's square, and the number of classes."""
    data, size = RunData(config, home), config.detector.image_size
    if args.scenes:
        scenes = data.scenes(config.seeds[0])
        targets = [scenes[number].target for number in range(args.scenes)]
        return f"{args.scenes} composites", targets, len(data.classes)
    split = args.split or config.train_split
    photos = config.dataset.read(split, data.classes, home)
    return f"{len(photos)} photos of {split}", [_squared(p, size) for p in photos], len(data.classes)


def _squared(photo: BoxedImage, size: int) -> Target:
    """The photo's target when it is resized to a square."""
    scale = np.array([size / photo.width, size / photo.height] * 2, np.float32)
    return make_target(photo.target.boxes * scale, photo.target.labels, photo.target.ignore)


def _name_of(settings: DetectorConfig) -> str:
    backbone = getattr(settings, "backbone", None)
    return f"{settings.kind}{f' on {backbone}' if backbone else ''} at {settings.image_size} px"


def _table(title: str, cover: Coverage) -> Table:
    """A row a size, and one for all."""
    table = Table(title=title, title_justify="left")
    levels = [f">= {level:g}" for level in IOU_LEVELS]
    for name in ("side", "objects", "mean best IoU", *levels, "anchors each", "without an anchor"):
        table.add_column(name, justify="left" if name == "side" else "right")
    everything = np.ones(len(cover.sides), bool)
    for name, members in [*size_bins(cover.sides), ("all", everything)]:
        best, answering = cover.best_iou[members], cover.answering[members]
        shares = [f"{(best >= level).mean():.1%}" for level in IOU_LEVELS]
        counts = f"{np.median(answering):g}", str(int((answering == 0).sum()))
        table.add_row(name, str(len(best)), f"{best.mean():.3f}", *shares, *counts)
    return table


def _pasted(settings: DetectorConfig) -> str:
    """The fitted settings as YAML of a run's file."""
    plain = settings.model_dump(mode="json")
    fitted = {name: plain[name] for name in settings.anchor_settings}
    return yaml.safe_dump({"detector": fitted}, sort_keys=False, default_flow_style=None, width=110).rstrip()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        "trainer.anchors", "Measure how well a run's anchors cover its boxes, and fit better ones.", _EXAMPLES
    )
    known = ", ".join(packaged_names("runs"))
    parser.add_argument("arguments", nargs="*", metavar="CONFIG key=value", help=f"{known}, or a YAML file")
    parser.add_argument(
        "--fit",
        type=int,
        nargs="?",
        const=0,
        metavar="N",
        help="fit anchors, of N sizes in all [as many as now]",
    )
    parser.add_argument("--split", help="of the photos [the run's train_split]")
    parser.add_argument("--scenes", type=int, default=0, metavar="N", help="N composites instead of photos")
    parser.add_argument("--out", type=Path, default=Path("anchors.png"), help="[anchors.png]")
    args = parser.parse_intermixed_args(argv)
    names = [text for text in args.arguments if "=" not in text]
    if len(names) > 1:
        raise InputError(f"found the configurations {', '.join(names)}: wanted one")
    for name in ("fit", "scenes"):
        if (found := getattr(args, name)) is not None and found < 0:
            raise InputError(f"--{name}: found {found}, wanted 1 or more")
    args.config = names[0] if names else "offline"
    args.overrides = [text for text in args.arguments if "=" in text]
    return args


if __name__ == "__main__":
    run(main, ShardError)
