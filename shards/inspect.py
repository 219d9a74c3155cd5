"""``python -m shards.inspect DIR``: what a set holds, whether it is sound, what it looks like."""

import argparse
import json
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shards.errors import ShardError
from shards.manifest import Manifest
from shards.reader import ShardSet
from shards.records import CropRecord, Record, UInt8Array

PREVIEW_RECORDS = 48
_COLUMNS = 8
_CELL_PX = 128
_GAP_PX = 4
_CHECK_PX = 8
_CHECK_GREYS = (208, 160)
_PAPER_GREY = 255

_EXAMPLES = """\
examples:
  python -m shards.inspect data/crops/birds                        what the set holds, from its manifest alone
  python -m shards.inspect data/crops/birds --verify               hash and decode every record
  python -m shards.inspect data/crops/birds --preview sheet.png    look at 48 records spread over the set
  python -m shards.inspect s3://bucket/crops/birds --json          the same facts for a program

exit status: 0 sound, 2 not a set, damaged, or used wrongly (one line per problem on stderr)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the summary; with ``--verify`` checks all, with ``--preview`` draws. Returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        code = _inspect(options)
        sys.stdout.flush()
        return code
    except ShardError as error:
        if options.verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # a reader that has seen enough, as `head` has
        sys.stdout = None  # so that Python does not flush it once more
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def summary_of(manifest: Manifest) -> dict[str, Any]:
    """The facts of a set in plain JSON values, shards taken together."""
    labels: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for entry in manifest.shards:
        labels.update(entry.labels)
        dropped.update(entry.dropped)
    return {
        "kind": manifest.kind,
        "complete": manifest.complete,
        "records": manifest.records,
        "shards": len(manifest.shards),
        "bytes": manifest.bytes,
        "classes": list(manifest.classes),
        "labels": dict(sorted(labels.items())),
        "seen": sum(entry.seen for entry in manifest.shards),
        "dropped": dict(dropped.most_common()),
        "fingerprint": manifest.fingerprint,
        "version": manifest.version,
    }


def contact_sheet(records: Iterable[Record]) -> UInt8Array:
    """A grid of equal cells, eight a row: crops over a checkerboard, backgrounds as they are; aspect kept.

    uint8 (H, W, 3). Raises ShardError when there is no record.
    """
    cells = [_cell(record) for record in records]
    if not cells:
        raise ShardError("preview: the set has no records, wanted at least one")
    columns = min(_COLUMNS, len(cells))
    pitch = _CELL_PX + _GAP_PX
    rows = -(-len(cells) // columns)
    sheet = np.full((rows * pitch + _GAP_PX, columns * pitch + _GAP_PX, 3), _PAPER_GREY, np.uint8)
    for place, cell in enumerate(cells):
        y, x = (_GAP_PX + pitch * step for step in divmod(place, columns))
        sheet[y : y + _CELL_PX, x : x + _CELL_PX] = cell
    return sheet


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m shards.inspect",
        description="Say what a crop or background set holds, check it, draw it; unfinished sets too.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"crop-foundry {_version()}")
    parser.add_argument("-v", "--verbose", action="store_true", help="errors with their origin")
    parser.add_argument("set", metavar="DIR", help="the set's folder, or an s3://, gs:// or other fsspec URL")
    parser.add_argument("--verify", action="store_true", help="check hashes, counts and every record")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument(
        "--preview",
        type=Path,
        metavar="SHEET.png",
        help=f"draw up to {PREVIEW_RECORDS} records, evenly spread, crops on a checkerboard",
    )
    return parser


def _version() -> str:
    try:
        return version("crop-foundry")
    except PackageNotFoundError:
        return "0 (not installed)"


def _inspect(options: argparse.Namespace) -> int:
    found = ShardSet.open(options.set, allow_incomplete=True)
    facts = {"location": found.store.location, **summary_of(found.manifest)}
    problems = list(_problems(found)) if options.verify else None
    if options.json:
        if problems is not None:
            facts["problems"] = problems
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        print("\n".join(_lines(facts)))
        if problems == []:
            print(f"{'verified':<12} {facts['shards']} shards: sizes, hashes, counts and records are right")
    for problem in problems or ():
        print(f"error: {problem}", file=sys.stderr)
    if options.preview is not None:
        _save(contact_sheet(_spread(found)), options.preview)
        print(f"preview: {options.preview}", file=sys.stderr)
    return 2 if problems else 0


def _problems(found: ShardSet) -> Iterator[str]:
    for _, lines in found.verify():
        yield from lines


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    state = "complete" if facts["complete"] else "incomplete: run the command that made it again to finish it"
    rows = {
        "set": facts["location"],
        "kind": f"{facts['kind']}, {state}",
        "records": f"{facts['records']:,} in {facts['shards']:,} shards, {facts['bytes'] / 1e6:,.1f} MB",
        "classes": ", ".join(facts["classes"]) or "none",
        "labels": _counts(facts["labels"]),
        "made from": f"{facts['seen']:,} source slots" if facts["seen"] else "",
        "dropped": _counts(facts["dropped"]),
        "fingerprint": facts["fingerprint"][:12],
    }
    return (f"{name:<12} {value}" for name, value in rows.items() if value)


def _counts(table: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in table.items())


def _spread(found: ShardSet) -> Iterator[Record]:
    """Up to 48 records at even steps from the first to the last."""
    count = min(PREVIEW_RECORDS, len(found))
    return (
        (found[round(place)] for place in np.linspace(0, len(found) - 1, count).tolist())
        if count
        else iter(())
    )


def _cell(record: Record) -> UInt8Array:
    """uint8 (128, 128, 3): the record as large as it fits, centred."""
    height, width = record.image.shape[:2]
    scale = _CELL_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    y, x = (_CELL_PX - size[1]) // 2, (_CELL_PX - size[0]) // 2
    cell = np.full((_CELL_PX, _CELL_PX, 3), _PAPER_GREY, np.uint8)
    if isinstance(record, CropRecord):
        cell = _checkerboard()
    patch = np.s_[y : y + size[1], x : x + size[0]]
    pixels = _resized(record.image, size)
    if isinstance(record, CropRecord):
        opacity = _resized(record.mask, size)[:, :, None].astype(np.float32) / 255
        cell[patch] = np.rint(pixels * opacity + cell[patch] * (1 - opacity))
    else:
        cell[patch] = pixels
    return cell


def _checkerboard() -> UInt8Array:
    rows, columns = np.indices((_CELL_PX, _CELL_PX)) // _CHECK_PX
    greys = np.array(_CHECK_GREYS, np.uint8)[(rows + columns) % 2]
    return np.repeat(greys[:, :, None], 3, axis=2)


def _resized(pixels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _save(sheet: UInt8Array, path: Path) -> None:
    if path.suffix.lower() not in Image.registered_extensions():
        raise ShardError(f"{path}: preview not written: no picture's name, wanted for example sheet.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(path)
    except OSError as error:
        raise ShardError(f"{path}: preview not written: {error.strerror or error}") from error
    except ValueError as error:
        raise ShardError(f"{path}: preview not written: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
