"""The paper's own layout: cells that never touch, and the warps of its source frames (METHOD 1.3 to 1.6)."""

from collections.abc import Callable
from math import cos, pi, radians, sin, tan

import numpy as np
import numpy.typing as npt

from trainer.compositing.config import CompositorConfig, PaperConfig
from trainer.compositing.photometric import draw_photometrics
from trainer.compositing.plan import IDENTITY, Affine, CropShape, FramePlan, Placement, compose

IntArray = npt.NDArray[np.int64]


def draw_paper_cells(config: CompositorConfig, rng: np.random.Generator) -> IntArray:
    """Cells (N, 4) as x, y, width, height on the canvas, pairwise apart (touching counts as overlap).

    The whole layout is redrawn until no cells meet; after ``paper.tries`` failures the count is redrawn too,
    so counts come out far below their maximum, as in the paper's code (METHOD 1.5).
    """
    while True:
        count = int(rng.integers(config.min_objects, config.max_objects + 1))
        layouts = _draw_layouts(config, rng, count)  # (tries, count, 4)
        good = np.flatnonzero(_cells_are_apart(layouts))
        if len(good):
            cells: IntArray = layouts[good[0]]
            return cells


def _draw_layouts(config: CompositorConfig, rng: np.random.Generator, count: int) -> IntArray:
    paper, canvas = config.paper, config.paper.canvas_px
    shape = (1 if count < 2 else paper.tries, count)
    low, high = int(config.scale_min * canvas), int(config.scale_max * canvas)
    side = rng.integers(low, max(high, low + 1), size=shape)
    aspect = np.sqrt(rng.uniform(paper.aspect_min, paper.aspect_max, size=shape))
    width = np.clip((side * aspect).astype(np.int64), 1, canvas)
    height = np.clip((side / aspect).astype(np.int64), 1, canvas)
    x, y = rng.integers(0, canvas - width + 1), rng.integers(0, canvas - height + 1)
    return np.stack([x, y, width, height], axis=-1)


def _cells_are_apart(layouts: IntArray) -> npt.NDArray[np.bool_]:
    """layouts (T, N, 4) -> (T,)"""
    start, end = layouts[..., :2], layouts[..., :2] + layouts[..., 2:]
    meets = (start[:, :, None] <= end[:, None]) & (start[:, None] <= end[:, :, None])  # (T, N, N, 2)
    pairs: IntArray = meets.all(axis=-1).sum(axis=(1, 2))
    apart: npt.NDArray[np.bool_] = pairs == layouts.shape[1]  # every cell meets itself only
    return apart


def place_in_cell(
    config: CompositorConfig,
    rng: np.random.Generator,
    num_crops: int,
    shape_of: Callable[[int], CropShape],
    cell: tuple[int, int, int, int],
) -> Placement:
    """An object that fills a cell (x, y, width, height): flip, side crop and affine in its frame."""
    crop = int(rng.integers(num_crops))
    photometrics = draw_photometrics(config.photometric, rng)
    window, warp, flipped, degrees = _draw_frame_warp(config, rng)
    to_frame = _crop_to_frame(shape_of(crop), config.paper)
    frame = FramePlan(config.paper.frame_px, to_frame, window, warp, (cell[0], cell[1], cell[2], cell[3]))
    x, y, width, height = cell
    stretch = (width / frame.frame_px, 0.0, float(x), 0.0, height / frame.frame_px, float(y))
    matrix = compose(stretch, compose(warp, to_frame))
    bounds = (float(x), float(y), float(x + width), float(y + height))
    return Placement(crop, matrix, bounds, flipped, degrees, photometrics, frame)


def _crop_to_frame(shape: CropShape, paper: PaperConfig) -> Affine:
    """Put the crop back where it was in its source frame, that frame resized to a square."""
    x_scale = paper.frame_zoom * paper.frame_px / shape.frame_w
    y_scale = paper.frame_zoom * paper.frame_px / shape.frame_h
    margin = (1.0 - paper.frame_zoom) * paper.frame_px / 2
    return (x_scale, 0.0, x_scale * shape.frame_x + margin, 0.0, y_scale, y_scale * shape.frame_y + margin)


def _draw_frame_warp(
    config: CompositorConfig, rng: np.random.Generator
) -> tuple[tuple[int, int, int, int], Affine, bool, float]:
    """Flip, side crop and affine in random order, as one warp.

    What the frame clips on the way is what the side crop cut away before the affine: the window says that.
    """
    side = config.paper.frame_px
    flipped = bool(rng.random() < config.flip_prob)
    flip = (-1.0, 0.0, float(side), 0.0, 1.0, 0.0) if flipped else IDENTITY
    left, top, right, bottom = (
        np.rint(rng.uniform(0, config.paper.crop_frac, size=4) * side).astype(int).tolist()
    )
    x_zoom, y_zoom = side / (side - left - right), side / (side - top - bottom)
    crop = (x_zoom, 0.0, -left * x_zoom, 0.0, y_zoom, -top * y_zoom)
    affine, degrees = _draw_affine(config, rng)
    window, warp = (0, 0, side, side), IDENTITY
    order = rng.permutation(3).tolist()
    for name in order:
        warp = compose((flip, crop, affine)[name], warp)
    if order.index(1) < order.index(2):
        is_mirrored = flipped and order.index(0) < order.index(1)
        first, last = (right, left) if is_mirrored else (left, right)
        window = (first, top, side - last, side - bottom)
    return window, warp, flipped, degrees


def _draw_affine(config: CompositorConfig, rng: np.random.Generator) -> tuple[Affine, float]:
    """Zoom, shear, rotation and translation about the frame's centre."""
    paper, half = config.paper, config.paper.frame_px / 2
    x_zoom, y_zoom = rng.uniform(paper.zoom_min, paper.zoom_max, size=2).tolist()
    dx, dy = (rng.uniform(-paper.translate_frac, paper.translate_frac, size=2) * paper.frame_px).tolist()
    degrees = rng.uniform(-config.rotation_deg, config.rotation_deg)
    shear = tan(rng.uniform(-paper.shear_deg, paper.shear_deg) * pi / 180)
    c, s = cos(radians(degrees)), sin(radians(degrees))
    turn = (c, -s, half + dx, s, c, half + dy)
    stretch = (x_zoom, shear * y_zoom, 0.0, 0.0, y_zoom, 0.0)
    return compose(turn, compose(stretch, (1.0, 0.0, -half, 0.0, 1.0, -half))), degrees
