"""Scenes composed on a device against the CPU's: the same plan, pixels within a level, the same targets."""

import io
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from configs.errors import InputError
from shards.reader import ShardSet
from shards.records import CropRecord
from trainer.compositing.batch_jpeg import through_jpeg
from trainer.compositing.config import CompositorConfig
from trainer.compositing.placement import plan_scene
from trainer.compositing.plan import BackgroundPlan, Placement, ScenePlan, shape_of_record
from trainer.compositing.ragged import to_bytes
from trainer.compositing.render import render_scene
from trainer.compositing.render_gpu import BatchComposer
from trainer.compositing.scene_artefacts import Blur, Noise, Rescale
from trainer.sample import Batch, Sample
from trainer.streaming.augment import AugmentConfig
from trainer.streaming.crop_pool import CropCollection
from trainer.streaming.device_loader import DeviceBatches
from trainer.streaming.loader import batches
from trainer.streaming.stream import SceneParts, SyntheticStream

LABELS = {"bird": 1, "car": 2}
PLAIN = {"contrast_min": 1, "contrast_max": 1, "blur_prob": 0, "noise_prob": 0, "gain_min": 1, "gain_max": 1}
WARPED = {"perspective": 0.4, "rotation_deg": 180, "truncation": 0.4, "max_objects": 5, "max_overlap": 0.9}
CONFIGS = {
    "default": {},
    "upright": {"rotation_deg": 0, "scale_min": 0.05},
    "plain": {"photometric": PLAIN, "size": 97},
    "warped": WARPED,
    "hard": {"blend": "hard", "photometric": PLAIN},
    "gaussian": {"blend": "gaussian", "feather": 0.03},
    "all-blends": {"blend": {"alpha": 1, "hard": 1, "gaussian": 1}, "photometric": {"random_order": True}},
    "harmonised": WARPED | {"harmonise": {"prob": 0.7}},
    "distractors": {"distractors": {"min": 1, "max": 3}, "max_overlap": 0.9, "drop_visible": 0.2},
    "artefacts": {"artefacts": {f"{kind}_prob": 0.6 for kind in ("rescale", "blur", "motion", "noise")}},
    "paper-birds": {"preset": "paper-birds"},
    "paper-faces": {"preset": "paper-faces"},
    "paper-cars": {"preset": "paper-cars"},
}


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)


def make_crop(rng: np.random.Generator, height: int, width: int, label: str = "bird") -> CropRecord:
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width * 2 // 5, height * 2 // 5), 20, 0, 360, 255, -1)
    return CropRecord("c", label, texture(rng, height, width), cv2.GaussianBlur(mask, (7, 7), 1.5))


def make_scenes(config: CompositorConfig, crops: list[CropRecord], count: int = 6) -> list[SceneParts]:
    """The last two crops are distractors where the config wants some."""
    others = 2 if config.distractors.max else 0
    photos = [texture(np.random.default_rng(5 + i), 150 + 97 * i, 260) for i in range(3)]
    scenes = []
    for number in range(count):
        rng = np.random.default_rng(number)
        plan = plan_scene(config, rng, len(crops) - others, 3, lambda i: shape_of_record(crops[i]), others)
        scenes.append(SceneParts(f"{number}", plan, photos[plan.background.index], dict(enumerate(crops))))
    return scenes


def one_scene(config: CompositorConfig, crop: CropRecord, placement: Placement, side: int) -> SceneParts:
    plan = ScenePlan(config, side, BackgroundPlan(0), (placement,))
    return SceneParts("one", plan, texture(np.random.default_rng(1), side, side), {0: crop})


def on_cpu(scene: SceneParts) -> Sample:
    return render_scene(scene.plan, scene.background, scene.crops.__getitem__, LABELS, scene.key)


def compose(scenes: list[SceneParts], device: str = "cpu") -> Batch:
    return BatchComposer(scenes[0].plan.config, LABELS, torch.device(device))(scenes)


def differences(scenes: list[SceneParts], batch: Batch) -> np.ndarray:
    wanted = np.stack([on_cpu(scene).image for scene in scenes]).astype(int)
    return np.abs(batch.images.permute(0, 2, 3, 1).cpu().numpy() - wanted)


