"""Fetch a boxed data set, look it through, compare sets: ``python -m trainer.datasets COMMAND …``."""

import argparse
from collections.abc import Callable
from pathlib import Path

from configs.entry import Parser, run
from configs.home import find_home
from shards.errors import ShardError

_EXAMPLES = """examples:
  python -m trainer.datasets get cub
  python -m trainer.datasets get coco --splits val --out /data/coco
  python -m trainer.datasets check cub data/cub --sheet cub.png
  python -m trainer.datasets check voc data/VOC2007 one_based=true --classes bird,car
  python -m trainer.datasets check coco data/coco annotations.val=annotations/instances_val2017.json \\
      'images={split}2017' --splits val --photos
  python -m trainer.datasets check wider data/widerface 'annotations={split}/label.txt' \\
      'images={split}/images' --splits train
  python -m trainer.datasets check csv_boxes data/mine columns.file=image_id columns.x0=xmin
  python -m trainer.datasets audit birds --seen photos/birds

ROOT and key=value are the settings of a run's dataset."""


def main(argv: list[str]) -> int:
    """Run the command that the first argument names."""
    parser = _parser("COMMAND …", "Fetch a boxed data set, look it through, compare sets.")
    parser.add_argument("command", choices=list(_COMMANDS), help="each has its own --help")
    name = parser.parse_args(argv[:1]).command
    return _COMMANDS[name](argv[1:], find_home())


def _check(argv: list[str], home: Path) -> int:
    from trainer.boxed_data.check_command import add_arguments, check

    parser = _parser(
        "check KIND ROOT [key=value …]",
        "Read every split and print counts, sizes and oddities. Exit 1 when a split or a photo cannot be\n"
        "used; oddities alone are no error.",
    )
    add_arguments(parser)
    return check(parser.parse_intermixed_args(argv), home)


def _get(argv: list[str], home: Path) -> int:
    from trainer.boxed_data.get_command import add_arguments, get

    parser = _parser(
        "get KIND [--out DIR]",
        "Download a data set from its official place, or say what to fetch by hand. The same command again\n"
        "goes on where it was interrupted, and does nothing where all is there.",
    )
    add_arguments(parser)
    return get(parser.parse_args(argv), home)


def _audit(argv: list[str], home: Path) -> int:
    from trainer.auditing.command import add_arguments, audit

    parser = _parser(
        "audit RUN [key=value …]",
        "Find the same or nearly the same picture in what should be apart: a run's test split against all\n"
        "that its trainings see. Exit 1 when anything leaks into the test split.",
    )
    add_arguments(parser)
    return audit(parser.parse_intermixed_args(argv), home)


def _parser(usage: str, description: str) -> argparse.ArgumentParser:
    return Parser("trainer.datasets", description, _EXAMPLES, usage)


_COMMANDS: dict[str, Callable[[list[str], Path], int]] = {"audit": _audit, "check": _check, "get": _get}

if __name__ == "__main__":
    run(main, ShardError)
