"""``python -m trainer.datasets check``: a boxed data set's counts, sizes, oddities, and a sheet of it."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from configs.entry import names_in
from configs.errors import InputError
from configs.kinds import config_class, kinds_in
from configs.load import apply_overrides, validated
from configs.log_file import without_warnings_of
from trainer.boxed_data.annotations import find_root
from trainer.boxed_data.check import (
    Oddity,
    SplitContent,
    content_of,
    doubled_photos,
    odd_boxes,
    odd_photos,
    unlisted_photos,
)
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.imaging.drawing import contact_sheet, draw_detections, draw_objects, stacked, titled, write_png
from trainer.imaging.images import read_boxed_image, resize_antialiased
from trainer.sample import UInt8Array, make_target

KINDS = "trainer.datasets"
_COLUMNS = 6
_CELL_PX = 240
_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
_NUM_CLASSES = 20
_NUM_PLACES = 3
_UNREAD = "cannot be read"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command."""
    parser.add_argument("kind", metavar="KIND", help=", ".join(kinds_in(KINDS)))
    parser.add_argument("root", metavar="ROOT", type=Path, help="the data set's folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the kind")
    parser.add_argument("--classes", type=names_in, metavar="A,B", help="[all that the data set names]")
    parser.add_argument("--splits", type=names_in, metavar="A,B", help="[all]")
    parser.add_argument("--photos", action="store_true", help="also decode every photo")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="photos with their boxes")
    parser.add_argument("--count", type=int, default=12, help="of photos of each split on the sheet [12]")


def check(args: argparse.Namespace, home: Path) -> int:
    """Read, print, draw. 1 when a split or a photo cannot be used.

    Raises InputError for a mistaken argument, a folder that is missing, or one without any image.
    """
    _check_arguments(args)
    config = _config(args)
    find_root(config.root, home)
    with without_warnings_of("trainer.boxed_data.annotations"):  # what they say stands in the table
        classes = args.classes or config.class_names(home) or ["object"]
        splits, unread = _read(config, args.splits or config.split_names(home), classes, home)
    if not unread and not any(splits.values()):
        none = f"no image in {', '.join(splits)}" if splits else "no split"
        raise InputError(f"{config.root}: found {none}, wanted a data set in the layout of {args.kind}")
    console = Console(width=None if Console().is_terminal else 200, highlight=False)
    _print_contents(console, splits, classes, f"{args.root}: {config.kind}")
    oddities = _oddities(splits, args.photos)
    for split, found in [*unread.items(), *oddities.items()]:
        for oddity in found:
            console.print(_line(split, oddity), soft_wrap=True, markup=False)
    if args.sheet:
        _draw(args.sheet, splits, classes, args.count)
    return int(bool(unread) or any(each.broken for found in oddities.values() for each in found))


def _check_arguments(args: argparse.Namespace) -> None:
    if args.kind not in kinds_in(KINDS):
        raise InputError(f"found the kind {args.kind}: wanted one of {', '.join(kinds_in(KINDS))}")
    if args.count < 1:
        raise InputError(f"--count: found {args.count}, wanted at least 1")


def _config(args: argparse.Namespace) -> DatasetConfig:
    family = config_class(KINDS, args.kind, DatasetConfig)
    assert issubclass(family, DatasetConfig)
    data = apply_overrides({"kind": args.kind, "root": args.root}, args.overrides)
    return validated(family, data, f"data set {args.kind}")


def _read(
    config: DatasetConfig, names: Sequence[str], classes: Sequence[str], home: Path
) -> tuple[dict[str, list[BoxedImage]], dict[str, list[Oddity]]]:
    """The splits that can be read, and the reason why of each other one."""
    splits: dict[str, list[BoxedImage]] = {}
    unread: dict[str, list[Oddity]] = {}
    for split in names:
        try:
            splits[split] = config.read(split, classes, home)
        except InputError as error:
            unread[split] = [Oddity(_UNREAD, (str(error),), broken=True)]
    return splits, unread


def _oddities(splits: Mapping[str, list[BoxedImage]], decode: bool) -> dict[str, list[Oddity]]:
    """By split, and under ``photos`` those of all splits together."""
    oddities = {split: odd_boxes(images) + odd_photos(images, decode) for split, images in splits.items()}
    everything = (image for images in splits.values() for image in images)
    return {**oddities, "photos": doubled_photos(splits) + unlisted_photos(everything)}


