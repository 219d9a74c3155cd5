"""Masks as run lengths and as polygons, against pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_masks

from trainer.exporting.outlines import joined, outlines, run_lengths

# pycocotools' own, under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _of_runs(counts: list[int], shape: tuple[int, int]) -> np.ndarray:
    return coco_masks.decode(coco_masks.frPyObjects({"counts": counts, "size": list(shape)}, *shape))


def _of_rings(rings: list[list[tuple[int, int]]], shape: tuple[int, int]) -> np.ndarray:
    flat = [[float(value) for point in ring for value in point] for ring in rings]
    return coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(flat, *shape)))


def _blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((rng.integers(1, 40), rng.integers(1, 40)), np.uint8)
    for _ in range(rng.integers(1, 5)):
        y, x = rng.integers(0, mask.shape)
        mask[y : y + rng.integers(1, 12), x : x + rng.integers(1, 12)] = 1
    return mask


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_run_lengths_decode_to_the_mask(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((rng.integers(1, 9), rng.integers(1, 9))) < share).astype(np.uint8)
    assert np.array_equal(_of_runs(run_lengths(mask), mask.shape), mask)


@pytest.mark.parametrize("value", [0, 1])
def test_masks_of_one_value_have_run_lengths(value: int) -> None:
    assert run_lengths(np.full((3, 4), value, np.uint8)) == ([0, 12] if value else [12])


def test_a_pixel_has_four_corners() -> None:
    mask = np.zeros((5, 5), np.uint8)
    mask[2, 3] = 1
    (ring,) = outlines(mask)
    assert sorted(ring) == [(3, 2), (3, 3), (4, 2), (4, 3)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_polygons_fill_to_the_mask_but_for_its_holes(seed: int) -> None:
    mask = _blobs(seed)
    filled = _of_rings(outlines(mask), mask.shape)
    assert (filled >= mask).all()
    assert _inside_holes(mask)[(filled > mask)].all()


def _inside_holes(mask: np.ndarray) -> np.ndarray:
    """Empty pixels that no path of empty neighbours leads out of."""
    outside = np.pad(np.zeros_like(mask), 1, constant_values=1).astype(bool)
    empty = np.pad(mask, 1) == 0
    while True:
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown &= empty
        if (grown == outside).all():
            return (empty & ~outside)[1:-1, 1:-1]
        outside = grown


def test_joined_parts_enclose_what_they_do_apart() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[2:9, 3:12], mask[15:25, 18:22], mask[20:28, 1:5] = 1, 1, 1
    ring = joined(outlines(mask))
    x, y = np.array(ring, float).T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area == mask.sum()
    assert (x.min(), y.min(), x.max(), y.max()) == (1, 2, 22, 28)
