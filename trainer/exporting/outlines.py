"""Masks as other programs want them: COCO's run lengths, and polygons along the pixels' edges."""

import cv2
import numpy as np

from trainer.sample import UInt8Array

Ring = list[tuple[int, int]]


def run_lengths(mask: UInt8Array) -> list[int]:
    """COCO's uncompressed RLE of a (H, W) mask: lengths of 0s and 1s in turn, column by column, 0s first."""
    flat = np.concatenate([[0], np.ravel(mask != 0, order="F"), [0]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))
    lengths = np.diff(edges, prepend=0, append=mask.size)
    return [int(length) for length in (lengths[:-1] if lengths[-1] == 0 else lengths)]


def outlines(mask: UInt8Array) -> list[Ring]:
    """The outer edges of a mask's parts, each a ring of corners (x, y) of its pixels; holes are filled.

    Pixel (column i, row j) has the corners (i, j) and (i + 1, j + 1), so filling a ring gives back its part.
    """
    twice = cv2.resize((mask != 0).astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    # Of each pixel, now 2 x 2, the border takes the outer half: rounding up from it finds the pixel's corner.
    found, _ = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rings = ([(int(x), int(y)) for x, y in (contour[:, 0] + 1) // 2] for contour in found)
    return [_without_repeats(ring) for ring in rings]


def joined(rings: list[Ring]) -> Ring:
    """One ring that encloses what several do: it goes from each to the next along a line, and back."""
    first = rings[0][0]
    whole: Ring = list(rings[0])
    for ring in rings[1:]:
        whole += [first, *ring, ring[0]]
    return whole if len(rings) == 1 else [*whole, first]


def _without_repeats(ring: Ring) -> Ring:
    return [point for k, point in enumerate(ring) if point != ring[k - 1]]
