"""An object's colours drawn towards those of the scene around it.

Mean and spread of each channel of a decorrelated colour space are taken over from the surroundings, after
Reinhard et al., Color Transfer between Images, IEEE CG&A 21(5), 2001. Theirs is the logarithmic l-alpha-beta
space; here it is the linear YCbCr of ITU-R BT.601, in which the whole change is one affine step a pixel.
"""

import cv2
import numpy as np
import numpy.typing as npt

from trainer.sample import UInt8Array

TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
FROM_YCC = np.linalg.inv(TO_YCC)
_MIDDLE = np.array([0.0, 128.0, 128.0])  # what makes the two chrominances fit a byte
TO_STORED_YCC = np.column_stack([TO_YCC, _MIDDLE])
MAX_STRETCH = 2.0  # the spread changes by 1/2..2 at most: a plain wall must not wipe an object's texture out
MIN_SPREAD = 1.0  # pixel values; under it a channel counts as even

FloatMatrix = npt.NDArray[np.float64]


def harmonised(
    colour: UInt8Array, opacity: UInt8Array, surroundings: UInt8Array, strength: float
) -> UInt8Array:
    """colour (H, W, 3) moved by strength 0..1 towards surroundings (h, w, 3), both RGB.

    An object's statistics are those of its pixels with opacity (H, W) of 0.5 or more; without such pixels, or
    without surroundings, the colour stays.
    """
    solid = cv2.threshold(opacity, 127, 255, cv2.THRESH_BINARY)[1].view(np.uint8)
    if surroundings.size == 0 or not cv2.countNonZero(solid):
        return colour
    matrix = transfer_matrix(_statistics(colour, solid), _statistics(surroundings, None), strength)
    return cv2.transform(colour, matrix).view(np.uint8)


def transfer_matrix(
    own: tuple[FloatMatrix, FloatMatrix], wanted: tuple[FloatMatrix, FloatMatrix], strength: float
) -> FloatMatrix:
    """(3, 4), RGB to RGB. own, wanted: mean and spread (3,) of each YCbCr channel."""
    (mean, spread), (new_mean, new_spread) = own, wanted
    ratio = np.clip(new_spread / np.maximum(spread, MIN_SPREAD), 1 / MAX_STRETCH, MAX_STRETCH)
    factor = 1 + strength * (ratio - 1)
    offset = mean + strength * (new_mean - mean) - factor * mean
    matrix: FloatMatrix = FROM_YCC @ np.column_stack([factor[:, None] * TO_YCC, offset])
    return matrix


def _statistics(image: UInt8Array, solid: UInt8Array | None) -> tuple[FloatMatrix, FloatMatrix]:
    """Mean and standard deviation (3,) of each YCbCr channel, where solid (H, W) is not 0."""
    mean, spread = cv2.meanStdDev(cv2.transform(image, TO_STORED_YCC), mask=solid)
    return np.ravel(mean).astype(np.float64) - _MIDDLE, np.ravel(spread).astype(np.float64)
