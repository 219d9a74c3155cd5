"""Scenes are decided as configured; the paper's layouts come out as those of the paper's code."""

from collections import Counter
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shards.records import CropRecord
from trainer.compositing.config import PRESETS, CompositorConfig, preset
from trainer.compositing.paper_layout import draw_paper_cells
from trainer.compositing.photometric import Blur, Linear, Noise
from trainer.compositing.placement import overlap_of_smaller, plan_scene
from trainer.compositing.plan import CropShape, ScenePlan, compose, shape_of_record

SHAPES = [CropShape(w, h, w, h, 0, 0) for w, h in ((120, 100), (80, 90), (60, 61), (200, 160))]


def make_plans(config: CompositorConfig, count: int, shapes: list[CropShape] = SHAPES) -> list[ScenePlan]:
    rng = np.random.default_rng(7)
    return [plan_scene(config, rng, len(shapes), 5, shapes.__getitem__) for _ in range(count)]


def corners(placement, shape: CropShape) -> np.ndarray:
    a, b, c, d, e, f = placement.matrix
    points = [(x, y) for x in (0, shape.width) for y in (0, shape.height)]
    return np.array([(a * x + b * y + c, d * x + e * y + f) for x, y in points])


# METHOD 0.8 and 1.5: shares of the counts and percentiles of sqrt(cell area), from the paper's own code
@pytest.mark.parametrize(
    ("name", "shares", "percentiles"),
    [
        ("paper-faces", [0.37, 0.38, 0.20, 0.039, 0.007, 0.001], (24, 76, 182)),
        ("paper-birds", [0.975, 0.025], (172, 221, 265)),
        ("paper-cars", [0.90, 0.10], (170, 216, 270)),
    ],
)
def test_paper_layouts_have_the_papers_counts_and_sizes(name, shares, percentiles):
    rng, config = np.random.default_rng(3), preset(name)
    layouts = [draw_paper_cells(config, rng) for _ in range(5000)]
    counts = Counter(len(cells) for cells in layouts)
    for number, share in enumerate(shares, start=1):
        assert counts[number] / len(layouts) == pytest.approx(share, abs=0.02)
    cells = np.concatenate(layouts)
    sides = np.sqrt(cells[:, 2] * cells[:, 3])
    assert np.percentile(sides, (10, 50, 90)) == pytest.approx(percentiles, abs=5)


def test_paper_cells_lie_inside_the_canvas_and_never_touch():
    rng, config = np.random.default_rng(4), preset("paper-faces")
    for _ in range(300):
        cells = draw_paper_cells(config, rng)
        start, end = cells[:, :2], cells[:, :2] + cells[:, 2:]
        assert (start >= 0).all() and (end <= config.paper.canvas_px).all() and (cells[:, 2:] >= 1).all()
        for i, j in zip(*np.triu_indices(len(cells), 1), strict=True):
            assert ((end[i] < start[j]) | (end[j] < start[i])).any()


def test_a_paper_plan_says_its_frame_its_cell_and_every_photometric_step():
    plan = make_plans(preset("paper-birds"), 1)[0]
    (placement,) = plan.placements
    assert plan.canvas_px == 320 and plan.size == 300 and plan.background.side_frac is None
    x, y, width, height = placement.frame.cell
    assert placement.bounds == (x, y, x + width, y + height)
    assert {type(step) for step in placement.photometrics} >= {Linear, Noise}


