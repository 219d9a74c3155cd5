"""Fits an annotated photo to the detector's square, with or without random changes.

A photo is shown through a window, a rectangle of its pixels that fills the square, stretched as needed.
Without change the window is the photo; zooming in makes it smaller, zooming out larger, with grey around.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from configs.kinds import StrictModel
from trainer.images import resize_antialiased
from trainer.sample import Sample, Target, UInt8Array, make_target

MEAN_RGB = (123, 117, 104)  # ImageNet's mean colour, shown around a photo that is zoomed out
MIN_VISIBLE_PX = 1.0  # an object cut to less than this in the photo is gone
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class AugmentConfig(StrictModel):
    """Random changes to real photos. ``none`` in place of a mapping is no change at all, as in the paper.

    flip, zoom_in, zoom_out: probabilities; at most one zoom is done, so zoom_in + zoom_out <= 1.
    zoom_in_min_frac: smallest window, side as a part of the photo's. zoom_out_max: largest, likewise.
    stretch: each side of a window is changed by up to this part more.
    min_visible: an object of which a smaller part of the box is left becomes an ignored one.
    brightness: shift, part of 255. contrast, saturation, channel_gain: factors 1 ± this.
    """

    flip: float = Field(default=0.5, ge=0, le=1)
    zoom_in: float = Field(default=0.5, ge=0, le=1)
    zoom_in_min_frac: float = Field(default=0.5, gt=0, le=1)
    zoom_out: float = Field(default=0.25, ge=0, le=1)
    zoom_out_max: float = Field(default=2.0, ge=1)
    stretch: float = Field(default=0.15, ge=0, lt=1)
    min_visible: float = Field(default=0.4, ge=0, le=1)
    brightness: float = Field(default=0.12, ge=0, le=1)
    contrast: float = Field(default=0.25, ge=0, le=1)
    saturation: float = Field(default=0.3, ge=0, le=1)
    channel_gain: float = Field(default=0.05, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _none_is_no_change(cls, value: Any) -> Any:
        names = ("flip", "zoom_in", "zoom_out", "brightness", "contrast", "saturation", "channel_gain")
        return dict.fromkeys(names, 0.0) if value == "none" else value

    @model_validator(mode="after")
    def _zooms_exclude_each_other(self) -> "AugmentConfig":
        if self.zoom_in + self.zoom_out > 1:
            raise ValueError(f"zoom_in + zoom_out is {self.zoom_in + self.zoom_out:g}, wanted at most 1")
        return self


NO_CHANGE = AugmentConfig.model_validate("none")


def fit_sample(
    image: UInt8Array,
    target: Target,
    size: int,
    config: AugmentConfig | None = None,
    rng: np.random.Generator | None = None,
    key: str = "",
) -> Sample:
    """The photo as a square of ``size`` px, its aspect given up, antialiased; boxes go along.

    Without config or without rng nothing is changed: that is the view for evaluation.
    Every draw comes from rng, so the same state gives the same sample.
    """
    height, width = image.shape[:2]
    if config is None or rng is None:
        whole = np.array([0, 0, width, height])
        return Sample(key, _show(image, whole, size), _through_window(target, whole, size))
    window = _draw_window(width, height, target, config, rng)
    pixels = _show(image, window, size)
    target = _through_window(target, window, size, config.min_visible)
    if rng.random() < config.flip:
        pixels, target = _flip(pixels, target)
    return Sample(key, _change_colours(pixels, config, rng), target)


def _draw_window(
    width: int, height: int, target: Target, config: AugmentConfig, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """xyxy pixels of the photo, beyond its edges when zoomed out. A zoom in keeps one object whole."""
    extent = np.array([width, height])
    choice = rng.random()
    sides = 1 + rng.uniform(-config.stretch, config.stretch, 2)
    if choice < config.zoom_in:
        sides = np.clip(rng.uniform(config.zoom_in_min_frac, 1) * sides, None, 1)
        window = np.maximum(np.round(sides * extent), 1)
        kept = _draw_object(target, extent, rng)
        window = np.maximum(window, np.ceil(kept[2:]) - np.floor(kept[:2]))
        low = np.maximum(np.ceil(kept[2:]) - window, 0)
        high = np.minimum(np.floor(kept[:2]), extent - window)
    elif choice < config.zoom_in + config.zoom_out:
        sides = np.clip(rng.uniform(1, config.zoom_out_max) * sides, 1, None)
        window = np.round(sides * extent)
        low, high = extent - window, np.zeros(2)
    else:
        return np.array([0, 0, width, height])
    start = np.floor(low + rng.random(2) * (high - low + 1)).astype(np.int64)
    return np.concatenate([start, start + window.astype(np.int64)])


def _draw_object(
    target: Target, extent: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The box of one object that counts; a random point when there is none."""
    counted = np.flatnonzero(~target.ignore)
    if len(counted):
        box: npt.NDArray[np.float64] = target.boxes[rng.choice(counted)].astype(np.float64)
        return box
    point = np.floor(rng.random(2) * extent)
    return np.concatenate([point, point])


