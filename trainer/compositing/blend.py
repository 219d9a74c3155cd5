"""How an object's colour and opacity go onto a canvas, uint8 throughout."""

import cv2
import numpy as np

from trainer.compositing.options import BlendKind
from trainer.sample import UInt8Array

_MIN_CLONED_PX = 3  # the Poisson equation needs an inside


def blend_opacity(opacity: UInt8Array, kind: BlendKind, feather: float, side_px: float) -> UInt8Array:
    """The opacity (H, W) that a kind of blending paints with; 0 wherever opacity is 0.

    alpha: as it is. hard, poisson: 255 from 0.5 on. gaussian: the edge eroded and blurred with sigma
    ``feather * side_px``, so that the ramp lies inside the object, where its colours are known.
    """
    if kind == "alpha":
        return opacity
    if kind in ("hard", "poisson"):
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


def paste(canvas: UInt8Array, colour: UInt8Array, opacity: UInt8Array) -> None:
    """Paint colour (H, W, 3) over canvas (H, W, 3), a view that is changed, with opacity (H, W)."""
    weight = cv2.cvtColor(opacity, cv2.COLOR_GRAY2RGB)
    front = cv2.multiply(colour, weight, scale=1 / 255)
    cv2.multiply(canvas, cv2.bitwise_not(weight), dst=canvas, scale=1 / 255)
    cv2.add(canvas, front, dst=canvas)


def paste_weighted(canvas: UInt8Array, front: UInt8Array, opacity: UInt8Array) -> None:
    """`paste` of a colour that is already multiplied by its opacity."""
    rest = cv2.cvtColor(cv2.bitwise_not(opacity), cv2.COLOR_GRAY2RGB)
    cv2.multiply(canvas, rest, dst=canvas, scale=1 / 255)
    cv2.add(canvas, front, dst=canvas)


def clone(canvas: UInt8Array, colour: UInt8Array, opacity: UInt8Array) -> None:
    """Paint colour's gradients where opacity is 255, the canvas given at the rim; canvas is changed.

    Perez, Gangnet and Blake, Poisson Image Editing, SIGGRAPH 2003. The outermost pixels of the canvas stay;
    an object thinner than 3 px is pasted.
    """
    mask = opacity.copy()
    mask[[0, -1]] = mask[:, [0, -1]] = 0
    x, y, width, height = cv2.boundingRect(mask)
    if min(width, height) < _MIN_CLONED_PX:
        paste(canvas, colour, opacity)
        return
    middle = (x + width // 2, y + height // 2)
    canvas[:] = cv2.seamlessClone(colour, canvas, mask, middle, cv2.NORMAL_CLONE)
