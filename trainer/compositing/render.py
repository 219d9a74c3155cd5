"""Paint a planned scene with OpenCV on one CPU core, antialiased, and box what can be seen of each object.

Colours are weighted by opacity before they are resampled, so nothing of a crop's outside bleeds into its
edge. Shrinking goes by exact halvings, then one bilinear warp: a seventh of the cost of
area averaging, and close to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor, log2, sqrt

import cv2
import numpy as np

from shards.records import CropRecord
from trainer.compositing.blend import blend_opacity, clone, harden, paste, paste_weighted
from trainer.compositing.config import CompositorConfig
from trainer.compositing.harmonise import harmonised
from trainer.compositing.photometric import apply_photometrics
from trainer.compositing.plan import (
    Affine,
    BackgroundPlan,
    Box,
    FramePlan,
    Placement,
    ScenePlan,
    area_scale,
    compose,
    shifted,
    warped_bounds,
)
from trainer.compositing.resampling import (
    WHOLE_PX,
    WeightedCrop,
    halved,
    merge_weighted,
    split,
    straighten,
    warp,
    weigh,
)
from trainer.compositing.scene_artefacts import apply_artefacts
from trainer.sample import Sample, Target, UInt8Array

Crop = CropRecord | WeightedCrop
Rect = tuple[int, int, int, int]  # x0, y0, x1, y1, px


@dataclass(frozen=True, slots=True, eq=False)
class PaintedScene:
    """A scene with what became of each object.

    owner: uint8 (size, size), k where the k-th placement of the plan is seen, counted from 1, else 0.
    orders: the placement, counted from 1, of each of the sample's boxes.
    """

    sample: Sample
    owner: UInt8Array
    orders: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Painting:
    """One object's pixels. x, y: their top left corner on the canvas, which they may leave.

    is_weighted: colour is multiplied by opacity. frame: box of the warped source frame on the canvas, for the
    paper's ``box_from: frame``.
    """

    colour: UInt8Array  # (H, W, 3)
    opacity: UInt8Array  # (H, W)
    x: int
    y: int
    is_weighted: bool
    frame: Rect | None = None


@dataclass(frozen=True, slots=True)
class _Painted:
    """Where an object went: its order, its solid pixels in all, and the rectangle of the canvas that it was
    painted in.
    """

    order: int
    label: int
    num_pixels: int
    rect: Rect
    frame: Rect | None


def render_scene(
    plan: ScenePlan,
    background: UInt8Array,
    crop_of: Callable[[int], Crop],
    label_ids: Mapping[str, int],
    key: str,
) -> Sample:
    """The scene as a uint8 (size, size, 3) sample; the same plan and pixels give the same sample.

    background: RGB (H, W, 3) of any size, left as it is. crop_of: a crop that is painted more than once is
    best kept as `weigh` gives it. label_ids: class name to label.
    A pixel belongs to the last object that covers it with opacity 0.5 or more (paper: over its threshold).
    Boxes are tight to what is visible, exclusive xyxy; an object of which less than ``min_visible`` is seen
    is marked ignore; one that is not seen, of which less than ``drop_visible`` is seen, or whose box is under
    ``min_box_px``, gets no box. Distractors cover objects, and need no label.
    """
    return paint_scene(plan, background, crop_of, label_ids, key).sample


def paint_scene(
    plan: ScenePlan,
    background: UInt8Array,
    crop_of: Callable[[int], Crop],
    label_ids: Mapping[str, int],
    key: str,
) -> PaintedScene:
    """`render_scene`'s sample with the map of who is seen where."""
    is_fast = plan.config.resampling == "fast"
    if is_fast:
        cv2.ipp.setUseIPP_NotExact(True)  # of this thread
    try:
        return _paint_scene(plan, background, crop_of, label_ids, key)
    finally:
        if is_fast:
            cv2.ipp.setUseIPP_NotExact(False)