@pytest.fixture(scope="module")
def crops() -> list[CropRecord]:
    rng = np.random.default_rng(0)
    shapes = [(120, 90), (61, 140), (200, 201), (33, 40)]
    return [make_crop(rng, *shape, label=("bird", "car")[i % 2]) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_device_composes_what_the_cpu_renders(name, device, crops):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    config = CompositorConfig.model_validate({"size": 128, **CONFIGS[name]})
    scenes = make_scenes(config, crops)
    batch = compose(scenes, device)
    assert batch.images.dtype == torch.uint8 and batch.images.device.type == device
    difference = differences(scenes, batch)
    assert difference.mean() < 0.5 and np.quantile(difference, 0.999) <= 3
    for scene, boxes, labels, ignore in zip(scenes, batch.boxes, batch.labels, batch.ignore, strict=True):
        target = on_cpu(scene).target
        assert labels.tolist() == target.labels.tolist() and ignore.tolist() == target.ignore.tolist()
        assert np.abs(boxes.numpy() - target.boxes).max(initial=0) <= 1.0


def test_what_needs_no_resampling_is_equal_to_the_byte(crops):
    config = CompositorConfig(size=100)
    there = Placement(0, (1.0, 0.0, 5.0, 0.0, 1.0, -30.0), (0, 0, 0, 0), False, 0.0)
    scene = one_scene(config, crops[0], there, 100)
    batch = compose([scene])
    assert not differences([scene], batch).any()
    assert (batch.boxes[0].numpy() == on_cpu(scene).target.boxes).all() and len(batch.boxes[0]) == 1


@pytest.mark.parametrize("name", ["warped", "all-blends", "harmonised", "paper-birds"])
def test_a_scene_does_not_depend_on_the_others_of_its_batch(name, crops):
    config = CompositorConfig.model_validate({"size": 64, **CONFIGS[name]})
    scenes = make_scenes(config, crops, 4)
    together = compose(scenes)
    for number, scene in enumerate(scenes):
        alone = compose([scene])
        assert (alone.images[0] == together.images[number]).all()
        assert (alone.boxes[0] == together.boxes[number]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3, 2), (900, 700)])
@pytest.mark.parametrize("opacity", [0, 60, 255])
def test_crops_of_any_shape_and_opacity_are_composed(shape, opacity):
    rng = np.random.default_rng(2)
    crop = replace(make_crop(rng, *shape), mask=np.full(shape, opacity, np.uint8))
    config = CompositorConfig.model_validate(
        {"size": 48, **CONFIGS["harmonised"], "blend": {"gaussian": 1, "alpha": 1}, "feather": 0.1}
    )
    scenes = make_scenes(config, [crop], 3)
    batch = compose(scenes)
    assert differences(scenes, batch).mean() < 0.5
    if opacity < 128:
        assert all(len(boxes) == 0 for boxes in batch.boxes)


def test_scenes_without_objects_are_their_backgrounds(crops):
    scenes = [
        replace(scene, plan=replace(scene.plan, placements=()))
        for scene in make_scenes(CompositorConfig(size=64), crops, 2)
    ]
    batch = compose(scenes)
    assert differences(scenes, batch).max() <= 1 and [b.shape for b in batch.boxes] == [(0, 4)] * 2


def test_artefacts_are_applied_in_the_order_of_the_plan(crops):
    config = CompositorConfig(size=64)
    orders = [
        (Noise(20, True, 3), Blur(1.0)),
        (Blur(1.0), Noise(20, True, 3)),
        (Noise(9, False, 4), Rescale(0.6)),
    ]
    scenes = [
        replace(scene, plan=replace(scene.plan, artefacts=order))
        for scene, order in zip(make_scenes(config, crops, 3), orders, strict=True)
    ]
    assert differences(scenes, compose(scenes)).mean() < 0.5


@pytest.mark.parametrize("quality", [10, 40, 80, 95])
def test_jpeg_is_what_a_precise_encoder_makes(quality):
    images = np.stack([texture(np.random.default_rng(i), 75, 90) for i in range(4)])
    found = through_jpeg(
        torch.from_numpy(images).permute(0, 3, 1, 2).float(), torch.full((4,), quality * 1.0)
    )
    wanted = np.stack([with_pillow(image, quality) for image in images]).astype(int)
    difference = np.abs(to_bytes(found).permute(0, 2, 3, 1).numpy() - wanted)
    assert difference.mean() < 0.15 * np.abs(images - wanted).mean()


