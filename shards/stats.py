"""A set in figures: exact totals from its manifest, and measures of a sample of its records."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.codec import decode
from shards.errors import ShardError
from shards.inspect import summary_of
from shards.manifest import ShardEntry
from shards.raw import RawRecord, read_raw
from shards.reader import ShardSet
from shards.records import CropRecord, Record, UInt8Array

SAMPLE = 10_000
_FEWEST_SHARDS = 16  # read even where fewer hold the sample: neighbours in a shard may resemble each other
_MOST_BINS = 24
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LARGEST = 1e15  # of a score; beyond it, numbers of bins are no whole floats, and sums of squares overflow
_DIGITS = 6  # more would be noise of the order in which numbers are added
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG
_SOLID = 128  # opacity from which a pixel belongs to the object


def stats_of(shard_set: ShardSet, sample: int = SAMPLE) -> dict[str, Any]:
    """Plain JSON values: all of `inspect.summary_of`, ``sample`` (``records``, ``shards``) and ``measures``.

    A measure has ``records`` (that have it), ``mean``, ``std``, ``min``, ``max``, ``quantiles`` and
    ``histogram`` (``start``, ``step``, ``counts``). Measured are ``width_px``, ``height_px``, ``jpeg_bytes``,
    ``brightness`` (mean luma, 0..255; of a crop inside its mask), ``mask_frac`` (share of a crop that is
    opaque) and every float of the records' origin: the gate's scores.

    The sample is at most ``sample`` records. Few shards are read whole, at even steps over the set, rather
    than many in part: from an object store a part costs as much as the whole. They are 16 at least (or all),
    and their records thinned out evenly. Equal sets give equal values.
    Raises ShardError when a shard that is read is damaged.
    """
    entries = _chosen([entry for entry in shard_set.manifest.shards if entry.records], sample)
    columns: dict[str, list[float]] = {}
    taken = 0
    for place, raw in _sampled(shard_set, entries, sample):
        taken += 1
        for name, value in _measures(place, raw).items():
            columns.setdefault(name, []).append(value)
    return {
        **summary_of(shard_set.manifest),
        "sample": {"records": taken, "shards": len(entries)},
        "measures": {name: _described(np.array(values)) for name, values in sorted(columns.items())},
    }


def evenly(total: int, count: int) -> list[int]:
    """``count`` different places of 0 … total - 1, each in the middle of its stretch; all when fewer."""
    if count >= total:
        return list(range(total))
    return [(2 * step + 1) * total // (2 * count) for step in range(count)]


def _chosen(entries: Sequence[ShardEntry], sample: int) -> list[ShardEntry]:
    records = sum(entry.records for entry in entries)
    if records <= sample:
        return list(entries)
    fitting = sample * len(entries) // records
    return [entries[place] for place in evenly(len(entries), max(_FEWEST_SHARDS, fitting))]


def _sampled(
    shard_set: ShardSet, entries: Sequence[ShardEntry], sample: int
) -> Iterator[tuple[str, RawRecord]]:
    """(shard's place, record) of those that are measured."""
    wanted = set(evenly(sum(entry.records for entry in entries), sample))
    start = 0
    for entry in entries:
        place = f"{shard_set.store.location}/{entry.name}"
        for row, raw in enumerate(read_raw(shard_set.store, entry)):
            if start + row in wanted:
                yield place, raw
        start += entry.records


def _measures(place: str, raw: RawRecord) -> dict[str, float]:
    try:
        record = decode(raw.key, raw.members)
    except ShardError as error:
        raise ShardError(f"{place}: {error}") from error
    height, width = record.image.shape[:2]
    origin = record.origin.items()
    scores = {name: value for name, value in origin if isinstance(value, float) and abs(value) < _LARGEST}
    measured: dict[str, float] = {
        "width_px": width,
        "height_px": height,
        "jpeg_bytes": sum(len(data) for name, data in raw.members.items() if name.endswith("jpg")),
    }
    pixels = _object_pixels(record)
    if pixels.size:
        measured["brightness"] = float(pixels.mean(axis=0) @ _LUMA)
    if isinstance(record, CropRecord):
        measured["mask_frac"] = float(record.mask.mean()) / 255
    return scores | measured


def _object_pixels(record: Record) -> UInt8Array:
    """(N, 3): a crop's inside its mask, all of a background."""
    if isinstance(record, CropRecord):
        return record.image[record.mask >= _SOLID]
    return record.image.reshape(-1, 3)


def _described(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    values = values.astype(np.float64)
    quantiles = np.quantile(values, _QUANTILES)
    return {
        "records": len(values),
        "mean": round(float(values.mean()), _DIGITS),
        "std": round(float(values.std()), _DIGITS),
        "min": round(float(values.min()), _DIGITS),
        "max": round(float(values.max()), _DIGITS),
        "quantiles": {
            f"{share:g}": round(float(value), _DIGITS)
            for share, value in zip(_QUANTILES, quantiles, strict=True)
        },
        "histogram": _histogram(values),
    }


def _histogram(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """At most 24 bins of a round width (1, 2 or 5 times a power of ten) that start at a multiple of it.

    Bin ``i`` holds ``start + i * step`` up to, not including, ``start + (i + 1) * step``; whole numbers get a
    whole step, so that no bin holds more of them than its neighbours.
    """
    low, high = float(values.min()), float(values.max())
    step = _round_step((high - low) / (_MOST_BINS - 1), whole=bool((values == np.rint(values)).all()))
    # a hair is added for values like 0.3, which is a little less than 3 * 0.1
    bins = np.floor(values / step + 1e-9).astype(np.int64)
    first = int(bins.min())
    counts = np.bincount(bins - first)
    return {"start": round(first * step, _DIGITS), "step": step, "counts": counts.tolist()}


def _round_step(least: float, *, whole: bool) -> float:
    """The smallest round number that is ``least`` or more: 1, 2 or 5 times a power of ten."""
    if whole or least < 1 / _LARGEST:
        least = max(least, 1.0)
    power = 10.0 ** np.floor(np.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    return float(f"{step:.6g}")