def _show(image: UInt8Array, window: npt.NDArray[np.int64], size: int) -> UInt8Array:
    """The window's view of the photo, (size, size, 3)."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (int(value) for value in window)
    seen = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    if seen.shape[:2] == (y1 - y0, x1 - x0):
        return resize_antialiased(seen, size, size)
    left = min(round(-x0 * size / (x1 - x0)), size - 1)
    top = min(round(-y0 * size / (y1 - y0)), size - 1)
    right = max(round((width - x0) * size / (x1 - x0)), left + 1)
    bottom = max(round((height - y0) * size / (y1 - y0)), top + 1)
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[:] = MEAN_RGB
    canvas[top:bottom, left:right] = resize_antialiased(seen, right - left, bottom - top)
    return canvas


def _through_window(
    target: Target, window: npt.NDArray[np.int64], size: int, min_visible: float = 0.0
) -> Target:
    """The objects seen through the window, in pixels of the square.

    Those cut below min_visible are ignored, those cut to less than a pixel of the photo are gone.
    """
    boxes = target.boxes.astype(np.float64)
    cut = np.clip(boxes, np.tile(window[:2], 2), np.tile(window[2:], 2))
    sides, full = cut[:, 2:] - cut[:, :2], boxes[:, 2:] - boxes[:, :2]
    seen = (sides >= np.minimum(full, MIN_VISIBLE_PX)).all(axis=1)
    hidden = sides.prod(axis=1) < min_visible * full.prod(axis=1)
    scale = size / (window[2:] - window[:2])
    fitted = (cut - np.tile(window[:2], 2)) * np.tile(scale, 2)
    fitted = np.clip(fitted, 0, size).astype(np.float32)
    seen &= (fitted[:, 2:] > fitted[:, :2]).all(axis=1)
    return make_target(fitted[seen], target.labels[seen], (target.ignore | hidden)[seen])


def _flip(pixels: UInt8Array, target: Target) -> tuple[UInt8Array, Target]:
    """Left and right exchanged."""
    boxes = target.boxes.copy()
    boxes[:, [0, 2]] = pixels.shape[1] - target.boxes[:, [2, 0]]
    return cv2.flip(pixels, 1).astype(np.uint8, copy=False), Target(boxes, target.labels, target.ignore)


def _change_colours(pixels: UInt8Array, config: AugmentConfig, rng: np.random.Generator) -> UInt8Array:
    """Saturation, contrast about the mean, channel gains and brightness, in one affine step a pixel."""
    strengths = (config.contrast, config.saturation)
    contrast, saturation = (1 + rng.uniform(-strength, strength) for strength in strengths)
    gains = 1 + rng.uniform(-config.channel_gain, config.channel_gain, 3)
    shift = 255 * rng.uniform(-config.brightness, config.brightness)
    if not any((*strengths, config.channel_gain, config.brightness)):
        return pixels
    mix = saturation * np.eye(3) + (1 - saturation) * _LUMA[None, :]  # (3, 3), keeps the grey of a pixel
    matrix = contrast * gains[:, None] * mix
    mean = float(_LUMA @ cv2.mean(pixels)[:3])
    offset = gains * mean * (1 - contrast) + shift
    return cv2.transform(pixels, np.column_stack([matrix, offset])).astype(np.uint8, copy=False)
