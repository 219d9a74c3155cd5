"""Any settings with any crops give a scene whose boxes keep their contract, and the same bytes again."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.records import CropRecord
from trainer.compositing.config import CompositorConfig
from trainer.compositing.placement import plan_scene
from trainer.compositing.plan import shape_of_record
from trainer.compositing.render import paint_scene

PHOTO = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
BLENDS = ("alpha", "hard", "gaussian", "poisson")
CERTAIN = {f"{name}_prob": 1.0 for name in ("rescale", "blur", "motion", "noise", "jpeg")}


def crop(width: int, height: int, kind: str, label: str, seed: int) -> CropRecord:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    mask = {"empty": 0, "full": 255, "noise": rng.integers(0, 256, (height, width), np.uint8), "dot": 0}[kind]
    mask = np.broadcast_to(np.asarray(mask, np.uint8), (height, width)).copy()
    if kind == "dot":
        mask[height // 2, width // 2] = 255
    return CropRecord("c", label, image, mask)


SIDES = st.sampled_from([1, 2, 3, 17, 80, 300])
CROPS = st.builds(
    crop,
    SIDES,
    SIDES,
    st.sampled_from(["empty", "full", "noise", "dot"]),
    st.sampled_from(["bird", "car"]),
    st.integers(0, 9),
)
SCALES = st.one_of(
    st.none(),
    st.just({"kind": "uniform", "min": 0.001, "max": 1.0}),
    st.just({"kind": "log_uniform", "min": 0.01, "max": 0.02}),
    st.just({"kind": "fitted", "quantiles": [0.01, 0.3, 1.0]}),
)
SHARES = st.sampled_from([0.0, 0.4, 1.0])
CONFIGS = st.fixed_dictionaries(
    {
        "preset": st.sampled_from(["default", "paper-faces", "paper-birds", "paper-cars"]),
        "size": st.sampled_from([16, 75]),
        "max_objects": st.integers(1, 6),
        "scale": SCALES,
        "scale_of_label": st.one_of(st.just({}), SCALES.filter(bool).map(lambda rule: {"car": rule})),
        "rotation_deg": st.sampled_from([0, 15, 180]),
        "perspective": st.sampled_from([0.0, 0.3, 0.99]),
        "aspect": st.sampled_from([0.1, 1.0, 8.0]),
        "max_overlap": SHARES,
        "truncation": st.sampled_from([0.0, 0.5, 0.99]),
        "min_visible": SHARES,
        "drop_visible": SHARES,
        "min_box_px": st.sampled_from([0.5, 4.0]),
        "blend": st.one_of(st.sampled_from(BLENDS), st.just(dict.fromkeys(BLENDS, 1.0))),
        "feather": st.sampled_from([0.0, 0.05, 2.0]),
        "distractors": st.sampled_from([{}, {"min": 1, "max": 3}]),
        "harmonise": st.sampled_from([{}, {"prob": 1.0, "strength_max": 1.0}]),
        "artefacts": st.sampled_from([{}, CERTAIN, CERTAIN | {"motion_px": 1.0, "rescale_min": 0.01}]),
    }
)


@settings(max_examples=250, deadline=None)
@given(CONFIGS, st.lists(CROPS, min_size=2, max_size=4), st.integers(0, 10_000))
def test_any_settings_and_crops_give_a_sound_scene(fields, crops, seed):
    config = CompositorConfig.model_validate(fields)
    shapes = [shape_of_record(record) for record in crops]
    objects = len(crops) - 1
    plan = plan_scene(config, np.random.default_rng(seed), objects, 1, shapes.__getitem__, 1)
    assert all(np.isfinite([*place.matrix, *place.tilt, *place.bounds]).all() for place in plan.placements)
    assert all(place.is_distractor == (place.crop == objects) for place in plan.placements)
    labels = {record.label: 1 for record in crops[:-1]}  # a distractor needs no label
    one, again = (paint_scene(plan, PHOTO, crops.__getitem__, labels, "k") for _ in range(2))
    image, target = one.sample.image, one.sample.target
    assert image.shape == (config.size, config.size, 3) and image.dtype == np.uint8
    assert (image == again.sample.image).all() and (one.owner == again.owner).all()
    boxes = target.boxes
    assert boxes.dtype == np.float32 and len(boxes) == len(target.labels) == len(one.orders)
    assert (boxes >= 0).all() and (boxes <= config.size).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= config.min_box_px - 1e-4).all()
    if plan.canvas_px == plan.size:
        for order, (x0, y0, x1, y1) in zip(one.orders, boxes.astype(int).tolist(), strict=True):
            found = cv2.boundingRect((one.owner == order).astype(np.uint8))
            assert found == (x0, y0, x1 - x0, y1 - y0)


def test_crops_of_2000_px_are_painted():
    crops = [crop(2000, 1500, kind, "bird", 1) for kind in ("noise", "full")]
    shapes = [shape_of_record(record) for record in crops]
    for seed in range(3):
        config = CompositorConfig(min_objects=2, perspective=0.4 * seed, size=64)
        plan = plan_scene(config, np.random.default_rng(seed), 2, 1, shapes.__getitem__)
        target = paint_scene(plan, PHOTO, crops.__getitem__, {"bird": 1}, "k").sample.target
        assert len(target) >= 1 and target.boxes.max() <= 64
