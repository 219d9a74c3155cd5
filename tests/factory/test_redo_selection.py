"""The label-free choice, on masks made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from factory.redo.selection import (
    FloatArray,
    MaskFigures,
    border_contact,
    individuality,
    measure,
    object_channel,
    pick_channel,
    region_areas,
    sane_share,
    score,
    sharpness,
    soft_overlap,
)

_SIDE = 32


def _disc(x: int = 16, y: int = 16, radius: int = 8) -> FloatArray:
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    return ((rows - y) ** 2 + (columns - x) ** 2 < radius**2).astype(np.float32)


def _two(mask: FloatArray) -> FloatArray:
    return np.stack([mask, 1 - mask])


def _discs(count: int = 6) -> FloatArray:
    """Masks (N, 2, S, S), the object in region 1."""
    masks = np.stack([_two(_disc(10 + 2 * i, 14, 6 + i % 3)) for i in range(count)])
    return np.ascontiguousarray(masks[:, ::-1])


def _measured(masks: FloatArray, before: FloatArray | None = None) -> MaskFigures:
    """Figures of a network that follows flips and shifts exactly."""
    moved = np.pad(masks, ((0, 0), (0, 0), (2, 0), (2, 0)), mode="edge")[..., :_SIDE, :_SIDE]
    return measure(masks, masks[..., ::-1], moved, 2, before)


def test_the_object_is_the_region_off_the_border() -> None:
    assert object_channel(_discs()) == 1
    assert [pick_channel(masks) for masks in _discs()] == [1] * 6


def test_one_image_that_shows_it_the_other_way_does_not_change_the_channel() -> None:
    masks = _discs()
    masks[0] = masks[0, ::-1].copy()
    assert pick_channel(masks[0]) == 0
    assert object_channel(masks) == 1


def test_three_regions_are_told_apart() -> None:
    sky = np.zeros((_SIDE, _SIDE), np.float32)
    sky[:12] = 1
    bird = _disc()
    masks = np.stack([sky * (1 - bird), (1 - sky) * (1 - bird), bird])[None]
    assert object_channel(masks) == 2
    assert region_areas(masks).sum() == pytest.approx(1)


def test_an_even_mask_has_contact_1_and_an_empty_one_cannot_win() -> None:
    masks = np.stack([np.zeros((_SIDE, _SIDE)), np.ones((_SIDE, _SIDE)), _disc()]).astype(np.float32)[None]
    assert border_contact(masks)[0, :2].tolist() == [1, 1]
    assert object_channel(masks) == 2


def test_overlap_is_shared_over_either() -> None:
    half = np.zeros((1, 2, 2), np.float32)
    half[:, 0] = 1
    full = np.ones_like(half)
    assert soft_overlap(half, full) == pytest.approx(0.5, abs=0.01)
    assert soft_overlap(half, half) == soft_overlap(0 * half, 0 * half) == 1
    assert soft_overlap(half, full - half) < 0.01


def test_figures_of_single_masks() -> None:
    masks = np.stack([_disc(), np.ones_like(_disc()), 0 * _disc()])
    assert sane_share(masks) == pytest.approx(1 / 3)
    assert sharpness(masks) == 1
    assert sharpness(np.full_like(masks, 0.75)) == 0.5
    assert individuality(np.stack([_disc()] * 3)) == 0
    assert individuality(np.stack([_disc(6, 6, 4), _disc(26, 26, 4)])) > 0.99


def test_a_network_that_follows_flips_and_shifts_has_full_figures() -> None:
    figures = _measured(_discs(), _discs())
    assert figures.object_channel == 1
    assert min(figures.flip, figures.shift, figures.sane, figures.sharpness) == 1
    assert figures.steady == 1
    assert figures.realism_gap is None


def test_steadiness_does_not_mind_that_regions_swap() -> None:
    assert _measured(_discs(), np.ascontiguousarray(_discs()[:, ::-1])).steady == 1
    assert _measured(_discs(), np.roll(_discs(), 8, axis=-1)).steady < 0.6


def test_good_masks_score_above_every_way_of_being_bad() -> None:
    good = _measured(_discs())
    bad = {
        "collapsed": np.stack([_two(np.full_like(_disc(), 0.02))] * 6),
        "soft": 0.5 + (_discs() - 0.5) * 0.2,
        "same for all": np.stack([_two(_disc())] * 6),
        "at the border": np.stack([_two(_disc(16, 31, 6 + i)) for i in range(6)]),
    }
    for name, masks in bad.items():
        assert score(_measured(masks.astype(np.float32))) < score(good), name


@pytest.mark.parametrize(
    "worse", [{"flip": 0.5}, {"shift": 0.5}, {"steady": 0.5}, {"sane": 0.5}, {"border": 0.6}]
)
def test_each_figure_counts(worse: dict[str, float]) -> None:
    figures = replace(_measured(_discs(), _discs()), realism_gap=1.0)
    assert score(replace(figures, **worse)) < score(figures)


def test_images_that_pass_for_real_count() -> None:
    figures = _measured(_discs())
    gaps = [score(replace(figures, realism_gap=gap)) for gap in (-1.0, 0.0, 1.0, 2.0, 1e6)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] == gaps[1]


def test_a_checkpoint_without_a_discriminator_counts_as_one_that_is_seen_through() -> None:
    figures = _measured(_discs())
    assert (
        score(figures) == score(replace(figures, realism_gap=2.0)) < score(replace(figures, realism_gap=1.9))
    )
