"""Pretrain on composites, finetune on a few photos, measure: ``python -m trainer.run``."""

import argparse
import sys
from pathlib import Path

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_home, packaged_names
from configs.log_file import keep_log
from shards.errors import ShardError
from trainer.runs.config import cells_of, load_run
from trainer.runs.folder import Run
from trainer.runs.provenance import keep_origin, origin_of
from trainer.training.stopping import Stopped

_EXAMPLES = """examples:
  python -m trainer.run
  python -m trainer.run cars dataset.root=photos/cars_voc
  python -m trainer.run my-run.yaml --out runs/mine seeds=[0] num_real=[20]

The same command again goes on where it stopped. Without CONFIG the run is 'offline'."""


def main(argv: list[str]) -> int:
    """Parse, run the grid, print the table."""
    args = _parse(argv)
    home = find_home()
    config = load_run(args.config, args.overrides)
    out = args.out or home / "runs" / config.name
    the_run = Run(config, out, home)
    if left := the_run.left:
        done = len(cells_of(config)) - len(left)
        keep_origin(out, origin_of("trainer.run", argv, [config], done, home))
    keep_log(out)
    try:
        the_run.run()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.code
    print(the_run.table())
    print(f"scores, checkpoints and pictures: {out}")
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "trainer.run",
        "Pretrain a detector on composites of a crop set, finetune it on photos, measure AP.",
        _EXAMPLES,
    )
    known = ", ".join(packaged_names("runs"))
    parser.add_argument("arguments", nargs="*", metavar="CONFIG key=value", help=f"{known}, or a YAML file")
    parser.add_argument("--out", type=Path, help="run folder [runs/NAME]")
    args = parser.parse_intermixed_args(argv)
    names = [text for text in args.arguments if "=" not in text]
    if len(names) > 1:
        raise InputError(f"found the configurations {', '.join(names)}: wanted one")
    args.config = names[0] if names else "offline"
    args.overrides = [text for text in args.arguments if "=" in text]
    return args


if __name__ == "__main__":
    run(main, ShardError)