def _paint_scene(
    plan: ScenePlan,
    background: UInt8Array,
    crop_of: Callable[[int], Crop],
    label_ids: Mapping[str, int],
    key: str,
) -> PaintedScene:
    canvas = paint_background(plan.background, background, plan.canvas_px)
    owner = np.zeros(canvas.shape[:2], np.uint8)
    level = solid_level(plan.config)
    painted = []
    for order, placement in enumerate(plan.placements, start=1):
        crop = crop_of(placement.crop)
        crop = crop if isinstance(crop, WeightedCrop) else weigh(crop)
        painting = _paint(plan.config, placement, crop, canvas)
        num_pixels, rect = _put(canvas, owner, painting, placement, order, level)
        if not placement.is_distractor:
            painted.append(_Painted(order, label_ids[crop.label], num_pixels, rect, painting.frame))
    target, orders = _target_of_visible(plan, owner, painted)
    if plan.canvas_px != plan.size:
        shape = (plan.size, plan.size)
        canvas = cv2.resize(canvas, shape, interpolation=cv2.INTER_LINEAR).view(np.uint8)
        owner = cv2.resize(owner, shape, interpolation=cv2.INTER_NEAREST).view(np.uint8)
    return PaintedScene(Sample(key, apply_artefacts(canvas, plan.artefacts), target), owner, orders)


def paint_background(plan: BackgroundPlan, image: UInt8Array, side_px: int) -> UInt8Array:
    """The planned part of a photo as a new square image."""
    height, width = image.shape[:2]
    if plan.side_frac is not None:
        side = max(1, round(plan.side_frac * min(height, width)))
        x, y = round(plan.x_frac * (width - side)), round(plan.y_frac * (height - side))
        image = image[y : y + side, x : x + side]
        for _ in range(max(0, floor(log2(side / side_px)))):
            image = halved(image)
    if image.shape[:2] == (side_px, side_px):
        canvas = image.copy()
    else:
        canvas = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_LINEAR).view(np.uint8)
    return cv2.flip(canvas, 1).view(np.uint8) if plan.flipped else canvas


def _paint(
    config: CompositorConfig, placement: Placement, crop: WeightedCrop, canvas: UInt8Array
) -> _Painting:
    """The object as it goes on the canvas."""
    if placement.frame is not None:
        return _paint_cell(config, placement, placement.frame, crop)
    height, width = crop.pixels.shape[:2]
    x0, y0, x1, y1 = reach_of(placement, width, height)
    matrix = shifted(placement.matrix, placement.tilt, -x0, -y0)
    weighted = warp(crop.pixels, matrix, x1 - x0, y1 - y0, placement.tilt)
    colour, opacity = split(weighted)
    if not placement.photometrics and placement.blend == "alpha" and not placement.harmonise:
        return _Painting(colour, opacity, x0, y0, is_weighted=True)
    colour = apply_photometrics(straighten(colour, opacity), opacity, placement.photometrics)
    if placement.harmonise:
        seen = canvas[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        colour = harmonised(colour, opacity, seen, placement.harmonise)
    side_px = sqrt(abs(area_scale(placement.matrix, placement.tilt, width / 2, height / 2)) * width * height)
    opacity = blend_opacity(opacity, placement.blend, config.feather, side_px)
    return _Painting(colour, opacity, x0, y0, is_weighted=False)


def _paint_cell(
    config: CompositorConfig, placement: Placement, frame: FramePlan, crop: WeightedCrop
) -> _Painting:
    """The paper's route: colours change in the square frame, it is warped, then stretched to its cell."""
    side, (x, y, width, height) = frame.frame_px, frame.cell
    colour, opacity = split(warp(crop.pixels, frame.to_frame, side, side))
    colour = apply_photometrics(straighten(colour, opacity), opacity, placement.photometrics)
    x0, y0, x1, y1 = frame.window
    moved = compose(frame.warp, (1.0, 0.0, x0, 0.0, 1.0, y0))
    weighted = merge_weighted(colour[y0:y1, x0:x1], opacity[y0:y1, x0:x1])
    weighted = warp(weighted, moved, side, side)
    if config.paper.mask == "hard":
        colour, opacity = split(weighted)
        weighted = merge_weighted(straighten(colour, opacity), harden(opacity, solid_level(config)))
    stretched = cv2.resize(weighted, (width, height), interpolation=cv2.INTER_LINEAR).view(np.uint8)
    box = frame_box(frame, moved) if config.paper.box_from == "frame" else None
    return _Painting(*split(stretched), x, y, is_weighted=True, frame=box)


def frame_box(frame: FramePlan, moved: Affine) -> Rect | None:
    """Box, canvas px, of what the warp leaves of the frame itself; None where it leaves nothing."""
    x0, y0, x1, y1 = frame.window
    inside = warp(np.full((y1 - y0, x1 - x0), 255, np.uint8), moved, frame.frame_px, frame.frame_px)
    left, top, width, height = cv2.boundingRect(inside)
    if width == 0:
        return None
    x, y, cell_w, cell_h = frame.cell
    x_scale, y_scale = cell_w / frame.frame_px, cell_h / frame.frame_px
    right, bottom = x + ceil((left + width) * x_scale), y + ceil((top + height) * y_scale)
    return x + floor(left * x_scale), y + floor(top * y_scale), right, bottom


def _put(
    canvas: UInt8Array, owner: UInt8Array, painting: _Painting, placement: Placement, order: int, level: int
) -> tuple[int, Rect]:
    """Paint an object and write its order into owner where it is solid: its solid pixels, on the canvas and
    off it, and its rectangle of the canvas.
    """
    height, width = painting.opacity.shape
    x, y, side = painting.x, painting.y, canvas.shape[0]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, side), min(y + height, side)
    solid = cv2.threshold(painting.opacity, level - 1, order, cv2.THRESH_BINARY)[1].view(np.uint8)
    if x0 < x1 and y0 < y1:
        inside = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        paint = paste_weighted if painting.is_weighted else clone if placement.blend == "poisson" else paste
        paint(canvas[y0:y1, x0:x1], painting.colour[inside], painting.opacity[inside])
        owned = owner[y0:y1, x0:x1]
        cv2.max(owned, solid[inside], dst=owned)
    return cv2.countNonZero(solid), (x0, y0, x1, y1)