def test_the_papers_photometric_steps_come_in_any_order_and_blur_half_the_time():
    steps = [p.photometrics for plan in make_plans(preset("paper-birds"), 600) for p in plan.placements]
    assert np.mean([any(isinstance(s, Blur) for s in row) for row in steps]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([isinstance(row[0], Noise) for row in steps]) == pytest.approx(0.29, abs=0.06)


def test_a_crop_is_put_back_into_its_source_frame():
    config = CompositorConfig.model_validate({"preset": "paper-faces", "max_objects": 1})
    shape = CropShape(width=50, height=40, frame_w=200, frame_h=100, frame_x=100, frame_y=20)
    frame = make_plans(config, 1, [shape])[0].placements[0].frame
    assert frame.to_frame == pytest.approx((0.64, 0, 64, 0, 1.28, 25.6))


def test_paper_cars_zoom_into_the_middle_of_the_frame():
    shape = CropShape(256, 256, 256, 256, 0, 0)
    frame = make_plans(preset("paper-cars"), 1, [shape])[0].placements[0].frame
    assert frame.to_frame == pytest.approx((1, 0, -64, 0, 1, -64))


def test_a_side_crop_before_the_warp_clips_the_frame_and_one_after_it_does_not():
    plans = make_plans(preset("paper-birds"), 800)
    windows = [p.frame.window for plan in plans for p in plan.placements]
    assert np.mean([w != (0, 0, 128, 128) for w in windows]) == pytest.approx(0.5, abs=0.06)
    assert all(
        0 <= x0 <= 13 and 0 <= y0 <= 13 and 115 <= x1 <= 128 and 115 <= y1 <= 128
        for x0, y0, x1, y1 in windows
    )


def test_default_counts_are_uniform():
    counts = Counter(len(plan.placements) for plan in make_plans(CompositorConfig(), 4000))
    assert sorted(counts) == [1, 2, 3]
    assert all(number / 4000 == pytest.approx(1 / 3, abs=0.025) for number in counts.values())


def test_single_objects_have_log_uniform_scales():
    config = CompositorConfig(max_objects=1, rotation_deg=0, aspect_jitter=0)
    square = CropShape(50, 50, 50, 50, 0, 0)
    boxes = [plan.placements[0].bounds for plan in make_plans(config, 3000, [square])]
    scales = [sqrt((x1 - x0) * (y1 - y0)) / config.size for x0, y0, x1, y1 in boxes]
    assert min(scales) >= config.scale_min and max(scales) <= config.scale_max
    position = (np.log(scales) - log(config.scale_min)) / (log(config.scale_max) - log(config.scale_min))
    assert np.percentile(position, (10, 50, 90)) == pytest.approx((0.1, 0.5, 0.9), abs=0.03)


def test_default_objects_keep_their_aspect_but_for_the_jitter():
    for plan in make_plans(CompositorConfig(), 200):
        for placement in plan.placements:
            a, b, _, d, e, _ = placement.matrix
            ratio = sqrt((a * a + d * d) / (b * b + e * e))
            assert 1 / 1.1 - 1e-9 <= ratio <= 1.1 + 1e-9


def test_rotated_objects_lie_wholly_inside_the_scene():
    config = CompositorConfig(rotation_deg=180, scale_max=1.0)
    for plan in make_plans(config, 300):
        for placement in plan.placements:
            found = corners(placement, SHAPES[placement.crop])
            assert found.min() >= -1e-6 and found.max() <= config.size + 1e-6
            x0, y0, x1, y1 = placement.bounds
            assert (*found.min(0), *found.max(0)) == pytest.approx((x0, y0, x1, y1), abs=1e-6)


def test_truncation_lets_the_stated_share_off_the_scene():
    config = CompositorConfig(truncation=0.4, max_objects=1)
    shares = []
    for plan in make_plans(config, 800):
        x0, _, x1, _ = plan.placements[0].bounds
        shares.append(max(0.0, -x0, x1 - config.size) / (x1 - x0))
    assert max(shares) <= 0.4 + 1e-9 and max(shares) > 0.35


@pytest.mark.parametrize("max_overlap", [0.0, 0.3, 1.0])
def test_no_two_objects_overlap_more_than_allowed(max_overlap):
    config = CompositorConfig(max_overlap=max_overlap, max_objects=6)
    for plan in make_plans(config, 150):
        boxes = [placement.bounds for placement in plan.placements]
        for i, box in enumerate(boxes):
            assert all(overlap_of_smaller(box, other) <= max_overlap for other in boxes[:i])


def test_the_same_seed_plans_the_same_scene():
    for name in PRESETS:
        assert make_plans(preset(name), 20) == make_plans(preset(name), 20)


def test_flips_and_backgrounds_are_drawn_as_configured():
    plans = make_plans(CompositorConfig(), 1500)
    assert np.mean([p.flipped for plan in plans for p in plan.placements]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([plan.background.flipped for plan in plans]) == pytest.approx(0.5, abs=0.05)
    assert {plan.background.index for plan in plans} == set(range(5))
    assert all(0.5 <= plan.background.side_frac <= 1 for plan in plans)


def test_a_plan_needs_crops_and_backgrounds():
    with pytest.raises(ValueError, match="0 crops, 3 backgrounds, wanted at least 1"):
        plan_scene(CompositorConfig(), np.random.default_rng(0), 0, 3, SHAPES.__getitem__)


def test_the_shape_of_a_record_is_its_frame_or_itself():
    image, mask = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8)
    assert shape_of_record(CropRecord("a", "bird", image, mask)) == CropShape(30, 20, 30, 20, 0, 0, "bird")
    origin = {"frame_w": 99, "frame_h": 88, "frame_x": 7, "frame_y": 6}
    assert shape_of_record(CropRecord("a", "bird", image, mask, origin)) == CropShape(
        30, 20, 99, 88, 7, 6, "bird"
    )


@settings(max_examples=60, deadline=None)
@given(
    width=st.sampled_from([1, 2, 37, 600]),
    height=st.sampled_from([1, 3, 64, 600]),
    seed=st.integers(0, 1000),
    name=st.sampled_from(sorted(PRESETS)),
)
def test_any_crop_finds_a_finite_place_on_the_canvas(width, height, seed, name):
    shape = CropShape(width, height, width, height, 0, 0)
    plan = plan_scene(preset(name), np.random.default_rng(seed), 1, 1, [shape].__getitem__)
    assert plan.placements
    for placement in plan.placements:
        assert np.isfinite(placement.matrix).all()
        assert min(placement.bounds) >= -1e-6 and max(placement.bounds) <= plan.canvas_px + 1e-6


def test_compose_applies_the_inner_affine_first():
    shift, double = (1.0, 0.0, 5.0, 0.0, 1.0, 0.0), (2.0, 0.0, 0.0, 0.0, 2.0, 0.0)
    assert compose(double, shift) == (2, 0, 10, 0, 2, 0)


# Settings


def test_a_preset_can_be_overridden_field_by_field():
    config = CompositorConfig.model_validate({"preset": "paper-birds", "size": 192, "paper": {"tries": 3}})
    assert (config.size, config.layout, config.paper.mask, config.paper.tries) == (192, "paper", "hard", 3)
    assert CompositorConfig.model_validate(config.model_dump()) == config


def test_an_unknown_preset_is_refused_with_the_nearest_name():
    with pytest.raises(ValidationError, match="did you mean 'paper-birds'"):
        preset("paper-bird")


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_objects": 4, "max_objects": 3},
        {"scale_min": 0.9},
        {"background": {"side_min": 1.0, "side_max": 0.5}},
        {"photometric": {"gain_min": 2.0}},
        {"paper": {"zoom_min": 2.0}},
        {"sizes": 3},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        CompositorConfig.model_validate(wrong)
