"""What a scene shows, decided without a pixel: which background, which crops, where, in what order.

Coordinates are continuous: pixel (column i, row j) covers [i, i + 1) x [j, j + 1). Affines are
2x3, row by row.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import cos, exp, log, pi, radians, sin, sqrt, tan

import numpy as np
import numpy.typing as npt

from shards.records import CropRecord
from trainer.compositing.config import CompositorConfig, PaperConfig
from trainer.compositing.photometric import Step, draw_photometrics

Affine = tuple[float, float, float, float, float, float]
IntArray = npt.NDArray[np.int64]
Box = tuple[float, float, float, float]

IDENTITY: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_BEGINNINGS = 10


@dataclass(frozen=True, slots=True)
class CropShape:
    """A crop's size and its place in the frame it was cut from, px."""

    width: int
    height: int
    frame_w: int
    frame_h: int
    frame_x: int
    frame_y: int


def shape_of_record(record: CropRecord) -> CropShape:
    """The shape of a crop; without frame entries in its origin the crop is its own frame."""
    height, width = record.mask.shape
    frame = {"frame_w": width, "frame_h": height, "frame_x": 0, "frame_y": 0}
    found = {name: int(record.origin.get(name, default)) for name, default in frame.items()}
    return CropShape(width=width, height=height, **found)


@dataclass(frozen=True, slots=True)
class FramePlan:
    """The paper's detour: crop -> square frame -> warped frame -> cell of the canvas.

    to_frame: crop pixels to frame pixels. window: the part of the frame that survives (x0, y0, x1, y1), frame
    px. warp: frame pixels to warped frame pixels; what leaves the frame is lost.
    cell: (x, y, width, height), canvas px, over which the warped frame is stretched.
    """

    frame_px: int
    to_frame: Affine
    window: tuple[int, int, int, int]
    warp: Affine
    cell: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Placement:
    """One object as it will be painted.

    crop: index. matrix: crop pixels to canvas pixels, flip and rotation within. bounds: xyxy canvas px of the
    crop's warped rectangle (paper: of the cell). frame: the paper's route, else None.
    """

    crop: int
    matrix: Affine
    bounds: Box
    flipped: bool
    rotation_deg: float
    photometrics: tuple[Step, ...] = ()
    frame: FramePlan | None = None


@dataclass(frozen=True, slots=True)
class BackgroundPlan:
    """Which part of which photo.

    side_frac: side of the square window as a share of the photo's shorter side, None for the whole photo
    squashed. x_frac, y_frac: its place, 0 left or top, 1 right or bottom.
    """

    index: int
    side_frac: float | None = 1.0
    x_frac: float = 0.5
    y_frac: float = 0.5
    flipped: bool = False


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """A whole scene; later placements cover earlier ones. canvas_px: side of the canvas that placements use;
    the painted canvas is resized to ``config.size``.
    """

    config: CompositorConfig
    canvas_px: int
    background: BackgroundPlan
    placements: tuple[Placement, ...]

    @property
    def size(self) -> int:
        """Side of the finished scene, px."""
        return self.config.size


def plan_scene(
    config: CompositorConfig,
    rng: np.random.Generator,
    num_crops: int,
    num_backgrounds: int,
    shape_of: Callable[[int], CropShape],
) -> ScenePlan:
    """Draw one scene. Crops are drawn with replacement. Raises ValueError without crops or backgrounds."""
    if num_crops < 1 or num_backgrounds < 1:
        raise ValueError(
            f"plan_scene: {num_crops} crops, {num_backgrounds} backgrounds, wanted at least 1 of each"
        )
    background = _draw_background(config, rng, num_backgrounds)
    if config.layout == "paper":
        cells = draw_paper_cells(config, rng)
        placements = [_place_in_cell(config, rng, num_crops, shape_of, cell) for cell in cells.tolist()]
        return ScenePlan(config, config.paper.canvas_px, background, tuple(placements))
    placements = _place_in_turn(config, rng, num_crops, shape_of)
    return ScenePlan(config, config.size, background, tuple(placements))


def _draw_background(config: CompositorConfig, rng: np.random.Generator, count: int) -> BackgroundPlan:
    index, settings = int(rng.integers(count)), config.background
    side = rng.uniform(settings.side_min, settings.side_max)
    x_frac, y_frac = rng.random(), rng.random()
    flipped = bool(rng.random() < settings.flip_prob)
    return BackgroundPlan(index, None if settings.squash else side, x_frac, y_frac, flipped)


# One object after the other