def with_pillow(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.array(Image.open(file))


def test_scenes_go_through_jpeg_as_on_the_cpu(crops):
    config = CompositorConfig.model_validate({"size": 100, "artefacts": {"jpeg_prob": 1.0}})
    scenes = make_scenes(config, crops)
    untouched = [replace(scene, plan=replace(scene.plan, artefacts=())) for scene in scenes]
    effect = differences(scenes, compose(untouched)).mean()
    assert differences(scenes, compose(scenes)).mean() < 0.2 * effect


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"blend": {"alpha": 1, "poisson": 1}}, "blend: found poisson"),
        ({"preset": "paper-birds", "paper": {"zoom_min": 0.3}}, "paper.zoom_min: found 0.3"),
        ({"blend": "poisson"}, "blend: found poisson"),
    ],
)
def test_what_only_the_cpu_can_paint_is_refused_by_name(fields, named):
    with pytest.raises(InputError, match=named):
        BatchComposer(CompositorConfig.model_validate(fields), LABELS, torch.device("cpu"))


def test_a_scene_planned_with_another_config_is_refused(crops):
    composer = BatchComposer(CompositorConfig(size=64), LABELS, torch.device("cpu"))
    with pytest.raises(ValueError, match="another config"):
        composer(make_scenes(CompositorConfig(size=65), crops, 1))


def test_composing_leaves_the_precision_of_products_as_it_was(crops):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        compose(make_scenes(CompositorConfig(size=64), crops, 1))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_batches_begun_ahead_come_in_order(crops):
    scenes = make_scenes(CompositorConfig(size=64), crops, 3)
    composer = BatchComposer(scenes[0].plan.config, LABELS, torch.device("cpu"))
    ahead = list(composer.composed(composer.pack([scene]) for scene in scenes))
    assert [batch.keys for batch in ahead] == [("0",), ("1",), ("2",)]
    assert all((batch.images == compose([s]).images).all() for batch, s in zip(ahead, scenes, strict=True))


def test_a_crop_that_is_shown_again_is_sent_once(crops):
    scenes = make_scenes(CompositorConfig(size=64, min_objects=3), crops[:1], 4)
    packed = BatchComposer(scenes[0].plan.config, LABELS, torch.device("cpu")).pack(scenes)
    windows = sum(
        round((s.plan.background.side_frac or 1) * min(s.background.shape[:2])) ** 2 for s in scenes
    )
    assert len(packed.pixels) == windows + crops[0].mask.size


def test_a_packed_batch_travels_between_processes(crops):
    scenes = make_scenes(CompositorConfig.model_validate({"size": 64, **CONFIGS["artefacts"]}), crops, 2)
    composer = BatchComposer(scenes[0].plan.config, LABELS, torch.device("cpu"))
    arrived = pickle.loads(pickle.dumps(composer.pack(scenes)))
    assert (composer.compose(arrived).images == composer(scenes).images).all()


# The loader


@pytest.fixture
def stream(sets) -> SyntheticStream:
    crops, backgrounds = (ShardSet.open(path) for path in sets)
    return SyntheticStream(CropCollection([crops]), backgrounds, CompositorConfig(size=48), {"disc": 1}, 0)


def test_workers_pack_the_batches_that_the_cpu_loader_makes(stream):
    composer = BatchComposer(CompositorConfig(size=48), {"disc": 1}, torch.device("cpu"))
    loaded = [list(DeviceBatches(composer)(stream, 4, 1, 4, workers)) for workers in (0, 2)]
    for alone, helped, wanted in zip(*loaded, batches(stream, 4, 1, 4, 0), strict=True):
        assert alone.keys == helped.keys == wanted.keys
        assert (alone.images == helped.images).all()
        assert (alone.images.float() - wanted.images.float()).abs().mean() < 0.5
        for boxes, wanted_boxes in zip(helped.boxes, wanted.boxes, strict=True):
            assert (boxes - wanted_boxes).abs().amax() <= 1.0


def test_a_stream_that_a_device_cannot_compose_is_refused(stream, sets):
    crops, backgrounds = (ShardSet.open(path) for path in sets)
    composer = BatchComposer(CompositorConfig(size=48), {"disc": 1}, torch.device("cpu"))
    augmented = SyntheticStream(
        CropCollection([crops]),
        backgrounds,
        CompositorConfig(size=48),
        {"disc": 1},
        0,
        augment=AugmentConfig(),
    )
    for other, found in ((augmented, "augmented scenes"), ([stream[0]], "list")):
        with pytest.raises(InputError, match=found):
            DeviceBatches(composer)(other, 4, 0, 1, 0)