def _target_of_visible(
    plan: ScenePlan, owner: UInt8Array, painted: list[_Painted]
) -> tuple[Target, tuple[int, ...]]:
    """The objects that get a box, in pixels of the finished scene, and their orders."""
    config, scale, side = plan.config, plan.size / plan.canvas_px, float(plan.size)
    boxes: list[Box] = []
    labels, ignore, orders = [], [], []
    for item in painted:
        seen, num_visible = _visible(owner, item)
        if num_visible == 0 or num_visible < config.drop_visible * item.num_pixels:
            continue
        left, top, right, bottom = item.frame or seen
        box = (scale * left, scale * top, min(scale * right, side), min(scale * bottom, side))
        if min(box[2] - box[0], box[3] - box[1]) < config.min_box_px:
            continue
        boxes.append(box)
        labels.append(item.label)
        ignore.append(num_visible < config.min_visible * item.num_pixels)
        orders.append(item.order)
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return Target(xyxy, np.array(labels, np.int64), np.array(ignore, bool)), tuple(orders)


def _visible(owner: UInt8Array, item: _Painted) -> tuple[Rect, int]:
    """Box on the canvas and number of the pixels that an object owns in the end."""
    x0, y0, x1, y1 = item.rect
    if x0 >= x1 or y0 >= y1:
        return (0, 0, 0, 0), 0
    mine = cv2.inRange(owner[y0:y1, x0:x1], item.order, item.order)
    left, top, width, height = cv2.boundingRect(mine)
    return (x0 + left, y0 + top, x0 + left + width, y0 + top + height), cv2.countNonZero(mine)


def solid_level(config: CompositorConfig) -> int:
    """The least opacity, 0..255, at which a pixel counts as the object."""
    return floor(255 * config.paper.threshold) + 1 if config.layout == "paper" else 128


def reach_of(placement: Placement, width: int, height: int) -> Rect:
    """Whole pixels that a warped width x height rectangle touches, and one more on each side where its edges
    lie between them.
    """
    x0, y0, x1, y1 = edges = warped_bounds(placement.matrix, placement.tilt, width, height)
    if all(abs(edge - round(edge)) < WHOLE_PX for edge in edges):
        return round(x0), round(y0), round(x1), round(y1)
    return floor(x0) - 1, floor(y0) - 1, ceil(x1) + 1, ceil(y1) + 1
