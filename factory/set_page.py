"""A set's own page: ``index.html`` and ``stats.json`` beside its shards. ``python -m factory.set_page SET``.

The page stands alone (no script, nothing fetched) and names no place, so equal sets have equal pages.
"""

import base64
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from PIL import Image
from rich.filesize import decimal

from configs.entry import Parser, run
from shards.errors import ShardError
from shards.inspect import contact_sheet
from shards.reader import ShardSet
from shards.records import CropRecord, Record
from shards.stats import SAMPLE, evenly, stats_of
from shards.store import Store

PAGE_NAME = "index.html"
STATS_NAME = "stats.json"

_TEMPLATE = "set_page.html"
_PICTURES = 48  # fill rows of 8, 6 and 4
_PICTURE_PX = 128
_PLOT_WIDTH, _PLOT_HEIGHT = 240, 72  # of a histogram, in units of its drawing

_MEASURES: Mapping[str, tuple[str, str]] = {
    "width_px": ("Width", "px"),
    "height_px": ("Height", "px"),
    "jpeg_bytes": ("JPEGs of a record", "kB"),
    "brightness": ("Brightness", "mean luma, 0 to 255"),
    "mask_frac": ("Opaque share", "of the crop"),
    "area_frac": ("Object's area", "of its source image"),
    "side_px": ("Shorter side", "px in the source image"),
    "confidence": ("Confidence", "of the segmenter, 0 to 1"),
    "main_share": ("Largest part", "of the object's area"),
    "border_frac": ("On the image's border", "of the outline"),
}
_REASONS: Mapping[str, str] = {
    "empty": "the mask holds nothing",
    "too_small": "the object is too small",
    "too_large": "the object fills too much of its image",
    "fragmented": "the mask falls apart",
    "touches_border": "the image's border cuts the object",
    "unsure": "the segmenter was not sure enough",
    "near_duplicate": "looks like another crop of its shard",
    "unreadable": "the file could not be read: see unreadable.txt",
}
_EXAMPLES = """examples:
  python -m factory.set_page data/crops/birds
  python -m factory.set_page s3://bucket/crops/birds --sample 2000

factory.build writes both files when it finishes a set; this does it again, or for any other set."""


def main(argv: list[str]) -> int:
    """Write the files of the set that the argument names."""
    parser = Parser(
        "factory.set_page",
        "Measure a set; write stats.json and a page with pictures and histograms into it.",
        _EXAMPLES,
    )
    parser.add_argument("set", metavar="SET", help="folder or URL of a crop or background set")
    parser.add_argument("--sample", type=int, default=SAMPLE, help=f"records to measure, at most [{SAMPLE}]")
    args = parser.parse_args(argv)
    if args.sample < 1:
        parser.error(f"--sample: found {args.sample}, wanted 1 or more")
    found = ShardSet.open(args.set, allow_incomplete=True)
    write_page(found.store, found, stats_of(found, args.sample))
    print(f"{found.store.location}/{PAGE_NAME}")
    return 0


