"""Every kind that needs no weights keeps the seam's promises; GrabCut finds what stands out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from configs.kinds import config_class, kinds_in
from factory.quality import SOLID
from factory.segmenters.grabcut import GrabCutConfig, clean, colour_contrast, fill_hull, soften
from factory.segmenters.whole import WholeConfig
from factory.stages import ObjectImage, Segmentation, Segmenter, SegmenterConfig, UInt8Array

PACKAGE = "factory.segmenters"
_NEED_WEIGHTS = {"redo", "copy_paste"}  # their own tests
KINDS = [kind for kind in kinds_in(PACKAGE) if kind not in _NEED_WEIGHTS]
_CHEAP = {"clustering": {"side_px": 32, "channels": 8, "max_iters": 8}}  # where the defaults take seconds


@pytest.fixture(params=KINDS)
def segmenter(request: pytest.FixtureRequest, tmp_path: Path) -> Segmenter:
    settings = {"kind": request.param, **_CHEAP.get(request.param, {})}
    config = config_class(PACKAGE, request.param, SegmenterConfig).model_validate(settings)
    assert isinstance(config, SegmenterConfig)
    return config.open(tmp_path)


def _noise(height: int, width: int, seed: int = 0, top: int = 60) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, top, (height, width, 3), np.uint8)


def _ellipse(
    centre: tuple[int, int], axes: tuple[int, int], side: int = 120
) -> tuple[UInt8Array, UInt8Array]:
    """A bright ellipse on dark noise, and where it is, 0 or 1."""
    true = np.zeros((side, side), np.uint8)
    cv2.ellipse(true, centre, axes, 20, 0, 360, 1, -1)
    bright = 150 + _noise(side, side, seed=1)
    return np.where(true[..., None] > 0, bright, _noise(side, side)).astype(np.uint8), true


def _segment(image: UInt8Array, **settings: object) -> Segmentation:
    config = GrabCutConfig.model_validate(settings)
    return config.open(Path()).segment([ObjectImage("photo", image)])[0]


def _iou(mask: UInt8Array, true: UInt8Array) -> float:
    one, other = mask >= SOLID, true > 0
    return float((one & other).sum() / (one | other).sum())


def _touches_border(mask: UInt8Array) -> bool:
    solid = mask >= SOLID
    return bool(solid[[0, -1]].any() or solid[:, [0, -1]].any())


def test_each_mask_has_its_own_images_size_and_order(segmenter: Segmenter) -> None:
    images = [ObjectImage(str(side), _noise(side, 2 * side, top=256)) for side in (40, 20, 30)]
    found = segmenter.segment(images)
    assert [one.mask.shape for one in found] == [(40, 80), (20, 40), (30, 60)]
    assert all(one.mask.dtype == np.uint8 and 0 <= one.confidence <= 1 for one in found)


def test_no_images_give_no_masks(segmenter: Segmenter) -> None:
    assert segmenter.segment([]) == []


def test_tiny_images_are_segmented_without_a_crash(segmenter: Segmenter) -> None:
    sizes = [(height, width) for height in range(1, 9) for width in range(1, 9)]
    found = segmenter.segment([ObjectImage("tiny", _noise(*size, top=256)) for size in sizes])
    assert [one.mask.shape for one in found] == sizes
    assert all(0 <= one.confidence <= 1 for one in found)


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (5, 400), (7, 31)])
def test_thin_images_are_segmented_without_a_crash(segmenter: Segmenter, shape: tuple[int, int]) -> None:
    assert segmenter.segment([ObjectImage("thin", _noise(*shape, top=256))])[0].mask.shape == shape


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_flat_image_has_an_empty_or_a_full_mask(segmenter: Segmenter, grey: int) -> None:
    mask = segmenter.segment([ObjectImage("flat", np.full((50, 60, 3), grey, np.uint8))])[0].mask
    assert len(np.unique(mask)) == 1 and mask[0, 0] in (0, 255)


def _patchwork(seed: int) -> UInt8Array:
    """Coloured squares, brighter in an ellipse: GrabCut's first colour models decide what is cut here."""
    squares = np.random.default_rng(seed).integers(0, 150, (10, 10, 3), np.uint8)
    large = np.asarray(cv2.resize(squares, (80, 80), interpolation=cv2.INTER_NEAREST), np.uint8)
    light = np.zeros((80, 80), np.uint8)
    cv2.ellipse(light, (40, 40), (26, 16), 20, 0, 360, 30, -1)
    return large + light[..., None]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_mask_does_not_depend_on_what_was_segmented_before(segmenter: Segmenter, seed: int) -> None:
    photo, *others = (ObjectImage(str(number), _patchwork(number)) for number in (seed, 2, 3))
    alone = segmenter.segment([photo])[0]
    after = segmenter.segment([*others, photo])[-1]
    assert np.array_equal(alone.mask, after.mask) and alone.confidence == after.confidence


