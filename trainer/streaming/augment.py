"""Fits an annotated photo, real or composed, to the detector's square, with or without random changes.

A photo is shown through a window, a rectangle of its pixels that fills the square, stretched as needed.
Without change the window is the photo; zooming in makes it smaller, zooming out larger, with grey around.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from configs.kinds import StrictModel
from trainer.imaging.images import resize_antialiased
from trainer.sample import Sample, Target, UInt8Array, make_target

MEAN_RGB = (123, 117, 104)  # ImageNet's mean colour, shown around a photo that is zoomed out
MIN_VISIBLE_PX = 1.0  # an object cut to less than this in the photo is gone
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_TO_YIQ = np.array([_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_LEAST_IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # Liu et al., SSD, ECCV 2016, section 2.2
_IOU_TRIES = 50
_MIRRORED = [1, 0, 2, 4, 3]  # eyes, nose, corners of the mouth


class AugmentConfig(StrictModel):
    """Random changes to photos. ``none`` in place of a mapping is no change at all, as in the paper.

    flip, zoom_in, zoom_out, iou_crop: probabilities; at most one of the last three is done, so their sum is
    at most 1. zoom_in keeps an object whole; iou_crop is that of SSD (Liu et al. 2016): a window of aspect
    1/2..2 that has an IoU of at least 0, 0.1, 0.3, 0.5, 0.7 or 0.9, each as likely, with an object.
    zoom_in_min_frac, iou_crop_min_frac: smallest window, side as a part of the photo's. zoom_out_max:
    largest, likewise. stretch: each side of a zoom's window is changed by up to this part more.
    min_visible: an object of which a smaller part of the box is left becomes an ignored one.
    brightness: shift, part of 255. contrast, saturation, channel_gain: factors 1 ± this. hue_deg: turn of the
    colours about grey, ± this.
    """

    flip: float = Field(default=0.5, ge=0, le=1)
    zoom_in: float = Field(default=0.5, ge=0, le=1)
    zoom_in_min_frac: float = Field(default=0.5, gt=0, le=1)
    zoom_out: float = Field(default=0.25, ge=0, le=1)
    zoom_out_max: float = Field(default=2.0, ge=1)
    iou_crop: float = Field(default=0.0, ge=0, le=1)
    iou_crop_min_frac: float = Field(default=0.3, gt=0, le=1)
    stretch: float = Field(default=0.15, ge=0, lt=1)
    min_visible: float = Field(default=0.4, ge=0, le=1)
    brightness: float = Field(default=0.12, ge=0, le=1)
    contrast: float = Field(default=0.25, ge=0, le=1)
    saturation: float = Field(default=0.3, ge=0, le=1)
    channel_gain: float = Field(default=0.05, ge=0, le=1)
    hue_deg: float = Field(default=0.0, ge=0, le=180)

    @model_validator(mode="before")
    @classmethod
    def _none_is_no_change(cls, value: Any) -> Any:
        names = (
            "flip",
            "zoom_in",
            "zoom_out",
            "iou_crop",
            "hue_deg",
            "brightness",
            "contrast",
            "saturation",
            "channel_gain",
        )
        return dict.fromkeys(names, 0.0) if value == "none" else value

    @model_validator(mode="after")
    def _zooms_exclude_each_other(self) -> "AugmentConfig":
        total = self.zoom_in + self.zoom_out + self.iou_crop
        if total > 1:
            raise ValueError(f"zoom_in + zoom_out + iou_crop is {total:g}, wanted at most 1")
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


def augment_sample(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """A square sample changed as a real photo would be, at its own size; the given one stays.

    For composed scenes, so that real and synthetic samples go through the same changes.
    """
    return fit_sample(sample.image, sample.target, sample.image.shape[0], config, rng, sample.key)


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
    elif choice < config.zoom_in + config.zoom_out + config.iou_crop:
        return _draw_iou_window(extent, target, config, rng)
    else:
        return np.array([0, 0, width, height])
    start = np.floor(low + rng.random(2) * (high - low + 1)).astype(np.int64)
    return np.concatenate([start, start + window.astype(np.int64)])


def _draw_iou_window(
    extent: npt.NDArray[np.int64], target: Target, config: AugmentConfig, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """A part of the photo that has the drawn IoU with an object that counts; after all tries the photo."""
    least = _LEAST_IOUS[int(rng.integers(len(_LEAST_IOUS)))]
    boxes = target.boxes[~target.ignore].astype(np.float64)
    for _ in range(_IOU_TRIES):
        sides = rng.uniform(config.iou_crop_min_frac, 1, 2) * extent
        window = np.maximum(np.round(sides), 1).astype(np.int64)
        if not 0.5 <= window[0] / window[1] <= 2:
            continue
        start = np.floor(rng.random(2) * (extent - window + 1)).astype(np.int64)
        found = np.concatenate([start, start + window])
        if least == 0 or (_ious(found, boxes) >= least).any():
            return found
    return np.array([0, 0, *extent])


def _ious(window: npt.NDArray[np.int64], boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N,)"""
    shared = np.minimum(window[2:], boxes[:, 2:]) - np.maximum(window[:2], boxes[:, :2])
    overlap = np.maximum(shared, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (window[2:] - window[:2]).prod()
    ious: npt.NDArray[np.float64] = overlap / (areas - overlap)
    return ious


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
    ignore = (target.ignore | hidden)[seen]
    if target.landmarks is None or target.has_landmarks is None:
        return make_target(fitted[seen], target.labels[seen], ignore)
    points = (target.landmarks[seen] - window[:2]) * scale
    whole = ((points >= 0) & (points <= size)).all(axis=(1, 2))  # a face whose landmarks are cut has none
    known = target.has_landmarks[seen] & whole
    return make_target(fitted[seen], target.labels[seen], ignore, points, known)


def _flip(pixels: UInt8Array, target: Target) -> tuple[UInt8Array, Target]:
    """Left and right exchanged."""
    boxes = target.boxes.copy()
    boxes[:, [0, 2]] = pixels.shape[1] - target.boxes[:, [2, 0]]
    points = target.landmarks
    if points is not None:  # a left eye becomes a right one
        points = points[:, _MIRRORED].copy()
        points[..., 0] = pixels.shape[1] - points[..., 0]
    mirrored = Target(boxes, target.labels, target.ignore, points, target.has_landmarks)
    return cv2.flip(pixels, 1).astype(np.uint8, copy=False), mirrored


def _change_colours(pixels: UInt8Array, config: AugmentConfig, rng: np.random.Generator) -> UInt8Array:
    """Saturation, hue, contrast about the mean, channel gains and brightness, in one affine step a pixel."""
    strengths = (config.contrast, config.saturation)
    contrast, saturation = (1 + rng.uniform(-strength, strength) for strength in strengths)
    gains = 1 + rng.uniform(-config.channel_gain, config.channel_gain, 3)
    shift = 255 * rng.uniform(-config.brightness, config.brightness)
    if not any((*strengths, config.channel_gain, config.brightness, config.hue_deg)):
        return pixels
    mix = saturation * np.eye(3) + (1 - saturation) * _LUMA[None, :]  # (3, 3), keeps the grey of a pixel
    if config.hue_deg:
        mix = _hue_turn(rng.uniform(-config.hue_deg, config.hue_deg)) @ mix
    matrix = contrast * gains[:, None] * mix
    mean = float(_LUMA @ cv2.mean(pixels)[:3])
    offset = gains * mean * (1 - contrast) + shift
    return cv2.transform(pixels, np.column_stack([matrix, offset])).astype(np.uint8, copy=False)


def _hue_turn(degrees: float) -> npt.NDArray[np.float64]:
    """(3, 3), RGB to RGB: a turn of the chrominance plane of YIQ, which keeps the grey of a pixel."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn: npt.NDArray[np.float64] = _FROM_YIQ @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ _TO_YIQ
    return turn
