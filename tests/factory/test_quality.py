"""The gate names one reason a refusal, keeps what lies on a limit, and knows a crop that it has seen."""

import cv2
import numpy as np
import pytest

from factory.quality import DuplicateGate, QualityConfig, judge, solid_box
from factory.stages import Segmentation, UInt8Array


def _boxes(*boxes: tuple[int, int, int, int], side: int = 100, opacity: int = 255) -> UInt8Array:
    mask = np.zeros((side, side), np.uint8)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = opacity
    return mask


def _reason(mask: UInt8Array, confidence: float = 1.0, **limits: float) -> str:
    verdict = judge(Segmentation(mask, confidence), QualityConfig.model_validate(limits))
    assert verdict.keep == (verdict.reason == "")
    return verdict.reason


GOOD = _boxes((30, 30, 70, 70))


@pytest.mark.parametrize(
    ("reason", "mask", "confidence"),
    [
        ("", GOOD, 1.0),
        ("empty", _boxes(), 1.0),
        ("empty", _boxes((30, 30, 70, 70), opacity=127), 1.0),
        ("too_small", _boxes((30, 30, 49, 49)), 1.0),
        ("too_small", _boxes((30, 5, 40, 95)), 1.0),
        ("too_large", _boxes((5, 5, 95, 95)), 1.0),
        ("fragmented", _boxes((20, 20, 50, 50), (60, 60, 80, 80)), 1.0),
        ("touches_border", _boxes((0, 30, 40, 70)), 1.0),
        ("unsure", GOOD, 0.4),
    ],
)
def test_each_reason_is_named(reason: str, mask: UInt8Array, confidence: float) -> None:
    assert _reason(mask, confidence) == reason


def test_the_first_of_several_reasons_counts() -> None:
    assert _reason(_boxes((0, 0, 10, 10), (50, 50, 55, 55)), confidence=0) == "too_small"


def test_scores_are_shares_and_the_shorter_side() -> None:
    mask = _boxes((0, 0, 40, 20), (60, 60, 70, 80))
    scores = judge(Segmentation(mask, 0.75), QualityConfig()).scores
    assert scores == {
        "area_frac": pytest.approx(0.1),
        "main_share": pytest.approx(0.8),
        "border_frac": pytest.approx(59 / (116 + 56)),  # of the boxes' outlines, the pixels on two sides
        "confidence": 0.75,
        "side_px": 70,
    }


def test_an_empty_mask_still_has_its_confidence() -> None:
    assert judge(Segmentation(_boxes(), 0.25), QualityConfig()).scores == {"confidence": 0.25}


@pytest.mark.parametrize(
    ("limit", "at", "beyond", "reason"),
    [
        ("min_area_frac", 0.16, 0.1601, "too_small"),
        ("min_side_px", 40, 41, "too_small"),
        ("max_area_frac", 0.16, 0.1599, "too_large"),
        ("min_confidence", 0.5, 0.5001, "unsure"),
        ("max_border_frac", 0, None, "touches_border"),
        ("min_main_share", 1, None, "fragmented"),
    ],
)
def test_what_lies_on_a_limit_is_kept(limit: str, at: float, beyond: float | None, reason: str) -> None:
    assert _reason(GOOD, 0.5, **{limit: at}) == ""
    if beyond is not None:
        assert _reason(GOOD, 0.5, **{limit: beyond}) == reason


def test_parts_that_meet_at_a_corner_are_one() -> None:
    assert _reason(_boxes((20, 20, 50, 50), (50, 50, 80, 80)), min_main_share=1) == ""


def test_one_pixel_away_from_the_border_does_not_touch_it() -> None:
    assert _reason(_boxes((1, 1, 60, 60)), max_border_frac=0) == ""
    assert _reason(_boxes((0, 1, 60, 60)), max_border_frac=0) == "touches_border"


def test_a_full_mask_is_all_border() -> None:
    full = Segmentation(np.full((9, 9), 255, np.uint8), 1.0)
    assert judge(full, QualityConfig()).scores["border_frac"] == 1


def test_a_mask_that_is_whole_by_choice_is_kept() -> None:
    full = Segmentation(np.full((20, 20), 255, np.uint8), 1.0, is_whole=True)
    verdict = judge(full, QualityConfig())
    assert verdict.keep and verdict.scores["area_frac"] == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2)])
def test_frames_of_any_size_are_judged(shape: tuple[int, int]) -> None:
    assert _reason(np.full(shape, 255, np.uint8)) == "too_small"


def test_the_solid_box_is_tight() -> None:
    mask = _boxes((10, 20, 31, 42), opacity=128)
    mask[5, 5] = 127
    assert solid_box(mask) == (10, 20, 31, 42)
    assert solid_box(_boxes((10, 20, 31, 42), opacity=127)) is None


def _picture(seed: int, width: int = 160, height: int = 120) -> UInt8Array:
    coarse = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def test_a_crop_seen_before_is_a_duplicate_at_any_size() -> None:
    gate = DuplicateGate(4)
    assert not gate.is_duplicate(_picture(0))
    assert gate.is_duplicate(_picture(0))
    assert gate.is_duplicate(_picture(0, width=80, height=60))
    assert not gate.is_duplicate(_picture(1))


def _ramp(*falling: int) -> UInt8Array:
    """8x9 grey: rows brighten to the right, but for one step in each of these rows."""
    grey = np.tile(np.arange(9, dtype=np.uint8) * 10 + 50, (8, 1))
    for row in falling:
        grey[row, 1] = 45
    return np.repeat(grey[..., None], 3, axis=2)


def test_crops_may_differ_in_so_many_bits_and_no_more() -> None:
    gate = DuplicateGate(2)
    assert not gate.is_duplicate(_ramp())
    assert gate.is_duplicate(_ramp(0, 1))
    assert not gate.is_duplicate(_ramp(0, 1, 2))


def test_a_refused_crop_is_not_remembered() -> None:
    gate = DuplicateGate(2)
    seen = [gate.is_duplicate(_ramp(*range(count))) for count in (0, 2, 4)]
    assert seen == [False, True, False]  # the last is near the refused one only


def test_the_gate_remembers_hundreds() -> None:
    gate = DuplicateGate(0)
    assert not any(gate.is_duplicate(_picture(seed)) for seed in range(300))
    assert all(gate.is_duplicate(_picture(seed)) for seed in range(300))
