"""What a scene may have beyond the default: each option does what its name says."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from shards.records import CropRecord
from trainer.compositing.blend import clone, paste, paste_weighted
from trainer.compositing.config import CompositorConfig
from trainer.compositing.harmonise import harmonised
from trainer.compositing.options import ArtefactConfig
from trainer.compositing.photometric import Blur, Noise
from trainer.compositing.placement import plan_scene
from trainer.compositing.plan import BackgroundPlan, CropShape, Placement, ScenePlan, area_scale, point_moved
from trainer.compositing.render import paint_scene, render_scene
from trainer.compositing.resampling import merge_weighted, warp, weigh
from trainer.compositing.scales import FittedScale, fit_scales
from trainer.compositing.scene_artefacts import (
    Jpeg,
    MotionBlur,
    Rescale,
    apply_artefacts,
    draw_artefacts,
    motion_kernel,
)

GREY = np.full((100, 100, 3), 90, np.uint8)
FULL = np.full((20, 20), 255, np.uint8)


def plain_crop(side: int, colour, label: str = "bird") -> CropRecord:
    image = np.full((side, side, 3), colour, np.uint8)
    return CropRecord("c", label, image, np.full((side, side), 255, np.uint8))


def at(crop: int, x: float, y: float, **fields) -> Placement:
    return Placement(crop, (1.0, 0.0, x, 0.0, 1.0, y), (x, y, x, y), False, 0.0, **fields)


def painted(placements, crops, background=GREY, artefacts=(), **fields):
    plan = ScenePlan(
        CompositorConfig(size=100, **fields), 100, BackgroundPlan(0), tuple(placements), artefacts
    )
    return paint_scene(plan, background, crops.__getitem__, {"bird": 1}, "k")


def noise_image(seed: int = 0, side: int = 100) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


# Occlusion and distractors


def test_a_distractor_covers_and_has_no_box_and_needs_no_label():
    crops = [plain_crop(20, 200), plain_crop(20, 50, "face")]
    scene = painted([at(0, 10, 10), at(1, 20, 10, is_distractor=True)], crops)
    assert scene.sample.target.boxes.tolist() == [[10, 10, 20, 30]] and scene.orders == (1,)
    assert (scene.sample.image[10:30, 20:40] == 50).all() and (scene.owner[10:30, 20:40] == 2).all()


def test_an_object_of_which_too_little_is_seen_is_ignored_and_of_which_less_is_dropped():
    crops = [plain_crop(20, 200), plain_crop(40, 50)]
    for hidden, boxes, ignore in ((8, 2, [False, False]), (14, 2, [True, False]), (18, 1, [False])):
        places = [at(0, 40 - 20 + hidden, 10), at(1, 40, 0)]
        target = painted(places, crops, min_visible=0.5, drop_visible=0.2).sample.target
        assert len(target) == boxes and target.ignore.tolist() == ignore


def test_distractors_must_be_there_when_they_are_wanted():
    config = CompositorConfig.model_validate({"distractors": {"min": 1, "max": 1}})
    with pytest.raises(ValueError, match="0 distractor crops"):
        plan_scene(config, np.random.default_rng(0), 1, 1, lambda _: CropShape(9, 9, 9, 9, 0, 0))


# Perspective


def test_a_tilt_moves_pixels_to_where_the_plan_says_and_bounds_hold_them():
    shape = CropShape(60, 40, 60, 40, 0, 0)
    config, rng = CompositorConfig(perspective=0.6, rotation_deg=30, size=100), np.random.default_rng(1)
    mask = np.zeros((40, 60), np.uint8)
    cv2.circle(mask, (15, 12), 3, 255, -1)
    crop = CropRecord("c", "bird", np.full((40, 60, 3), 255, np.uint8), mask)
    for _ in range(30):
        plan = plan_scene(config.model_copy(update={"max_objects": 1}), rng, 1, 1, lambda _: shape)
        (place,) = plan.placements
        assert any(place.tilt)
        corners = np.array([point_moved(place.matrix, place.tilt, x, y) for x in (0, 60) for y in (0, 40)])
        assert (*corners.min(0), *corners.max(0)) == pytest.approx(place.bounds, abs=1e-6)
        bare = replace(place, photometrics=())
        owner = painted([bare], [crop], min_box_px=0.5).owner
        x, y = point_moved(place.matrix, place.tilt, 15.5, 12.5)
        if (owner == 1).sum() > 4:
            rows, columns = np.nonzero(owner == 1)
            assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((x, y), abs=0.8)


def test_the_area_scale_is_that_of_small_squares():
    matrix, tilt = (1.2, 0.3, 5.0, -0.2, 0.9, 7.0), (0.004, -0.003)
    here, right, below = (
        np.array(point_moved(matrix, tilt, x, y)) for x, y in ((20, 10), (20.01, 10), (20, 10.01))
    )
    (a, b), (c, d) = right - here, below - here
    assert area_scale(matrix, tilt, 20, 10) == pytest.approx((a * d - b * c) / 1e-4, rel=1e-3)


def test_a_resize_to_whole_pixels_is_the_warp_but_for_its_rim():
    weighted = merge_weighted(noise_image(1, 40), np.full((40, 40), 255, np.uint8))
    for width, height in ((60, 50), (40, 40), (30, 25)):
        for mirrored in (False, True):
            a, c = (-width / 40, float(width)) if mirrored else (width / 40, 0.0)
            fast = warp(weighted, (a, 0.0, c, 0.0, height / 40, 0.0), width, height).astype(int)
            slow = warp(weighted, (a, 0.0, c + 1e-4, 0.0, height / 40, 1e-4), width, height).astype(int)
            assert np.abs(fast - slow)[2:-2, 2:-2].max() <= 6


def test_a_weighed_crop_is_painted_like_its_record():
    mask = cv2.GaussianBlur(np.pad(FULL, 20), (9, 9), 3)
    record = CropRecord("c", "bird", noise_image(2, 60), mask)
    one, other = (painted([at(0, 7.3, 9.6)], [crop]) for crop in (record, weigh(record)))
    assert (one.sample.image == other.sample.image).all()


# Blends


def test_a_weighted_paste_is_a_paste():
    canvas, colour = noise_image(3, 40), noise_image(4, 40)
    opacity = noise_image(5, 40)[:, :, 0].copy()
    one, other = canvas.copy(), canvas.copy()
    paste(one, colour, opacity)
    paste_weighted(other, np.rint(colour * (opacity[..., None] / 255)).astype(np.uint8), opacity)
    assert np.abs(one.astype(int) - other).max() <= 1


def test_a_poisson_clone_takes_the_canvas_at_its_rim_and_the_objects_texture_inside():
    canvas = np.full((60, 60, 3), 60, np.uint8)
    colour = np.clip(
        180 + 30 * np.sin(np.arange(60) / 2)[None, :, None] * np.ones((60, 1, 3)), 0, 255
    ).astype(np.uint8)
    opacity = np.zeros((60, 60), np.uint8)
    opacity[10:50, 10:50] = 255
    clone(canvas, colour, opacity)
    assert (canvas[:9] == 60).all() and np.abs(canvas[10:50, 10].astype(int) - 60).max() < 40
    inside, texture = canvas[25:35, 15:45, 0].astype(float), colour[25:35, 15:45, 0].astype(float)
    assert np.corrcoef(inside.ravel(), texture.ravel())[0, 1] > 0.9 and abs(inside.mean() - 60) < 25


def test_blends_are_taken_from_each_placement():
    crops = [plain_crop(20, 200)]
    soft = cv2.GaussianBlur(np.pad(FULL[:10, :10], 5), (9, 9), 2)
    crops[0] = replace(crops[0], mask=soft)
    images = [
        painted([at(0, 10, 10, blend=kind)], crops, feather=0.05).sample.image
        for kind in ("alpha", "hard", "gaussian")
    ]
    assert all(min(abs(int(value) - 90), abs(int(value) - 200)) <= 1 for value in np.unique(images[1]))
    assert all((a != b).any() for a, b in ((images[0], images[1]), (images[0], images[2])))


# Harmonising


def test_full_harmonising_takes_over_mean_and_spread_and_none_changes_nothing():
    rng = np.random.default_rng(0)
    colour = np.clip(rng.normal((150, 100, 90), 12, (40, 40, 3)), 0, 255).astype(np.uint8)
    scene = np.clip(rng.normal((80, 110, 130), 18, (50, 50, 3)), 0, 255).astype(np.uint8)
    opacity = np.full((40, 40), 255, np.uint8)
    moved = harmonised(colour, opacity, scene, 1.0).astype(float)
    assert moved.mean((0, 1)) == pytest.approx(scene.mean((0, 1)), abs=1.5)
    assert moved.std((0, 1)) == pytest.approx(scene.std((0, 1)), rel=0.1)
    half = harmonised(colour, opacity, scene, 0.5).astype(float).mean((0, 1))
    assert half == pytest.approx((colour.mean((0, 1)) + scene.mean((0, 1))) / 2, abs=1.5)
    assert np.abs(harmonised(colour, opacity, scene, 0.0).astype(int) - colour).max() <= 1


def test_harmonising_ignores_what_lies_outside_the_object():
    colour, opacity = np.full((20, 20, 3), 200, np.uint8), FULL.copy()
    opacity[:, 10:] = 0
    other = colour.copy()
    other[:, 10:] = 0
    one, two = (harmonised(image, opacity, GREY, 1.0)[:, :10] for image in (colour, other))
    assert (one == two).all() and np.abs(one.astype(int) - 90).max() <= 1
    assert (harmonised(colour, np.zeros_like(opacity), GREY, 1.0) == colour).all()


def test_an_object_off_the_scene_has_no_surroundings():
    scene = painted([at(0, 300, 10, harmonise=1.0)], [plain_crop(20, 200)])
    assert (scene.sample.image == 90).all()


# Artefacts of the whole scene


def test_artefacts_are_drawn_with_their_probabilities_and_ranges():
    config = ArtefactConfig(rescale_prob=0.2, blur_prob=0.5, motion_prob=0.1, noise_prob=0.3, jpeg_prob=0.7)
    rng = np.random.default_rng(0)
    drawn = [draw_artefacts(config, rng) for _ in range(4000)]
    for kind, prob in ((Rescale, 0.2), (Blur, 0.5), (MotionBlur, 0.1), (Noise, 0.3), (Jpeg, 0.7)):
        found = [step for row in drawn for step in row if isinstance(step, kind)]
        assert len(found) / 4000 == pytest.approx(prob, abs=0.03)
    qualities = {step.quality for row in drawn for step in row if isinstance(step, Jpeg)}
    assert min(qualities) == config.jpeg_quality_min and max(qualities) == config.jpeg_quality_max
    assert draw_artefacts(ArtefactConfig(), rng) == ()


def test_blurs_and_rescaling_keep_the_mean_and_take_detail():
    image = noise_image(side=64)
    for artefact in (Rescale(0.5), Blur(1.0), MotionBlur(7.0, 30.0)):
        out = apply_artefacts(image, (artefact,))
        assert out.shape == image.shape and out.mean() == pytest.approx(image.mean(), abs=1.5)
        assert out.std() < 0.7 * image.std()


def test_noise_and_jpeg_act_on_the_whole_scene_and_are_the_same_again():
    image = noise_image(side=64) // 4 + 90
    for artefact in (Noise(8.0, True, 3), Jpeg(40)):
        out = apply_artefacts(image, (artefact,))
        assert (out == apply_artefacts(image, (artefact,))).all()
        assert ((out != image).mean(axis=(0, 2)) > 0.3).all()
    worst = [np.abs(apply_artefacts(image, (Jpeg(q),)).astype(int) - image).mean() for q in (90, 30)]
    assert worst[0] < worst[1]


@pytest.mark.parametrize("length", [1.0, 4.4, 10.0])
@pytest.mark.parametrize("angle", [0.0, 33.0, 90.0, 179.0])
def test_a_motion_kernel_is_a_centred_line_of_its_length(length, angle):
    kernel = motion_kernel(length, angle)
    ys, xs = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
    assert len(kernel) % 2 == 1 and len(kernel) <= 11 and kernel.sum() == pytest.approx(1, abs=1e-5)
    assert (kernel * xs).sum() == pytest.approx(0, abs=1e-5) and (kernel * ys).sum() == pytest.approx(
        0, abs=1e-5
    )
    along = xs * np.cos(np.radians(angle)) + ys * np.sin(np.radians(angle))
    assert 12 * (kernel * along**2).sum() == pytest.approx(length**2, abs=4)


def test_artefacts_come_last_and_leave_the_boxes_alone():
    crops = [plain_crop(20, 200)]
    plain, noisy = (painted([at(0, 10, 10)], crops, artefacts=a) for a in ((), (Noise(20.0, True, 1),)))
    assert (plain.sample.target.boxes == noisy.sample.target.boxes).all()
    assert (noisy.sample.image[50:] != 90).any() and (noisy.sample.image[10:30, 10:30] != 200).any()


# Scales and settings


def test_scales_are_fitted_to_real_boxes():
    boxes = [[[0, 0, 10, 10], [5, 5, 25, 45]], [], [[0, 0, 200, 50]]]
    rule = fit_scales(boxes, [(100, 100), (50, 50), (200, 50)], num_quantiles=3)
    assert rule == FittedScale(kind="fitted", quantiles=(0.1, 0.2828, 1.0))
    assert CompositorConfig(scale=rule).model_dump()["scale"]["quantiles"] == (0.1, 0.2828, 1.0)
    with pytest.raises(ValueError, match="no box in 1 photos"):
        fit_scales([[]], [(10, 10)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": {"kind": "fitted", "quantiles": [0.5, 0.2]}},
        {"scale": {"kind": "uniform", "min": 0.5, "max": 0.2}},
        {"scale": {"kind": "normal"}},
        {"blend": "laplacian"},
        {"blend": {}},
        {"blend": {"alpha": 0}},
        {"distractors": {"min": 2, "max": 1}},
        {"artefacts": {"jpeg_quality_min": 90, "jpeg_quality_max": 50}},
        {"harmonise": {"strength_min": 0.9, "strength_max": 0.1}},
        {"perspective": 1.0},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        CompositorConfig.model_validate(wrong)


def test_options_survive_being_written_out():
    config = CompositorConfig.model_validate(
        {
            "blend": {"alpha": 1, "hard": 2},
            "scale_of_label": {"bird": {"kind": "uniform", "min": 0.1, "max": 0.2}},
        }
    )
    assert CompositorConfig.model_validate(config.model_dump(mode="json")) == config


def test_render_scene_is_the_sample_of_paint_scene():
    plan = ScenePlan(CompositorConfig(size=100), 100, BackgroundPlan(0), (at(0, 3, 4),))
    crops = [plain_crop(20, 200)]
    sample = render_scene(plan, GREY, crops.__getitem__, {"bird": 1}, "k")
    assert (sample.image == paint_scene(plan, GREY, crops.__getitem__, {"bird": 1}, "k").sample.image).all()
