"""Painted scenes: boxes tight to what is seen, soft edges without halos, the same bytes each time."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.records import CropRecord
from trainer.compositing.blend import blend_opacity
from trainer.compositing.config import PRESETS, CompositorConfig, preset
from trainer.compositing.photometric import Blur, Linear, Noise, apply_photometrics
from trainer.compositing.placement import plan_scene
from trainer.compositing.plan import IDENTITY, BackgroundPlan, Placement, ScenePlan, shape_of_record
from trainer.compositing.render import paint_background, render_scene
from trainer.sample import Sample

GREY = np.full((100, 100, 3), 90, np.uint8)
RED, GREEN = (250, 0, 0), (0, 250, 0)
WHOLE = BackgroundPlan(0)


def make_crop(width: int, height: int, mask=255, colour=RED, outside=(0, 0, 255)) -> CropRecord:
    opacity = np.full((height, width), mask, np.uint8) if np.isscalar(mask) else mask
    image = np.where(opacity[..., None] > 0, np.uint8(colour), np.uint8(outside)).astype(np.uint8)
    return CropRecord("c", "bird", image, opacity)


def disc(side: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), side // 2 - 3, 255, -1)
    return mask


def at(crop: int, x: float, y: float, scale: float = 1.0, photometrics=()) -> Placement:
    return Placement(crop, (scale, 0.0, x, 0.0, scale, y), (x, y, x, y), False, 0.0, photometrics)


def render(placements, crops, background=GREY, **fields) -> Sample:
    config = CompositorConfig(size=100, **fields)
    plan = ScenePlan(config, 100, WHOLE, tuple(placements))
    return render_scene(plan, background, crops.__getitem__, {"bird": 1, "car": 2}, "k")


def boxes(sample: Sample) -> list[list[float]]:
    return sample.target.boxes.tolist()


def test_a_box_is_exactly_the_painted_rectangle():
    sample = render([at(0, 30, 40)], [make_crop(20, 10)])
    assert boxes(sample) == [[30, 40, 50, 50]]
    assert (sample.image[40:50, 30:50] == RED).all()
    sample.image[40:50, 30:50] = 90
    assert (sample.image == 90).all()


def test_a_shrunk_crop_keeps_its_place_and_its_box():
    sample = render([at(0, 10, 20, scale=0.25)], [make_crop(200, 120)])
    assert boxes(sample) == [[10, 20, 60, 50]]
    assert (sample.image[20:50, 10:60] == RED).all() and (sample.image[:19] == 90).all()


def test_boxes_are_tight_to_the_mask_and_not_to_the_crop():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 5:30] = 255
    mask[30, 38] = 100  # opacity under 0.5 is painted, not boxed
    assert boxes(render([at(0, 50, 0)], [make_crop(40, 40, mask)])) == [[55, 10, 80, 20]]


def test_a_covered_part_leaves_the_box_of_the_object_below():
    sample = render([at(0, 10, 10), at(1, 30, 0)], [make_crop(40, 20), make_crop(60, 60, colour=GREEN)])
    assert boxes(sample) == [[10, 10, 30, 30], [30, 0, 90, 60]]
    assert sample.target.ignore.tolist() == [False, False]
    assert (sample.image[10:30, 30:50] == GREEN).all()


def test_an_object_seen_too_little_is_marked_ignore():
    crops = [make_crop(40, 20), make_crop(60, 60, colour=GREEN)]
    sample = render([at(0, 10, 10), at(1, 20, 0)], crops, min_visible=0.3)
    assert boxes(sample)[0] == [10, 10, 20, 30] and sample.target.ignore.tolist() == [True, False]


def test_a_hidden_object_has_no_box():
    sample = render([at(0, 10, 10), at(1, 5, 5)], [make_crop(20, 20), make_crop(60, 60, colour=GREEN)])
    assert boxes(sample) == [[5, 5, 65, 65]]


def test_a_see_through_cover_hides_nothing():
    sample = render([at(0, 10, 10), at(1, 5, 5)], [make_crop(20, 20), make_crop(60, 60, mask=100)])
    assert boxes(sample) == [[10, 10, 30, 30]]


def test_what_lies_off_the_scene_counts_as_unseen():
    crops = [make_crop(40, 20)]
    assert render([at(0, -30, 10)], crops, min_visible=0.3).target.ignore.tolist() == [True]
    sample = render([at(0, -20, 10)], crops, min_visible=0.3)
    assert boxes(sample) == [[0, 10, 20, 30]] and sample.target.ignore.tolist() == [False]


def test_an_object_off_the_scene_or_too_small_has_no_box():
    crops = [make_crop(40, 20), make_crop(40, 3)]
    assert boxes(render([at(0, 200, 0), at(0, 0, -50), at(1, 0, 0)], crops, min_box_px=4)) == []


@pytest.mark.parametrize("degrees", [17, 45, 90, 133])
def test_rotation_clips_nothing(degrees):
    crop = make_crop(40, 20)
    turn = cv2.getRotationMatrix2D((20, 10), degrees, 1.0)
    turn[:, 2] += (30, 40)
    sample = render([Placement(0, tuple(turn.ravel().tolist()), (0, 0, 0, 0), False, 0.0)], [crop])
    painted = (sample.image.astype(int) - 90)[..., 0].sum() / (RED[0] - 90)
    assert painted == pytest.approx(40 * 20, rel=0.01)


def test_the_flat_colour_outside_a_crop_leaves_no_halo():
    framed = make_crop(160, 160, disc(160), colour=RED, outside=(0, 0, 255))
    clean = replace(framed, image=np.full_like(framed.image, RED))
    for scale in (0.13, 0.4, 0.77):
        black = np.zeros_like(GREY)
        one, other = (render([at(0, 3, 3, scale)], [c], background=black).image for c in (framed, clean))
        assert (one == other).all() and one[..., 2].max() == 0


def test_shrinking_is_antialiased():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 200
    crop = CropRecord("c", "bird", stripes, np.full((128, 128), 255, np.uint8))
    image = render([at(0, 10, 10, scale=0.3)], [crop]).image
    assert np.abs(image[15:40, 15:40].astype(int) - 100).max() <= 3


def test_soft_opacity_mixes_object_and_background():
    image = render([at(0, 10, 10)], [make_crop(20, 20, mask=51)]).image
    assert image[15, 15].tolist() == pytest.approx([0.2 * 250 + 0.8 * 90, 72, 72], abs=2)


@pytest.mark.parametrize("kind", ["alpha", "hard", "gaussian"])
def test_a_blend_never_shows_what_lies_outside_the_mask(kind):
    opacity = cv2.GaussianBlur(disc(80), (9, 9), 2)
    painted = blend_opacity(opacity, kind, 0.03, 80.0)
    assert painted.dtype == np.uint8 and (painted[opacity == 0] == 0).all() and painted[40, 40] == 255
    if kind == "hard":
        assert set(np.unique(painted)) == {0, 255}
    if kind == "gaussian":
        assert (painted <= opacity).all() and painted.sum() < opacity.sum()


def test_labels_come_from_the_class_names():
    car = replace(make_crop(20, 20), label="car")
    assert render([at(0, 0, 0), at(1, 50, 50)], [car, make_crop(9, 9)]).target.labels.tolist() == [2, 1]


def test_rendering_leaves_its_inputs_alone():
    crop, background = make_crop(30, 30, disc(30)), GREY.copy()
    before = crop.image.copy(), crop.mask.copy()
    render([at(0, 5, 5, photometrics=(Noise(9, True, 1), Blur(1)))], [crop], background=background)
    assert (crop.image == before[0]).all() and (crop.mask == before[1]).all() and (background == 90).all()


# Colours


def test_linear_steps_round_and_clip():
    colour = np.uint8([[[0, 100, 255]]])
    out = apply_photometrics(colour, np.uint8([[255]]), (Linear((2.0, 0.5, 1.0), (10.0, 0.4, 3.0)),))
    assert out.tolist() == [[[10, 50, 255]]]


@pytest.mark.parametrize("per_channel", [True, False])
def test_noise_has_the_stated_sigma_and_is_fixed_by_its_seed(per_channel):
    colour, opacity = np.full((200, 300, 3), 128, np.uint8), np.full((200, 300), 255, np.uint8)
    first, again, other = (
        apply_photometrics(colour, opacity, (Noise(9.0, per_channel, seed),)) for seed in (5, 5, 6_000_000)
    )
    assert (first == again).all() and (first != other).any()
    assert first.std() == pytest.approx(9.0, rel=0.05) and first.mean() == pytest.approx(128, abs=0.5)
    assert (first[..., 0] == first[..., 1]).all() == (not per_channel)


def test_noise_may_be_larger_than_its_stored_row():
    colour, opacity = np.full((800, 800, 3), 128, np.uint8), np.full((800, 800), 255, np.uint8)
    assert apply_photometrics(colour, opacity, (Noise(9.0, True, 1),)).std() == pytest.approx(9.0, rel=0.05)


def test_blur_lets_nothing_in_from_outside():
    colour, opacity = np.zeros((40, 40, 3), np.uint8), disc(40)
    colour[opacity > 0] = 200
    out = apply_photometrics(colour, opacity, (Blur(2.0),))
    assert np.abs(out[opacity > 0].astype(int) - 200).max() <= 2


# Backgrounds


def test_a_background_window_keeps_its_aspect():
    photo = np.zeros((60, 120, 3), np.uint8)
    photo[:, 60:] = 200
    right = paint_background(BackgroundPlan(0, 1.0, 1.0, 0.0), photo, 50)
    middle = paint_background(BackgroundPlan(0, 1.0, 0.5, 0.0), photo, 50)
    assert (right == 200).all() and (middle[:, :24] == 0).all() and (middle[:, 26:] == 200).all()
    assert (paint_background(BackgroundPlan(0, 1.0, 0.5, 0.0, True), photo, 50) == middle[:, ::-1]).all()


def test_a_squashed_background_shows_the_whole_photo():
    photo = np.zeros((60, 120, 3), np.uint8)
    photo[:, 90:] = 200
    out = paint_background(BackgroundPlan(0, None), photo, 40)
    assert out.shape == (40, 40, 3) and (out[:, :29] == 0).all() and (out[:, 31:] == 200).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (37, 900), (1300, 1301)])
def test_backgrounds_of_any_size_fill_the_scene(shape):
    photo = np.full((*shape, 3), 77, np.uint8)
    assert (paint_background(BackgroundPlan(0, 0.6, 0.3, 0.9), photo, 100) == 77).all()


# The paper's route


def paper_plan(name: str, record: CropRecord, seed: int = 0, **fields) -> ScenePlan:
    config = CompositorConfig.model_validate({"preset": name, "max_objects": 1, **fields})
    return plan_scene(config, np.random.default_rng(seed), 1, 1, lambda index: shape_of_record(record))


def unwarped(plan: ScenePlan) -> ScenePlan:
    (place,) = plan.placements
    frame = replace(place.frame, window=(0, 0, 128, 128), warp=IDENTITY, cell=(32, 64, 160, 128))
    return replace(plan, placements=(replace(place, frame=frame, photometrics=()),))


def test_a_paper_face_is_boxed_by_its_frame_and_a_paper_bird_by_its_mask():
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    record = make_crop(128, 128, mask)
    face, bird = (
        render_scene(unwarped(paper_plan(name, record)), GREY, [record].__getitem__, {"bird": 1}, "k")
        for name in ("paper-faces", "paper-birds")
    )
    scale = 300 / 320
    assert boxes(face)[0] == pytest.approx([32 * scale, 64 * scale, 192 * scale, 192 * scale])
    assert boxes(bird)[0] == pytest.approx([72 * scale, 96 * scale, 152 * scale, 160 * scale], abs=1.5)


def test_a_paper_frame_loses_what_the_side_crop_cut():
    record = make_crop(64, 64)
    plan = unwarped(paper_plan("paper-birds", record))
    (place,) = plan.placements
    cut = replace(plan, placements=(replace(place, frame=replace(place.frame, window=(64, 0, 128, 128))),))
    box = boxes(render_scene(cut, GREY, [record].__getitem__, {"bird": 1}, "k"))[0]
    assert box == pytest.approx(np.array([112, 64, 192, 192]) * 300 / 320, abs=1.5)


def test_a_paper_mask_over_its_threshold_becomes_solid():
    record = make_crop(64, 64, mask=40)
    plan = unwarped(paper_plan("paper-birds", record))
    image = render_scene(plan, GREY, [record].__getitem__, {"bird": 1}, "k").image
    assert np.abs(image[100, 100].astype(int) - RED).max() <= 4


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_an_empty_mask_gives_no_box(name):
    record = make_crop(50, 50, mask=0)
    sample = render_scene(paper_plan(name, record), GREY, [record].__getitem__, {"bird": 1}, "k")
    assert len(sample.target) == 0 and np.abs(sample.image.astype(int) - 90).max() == 0


def odd_crop(width: int, height: int, kind: str, seed: int) -> CropRecord:
    rng = np.random.default_rng(seed)
    mask = {"empty": 0, "full": 255, "noise": rng.integers(0, 256, (height, width), np.uint8)}[kind]
    return replace(
        make_crop(width, height, mask), image=rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@settings(max_examples=80, deadline=None)
@given(
    width=st.sampled_from([1, 2, 3, 31, 600]),
    height=st.sampled_from([1, 2, 5, 64, 600]),
    kind=st.sampled_from(["empty", "full", "noise"]),
    name=st.sampled_from(sorted(PRESETS)),
    blend=st.sampled_from(["alpha", "hard", "gaussian"]),
    seed=st.integers(0, 10_000),
)
def test_odd_crops_give_valid_boxes_and_the_same_bytes_again(width, height, kind, name, blend, seed):
    fields = {
        "preset": name,
        "size": 96,
        "blend": blend,
        "truncation": 0.5,
        "rotation_deg": 90,
        "max_objects": 2,
    }
    config = CompositorConfig.model_validate(fields)
    crops = [odd_crop(width, height, kind, seed), odd_crop(40, 30, "full", seed)]
    shapes = [shape_of_record(crop) for crop in crops]
    plan = plan_scene(config, np.random.default_rng(seed), 2, 1, shapes.__getitem__)
    one, again = (render_scene(plan, GREY, crops.__getitem__, {"bird": 1}, "k") for _ in range(2))
    assert one.image.shape == (96, 96, 3) and one.image.dtype == np.uint8
    assert (one.image == again.image).all() and boxes(one) == boxes(again)
    found = one.target.boxes
    assert len(found) <= len(plan.placements)
    assert (found[:, 2:] - found[:, :2] >= config.min_box_px - 1e-4).all()
    assert (found >= 0).all() and (found <= 96).all()


def test_the_presets_render_at_their_own_size():
    record = make_crop(90, 70, 255)
    for name in PRESETS:
        sample = render_scene(paper_plan(name, record), GREY, [record].__getitem__, {"bird": 1}, "k")
        assert sample.image.shape == (preset(name).size, preset(name).size, 3) and len(sample.target) <= 1


def test_fast_resampling_is_within_a_level_and_leaves_no_trace() -> None:
    rng = np.random.default_rng(0)
    background = rng.integers(0, 256, (90, 120, 3), np.uint8)
    crop = CropRecord(
        "c", "bird", rng.integers(0, 256, (40, 30, 3), np.uint8), np.full((40, 30), 255, np.uint8)
    )
    scenes = []
    for resampling in ("exact", "fast", "exact"):
        config = CompositorConfig(size=64, rotation_deg=0, resampling=resampling)
        plan = plan_scene(config, np.random.default_rng(1), 1, 1, lambda _: shape_of_record(crop))
        scenes.append(render_scene(plan, background, lambda _: crop, {"bird": 1}, "s"))
    exact, fast, again = (scene.image.astype(int) for scene in scenes)
    assert abs(fast - exact).max() <= 2
    np.testing.assert_array_equal(again, exact)
    np.testing.assert_array_equal(scenes[1].target.boxes, scenes[0].target.boxes)