def _print_contents(
    console: Console, splits: Mapping[str, list[BoxedImage]], classes: Sequence[str], title: str
) -> None:
    contents = {split: content_of(images) for split, images in splits.items()}
    if contents:
        console.print(_table(contents, title))
    if contents and len(classes) > 1:
        console.print(_class_table(contents, classes))


def _draw(sheet: Path, splits: Mapping[str, list[BoxedImage]], classes: Sequence[str], count: int) -> None:
    sections = [_section(split, images, classes, count) for split, images in splits.items() if images]
    if sections:
        write_png(sheet, stacked(sections))
        print(f"{sheet}: {len(sections)} splits drawn")


def _table(contents: Mapping[str, SplitContent], title: str) -> Table:
    """A row a fact, a column a split."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for split in contents:
        table.add_column(split, justify="right")
    rows: dict[str, Callable[[SplitContent], str]] = {
        "images": lambda c: str(c.images),
        "  without objects": lambda c: str(c.empty),
        "  longer side, px: least, median, most": lambda c: _quantiles(c.photo_sides, (0, 0.5, 1)),
        "objects": lambda c: str(sum(c.counts.values())),
        "  ignored, besides": lambda c: str(c.ignored),
        "  an image: least, median, most": lambda c: _quantiles(c.objects_per_image, (0, 0.5, 1)),
        "  side (root of area), px: 1, 10, 50, 90, 99 %": lambda c: _quantiles(c.box_sides, _QUANTILES),
        "  share of the photo, %: 1, 10, 50, 90, 99 %": lambda c: _quantiles(100 * c.box_shares, _QUANTILES),
    }
    for name, value in rows.items():
        table.add_row(name, *(value(content) for content in contents.values()))
    return table


def _class_table(contents: Mapping[str, SplitContent], classes: Sequence[str]) -> Table:
    """Objects of the most frequent classes, and of those that have none."""
    table = Table(title="objects by class", title_justify="left")
    for name in ("", *contents):
        table.add_column(name, justify="right" if name else "left")
    totals = {
        label: sum(c.counts.get(label, 0) for c in contents.values()) for label in range(1, len(classes) + 1)
    }
    order = sorted(totals, key=lambda label: -totals[label])
    for label in order[:_NUM_CLASSES]:
        table.add_row(classes[label - 1], *(str(c.counts.get(label, 0)) for c in contents.values()))
    rest = order[_NUM_CLASSES:]
    if rest:
        counts = (str(sum(c.counts.get(label, 0) for label in rest)) for c in contents.values())
        table.add_row(f"{len(rest)} more classes", *counts)
    return table


def _quantiles(values: np.ndarray, shares: Sequence[float]) -> str:
    found = np.quantile(values, shares) if len(values) else ()
    return "  ".join(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in found) or "-"


def _line(split: str, oddity: Oddity) -> str:
    """An oddity, how often, and where first."""
    places = list(dict.fromkeys(oddity.places))
    more = f" and {len(places) - _NUM_PLACES} more" if len(places) > _NUM_PLACES else ""
    where = f"{', '.join(places[:_NUM_PLACES])}{more}"
    number = "" if oddity.what == _UNREAD else f": {len(oddity.places)}"
    return f"{split}: {oddity.what}{number}: {where}"


def _section(split: str, images: Sequence[BoxedImage], classes: Sequence[str], count: int) -> UInt8Array:
    """Photos from all over a split, with their boxes; ignored ones are grey or dashed."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    shown = [images[number] for number in chosen]
    captions = [f"{Path(image.key).name[-28:]}: {len(image.target)}" for image in shown]
    cells = [_drawn(image, classes) for image in shown]
    sheet = contact_sheet(cells, min(_COLUMNS, len(cells)), _CELL_PX, captions)
    return titled(sheet, f"{split}: {len(shown)} of {len(images)} images")


def _drawn(image: BoxedImage, classes: Sequence[str]) -> UInt8Array:
    """The photo as large as a cell. Names only where there are several, since they hide small objects."""
    pixels, target = read_boxed_image(image), image.target
    scale = _CELL_PX / max(image.width, image.height)
    if len(classes) > 1:
        return draw_objects(pixels, target, classes, scale)
    width, height = (max(1, round(side * scale)) for side in (image.width, image.height))
    scaled = make_target(target.boxes * scale, target.labels, target.ignore)
    return draw_detections(resize_antialiased(pixels, width, height), target=scaled)
