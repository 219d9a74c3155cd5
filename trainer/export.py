"""Composites as files, for other people's trainers: ``python -m trainer.export``."""

import argparse
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_home, packaged_names
from configs.kinds import config_class, kinds_in
from configs.load import validated
from shards.errors import ShardError
from trainer.exported import ExportConfig
from trainer.exporting.materialise import ExportJob, materialise
from trainer.runs.config import load_run

_FORMATS = "trainer.exports"

_EXAMPLES = """examples:
  python -m trainer.export offline --images 1000 --to coco data/exports/birds-coco
  python -m trainer.export birds --images 10000 --to yolo birds-yolo --val 0.1 --workers 8
  python -m trainer.export my-run.yaml --images 500 --to voc birds-voc --image png compositor.max_objects=5

Scenes are those that a run of CONFIG pretrains on, before augment_scenes, as large as detector.image_size.
The same command again goes on where it stopped, and with more --images adds them. Masks are what is seen of
each object:
  coco   rle (exact), polygons, none      ignored objects are crowds
  yolo   polygons (in segments/), none    ignored objects are left out
  voc    png, none                        ignored objects are difficult"""


def main(argv: list[str]) -> int:
    """Parse, write, say what came of it."""
    args = _parse(argv)
    config = load_run(args.config, args.overrides)
    seed = config.seeds[0] if args.seed is None else args.seed
    job = ExportJob(config, find_home(), _format(args), args.folder, seed, args.start)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _bar() as bar:
        task = bar.add_task(args.folder.name, total=args.images)
        done = materialise(job, args.images, args.workers, lambda count: bar.update(task, completed=count))
    print(
        f"{args.folder}: {done.images} images ({done.made} made now), {done.objects} objects, "
        f"{done.ignored} of them ignored\nto read it: {job.form.reading(str(args.folder))}"
    )
    return 0


def _format(args: argparse.Namespace) -> ExportConfig:
    family = config_class(_FORMATS, args.to, ExportConfig)
    assert issubclass(family, ExportConfig)
    given = {"image": args.image, "quality": args.quality, "val_share": args.val, "masks": args.masks}
    settings = {name: value for name, value in given.items() if value is not None}
    return validated(family, {"kind": args.to, **settings}, f"export to {args.to}")


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "trainer.export",
        "Write composites with boxes and masks in a format that other trainers read.",
        _EXAMPLES,
    )
    known = ", ".join(packaged_names("runs"))
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="CONFIG DIR key=value",
        help=f"{known}, or a YAML file; a new folder; settings",
    )
    parser.add_argument("--to", required=True, choices=kinds_in(_FORMATS), help="format")
    parser.add_argument("--images", type=int, required=True, help="how many scenes")
    parser.add_argument("--start", type=int, default=0, help="number of the first scene [0]")
    parser.add_argument("--seed", type=int, help="of the scenes [the run's first]")
    parser.add_argument("--masks", help="see below [the first of the format]")
    parser.add_argument("--image", choices=["jpg", "png"], help="[jpg]")
    parser.add_argument("--quality", type=int, help="of JPEG [95]")
    parser.add_argument("--val", type=float, metavar="SHARE", help="of the scenes for a split 'val' [0]")
    parser.add_argument("--workers", type=int, default=0, help="processes beside this one [0]")
    args = parser.parse_intermixed_args(argv)
    names = [text for text in args.arguments if "=" not in text]
    if len(names) != 2:
        raise InputError(f"found {', '.join(names) or 'nothing'}: wanted a configuration and a folder")
    for name, least in (("images", 1), ("start", 0), ("workers", 0), ("seed", 0)):
        found = getattr(args, name)
        if found is not None and found < least:
            raise InputError(f"--{name}: found {found}, wanted at least {least}")
    args.config, args.folder = names[0], Path(names[1])
    args.overrides = [text for text in args.arguments if "=" in text]
    return args


if __name__ == "__main__":
    run(main, ShardError)
