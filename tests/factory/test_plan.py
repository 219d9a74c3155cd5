"""The plan of a build: a measured batch, then arithmetic."""

from pathlib import Path

import pytest

from configs.errors import InputError
from factory import plan as plan_module
from factory.build import build
from factory.job import Fleet
from factory.pipeline import CropLine
from factory.plan import Calibration, calibrate, plan_build
from factory.recipe import Recipe, load_recipe
from shards.manifest import ShardEntry, find_manifest
from shards.store import open_store


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path) -> Recipe:
    """40 photos in shards of 16; whole frames, near-duplicates and all."""
    path = tmp_path / "blob.yaml"
    path.write_text(
        "label: blob\nsource: {kind: images}\nsegmenter: {kind: whole}\nshard_size: 16\n"
        "quality: {duplicate_bits: null}\n"
    )
    return load_recipe(str(path), [f"source.root={photo_folder}"])


@pytest.fixture
def birds(tmp_path: Path) -> CropLine:
    """The embedded generator, ungated."""
    overrides = ["segmenter={kind: whole}", "quality={duplicate_bits: null}", "shard_size=32"]
    return CropLine(load_recipe("birds", overrides), tmp_path)


def measured(images: int = 100, records: int = 50, size: int = 500_000) -> Calibration:
    """10 images a second, half of them kept, 10 kB each."""
    drops = {"unsure": 2 * records - records}
    entry = ShardEntry("crops-000000.tar", records, size, "0" * 64, {"bird": records}, drops, 2 * records)
    return Calibration(images, images / 10, 7.5, entry)


def test_a_finite_source_is_planned_as_it_is_built(photos: Recipe, tmp_path: Path) -> None:
    plan = plan_build(CropLine(photos, tmp_path), None, workers=1)
    build(photos, str(tmp_path / "set"), None, Fleet("off"), tmp_path)
    manifest = find_manifest(open_store(tmp_path / "set"))
    assert manifest is not None
    assert (plan.images, plan.shards) == (40, len(manifest.shards))
    assert plan.crops == pytest.approx(manifest.records, abs=3)  # the broken photo is in the middle shard
    assert plan.bytes == pytest.approx(manifest.bytes, rel=0.15)
    assert plan.manifest_bytes == pytest.approx(len(manifest.to_json()), abs=60)


def test_an_endless_source_is_planned_as_it_is_built(birds: CropLine, tmp_path: Path) -> None:
    plan = plan_build(birds, 40, workers=1, calibrate_s=0.0)
    build(birds.recipe, str(tmp_path / "set"), 40, Fleet("off"), tmp_path)
    manifest = find_manifest(open_store(tmp_path / "set"))
    assert manifest is not None
    assert (plan.crops, plan.images, plan.shards) == (40, 40, 2)
    assert plan.bytes == pytest.approx(manifest.bytes, rel=0.1)
    assert plan.manifest_bytes == pytest.approx(len(manifest.to_json()), abs=60)
    assert plan.calibration.cpu_s > 0
    assert plan.calibration.images_per_s > 0


def test_a_calibration_stops_at_the_end_of_a_batch(birds: CropLine) -> None:
    found = calibrate(birds, crops=20)
    assert (found.entry.seen, found.images) == (64, 32)  # the first batch of 32 warms up
    assert found.entry.records == 64
    assert birds.source.size is None  # as it was


def test_a_calibration_ends_when_its_time_is_up(birds: CropLine) -> None:
    found = calibrate(birds, crops=10**6, seconds=0.0)
    assert (found.entry.seen, found.images) == (32, 32)


def test_encoder_threads_give_the_same_crops(birds: CropLine) -> None:
    assert calibrate(birds, seconds=0.0, encoders=1).entry == calibrate(birds, seconds=0.0).entry


def test_a_gate_that_keeps_nothing_is_the_users_error(photos: Recipe, tmp_path: Path) -> None:
    strict = photos.model_copy(
        update={
            "quality": photos.quality.model_copy(update={"min_area_frac": 0.9}),
            "segmenter": load_recipe("birds-photos", ["source.root=x"]).segmenter,
        }
    )
    with pytest.raises(
        InputError, match=r"class blob: none of 16 images kept \(.*unreadable.*\): loosen quality"
    ):
        plan_build(CropLine(strict, tmp_path), None, workers=1)


def test_time_and_size_follow_from_the_measured(birds: CropLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "calibrate", lambda *_, **__: measured())
    plan = plan_build(birds, 50_000, workers=4, gpus_per_worker=0.25)
    assert (plan.images, plan.shards, plan.bytes) == (100_000, 1563, 500_000_000)
    assert plan.hours == pytest.approx((100_000 + 1563 * 16) / 10 / 4 / 3600)
    assert plan.gpu_hours == pytest.approx(plan.hours)
    assert plan.put_requests == 1563


@pytest.mark.parametrize(("crop_mib", "requests"), [(0.9, 1), (1, 4), (1.5, 5)])
def test_a_large_shard_goes_up_in_parts(
    birds: CropLine, monkeypatch: pytest.MonkeyPatch, crop_mib: float, requests: int
) -> None:
    large = measured(size=int(50 * crop_mib * (1 << 20)))
    monkeypatch.setattr(plan_module, "calibrate", lambda *_, **__: large)
    assert plan_build(birds, 64, workers=1).put_requests == 2 * requests  # shards of 32, parts of 16 MiB


def test_the_description_is_aligned_lines(birds: CropLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "calibrate", lambda *_, **__: measured())
    lines = plan_build(birds, 50_000, workers=4).describe().splitlines()
    assert lines[0] == (
        "measured     100 images in 10.0 s (7.5 s of the processor), one worker: 5.0 crops/s, 10.0 kB a crop"
    )
    assert lines[2:5] == [
        "crops        50,000 of 100,000 images (50% ± 10% kept)",
        "shards       1,563, 319.9 kB each",
        "store        500.0 MB, 1,563 PUT requests for the shards",
    ]
    assert lines[6] == "time         52 min with 4 workers, writing not included"
    assert len(lines) == 7  # without a GPU no line for it
