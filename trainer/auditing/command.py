"""``python -m trainer.datasets audit``: what of a run's test split the rest of the run shows too."""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from configs.errors import InputError
from configs.home import locate
from configs.text_file import write_text
from shards.records import CropRecord, Record
from trainer.auditing.near_duplicates import (
    THRESHOLD,
    Comparison,
    Gallery,
    Print,
    compare,
    crop_print,
    photo_print,
)
from trainer.auditing.sheet import PAIRS, ShownPair, draw_pairs
from trainer.dataset import BoxedImage
from trainer.datasets.cub import CubConfig
from trainer.imaging.images import read_boxed_image, read_image
from trainer.imaging.pictures import find_sources
from trainer.runs.config import RunConfig, load_run
from trainer.runs.data import RunData
from trainer.sample import UInt8Array
from trainer.streaming.crop_pool import Collection

_LISTED = 10
_HELD = 32  # photos kept in memory for the next pair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command."""
    parser.add_argument("arguments", nargs="+", metavar="RUN key=value", help="a run's name or YAML file")
    parser.add_argument("--out", type=Path, metavar="DIR", help="of leaks.json, leaks.png [audits/NAME]")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, help=f"correlation of near-duplicates [{THRESHOLD}]"
    )
    parser.add_argument(
        "--seen", nargs="+", default=[], metavar="PLACE", help="photos that a generator learnt from"
    )
    parser.add_argument(
        "--write-split", type=Path, metavar="FILE", help="the test split without what leaks into it"
    )


def audit(args: argparse.Namespace, home: Path) -> int:
    """Compare side by side, print, write. 1 when something leaks into the test split.

    Raises InputError for a mistaken argument or missing data, ShardError for a damaged set.
    """
    config = _config(args)
    out = args.out or home / "audits" / config.name
    data = RunData(config, home)
    test = _Photos("test", data.test)
    pairs = []
    for pair in _compared(_sides(data, config, args, home), test, args.threshold):
        print(pair.line(), flush=True)
        pairs.append(pair)
    found = {copy.photo for pair in pairs if pair.second is test for copy in pair.found.copies}
    leaking = [image.key for number, image in enumerate(data.test) if number in found]
    content = {"run": config.name, "threshold": args.threshold, "leaking": leaking}
    facts = json.dumps({**content, "comparisons": [pair.facts() for pair in pairs]}, indent=1)
    write_text(out / "leaks.json", facts + "\n")
    draw_pairs(out / "leaks.png", [(pair.line(), pair.shown()) for pair in pairs])
    print(f"every pair: {out / 'leaks.json'}; the most alike: {out / 'leaks.png'}")
    if args.write_split:
        write_text(args.write_split, split_without(config, data.test, set(leaking), home))
        print(f"{args.write_split}: {test.count - len(leaking)} of {test.count} photos of the test split")
    print(_verdict(leaking, test.count))
    return int(bool(leaking))


def split_without(config: RunConfig, test: Sequence[BoxedImage], leaking: set[str], home: Path) -> str:
    """A list of the test photos that do not leak, in the layout that the run's data set reads.

    Of CUB that is a ``split_file``: the old one, in which the photos that leak get a number of no split. Of
    others, a name a line, as VOC's ``ImageSets`` are.
    """
    dataset = config.dataset
    if not isinstance(dataset, CubConfig):
        return "".join(f"{image.key}\n" for image in test if image.key not in leaking)
    root = locate(dataset.root, home)
    left_out = max(dataset.splits.values()) + 1
    names = dict(line.split(maxsplit=1) for line in (root / "images.txt").read_text().splitlines() if line)
    lines = []
    for line in (root / dataset.split_file).read_text().splitlines():
        number, value = line.split(maxsplit=1)
        leaks = Path(names[number]).with_suffix("").as_posix() in leaking
        lines.append(f"{number} {left_out if leaks else value}\n")
    return "".join(lines)


class _Side(Protocol):
    """Pictures behind one index."""

    name: str
    count: int

    def key(self, number: int) -> str: ...

    def picture(self, number: int) -> UInt8Array: ...

    def prints(self) -> Iterator[Print | None]: ...


class _Photos:
    """Photos on disk, annotated or not."""

    def __init__(self, name: str, photos: Sequence[BoxedImage]) -> None:
        self.name, self.count, self._photos = name, len(photos), photos
        self.picture = lru_cache(_HELD)(self._read)

    def key(self, number: int) -> str:
        return self._photos[number].key

    def prints(self) -> Iterator[Print | None]:
        return (photo_print(self._read(number)) for number in range(self.count))

    def gallery(self) -> Gallery:
        return Gallery((self.picture(n), image.target.boxes) for n, image in enumerate(self._photos))

    def _read(self, number: int) -> UInt8Array:
        return read_boxed_image(self._photos[number])


