"""10,000 plans have the counts, sizes, places and overlaps that were asked for; their boxes are sound."""

from collections import Counter
from math import log, sqrt

import cv2
import numpy as np
import pytest

from shards.records import CropRecord
from trainer.compositing.config import CompositorConfig
from trainer.compositing.placement import overlap_of_smaller, plan_scene
from trainer.compositing.plan import CropShape, ScenePlan, shape_of_record
from trainer.compositing.render import paint_scene
from trainer.compositing.resampling import weigh

COUNT = 10_000
SQUARE = CropShape(50, 50, 50, 50, 0, 0, "bird")


def make_plans(count: int = COUNT, num_crops: int = 4, num_distractors: int = 0, **fields) -> list[ScenePlan]:
    config, rng = CompositorConfig.model_validate(fields), np.random.default_rng(11)
    return [plan_scene(config, rng, num_crops, 3, lambda _: SQUARE, num_distractors) for _ in range(count)]


def share(values, wanted: float, tolerance: float = 0.015) -> None:
    assert np.mean(list(values)) == pytest.approx(wanted, abs=tolerance)


def quantiles(values) -> list[float]:
    return np.percentile(values, (0, 10, 50, 90, 100)).tolist()


UNIFORM = pytest.approx([0, 0.1, 0.5, 0.9, 1], abs=0.025)


@pytest.fixture(scope="module")
def plans() -> list[ScenePlan]:
    return make_plans()


def test_counts_crops_flips_and_backgrounds_are_uniform(plans):
    counts = Counter(len(plan.placements) for plan in plans)
    assert sorted(counts) == [1, 2, 3]
    for number in counts:
        share((len(plan.placements) == number for plan in plans), 1 / 3)
    placed = [place for plan in plans for place in plan.placements]
    for crop in range(4):
        share((place.crop == crop for place in placed), 1 / 4)
    share((place.flipped for place in placed), 0.5)
    for index in range(3):
        share((plan.background.index == index for plan in plans), 1 / 3)
    assert quantiles([2 * plan.background.side_frac - 1 for plan in plans]) == UNIFORM


def test_first_objects_are_log_uniform_in_scale_and_uniform_in_angle_and_place(plans):
    config = plans[0].config
    first = [plan.placements[0] for plan in plans if len(plan.placements) == 1]
    matrices = np.array([place.matrix for place in first])
    areas = 50 * 50 * np.abs(matrices[:, 0] * matrices[:, 4] - matrices[:, 1] * matrices[:, 3])
    low, high = log(config.scale_min), log(config.scale_max)
    assert quantiles((np.log(np.sqrt(areas) / config.size) - low) / (high - low)) == UNIFORM
    assert quantiles([place.rotation_deg / 30 + 0.5 for place in first]) == UNIFORM
    bounds = np.array([place.bounds for place in first])
    slack = config.size - (bounds[:, 2:] - bounds[:, :2])
    for axis in range(2):
        assert quantiles((bounds[:, axis] / np.maximum(slack[:, axis], 1e-9))[slack[:, axis] > 1]) == UNIFORM


def test_nothing_leaves_the_scene_or_overlaps_too_much(plans):
    bounds = np.array([place.bounds for plan in plans for place in plan.placements])
    assert bounds.min() >= -1e-9 and bounds.max() <= plans[0].config.size + 1e-9
    assert (bounds[:, 2:] - bounds[:, :2] > 1).all()
    worst = 0.0
    for plan in plans:
        boxes = [place.bounds for place in plan.placements]
        pairs = ((a, b) for i, a in enumerate(boxes) for b in boxes[:i])
        worst = max([worst, *(overlap_of_smaller(a, b) for a, b in pairs)])
    assert 0.25 < worst <= plans[0].config.max_overlap


def test_with_every_overlap_allowed_two_objects_are_placed_independently():
    fields = {"min_objects": 2, "max_objects": 2, "max_overlap": 1.0, "rotation_deg": 0, "aspect_jitter": 0}
    found = [
        [p.bounds for p in plan.placements] for plan in make_plans(scale_min=0.3, scale_max=0.3, **fields)
    ]
    # two squares of 0.3 meet where both starts, uniform over 0.7, are under 0.3 apart
    share((overlap_of_smaller(*pair) > 0 for pair in found), (1 - (1 - 3 / 7) ** 2) ** 2)


def test_upright_objects_lie_on_whole_pixels():
    for plan in make_plans(500, rotation_deg=0):
        for place in plan.placements:
            assert all(edge == round(edge) for edge in place.bounds)
            a, b, c, d, e, f = place.matrix
            assert b == d == 0 and (f, f + 50 * e) == pytest.approx(place.bounds[1::2])
            assert sorted((c, c + 50 * a)) == pytest.approx(place.bounds[::2])


