"""A set's figures: totals, the sample, measures, histograms."""

import json
from pathlib import Path

import numpy as np
import pytest

from shards.errors import ShardError
from shards.manifest import Manifest, shard_name, write_manifest
from shards.reader import ShardSet
from shards.records import CropRecord
from shards.stats import _described, _round_step, evenly, stats_of
from shards.store import open_store
from shards.writer import write_shard

from .conftest import MakeSet, disc


def crop(index: int, grey: int, origin: dict[str, str | int | float]) -> CropRecord:
    """A grey object on white."""
    mask = disc(40, 40)
    pixels = np.where(mask[..., None] > 0, grey, 255).astype(np.uint8)
    return CropRecord(f"k{index:03d}", "x", np.repeat(pixels, 3, axis=2), mask, origin)


def set_of(records: list[CropRecord], folder: Path) -> ShardSet:
    store = open_store(folder)
    entry = write_shard(store, shard_name("crops", 0), records, dropped={"unsure": 2, "empty": 3}, seen=9)
    write_manifest(store, Manifest("crops", ("x",), "f", {}, (entry,), True))
    return ShardSet.open(folder)


def test_totals_are_those_of_the_manifest(make_set: MakeSet) -> None:
    found = ShardSet.open(make_set(shards=3, each=4))
    stats = stats_of(found)
    assert (stats["kind"], stats["records"], stats["shards"], stats["seen"]) == ("crops", 12, 3, 15)
    assert (stats["labels"], stats["dropped"]) == ({"bird": 12}, {"small": 3})
    assert stats["bytes"] == sum((Path(found.store.location) / n).stat().st_size for n in _tars(found))
    assert stats["sample"] == {"records": 12, "shards": 3}


def test_sizes_and_scores_are_measured(make_set: MakeSet) -> None:
    measures = stats_of(ShardSet.open(make_set(shards=1, each=5)))["measures"]
    assert (measures["width_px"]["min"], measures["width_px"]["max"]) == (24, 28)  # 24 + index % 5
    assert measures["height_px"]["mean"] == pytest.approx((32 + 33 + 34 + 32 + 33) / 5)
    assert measures["score"]["quantiles"]["0.5"] == 0.5
    assert "slot" not in measures  # a whole number is no score


def test_brightness_is_of_the_object_alone(tmp_path: Path) -> None:
    measures = stats_of(set_of([crop(i, 100, {}) for i in range(3)], tmp_path))["measures"]
    assert measures["brightness"]["mean"] == pytest.approx(100, abs=6)  # JPEG rings along the outline
    assert measures["mask_frac"]["mean"] == pytest.approx(np.pi * 0.16, abs=0.02)


def test_a_score_counts_only_the_records_that_have_it(tmp_path: Path) -> None:
    records = [crop(0, 90, {"confidence": 0.5}), crop(1, 90, {}), crop(2, 90, {"confidence": 1.0})]
    assert stats_of(set_of(records, tmp_path))["measures"]["confidence"]["records"] == 2


def test_jpeg_bytes_are_those_of_both_pictures(tmp_path: Path) -> None:
    found = set_of([crop(0, 90, {})], tmp_path)
    members = {path.name: path for path in (tmp_path / "x").parent.iterdir()}
    measured = stats_of(found)["measures"]["jpeg_bytes"]["min"]
    assert 300 < measured < members["crops-000000.tar"].stat().st_size - 6 * 512


def test_backgrounds_have_no_mask(make_set: MakeSet) -> None:
    measures = stats_of(ShardSet.open(make_set("backgrounds")))["measures"]
    assert set(measures) == {"brightness", "height_px", "jpeg_bytes", "width_px"}
    assert measures["brightness"]["records"] == 12


def test_the_sample_is_even_bounded_and_the_same_again(make_set: MakeSet) -> None:
    found = ShardSet.open(make_set(shards=40, each=5))
    stats = stats_of(found, sample=100)
    assert stats["sample"] == {"records": 100, "shards": 20}
    assert stats["measures"]["width_px"]["records"] == 100
    again = stats_of(ShardSet.open(found.store.location), sample=100)
    assert json.dumps(stats, sort_keys=True) == json.dumps(again, sort_keys=True)


def test_few_large_shards_are_all_read_and_thinned_out(make_set: MakeSet) -> None:
    stats = stats_of(ShardSet.open(make_set(shards=3, each=20)), sample=12)
    assert stats["sample"] == {"records": 12, "shards": 3}
    widths = stats["measures"]["width_px"]["histogram"]["counts"]
    assert sum(widths) == 12


def test_a_set_without_records_has_no_measures(make_set: MakeSet) -> None:
    stats = stats_of(ShardSet.open(make_set(shards=0)))
    assert (stats["records"], stats["sample"], stats["measures"]) == (0, {"records": 0, "shards": 0}, {})


def test_a_damaged_shard_is_named(make_set: MakeSet) -> None:
    place = Path(make_set())
    tar = place / "crops-000001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ShardError, match=r"crops-000001\.tar: sha256 is "):
        stats_of(ShardSet.open(place))


@pytest.mark.parametrize(("total", "count"), [(0, 5), (3, 5), (5, 5), (10, 1), (10, 3), (1000, 48)])
def test_even_places_differ_and_lie_inside(total: int, count: int) -> None:
    places = evenly(total, count)
    assert len(places) == min(total, count)
    assert places == sorted(set(places))
    assert all(0 <= place < total for place in places)
    gaps = np.diff(places)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.84, 0.97), (-3, 700), (5, 5), (1e-5, 3e-5), (24, 31)])
def test_a_histogram_counts_every_value_in_few_round_bins(low: float, high: float) -> None:
    values = np.random.default_rng(3).uniform(low, high, 500)
    histogram = _described(values)["histogram"]
    start, step, counts = histogram["start"], histogram["step"], histogram["counts"]
    assert sum(counts) == 500
    assert len(counts) <= 24
    assert start <= values.min() + 1e-6
    assert start + step * len(counts) >= values.max() - 1e-6
    inside = int(((values >= start) & (values < start + step)).sum())
    assert abs(inside - counts[0]) <= 1


def test_bins_of_whole_numbers_are_of_whole_width() -> None:
    assert _described(np.array([1.0, 2, 3, 4]))["histogram"] == {
        "start": 1.0,
        "step": 1.0,
        "counts": [1, 1, 1, 1],
    }


def test_multiples_of_the_step_begin_their_bin() -> None:
    values = np.arange(11) / 100  # 0.03 / 0.01 is 2.9999…
    assert set(_described(values)["histogram"]["counts"]) <= {0, 1}


@pytest.mark.parametrize(("least", "step"), [(0.003, 0.005), (0.02, 0.02), (1.01, 2), (6, 10), (23, 50)])
def test_steps_are_round(least: float, step: float) -> None:
    assert _round_step(least, whole=False) == step


def _tars(found: ShardSet) -> list[str]:
    return [entry.name for entry in found.manifest.shards]