def test_an_image_is_left_as_it_was(segmenter: Segmenter) -> None:
    image, _ = _ellipse((60, 60), (30, 20))
    before = image.copy()
    segmenter.segment([ObjectImage("photo", image)])
    assert np.array_equal(image, before)


def test_whole_is_opaque_and_sure() -> None:
    found = WholeConfig().open(Path()).segment([ObjectImage("photo", _noise(9, 7))])[0]
    assert (found.mask == 255).all() and found.confidence == 1


@pytest.mark.parametrize("axes", [(40, 22), (20, 30), (28, 28)])
def test_grabcut_finds_a_bright_ellipse_on_noise(axes: tuple[int, int]) -> None:
    image, true = _ellipse((58, 62), axes)
    found = _segment(image)
    assert _iou(found.mask, true) > 0.9
    assert found.confidence > 0.9
    assert not _touches_border(found.mask)


def test_grabcut_finds_it_in_an_image_larger_than_its_own() -> None:
    image, true = _ellipse((200, 190), (110, 70), side=390)
    found = _segment(image)
    assert found.mask.shape == (390, 390)
    assert _iou(found.mask, true) > 0.9


def test_grabcut_follows_an_object_to_the_border() -> None:
    image, true = _ellipse((60, 100), (34, 30))
    found = _segment(image)
    assert _touches_border(found.mask)
    assert _iou(found.mask, true) > 0.9


@pytest.mark.parametrize("wrong", [{"side_px": 8}, {"rounds": 0}, {"seed_frac": 1.0}, {"convexx": True}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GrabCutConfig.model_validate(wrong)


def test_convex_fills_the_hull() -> None:
    image, true = _ellipse((60, 60), (40, 26))
    dark = np.zeros_like(true)
    cv2.ellipse(dark, (60, 86), (12, 16), 0, 0, 360, 1, -1)  # a bite out of its lower edge
    image = np.where(dark[..., None] > 0, _noise(120, 120, seed=2), image).astype(np.uint8)
    plain, hull = _segment(image).mask, _segment(image, convex=True).mask
    assert not (plain >= SOLID)[80, 60] and (hull >= SOLID)[80, 60]
    assert _iou(hull, true) > _iou(plain, true)
    filled = fill_hull((hull >= SOLID).astype(np.uint8))
    assert filled.sum() <= 1.02 * (hull >= SOLID).sum()


def test_the_hull_of_nothing_is_nothing() -> None:
    assert not fill_hull(np.zeros((6, 7), np.uint8)).any()


def test_cleaning_drops_islands_and_fills_holes() -> None:
    found = np.zeros((60, 60), np.uint8)
    found[10:40, 10:40] = 1
    found[20:25, 20:25] = 0  # a hole
    found[50:54, 50:54] = 1  # an island of 16 px
    expected = np.zeros_like(found)
    expected[10:40, 10:40] = 1
    assert np.array_equal(clean(found, island_frac=0.2, reach_px=6), expected)
    assert clean(found, island_frac=0, reach_px=6)[50:54, 50:54].all()


def test_cleaning_keeps_thin_parts_up_to_their_reach() -> None:
    found = np.zeros((60, 60), np.uint8)
    found[10:30, 10:30] = 1
    found[20, 30:50] = 1  # a thread of 20 px
    tips = [int(clean(found, 0.2, reach_px)[20].nonzero()[0].max()) for reach_px in (0, 6, 99)]
    assert tips == [30, 36, 49]  # opening with a cross leaves a thread's first pixel


@pytest.mark.parametrize("size", [(40, 30), (133, 97), (20, 15)])
def test_softening_keeps_the_area_and_both_ends_of_the_scale(size: tuple[int, int]) -> None:
    found = np.zeros((30, 40), np.uint8)
    found[8:22, 10:30] = 1
    mask = soften(found, *size)
    assert mask.shape == size[::-1]
    assert mask.min() == 0 and mask.max() == 255
    assert mask.mean() / 255 == pytest.approx(found.mean(), rel=0.06)


def test_confidence_tells_one_colour_from_two() -> None:
    image, true = _ellipse((60, 60), (30, 24))
    assert colour_contrast(image, true) > 0.95
    assert colour_contrast(_noise(120, 120), true) < 0.1
    assert colour_contrast(image, np.ones_like(true)) == 0  # no ring to compare with
