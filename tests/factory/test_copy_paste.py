"""The copy-pasting GAN: its parts, a training that resumes bit-exactly, its masks as a segmenter."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from configs.errors import InputError
from factory.copy_paste.destinations import BackgroundPool
from factory.copy_paste.learner import CopyPasteConfig, CopyPasteLearner, polygon_masks
from factory.copy_paste.losses import generator_losses, mask_loss
from factory.copy_paste.networks import CopyPasteDiscriminator, paste, zero_border
from factory.generators.found import Found, write_found
from factory.redo.mask_network import MaskNetwork
from factory.segmenters.copy_paste import CopyPasteSegmenterConfig
from factory.stages import ObjectImage
from factory.train_copy_paste import describe, main
from factory.training.image_pool import PhotoPool
from shards.manifest import Manifest, fingerprint_of, write_manifest
from shards.records import BackgroundRecord
from shards.store import open_store
from shards.writer import write_shard

_TINY = CopyPasteConfig.model_validate(
    {
        "image_px": 24,
        "num_features": 8,
        "num_res_blocks": 0,
        "discriminator_features": 4,
        "batch_size": 4,
        "head_start": 1,
        "precision": "fp32",
    }
)
_SMALL = [
    *("image_px=24", "num_features=8", "num_res_blocks=0", "discriminator_features=4", "batch_size=4"),
    *("head_start=1", "precision=fp32", "loop.checkpoint_every=2", "loop.log_every=1"),
]


def _pool(seed: int = 0) -> PhotoPool:
    photos = np.random.default_rng(seed).integers(0, 255, (9, 24, 24, 3), np.uint8)
    return PhotoPool(photos, seed)


def _learner(**settings: object) -> CopyPasteLearner:
    return CopyPasteLearner(_pool(), _pool(1), _TINY.model_copy(update=settings), lambda network, step: {})


def test_a_composite_takes_the_object_where_the_mask_is() -> None:
    masks = torch.tensor([0.0, 0.25, 1.0]).view(1, 1, 1, 3)
    objects, destinations = torch.ones(1, 3, 1, 3), torch.zeros(1, 3, 1, 3)
    assert torch.equal(paste(masks, objects, destinations), masks.expand(1, 3, 1, 3))


def test_nothing_is_copied_along_the_border() -> None:
    masks = zero_border(torch.ones(2, 1, 8, 8), 2)
    assert masks.shape == (2, 1, 8, 8) and masks.sum() == 2 * 16 and masks[:, :, 2:6, 2:6].min() == 1
    assert torch.equal(zero_border(torch.ones(1, 1, 8, 8), 0), torch.ones(1, 1, 8, 8))


def test_the_discriminator_gives_a_score_and_a_mask_an_image() -> None:
    scores, logits = CopyPasteDiscriminator(4, 1.0)(torch.zeros(3, 3, 24, 24))
    assert scores.shape == (3,) and logits.shape == (3, 1, 24, 24)


def test_the_blur_keeps_brightness_and_spreads_a_step() -> None:
    step = torch.zeros(1, 3, 24, 24)
    step[..., 12:] = 1
    blurred = CopyPasteDiscriminator(4, 2.0)._blurred(step)
    assert blurred.mean().item() == pytest.approx(0.5, abs=1e-5)
    assert 0.2 < blurred[0, 0, 12, 11].item() < 0.5
    assert torch.equal(CopyPasteDiscriminator(4, 0.0)._blurred(step), step)


def test_a_mask_is_right_either_way_round() -> None:
    masks = (torch.arange(16.0) > 4).float().view(1, 1, 4, 4)
    logits = (masks * 2 - 1) * 20
    assert mask_loss(logits, masks).item() < 1e-6
    assert mask_loss(-logits, masks).item() < 1e-6
    both = mask_loss(torch.cat([logits, -logits]), torch.cat([masks, masks]))
    assert both.item() < 1e-6  # each image has its own way round


def test_copying_nothing_gains_the_generator_nothing() -> None:
    alike = torch.linspace(-3, 3, 7)
    losses = generator_losses(alike, alike)
    gained = generator_losses(torch.full((7,), 3.0), torch.full((7,), -3.0))
    assert sum(losses.values()).item() >= 2 * np.log(2) - 1e-6
    assert sum(gained.values()).item() < 0.2


def test_polygons_are_a_function_of_their_seed_and_neither_empty_nor_full() -> None:
    masks = polygon_masks(20, 32, [1, 2])
    assert masks.shape == (20, 1, 32, 32) and set(masks.unique().tolist()) == {0, 1}
    assert torch.equal(masks, polygon_masks(20, 32, [1, 2])) and not torch.equal(
        masks, polygon_masks(20, 32, [1, 3])
    )
    areas = masks.mean(dim=(1, 2, 3))
    assert areas.min() > 0 and areas.max() < 0.7


def test_destinations_are_squares_of_any_photo_and_a_function_of_the_step() -> None:
    photos = [np.full((200, 90, 3), 7, np.uint8), np.full((20, 31, 3), 9, np.uint8)]
    pool = BackgroundPool(photos, 24, 0)
    batch = pool.batch(3, 16)
    assert batch.shape == (16, 3, 24, 24) and set(batch.unique().tolist()) == {7, 9}
    assert torch.equal(batch, pool.batch(3, 16)) and pool.size_px == 24


def test_the_generator_waits_for_the_head_start() -> None:
    learner = _learner()
    before = [value.clone() for value in learner.generator.parameters()]
    assert "fooled" not in learner.step()
    assert all(torch.equal(*pair) for pair in zip(before, learner.generator.parameters(), strict=True))
    assert {"fooled", "anti_shortcut"} <= learner.step().keys()
    assert not all(torch.equal(*pair) for pair in zip(before, learner.generator.parameters(), strict=True))


def test_plain_destinations_are_judged_only_when_asked() -> None:
    assert "plain" not in _learner().step()
    assert "plain" in _learner(real_destinations=0.5).step()


def test_going_on_from_a_state_is_bit_exact_whatever_the_global_generator_says() -> None:
    straight, first = _learner(), _learner()
    for _ in range(4):
        straight.step()
    first.step()
    first.step()
    with torch.random.fork_rng():
        torch.manual_seed(99)
        second = _learner()
        second.load(first.state())
        assert second.iteration == 2
        second.step()
        second.step()
    for name, value in straight.generator.state_dict().items():
        assert torch.equal(value, second.generator.state_dict()[name]), name


def _train(photo_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setenv("CROP_FOUNDRY_HOME", str(home))
    source = ["source.kind=images", f"source.root={photo_folder}"]
    main(["--class", "birds-photos", "--out", str(home / "run"), *source, *_SMALL, *more])


def test_the_command_trains_resumes_and_its_masks_segment(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for home, steps in ((tmp_path / "one", [4]), (tmp_path / "two", [2, 4])):
        for count in steps:
            _train(photo_folder, home, monkeypatch, f"loop.steps={count}")
    name = "data/weights/copy-paste-birds-photos.safetensors"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "copy-paste-birds-photos.safetensors" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "two/run/metrics.jsonl").read_text().splitlines()]
    assert {"area", "sharp"} <= lines[-1].keys()
    assert cv2.imread(str(tmp_path / "one/run/masks/step-00000004.png")).shape == (72, 16 * 24, 3)
    segmenter = CopyPasteSegmenterConfig(weights=Path(Path(name).name)).open(tmp_path / "one")
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    (found,) = segmenter.segment([ObjectImage("a", image)])
    assert found.mask.shape == (50, 70) and not found.mask[0].any() and found.mask.any()
    assert 0 <= found.confidence <= 1
    assert len(str(segmenter.identity()["weights_sha256"])) == 64


def test_objects_are_pasted_on_a_background_set(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "set"))
    photos = [BackgroundRecord(f"{i}", np.full((40, 50, 3), 40 * i, np.uint8)) for i in range(3)]
    entry = write_shard(store, "backgrounds-000000.tar", photos, dropped={}, seen=3)
    write_manifest(store, Manifest("backgrounds", (), fingerprint_of({}), {}, (entry,), complete=True))
    _train(photo_folder, tmp_path, monkeypatch, "loop.steps=2", f"backgrounds={tmp_path / 'set'}")
    with pytest.raises(InputError, match="another training"):
        _train(photo_folder, tmp_path, monkeypatch, "loop.steps=2")


def test_weights_of_something_else_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"segmenter\.weights is not set"):
        CopyPasteSegmenterConfig().open(tmp_path)
    other = tmp_path / "other.safetensors"
    write_found(Found("fastgan", {"class": "bird"}, {"a": torch.zeros(1)}), other)
    with pytest.raises(InputError, match="holds fastgan"):
        CopyPasteSegmenterConfig(weights=other).open(tmp_path)
    write_found(Found("copy-paste-masks", {"image_size": 24, "border_px": 1}, {"a": torch.zeros(1)}), other)
    with pytest.raises(InputError, match="no kernel"):
        CopyPasteSegmenterConfig(weights=other).open(tmp_path)


def test_what_is_saved_says_how_to_use_it() -> None:
    found = describe(MaskNetwork(8, 0, 2, 24), _TINY, "bird", 7)
    assert found.facts["image_size"] == 24 and found.facts["border_px"] == _TINY.border_px
    assert all(value.dtype == torch.float16 for value in found.tensors.values())


def test_a_border_that_leaves_no_inside_is_refused() -> None:
    with pytest.raises(ValueError, match="border_px is 7"):
        CopyPasteConfig(image_px=24, border_px=7)
