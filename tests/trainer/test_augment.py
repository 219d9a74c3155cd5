import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainer.sample import Sample, Target, make_target
from trainer.streaming.augment import MEAN_RGB, NO_CHANGE, AugmentConfig, augment_sample, fit_sample

FLIP = NO_CHANGE.model_copy(update={"flip": 1.0})
ZOOM_IN = NO_CHANGE.model_copy(update={"zoom_in": 1.0, "zoom_in_min_frac": 0.2})
ZOOM_OUT = NO_CHANGE.model_copy(update={"zoom_out": 1.0, "zoom_out_max": 3.0})
IOU_CROP = NO_CHANGE.model_copy(update={"iou_crop": 1.0})
COLOURS = AugmentConfig(flip=0, zoom_in=0, zoom_out=0)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _photo(width: int = 120, height: int = 80) -> tuple[np.ndarray, Target]:
    """A green box on blue, so that the box can be found again in the pixels."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 2] = 255
    image[20:60, 30:60] = (0, 255, 0)
    return image, make_target([[30, 20, 60, 60]])


def _green_box(image: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero((image[:, :, 1] > 127) & (image[:, :, 2] < 90))
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def _same(first: Sample, second: Sample) -> bool:
    return np.array_equal(first.image, second.image) and np.array_equal(
        first.target.boxes, second.target.boxes
    )


def test_without_changes_the_photo_fills_the_square() -> None:
    image, target = _photo()
    sample = fit_sample(image, target, 60, NO_CHANGE, None, "k")
    assert (sample.key, sample.image.shape, sample.image.dtype) == ("k", (60, 60, 3), np.uint8)
    np.testing.assert_allclose(sample.target.boxes, [[15, 15, 30, 45]])
    np.testing.assert_allclose(_green_box(sample.image), sample.target.boxes[0], atol=1)


def test_none_is_the_plain_view_even_with_a_generator() -> None:
    image, target = _photo()
    plain = fit_sample(image, target, 64)
    assert AugmentConfig.model_validate("none") == NO_CHANGE
    assert _same(plain, fit_sample(image, target, 64, NO_CHANGE, _rng()))
    assert _same(plain, fit_sample(image, target, 64, AugmentConfig(), None))


def test_the_photo_and_its_target_are_not_changed() -> None:
    image, target = _photo()
    before, boxes = image.copy(), target.boxes.copy()
    for seed in range(10):
        fit_sample(image, target, 120, AugmentConfig(), _rng(seed))
    assert np.array_equal(image, before)
    assert np.array_equal(target.boxes, boxes)


def test_the_same_generator_state_gives_the_same_sample() -> None:
    image, target = _photo()
    first, second, other = (fit_sample(image, target, 64, AugmentConfig(), _rng(s)) for s in (5, 5, 6))
    assert _same(first, second)
    assert not _same(first, other)


@pytest.mark.parametrize("config", [FLIP, ZOOM_IN, ZOOM_OUT], ids=["flip", "zoom-in", "zoom-out"])
def test_boxes_follow_the_pixels(config: AugmentConfig) -> None:
    image, target = _photo()
    for seed in range(40):
        sample = fit_sample(image, target, 120, config, _rng(seed))
        np.testing.assert_allclose(_green_box(sample.image), sample.target.boxes[0], atol=2.5)


def test_a_flip_mirrors_boxes() -> None:
    image, target = _photo()
    sample = fit_sample(image, target, 120, FLIP, _rng())
    np.testing.assert_allclose(sample.target.boxes, [[60, 30, 90, 90]])


def test_a_zoom_in_enlarges_and_keeps_one_object_whole() -> None:
    image, target = _photo()
    plain = fit_sample(image, target, 120).target.boxes
    for seed in range(40):
        boxes = fit_sample(image, target, 120, ZOOM_IN, _rng(seed)).target.boxes
        assert (boxes[:, 2:] - boxes[:, :2] >= plain[:, 2:] - plain[:, :2] - 1e-3).all()
        assert ((boxes[0, :2] >= 0) & (boxes[0, 2:] <= 120)).all()


def test_objects_cut_by_a_zoom_are_ignored_and_those_outside_are_gone() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    target = make_target([[0, 0, 10, 10], [5, 0, 60, 10], [90, 90, 100, 100]], [1, 2, 1], [False, True, True])
    seen = [fit_sample(image, target, 100, ZOOM_IN, _rng(seed)).target for seed in range(60)]
    assert all((t.labels == 1).any() and not t.ignore[t.labels == 1].all() for t in seen)
    assert {len(t) for t in seen} >= {2}
    cut = make_target([[0, 0, 10, 10], [5, 0, 100, 10]], [1, 2])
    config = ZOOM_IN.model_copy(update={"min_visible": 0.9})
    flags = [fit_sample(image, cut, 100, config, _rng(seed)).target for seed in range(60)]
    assert any(t.ignore[t.labels == 2].any() for t in flags)


def test_a_zoom_out_shows_the_mean_colour_around_the_photo() -> None:
    image, target = _photo()
    for seed in range(20):
        sample = fit_sample(image, target, 120, ZOOM_OUT, _rng(seed))
        around = (sample.image == np.array(MEAN_RGB)).all(axis=2)
        shown = np.prod(sample.target.boxes[0, 2:] - sample.target.boxes[0, :2]) / (30 * 40) * (120 * 80)
        assert around.mean() == pytest.approx(1 - shown / 120**2, abs=0.02)


def test_colour_changes_keep_greys_grey_without_channel_gain() -> None:
    config = COLOURS.model_copy(update={"channel_gain": 0.0})
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8).repeat(3, axis=2)
    changed = fit_sample(image, make_target([]), 32, config, _rng(1)).image.astype(int)
    assert np.ptp(changed, axis=2).max() <= 1
    assert np.abs(changed - image).max() > 3


def test_a_hue_turn_keeps_greys_and_lightness_and_moves_colours() -> None:
    config = NO_CHANGE.model_copy(update={"hue_deg": 60.0})
    image = np.full((8, 8, 3), (150, 120, 110), np.uint8)
    image[:, 4:] = 90
    changed = fit_sample(image, make_target([]), 8, config, _rng(1)).image.astype(int)
    assert (np.abs(changed[:, 4:] - 90) <= 1).all() and np.abs(changed[0, 0] - image[0, 0]).max() > 8
    luma = np.array([0.299, 0.587, 0.114])
    assert changed[0, 0] @ luma == pytest.approx(image[0, 0] @ luma, abs=1.5)


def test_an_iou_crop_overlaps_an_object_by_one_of_the_papers_shares() -> None:
    image, target = _photo()
    ious, windows = [], 0
    for seed in range(300):
        found = fit_sample(image, target, 120, IOU_CROP, _rng(seed)).target
        if len(found) == 0 or np.array_equal(found.boxes, fit_sample(image, target, 120).target.boxes):
            continue
        windows += 1
        ious.append(float(np.prod(found.boxes[0, 2:] - found.boxes[0, :2])) / 120**2)
    assert windows > 150 and np.mean(np.array(ious) >= 0.095) > 0.6  # all but those drawn at 0
    assert max(ious) > 0.5


def test_a_composed_sample_goes_through_the_same_changes_at_its_own_size() -> None:
    image, target = _photo(120, 120)
    sample, before = Sample("scene-1", image, target), image.copy()
    config = AugmentConfig(iou_crop=0.2)
    changed = augment_sample(sample, config, _rng(4))
    assert _same(changed, fit_sample(image, target, 120, config, _rng(4), "scene-1"))
    assert (changed.key, changed.image.shape) == ("scene-1", (120, 120, 3))
    assert np.array_equal(sample.image, before)
    assert _same(augment_sample(sample, NO_CHANGE, _rng()), sample)


def test_zooms_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match=r"zoom_in \+ zoom_out \+ iou_crop is 1.2, wanted at most 1"):
        AugmentConfig(zoom_in=0.7, zoom_out=0.5)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 5),
    st.sampled_from([1, 7, 64]),
)
def test_boxes_always_fit_their_contract(seed: int, width: int, height: int, count: int, size: int) -> None:
    rng = _rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(-1, 4)
    boxes = (corners * [width, height, width, height]).astype(np.float32)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    target = make_target(boxes, ignore=rng.random(len(boxes)) < 0.3)
    image = np.zeros((height, width, 3), np.uint8)
    config = AugmentConfig(zoom_in=0.4, zoom_out=0.4, iou_crop=0.2, zoom_in_min_frac=0.05, zoom_out_max=50)
    sample = fit_sample(image, target, size, config, rng)
    found = sample.target
    assert sample.image.shape == (size, size, 3)
    assert (found.boxes.dtype, found.labels.dtype, found.ignore.dtype) == (np.float32, np.int64, np.bool_)
    assert (found.boxes >= 0).all() and (found.boxes <= size).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
