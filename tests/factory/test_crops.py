"""Crops are tight, know their place in the frame, and keep nothing of what surrounds them when told."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.crops import CropConfig, cut, flatten
from factory.quality import solid_box
from factory.stages import ObjectImage, Segmentation, UInt8Array
from shards.records import CropRecord

Box = tuple[int, int, int, int]


def _photo(width: int, height: int) -> UInt8Array:
    """Red is the column, green the row: a pixel tells where it came from."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns % 256, rows % 256, np.full_like(rows, 77)], axis=2).astype(np.uint8)


def _mask(width: int, height: int, box: Box, opacity: int = 255) -> UInt8Array:
    mask = np.zeros((height, width), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = opacity
    return mask


def _cut(mask: UInt8Array, **settings: object) -> CropRecord:
    image = ObjectImage("a.jpg", _photo(mask.shape[1], mask.shape[0]), {"source": "images", "file": "a.jpg"})
    config = CropConfig.model_validate(settings)
    return cut(
        "000001", "bird", image, Segmentation(mask, 1.0), config, {"area_frac": 0.123456, "confidence": 1}
    )


def _frame(record: CropRecord) -> tuple[int, ...]:
    return tuple(int(record.origin[f"frame_{name}"]) for name in ("x", "y", "w", "h"))


@pytest.mark.parametrize("margin_px", [0, 1, 4, 9])
def test_a_crop_is_tight_plus_its_margin(margin_px: int) -> None:
    record = _cut(_mask(100, 80, (30, 20, 61, 45)), margin_px=margin_px, outside="keep")
    x0, y0 = 30 - margin_px, 20 - margin_px
    assert record.image.shape == (25 + 2 * margin_px, 31 + 2 * margin_px, 3)
    assert solid_box(record.mask) == (margin_px, margin_px, margin_px + 31, margin_px + 25)
    assert _frame(record) == (x0, y0, 100, 80)
    assert record.image[0, 0].tolist() == [x0, y0, 77]


def test_the_margin_ends_at_the_photos_border() -> None:
    record = _cut(_mask(50, 40, (0, 2, 48, 40)), margin_px=5)
    assert record.mask.shape == (40, 50)
    assert _frame(record) == (0, 0, 50, 40)


def test_the_origin_is_the_sources_own_with_rounded_scores() -> None:
    origin = dict(_cut(_mask(50, 40, (10, 10, 30, 30))).origin)
    assert origin == {
        "source": "images",
        "file": "a.jpg",
        "area_frac": 0.1235,
        "confidence": 1.0,
        "frame_x": 6,
        "frame_y": 6,
        "frame_w": 50,
        "frame_h": 40,
    }


def test_key_and_label_are_passed_on() -> None:
    record = _cut(_mask(50, 40, (10, 10, 30, 30)))
    assert (record.key, record.label) == ("000001", "bird")


def test_a_large_crop_is_shrunk_and_its_frame_with_it() -> None:
    record = _cut(_mask(800, 600, (200, 100, 600, 300)), max_side_px=108, margin_px=4)
    assert record.image.shape == (58, 108, 3)
    assert _frame(record) == (46, 21, 200, 150)  # a quarter, and (200 - 16, 100 - 16) / 4
    assert solid_box(record.mask) == (4, 4, 104, 54)


def test_a_crop_of_the_longest_side_allowed_keeps_its_pixels() -> None:
    record = _cut(_mask(200, 200, (20, 20, 120, 60)), max_side_px=108, margin_px=4, outside="keep")
    assert record.image.shape == (48, 108, 3)
    assert np.array_equal(record.image, _photo(200, 200)[16:64, 16:124])


sides = st.integers(1, 90)


@given(
    data=st.data(), width=sides, height=sides, margin_px=st.integers(0, 6), max_side_px=st.integers(16, 64)
)
def test_crops_of_odd_sizes_keep_their_place(
    data: st.DataObject, width: int, height: int, margin_px: int, max_side_px: int
) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    record = _cut(_mask(width, height, (x0, y0, x1, y1)), margin_px=margin_px, max_side_px=max_side_px)
    scale = min(1.0, (max_side_px - 2 * margin_px) / max(x1 - x0, y1 - y0))
    rows, columns = record.mask.shape
    frame_x, frame_y, frame_w, frame_h = _frame(record)
    assert record.image.shape == (rows, columns, 3) and max(rows, columns) <= max_side_px
    assert abs(frame_w - width * scale) <= 0.5 and abs(frame_h - height * scale) <= 0.5
    assert 0 <= frame_x <= frame_w and frame_x + columns <= frame_w + 1  # each is rounded by itself
    assert 0 <= frame_y <= frame_h and frame_y + rows <= frame_h + 1
    found = solid_box(record.mask)
    if found is not None:  # a thread may be lost in shrinking
        place = np.add(found, (frame_x, frame_y, frame_x, frame_y))
        assert np.abs(place - np.multiply((x0, y0, x1, y1), scale)).max() <= 2
    else:
        assert scale < 1 and min(x1 - x0, y1 - y0) * scale < 1


def test_faint_opacity_is_none() -> None:
    mask = _mask(60, 60, (20, 20, 40, 40))
    mask[18, 18:40], mask[19, 18:40] = 2, 3
    record = _cut(mask, margin_px=4)
    assert set(np.unique(record.mask)) == {0, 3, 255}
    assert not record.mask[2].any() and record.mask[3, 2:24].all()


def test_far_surroundings_are_flat_and_near_ones_the_photos() -> None:
    record = _cut(_mask(100, 100, (40, 40, 60, 60)), margin_px=20, feather_px=3)
    near = cv2.dilate(record.mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))) > 0
    assert np.array_equal(record.image[near], _photo(100, 100)[20:80, 20:80][near])
    assert np.unique(record.image[~near], axis=0).tolist() == [
        [50, 50, 77]
    ]  # the object's mean, 49.5 rounded


def test_surroundings_are_kept_when_told() -> None:
    record = _cut(_mask(100, 100, (40, 40, 60, 60)), margin_px=20, outside="keep")
    assert np.array_equal(record.image, _photo(100, 100)[20:80, 20:80])


@pytest.mark.parametrize("outside", ["flat", "keep"])
def test_a_crop_does_not_hold_its_photo(outside: str) -> None:
    image, mask = _photo(40, 40), _mask(40, 40, (10, 10, 30, 30))
    config = CropConfig.model_validate({"outside": outside})
    record = cut("0", "bird", ObjectImage("a", image), Segmentation(mask, 1.0), config, {})
    assert not np.shares_memory(record.image, image) and not np.shares_memory(record.mask, mask)


def test_flattening_a_full_mask_changes_nothing() -> None:
    photo = _photo(20, 10)
    assert np.array_equal(flatten(photo, np.full((10, 20), 255, np.uint8), 4), photo)


@pytest.mark.parametrize("opacity", [0, 127])
def test_a_mask_without_an_object_is_refused(opacity: int) -> None:
    with pytest.raises(ValueError, match=r"^a\.jpg: no pixel of the mask has opacity 128"):
        _cut(_mask(30, 30, (5, 5, 20, 20), opacity))
