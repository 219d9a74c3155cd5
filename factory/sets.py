"""Copy, merge and thin out sets: ``python -m factory.sets COMMAND …``. No command changes what it reads."""

import argparse
from collections.abc import Callable, Mapping

from configs.entry import Parser, run
from configs.home import find_home
from factory.managing.copying import copy_set
from factory.managing.deduplication import dedupe
from factory.managing.derived import derive, open_parent
from factory.managing.dropping import drop
from factory.managing.merging import merge
from factory.managing.regating import regate
from shards.errors import ShardError

_EXAMPLES = """examples:
  python -m factory.sets copy data/crops/birds s3://bucket/crops/birds --verify
  python -m factory.sets merge data/crops/animals data/crops/birds data/crops/cats
  python -m factory.sets drop data/crops/animals 'confidence<0.6' 'label=cat and width<48' --out fewer
  python -m factory.sets drop data/crops/birds shard=crops-000003.tar --out data/crops/birds-whole
  python -m factory.sets dedupe data/crops/animals --bits 4 --out data/crops/animals-once
  python -m factory.sets regate data/crops/birds quality.min_confidence=0.6 --out data/crops/birds-sure

Sets are folders or URLs (s3://, gs://). The same command again finishes what was interrupted, and rewrites
nothing that is done. To check a set: python -m shards.inspect SET --verify. To extend one: factory.build with
more --crops makes only the new shards."""


def main(argv: list[str]) -> int:
    """Run the command that the first argument names, print what came of it."""
    parser = _parser("COMMAND …", "Copy, merge and thin out sets of crops or backgrounds.")
    parser.add_argument("command", choices=list(_COMMANDS), help="each has its own --help")
    name = parser.parse_args(argv[:1]).command
    print(_COMMANDS[name](argv[1:]))
    return 0


def _copy(argv: list[str]) -> str:
    parser = _parser("copy FROM TO", "Bring a set to another place, byte for byte.")
    parser.add_argument("source", metavar="FROM", help="the set")
    parser.add_argument("to", metavar="TO", help="a new or empty folder or URL, or an older copy of it")
    parser.add_argument("--verify", action="store_true", help="read back and hash every shard at TO, mend it")
    args = parser.parse_intermixed_args(argv)
    return copy_set(open_parent(args.source, find_home()), args.to, verify=args.verify)


def _merge(argv: list[str]) -> str:
    parser = _parser("merge OUT SET [SET …]", "Make one set of several of a kind; no pixel is coded again.")
    parser.add_argument("out", metavar="OUT", help="a new or empty folder or URL")
    parser.add_argument("sets", metavar="SET", nargs="+", help="in the order that they are to have")
    args = parser.parse_intermixed_args(argv)
    return derive(merge([open_parent(place, find_home()) for place in args.sets]), args.out)


def _drop(argv: list[str]) -> str:
    parser = _thinning("drop SET RULE [RULE …] --out NEW", "Leave out what any rule holds for.")
    parser.add_argument(
        "rules",
        metavar="RULE",
        nargs="+",
        help="'confidence<0.6', label=cat, 'file=bad/*', 'width<48 and height<48', shard=crops-000003.tar: "
        "label, key, shard, width, height or anything in a record's origin",
    )
    args = parser.parse_intermixed_args(argv)
    return derive(drop(open_parent(args.set, find_home()), args.rules), args.out)


def _dedupe(argv: list[str]) -> str:
    parser = _thinning(
        "dedupe SET --out NEW", "Of records that look alike keep the first, across all shards."
    )
    parser.add_argument("--bits", type=int, default=4, help="of a 64-bit hash, that may differ, 0 to 8 [4]")
    args = parser.parse_intermixed_args(argv)
    return derive(dedupe(open_parent(args.set, find_home()), args.bits), args.out)


def _regate(argv: list[str]) -> str:
    parser = _thinning(
        "regate SET quality.NAME=VALUE … --out NEW", "Apply stricter limits to the scores in the records."
    )
    parser.add_argument("limits", metavar="quality.NAME=VALUE", nargs="+", help="quality.min_confidence=0.6")
    args = parser.parse_intermixed_args(argv)
    return derive(regate(open_parent(args.set, find_home()), args.limits), args.out)


def _thinning(usage: str, description: str) -> argparse.ArgumentParser:
    parser = _parser(usage, description)
    parser.add_argument("set", metavar="SET", help="folder or URL; it is only read")
    parser.add_argument("--out", metavar="NEW", required=True, help="a new or empty folder or URL")
    return parser


def _parser(usage: str, description: str) -> argparse.ArgumentParser:
    return Parser("factory.sets", description, _EXAMPLES, usage)


_COMMANDS: Mapping[str, Callable[[list[str]], str]] = {
    "copy": _copy,
    "merge": _merge,
    "drop": _drop,
    "dedupe": _dedupe,
    "regate": _regate,
}


if __name__ == "__main__":
    run(main, ShardError)