def test_fitted_scales_come_out_as_their_quantiles():
    rule = {"kind": "fitted", "quantiles": [0.1, 0.2, 0.6]}
    fields = {"max_objects": 1, "rotation_deg": 0, "aspect_jitter": 0, "size": 1000}
    for config in (
        {"scale": rule},
        {"scale_of_label": {"bird": rule, "car": {"kind": "uniform", "min": 1, "max": 1}}},
    ):
        boxes = [plan.placements[0].bounds for plan in make_plans(4000, **fields, **config)]
        sides = [sqrt((x1 - x0) * (y1 - y0)) / 1000 for x0, y0, x1, y1 in boxes]
        assert np.percentile(sides, (0, 25, 50, 75, 100)) == pytest.approx(
            [0.1, 0.15, 0.2, 0.4, 0.6], abs=0.015
        )


def test_distractors_have_their_counts_their_crops_and_any_order():
    fields = {"distractors": {"min": 0, "max": 2}, "max_overlap": 1.0, "scale_max": 0.3, "min_objects": 2}
    made = make_plans(4000, num_crops=4, num_distractors=3, max_objects=2, **fields)
    flags = [[place.is_distractor for place in plan.placements] for plan in made]
    for number in range(3):
        share((sum(row) == number for row in flags), 1 / 3, 0.025)
    assert all(row.count(False) == 2 for row in flags)
    share((row[0] for row in flags if sum(row) == 1), 1 / 3, 0.03)
    crops = {
        flag: {p.crop for plan in made for p in plan.placements if p.is_distractor == flag} for flag in (0, 1)
    }
    assert crops == {0: {0, 1, 2, 3}, 1: {4, 5, 6}}


def test_blends_and_harmonising_are_drawn_for_each_object():
    fields = {"blend": {"alpha": 1, "gaussian": 3}, "harmonise": {"prob": 0.4}, "max_objects": 1}
    places = [plan.placements[0] for plan in make_plans(4000, **fields)]
    share((place.blend == "gaussian" for place in places), 0.75, 0.025)
    share((place.harmonise > 0 for place in places), 0.4, 0.03)
    strengths = [place.harmonise for place in places if place.harmonise]
    assert 0.3 <= min(strengths) < 0.32 and 0.78 < max(strengths) <= 0.8


def test_naming_the_defaults_changes_no_draw():
    scale = {"kind": "log_uniform", "min": 0.15, "max": 0.8}
    named = make_plans(50, blend="alpha", harmonise={"prob": 0.0}, artefacts={}, perspective=0.0, scale=scale)
    assert [plan.placements for plan in named] == [plan.placements for plan in make_plans(50)]


def tiny_crops() -> list[CropRecord]:
    """A disc, a frame with a hole, two dots apart, nothing at all."""
    masks = [np.zeros((24, 24), np.uint8) for _ in range(4)]
    cv2.circle(masks[0], (12, 12), 10, 255, -1)
    cv2.rectangle(masks[1], (2, 2), (21, 21), 200, 3)
    masks[2][3, 3], masks[2][20, 15] = 255, 130
    return [
        CropRecord(f"c{i}", "bird", np.full((24, 24, 3), 60 * i, np.uint8), m) for i, m in enumerate(masks)
    ]


def test_no_box_of_10000_scenes_is_outside_empty_or_of_an_unseen_object():
    config = CompositorConfig.model_validate(
        {
            "size": 40,
            "max_objects": 3,
            "max_overlap": 0.9,
            "truncation": 0.6,
            "rotation_deg": 40,
            "distractors": {"max": 1},
            "min_visible": 0.5,
            "drop_visible": 0.2,
            "min_box_px": 2,
            "photometric": {"noise_prob": 0, "blur_prob": 0},
        }
    )
    records = tiny_crops()
    crops, shapes = [weigh(record) for record in records], [shape_of_record(record) for record in records]
    photo, rng, labelled, ignored = np.zeros((40, 40, 3), np.uint8), np.random.default_rng(2), 0, 0
    for _ in range(COUNT):
        plan = plan_scene(config, rng, 3, 1, shapes.__getitem__, 1)
        painted = paint_scene(plan, photo, crops.__getitem__, {"bird": 1}, "k")
        target = painted.sample.target
        labelled, ignored = labelled + len(target), ignored + int(target.ignore.sum())
        for order, (x0, y0, x1, y1) in zip(painted.orders, target.boxes.astype(int).tolist(), strict=True):
            assert not plan.placements[order - 1].is_distractor
            assert 0 <= x0 < x1 <= 40 and 0 <= y0 < y1 <= 40 and min(x1 - x0, y1 - y0) >= 2
            assert cv2.boundingRect(cv2.inRange(painted.owner, order, order)) == (x0, y0, x1 - x0, y1 - y0)
    assert labelled > COUNT and 0.02 < ignored / labelled < 0.5
