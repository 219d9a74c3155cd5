"""How an object's colour and opacity go onto a canvas, uint8 throughout."""

from math import sqrt
from typing import Literal

import cv2
import numpy as np

from trainer.sample import UInt8Array

BlendKind = Literal["alpha", "hard", "gaussian"]


def blend_opacity(opacity: UInt8Array, kind: BlendKind, feather: float, side_px: float) -> UInt8Array:
    """The opacity (H, W) that a kind of blending paints with; 0 wherever opacity is 0.

    alpha: as it is. hard: 255 from 0.5 on. gaussian: the edge eroded and blurred with sigma ``feather *
    side_px``, so that the ramp lies inside the object, where its colours are known.
    """
    if kind == "alpha":
        return opacity
    if kind == "hard":
        return harden(opacity, 128)
    sigma = feather * side_px
    if sigma < 0.25:
        return opacity
    reach = 2 * round(sigma) + 1
    inner = cv2.erode(
        opacity, np.ones((reach, reach), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    soft = cv2.GaussianBlur(inner, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return cv2.min(soft, opacity).view(np.uint8)


def harden(opacity: UInt8Array, level: int) -> UInt8Array:
    """255 where opacity is at least level, else 0."""
    return cv2.threshold(opacity, level - 1, 255, cv2.THRESH_BINARY)[1].view(np.uint8)


def feather_side_px(matrix: tuple[float, ...], width: int, height: int) -> float:
    """sqrt(area) of a crop's rectangle once painted, px."""
    return sqrt(abs(matrix[0] * matrix[4] - matrix[1] * matrix[3]) * width * height)


def paste(canvas: UInt8Array, colour: UInt8Array, opacity: UInt8Array) -> None:
    """Paint colour (H, W, 3) over canvas (H, W, 3), a view that is changed, with opacity (H, W)."""
    weight = cv2.cvtColor(opacity, cv2.COLOR_GRAY2RGB)
    front = cv2.multiply(colour, weight, scale=1 / 255)
    cv2.multiply(canvas, cv2.bitwise_not(weight), dst=canvas, scale=1 / 255)
    cv2.add(canvas, front, dst=canvas)