def _place_in_turn(
    config: CompositorConfig, rng: np.random.Generator, num_crops: int, shape_of: Callable[[int], CropShape]
) -> list[Placement]:
    """A uniform count of objects; a scene in which one finds no place is begun anew, at most `_BEGINNINGS`
    times, then the fullest stands.
    """
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    fullest: list[Placement] = []
    for _ in range(_BEGINNINGS):
        placed = _place_until_stuck(config, rng, count, num_crops, shape_of)
        if len(placed) == count:
            return placed
        fullest = max(fullest, placed, key=len)
    return fullest


def _place_until_stuck(
    config: CompositorConfig,
    rng: np.random.Generator,
    count: int,
    num_crops: int,
    shape_of: Callable[[int], CropShape],
) -> list[Placement]:
    placed: list[Placement] = []
    for _ in range(count):
        crop = int(rng.integers(num_crops))
        found = _find_place(config, rng, crop, shape_of(crop), [p.bounds for p in placed])
        if found is None:
            break
        placed.append(replace(found, photometrics=draw_photometrics(config.photometric, rng)))
    return placed


def _find_place(
    config: CompositorConfig, rng: np.random.Generator, crop: int, shape: CropShape, taken: list[Box]
) -> Placement | None:
    """A place whose bounds overlap no earlier ones too much; None after all tries."""
    for attempt in range(config.tries):
        if attempt % 5 == 0:
            centred = _draw_centred(config, rng, crop, shape)
        x = _draw_start(rng, config.size, centred.bounds[2] - centred.bounds[0], config.truncation)
        y = _draw_start(rng, config.size, centred.bounds[3] - centred.bounds[1], config.truncation)
        place = _moved(centred, x - centred.bounds[0], y - centred.bounds[1])
        if all(overlap_of_smaller(place.bounds, other) <= config.max_overlap for other in taken):
            return place
    return None


def _draw_centred(
    config: CompositorConfig, rng: np.random.Generator, crop: int, shape: CropShape
) -> Placement:
    """Scale, aspect, flip and rotation, the crop's centre at the origin; shrunk until it fits the scene."""
    side = config.size * exp(rng.uniform(log(config.scale_min), log(config.scale_max)))
    spread = log(1.0 + config.aspect_jitter)
    stretch = sqrt(config.aspect * shape.width / shape.height * exp(rng.uniform(-spread, spread)))
    degrees = rng.uniform(-config.rotation_deg, config.rotation_deg)
    flipped = bool(rng.random() < config.flip_prob)
    width, height = side * stretch, side / stretch
    c, s = cos(radians(degrees)), sin(radians(degrees))
    bound_w, bound_h = abs(width * c) + abs(height * s), abs(width * s) + abs(height * c)
    shrink = min(1.0, config.size / bound_w, config.size / bound_h)
    x_scale, y_scale = shrink * width / shape.width * (-1 if flipped else 1), shrink * height / shape.height
    centre = (1.0, 0.0, -shape.width / 2, 0.0, 1.0, -shape.height / 2)
    matrix = compose((x_scale * c, -y_scale * s, 0.0, x_scale * s, y_scale * c, 0.0), centre)
    half_w, half_h = shrink * bound_w / 2, shrink * bound_h / 2
    return Placement(crop, matrix, (-half_w, -half_h, half_w, half_h), flipped, degrees)


def _draw_start(rng: np.random.Generator, size: int, extent: float, truncation: float) -> float:
    slack = truncation * extent
    return rng.uniform(-slack, max(-slack, size - extent + slack))


def _moved(place: Placement, dx: float, dy: float) -> Placement:
    a, b, c, d, e, f = place.matrix
    x0, y0, x1, y1 = place.bounds
    bounds = (x0 + dx, y0 + dy, x1 + dx, y1 + dy)
    return replace(place, matrix=(a, b, c + dx, d, e, f + dy), bounds=bounds)


def overlap_of_smaller(one: Box, other: Box) -> float:
    """Intersection over the smaller area, 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / min(areas)


# The paper's layout


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


def _place_in_cell(
    config: CompositorConfig,
    rng: np.random.Generator,
    num_crops: int,
    shape_of: Callable[[int], CropShape],
    cell: tuple[int, int, int, int],
) -> Placement:
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


def compose(outer: Affine, inner: Affine) -> Affine:
    """The affine that applies inner, then outer."""
    a, b, c, d, e, f = outer
    p, q, r, s, t, u = inner
    return (a * p + b * s, a * q + b * t, a * r + b * u + c, d * p + e * s, d * q + e * t, d * r + e * u + f)