class _Folder:
    """Photos of no annotation, from files, folders and globs."""

    def __init__(self, name: str, places: Sequence[str], home: Path) -> None:
        located = [str(locate(Path(place), home)) for place in places]
        sources = find_sources(located, left_out=home / "audits")
        self._photos = [source for source in sources if not source.is_video]
        self.name, self.count = name, len(self._photos)

    def key(self, number: int) -> str:
        return str(self._photos[number].name)

    def picture(self, number: int) -> UInt8Array:
        return read_image(self._photos[number].path)

    def prints(self) -> Iterator[Print | None]:
        return (photo_print(self.picture(number)) for number in range(self.count))


class _Records:
    """Crops or backgrounds."""

    def __init__(self, name: str, sets: Collection) -> None:
        self.name, self.count, self._sets = name, len(sets), sets

    def key(self, number: int) -> str:
        record = self._record(number)
        file = record.origin.get("file")
        return f"{record.key} {file}" if file else record.key

    def picture(self, number: int) -> UInt8Array:
        return self._record(number).image

    def _record(self, number: int) -> Record:
        place, index = self._sets.place_of(number)
        return self._sets.sets[place][index]

    def prints(self) -> Iterator[Print | None]:
        for record in (record for each in self._sets.sets for record in each.stream()):
            if isinstance(record, CropRecord):
                frame = [record.origin.get(f"frame_{name}") for name in ("w", "h", "x", "y")]
                known = tuple(int(value) for value in frame if isinstance(value, int | float))
                yield crop_print(record.image, record.mask, known if len(known) == 4 else None)
            else:
                yield photo_print(record.image)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Two sides, and which pictures of the first are nearly photos of the second."""

    first: _Side
    second: _Photos
    found: Comparison

    def line(self) -> str:
        """What was compared, and what was found."""
        found, name = self.found, self.second.name
        unclear = f" ({found.unclear} show too little)" if found.unclear else ""
        photos = len({copy.photo for copy in found.copies})
        return (
            f"{self.first.name} ~ {name}: {found.pictures}{unclear} x {self.second.count}: "
            f"{len(found.copies)} near-duplicates" + (f", of {photos} {name} photos" if photos else "")
        )

    def facts(self) -> dict[str, Any]:
        """For the JSON."""
        pairs = [
            {
                "first": self.first.key(copy.query),
                "second": self.second.key(copy.photo),
                "correlation": round(copy.correlation, 4),
                "mirrored": copy.mirrored,
                "box": [round(edge, 1) for edge in copy.rect],
            }
            for copy in self.found.copies
        ]
        counts = {"too_little_to_compare": self.found.unclear, "photos": self.second.count}
        sides = {"first": self.first.name, "second": self.second.name, "pictures": self.found.pictures}
        return {**sides, **counts, "pairs": pairs}

    def shown(self) -> list[ShownPair]:
        """For the sheet: the most alike."""
        first, second = self.first, self.second
        return [
            ShownPair(
                first.picture(copy.query),
                first.key(copy.query),
                second.picture(copy.photo),
                second.key(copy.photo),
                copy,
            )
            for copy in self.found.copies[:PAIRS]
        ]


def _sides(data: RunData, config: RunConfig, args: argparse.Namespace, home: Path) -> list[_Side]:
    """All that a run's trainings see, the training split first."""
    sides: list[_Side] = [
        _Photos("train", data.photos),
        _Records("crops", data.crops),
        _Records("backgrounds", data.backgrounds),
    ]
    if data.distractors is not None:
        sides.append(_Records("distractors", data.distractors))
    if config.unlabelled is not None:
        sides.append(_Folder("unlabelled", [str(config.unlabelled.root)], home))
    if args.seen:
        sides.append(_Folder("seen", args.seen, home))
    return sides


def _compared(sides: Sequence[_Side], test: _Photos, threshold: float) -> Iterator[_Pair]:
    """Every side with the test split, then every other one with the training split."""
    train = sides[0]
    assert isinstance(train, _Photos)
    for second, firsts in ((test, sides), (train, sides[1:])):
        gallery = second.gallery()
        for first in firsts:
            yield _Pair(first, second, compare(first.prints(), gallery, second.picture, threshold))


def _config(args: argparse.Namespace) -> RunConfig:
    names = [text for text in args.arguments if "=" not in text]
    if len(names) != 1:
        raise InputError(f"found {' '.join(names) or 'no run'}: wanted the name or YAML file of one run")
    if not 0 < args.threshold < 1:
        raise InputError(f"--threshold: found {args.threshold:g}, wanted more than 0 and less than 1")
    return load_run(names[0], [text for text in args.arguments if "=" in text])


def _verdict(leaking: Sequence[str], count: int) -> str:
    if not leaking:
        return f"nothing leaks into the {count} photos of the test split"
    more = f" and {len(leaking) - _LISTED} more" if len(leaking) > _LISTED else ""
    return f"LEAKS into {len(leaking)} of {count} test photos: {', '.join(leaking[:_LISTED])}{more}"