def write_page(store: Store, shard_set: ShardSet, stats: Mapping[str, Any]) -> None:
    """Write ``stats.json`` and ``index.html``; ``stats`` is what `shards.stats.stats_of` says of the set.

    Raises ShardError when a record cannot be read or the store refuses.
    """
    text = json.dumps(stats, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    store.write(STATS_NAME, f"{text}\n".encode())
    store.write(PAGE_NAME, page_of(shard_set, stats).encode())


def page_of(shard_set: ShardSet, stats: Mapping[str, Any]) -> str:
    """The page's HTML."""
    kind = shard_set.manifest.kind
    measures = stats["measures"]
    names = sorted(measures, key=lambda name: (*_rank(name), name))
    varied = [name for name in names if measures[name]["min"] < measures[name]["max"]]
    template = _environment().from_string(files("factory").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        stats=stats,
        noun={"crops": "crop", "backgrounds": "background"}[kind],
        title=", ".join(shard_set.classes) or "backgrounds",
        pictures=list(_pictures(shard_set)),
        charts=[_chart(name, measures[name]) for name in varied],
        constants={name: measures[name]["min"] for name in names if name not in varied},
        drops=_drops(stats),
        recipe=_yaml(shard_set.manifest.recipe),
        has_recipe_file=shard_set.store.exists("recipe.yaml"),
    )


@dataclass(frozen=True, slots=True)
class Chart:
    """A histogram to draw. bars: (x, y, width, height); ticks: (x, text); all in units of the drawing.

    median, low, high: x of the median, the 5 % and the 95 % quantile.
    """

    title: str
    unit: str
    bars: list[tuple[float, float, float, float]]
    ticks: list[tuple[float, str]]
    median: float
    low: float
    high: float
    caption: str


@dataclass(frozen=True, slots=True)
class Drop:
    """A row of the table of what was not kept. share: of all that was looked at."""

    reason: str
    meaning: str
    count: int
    share: float


def _rank(name: str) -> tuple[int]:
    return (list(_MEASURES).index(name) if name in _MEASURES else len(_MEASURES),)


def _pictures(shard_set: ShardSet) -> Iterator[tuple[str, str]]:
    """(key, data URL) of records at even steps over the set."""
    for place in evenly(len(shard_set), _PICTURES):
        record = shard_set[place]
        packed = io.BytesIO()
        _picture(record).save(packed, "JPEG", quality=88, subsampling=0)
        yield record.key, "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()


def _picture(record: Record) -> Image.Image:
    """A crop on its checkerboard, square; a background in its own shape."""
    if isinstance(record, CropRecord):
        sheet = contact_sheet([record])
        gap = (len(sheet) - _PICTURE_PX) // 2
        return Image.fromarray(sheet[gap:-gap, gap:-gap])
    image = Image.fromarray(record.image)
    image.thumbnail((2 * _PICTURE_PX, 2 * _PICTURE_PX), Image.Resampling.BOX)
    return image


def _chart(name: str, measure: Mapping[str, Any]) -> Chart:
    title, unit = _MEASURES.get(name, (name.replace("_", " ").capitalize(), ""))
    factor = 1e-3 if unit == "kB" else 1.0
    histogram = measure["histogram"]
    start, step, counts = float(histogram["start"]), float(histogram["step"]), histogram["counts"]

    def place(value: float) -> float:
        return round((value - start) / step * _PLOT_WIDTH / len(counts), 2)

    def text(value: float) -> str:
        return _short(value * factor)

    low, median, high = (measure["quantiles"][share] for share in ("0.05", "0.5", "0.95"))
    return Chart(
        title,
        unit,
        _bars(counts),
        [(place(edge), text(edge)) for edge in _tick_edges(start, step, len(counts))],
        place(median),
        place(low),
        place(high),
        f"median {text(median)}, 90 % within {text(low)} to {text(high)}",
    )


def _bars(counts: list[int]) -> list[tuple[float, float, float, float]]:
    """(x, y, width, height) of each bin that holds something, a gap of 1 between them."""
    width, scale = _PLOT_WIDTH / len(counts), _PLOT_HEIGHT / max(counts)
    bars = (
        (bin_ * width + 0.5, _PLOT_HEIGHT - scale * count, width - 1, scale * count)
        for bin_, count in enumerate(counts)
        if count
    )
    return [(round(x, 2), round(y, 2), round(wide, 2), round(high, 2)) for x, y, wide, high in bars]


def _tick_edges(start: float, step: float, bins: int) -> list[float]:
    """At most seven edges of bins, at multiples of a round number."""
    first = round(start / step)
    every = next(many for many in (1, 2, 5, 10) if bins <= 6 * many)
    return [edge * step for edge in range(first, first + bins + 1) if edge % every == 0]


def _drops(stats: Mapping[str, Any]) -> list[Drop]:
    """Most first."""
    rows = sorted(stats["dropped"].items(), key=lambda item: (-item[1], item[0]))
    total = max(1, stats["seen"])
    return [Drop(reason, _REASONS.get(reason, ""), count, count / total) for reason, count in rows]


def _yaml(recipe: Mapping[str, Any]) -> str:
    """The settings first, then by name as in a manifest that was read; what is empty is left out."""
    names = sorted(recipe, key=lambda name: (name != "settings", name))
    sorted_below = json.loads(json.dumps(recipe, sort_keys=True))
    shown = {name: sorted_below[name] for name in names if recipe[name] != {}}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "size": lambda size: decimal(round(size)),
        "percent": _percent,
    }
    return environment


def _short(number: float) -> str:
    """Three digits, more where whole numbers have them."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


if __name__ == "__main__":
    run(main, ShardError)
