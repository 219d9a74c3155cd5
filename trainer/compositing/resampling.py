"""Pixels moved without aliasing: exact halvings, then one bilinear warp, colours weighted by opacity.

Whole numbers are pixel edges throughout.
"""

from dataclasses import dataclass
from math import floor, log2, sqrt

import cv2
import numpy as np

from shards.records import CropRecord
from trainer.compositing.plan import Affine, area_scale
from trainer.sample import UInt8Array

WHOLE_PX = 1e-6
"""How near to a whole pixel counts as on it."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightedCrop:
    """A crop made ready to be painted more than once, as large in memory as its record.

    pixels: RGBA (H, W, 4), colours multiplied by opacity.
    """

    label: str
    pixels: UInt8Array


def weigh(crop: CropRecord) -> WeightedCrop:
    """The crop with its colours multiplied by its opacity: a quarter of the cost of painting it."""
    return WeightedCrop(crop.label, merge_weighted(crop.image, crop.mask))


def merge_weighted(colour: UInt8Array, opacity: UInt8Array) -> UInt8Array:
    """RGBA (H, W, 4), colours multiplied by opacity."""
    joined = cv2.cvtColor(colour, cv2.COLOR_RGB2RGBA)
    cv2.insertChannel(opacity, joined, 3)
    return cv2.cvtColor(joined, cv2.COLOR_RGBA2mRGBA).view(np.uint8)


def split(weighted: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
    """Weighted colour (H, W, 3) and opacity (H, W) of a weighted RGBA image."""
    colour, opacity = cv2.cvtColor(weighted, cv2.COLOR_RGBA2RGB), cv2.extractChannel(weighted, 3)
    return colour.view(np.uint8), opacity.view(np.uint8)


def straighten(colour: UInt8Array, opacity: UInt8Array) -> UInt8Array:
    """Weighted colour divided by its opacity; 0 where opacity is."""
    return cv2.divide(colour, cv2.cvtColor(opacity, cv2.COLOR_GRAY2RGB), scale=255).view(np.uint8)


def warp(
    image: UInt8Array, matrix: Affine, width: int, height: int, tilt: tuple[float, float] = (0.0, 0.0)
) -> UInt8Array:
    """image moved by matrix and tilt (see `Placement`) into a new (height, width) image, 0 outside.

    Halved while its middle shrinks by 2 or more, then warped bilinearly.
    """
    image_height, image_width = image.shape[:2]
    scale = sqrt(abs(area_scale(matrix, tilt, image_width / 2, image_height / 2)))
    levels = max(0, min(floor(log2(1 / max(scale, 1e-6))), floor(log2(max(image_height, image_width)))))
    if levels:
        image = _padded(image, 1 << levels)
        for _ in range(levels):
            image = halved(image)
    a, b, c, d, e, f = matrix
    factor = float(1 << levels)
    a, b, d, e = factor * a, factor * b, factor * d, factor * e
    if not levels and tilt == (0.0, 0.0) and is_filled_by(matrix, image.shape, width, height):
        filled = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # under half the cost
        return (cv2.flip(filled, 1) if matrix[0] < 0 else filled).view(np.uint8)
    if tilt == (0.0, 0.0):
        # OpenCV puts pixel centres at whole numbers
        centred = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
        return cv2.warpAffine(image, centred, (width, height), flags=cv2.INTER_LINEAR).view(np.uint8)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    whole = np.array([[a, b, c], [d, e, f], [factor * tilt[0], factor * tilt[1], 1.0]])
    homography = np.linalg.inv(half) @ whole @ half
    return cv2.warpPerspective(image, homography, (width, height), flags=cv2.INTER_LINEAR).view(np.uint8)


def is_filled_by(matrix: Affine, shape: tuple[int, ...], width: int, height: int) -> bool:
    """Whether an upright image of that shape fills the new one to its edges."""
    a, b, c, d, e, f = matrix
    if b or d:
        return False
    left, right = sorted((c, c + a * shape[1]))
    top, bottom = f, f + e * shape[0]
    return max(abs(left), abs(right - width), abs(top), abs(bottom - height)) < WHOLE_PX


def halved(image: UInt8Array) -> UInt8Array:
    """Means of 2x2 pixels; an odd last row or column is dropped."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    even = image[: 2 * height, : 2 * width]
    return cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA).view(np.uint8)


def _padded(image: UInt8Array, multiple: int) -> UInt8Array:
    """image with zeros right and below up to a multiple, so that OpenCV's exact halving applies."""
    height, width = image.shape[:2]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return image
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT).view(np.uint8)
