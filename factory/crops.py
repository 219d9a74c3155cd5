"""The cutter: from a frame and its mask to the record that goes into a shard."""

from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from configs.kinds import StrictModel
from factory.quality import solid_box
from factory.stages import ObjectImage, Segmentation, UInt8Array
from shards.records import CropRecord

Box = tuple[int, int, int, int]  # xyxy, px, right and bottom exclusive

_FAINT = 3  # opacity below this is noise of the mask or of its coding


class CropConfig(StrictModel):
    """How a crop is cut."""

    margin_px: int = Field(default=4, ge=0, description="kept around the object's box, px of the record")
    max_side_px: int = Field(default=256, ge=8, description="larger crops are shrunk to this longest side")
    outside: Literal["flat", "keep"] = Field(
        default="flat",
        description="pixels away from the object: one flat colour (half the JPEG), or the photo's",
    )
    feather_px: int = Field(
        default=4, ge=0, description="with flat: how far around the object the photo stays"
    )


def cut(
    key: str,
    label: str,
    image: ObjectImage,
    segmentation: Segmentation,
    config: CropConfig,
    scores: Mapping[str, float],
) -> CropRecord:
    """The record of one object: tight to its box (opacity >= 128) plus a margin, shrunk when large.

    origin: the image's own, the scores to four digits, and the frame, in px of the record: its size
    ``frame_w``, ``frame_h`` and the place ``frame_x``, ``frame_y`` of the record in it, all rounded.
    Flat surroundings make a crop's JPEG 1.7 times smaller (2 with the tight cut) and decode 1.5 times faster.
    Raises ValueError for a mask without an object: the gate refuses those.
    """
    box = solid_box(segmentation.mask)
    if box is None:
        raise ValueError(f"{image.name}: no pixel of the mask has opacity 128 or more, wanted a judged mask")
    frame_height, frame_width = segmentation.mask.shape
    scale = _scale(box, config)
    x0, y0, x1, y1 = _widen(box, config.margin_px / scale, frame_width, frame_height)
    pixels, mask = image.image[y0:y1, x0:x1], segmentation.mask[y0:y1, x0:x1]
    if scale < 1:
        size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        pixels, mask = (_resize(a, size) for a in (pixels, mask))
    mask = np.where(mask < _FAINT, 0, mask).astype(np.uint8)
    pixels = flatten(pixels, mask, config.feather_px) if config.outside == "flat" else pixels.copy()
    frame = {"frame_w": frame_width, "frame_h": frame_height, "frame_x": x0, "frame_y": y0}
    origin = {
        **image.origin,
        **{name: round(float(score), 4) for name, score in scores.items()},
        **{name: round(length * scale) for name, length in frame.items()},
    }
    return CropRecord(key, label, pixels, mask, origin)


def flatten(pixels: UInt8Array, mask: UInt8Array, feather_px: int) -> UInt8Array:
    """The RGB image with one flat colour, the object's mean, further than ``feather_px`` from any opacity.

    The mean colour keeps the ring that JPEG draws along the seam faint.
    """
    support = (mask > 0).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * feather_px + 1, 2 * feather_px + 1))
    near = cv2.dilate(support, disc)
    mean = np.asarray(cv2.mean(pixels, mask=support)[:3])
    flat = np.clip(np.rint(mean), 0, 255).astype(np.uint8)
    return np.where(near[..., None] > 0, pixels, flat).astype(np.uint8)


def _scale(box: Box, config: CropConfig) -> float:
    """At most 1, so that the box with its margin has the longest side allowed."""
    longest = max(box[2] - box[0], box[3] - box[1])
    return min(1.0, max(1, config.max_side_px - 2 * config.margin_px) / longest)


def _resize(pixels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _widen(box: Box, margin: float, width: int, height: int) -> Box:
    step = int(margin)
    x0, y0, x1, y1 = box
    return max(0, x0 - step), max(0, y0 - step), min(width, x1 + step), min(height, y1 + step)
