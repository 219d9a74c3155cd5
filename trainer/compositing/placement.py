"""Decides a scene without a pixel: which background, which crops, where, in what order."""

from collections.abc import Callable
from dataclasses import replace
from math import cos, exp, log, radians, sin, sqrt

import numpy as np

from trainer.compositing.config import CompositorConfig
from trainer.compositing.options import BlendKind
from trainer.compositing.paper_layout import draw_paper_cells, place_in_cell
from trainer.compositing.photometric import draw_photometrics
from trainer.compositing.plan import (
    Affine,
    BackgroundPlan,
    Box,
    CropShape,
    Placement,
    ScenePlan,
    shape_of_record,
    shifted,
)
from trainer.compositing.scales import draw_scale
from trainer.compositing.scene_artefacts import draw_artefacts

__all__ = ["ScenePlan", "overlap_of_smaller", "plan_scene", "shape_of_record"]

_BEGINNINGS = 10


def plan_scene(
    config: CompositorConfig,
    rng: np.random.Generator,
    num_crops: int,
    num_backgrounds: int,
    shape_of: Callable[[int], CropShape],
    num_distractors: int = 0,
) -> ScenePlan:
    """Draw one scene. Crops are drawn with replacement.

    Crops 0..num_crops - 1 are objects, the next num_distractors are distractors: shape_of knows both.
    Raises ValueError without crops or backgrounds, or without distractors where the config wants some.
    """
    if num_crops < 1 or num_backgrounds < 1:
        raise ValueError(
            f"plan_scene: {num_crops} crops, {num_backgrounds} backgrounds, wanted at least 1 of each"
        )
    background = _draw_background(config, rng, num_backgrounds)
    if config.layout == "paper":
        cells = draw_paper_cells(config, rng)
        placements = [place_in_cell(config, rng, num_crops, shape_of, cell) for cell in cells.tolist()]
    else:
        placements = _place_in_turn(config, rng, (num_crops, num_distractors), shape_of)
    canvas_px = config.paper.canvas_px if config.layout == "paper" else config.size
    artefacts = draw_artefacts(config.artefacts, rng)
    return ScenePlan(config, canvas_px, background, tuple(placements), artefacts)


def _draw_background(config: CompositorConfig, rng: np.random.Generator, count: int) -> BackgroundPlan:
    index, settings = int(rng.integers(count)), config.background
    side = rng.uniform(settings.side_min, settings.side_max)
    x_frac, y_frac = rng.random(), rng.random()
    flipped = bool(rng.random() < settings.flip_prob)
    return BackgroundPlan(index, None if settings.squash else side, x_frac, y_frac, flipped)


# One object after the other


def _place_in_turn(
    config: CompositorConfig,
    rng: np.random.Generator,
    num_crops: tuple[int, int],
    shape_of: Callable[[int], CropShape],
) -> list[Placement]:
    """Uniform counts of objects and of distractors, in any order; a scene in which one finds no place is
    begun anew, at most `_BEGINNINGS` times, then the fullest stands. num_crops: of objects, of distractors.
    """
    kinds = _draw_kinds(config, rng, num_crops[1])
    fullest: list[Placement] = []
    for _ in range(_BEGINNINGS):
        placed = _place_until_stuck(config, rng, kinds, num_crops, shape_of)
        if len(placed) == len(kinds):
            return placed
        fullest = max(fullest, placed, key=len)
    return fullest


def _draw_kinds(config: CompositorConfig, rng: np.random.Generator, num_distractors: int) -> list[bool]:
    """Which of the things to be placed, in turn, are distractors."""
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    if config.distractors.max == 0:
        return [False] * count
    if num_distractors < 1:
        raise ValueError("plan_scene: 0 distractor crops, the config wants some: distractors.max")
    extra = int(rng.integers(config.distractors.min, config.distractors.max + 1))
    order: list[int] = rng.permutation(count + extra).tolist()
    return [place >= count for place in order]


def _place_until_stuck(
    config: CompositorConfig,
    rng: np.random.Generator,
    kinds: list[bool],
    num_crops: tuple[int, int],
    shape_of: Callable[[int], CropShape],
) -> list[Placement]:
    placed: list[Placement] = []
    for is_distractor in kinds:
        crop = int(rng.integers(num_crops[is_distractor])) + (num_crops[0] if is_distractor else 0)
        found = _find_place(config, rng, crop, shape_of(crop), [p.bounds for p in placed])
        if found is None:
            break
        placed.append(_looked(config, rng, found, is_distractor))
    return placed


def _looked(
    config: CompositorConfig, rng: np.random.Generator, place: Placement, is_distractor: bool
) -> Placement:
    """The placement with its looks: colours, blend, harmonising."""
    photometrics = draw_photometrics(config.photometric, rng)
    blend = _draw_blend(config, rng)
    harmonise, strength = config.harmonise, 0.0
    if harmonise.prob > 0 and rng.random() < harmonise.prob:
        strength = rng.uniform(harmonise.strength_min, harmonise.strength_max)
    return replace(
        place, photometrics=photometrics, blend=blend, harmonise=strength, is_distractor=is_distractor
    )


def _draw_blend(config: CompositorConfig, rng: np.random.Generator) -> BlendKind:
    if isinstance(config.blend, str):
        return config.blend
    kinds, weights = list(config.blend), np.array(list(config.blend.values()))
    return kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]


def _find_place(
    config: CompositorConfig, rng: np.random.Generator, crop: int, shape: CropShape, taken: list[Box]
) -> Placement | None:
    """A place whose bounds overlap no earlier ones too much; None after all tries."""
    is_upright = config.rotation_deg == 0 and config.perspective == 0
    for attempt in range(config.tries):
        if attempt % 5 == 0:
            centred = _draw_centred(config, rng, crop, shape)
            x0, y0, x1, y1 = centred.bounds
        x = _draw_start(rng, config.size, x1 - x0, config.truncation)
        y = _draw_start(rng, config.size, y1 - y0, config.truncation)
        bounds = (x, y, x + x1 - x0, y + y1 - y0)
        if is_upright:
            bounds = _snapped(bounds)
        if all(overlap_of_smaller(bounds, other) <= config.max_overlap for other in taken):
            matrix = (
                _filling(bounds, shape, centred.flipped)
                if is_upright
                else shifted(centred.matrix, centred.tilt, x - x0, y - y0)
            )
            return replace(centred, matrix=matrix, bounds=bounds)
    return None


def _draw_centred(
    config: CompositorConfig, rng: np.random.Generator, crop: int, shape: CropShape
) -> Placement:
    """Scale, aspect, flip, rotation and tilt, the crop's centre at the origin; shrunk until it fits."""
    side = config.size * _draw_scale(config, rng, shape.label)
    spread = log(1.0 + config.aspect_jitter)
    stretch = sqrt(config.aspect * shape.width / shape.height * exp(rng.uniform(-spread, spread)))
    degrees = rng.uniform(-config.rotation_deg, config.rotation_deg)
    flipped = bool(rng.random() < config.flip_prob)
    tilt = rng.uniform(-config.perspective / 2, config.perspective / 2, 2) if config.perspective else None
    c, s = cos(radians(degrees)), sin(radians(degrees))
    x_scale, y_scale = side * stretch / shape.width, side / stretch / shape.height
    mirror = -x_scale if flipped else x_scale
    turn = (mirror * c, -y_scale * s, mirror * s, y_scale * c)
    matrix, (g, h), bounds = _centred(turn, (0.0, 0.0) if tilt is None else tuple(tilt.tolist()), shape)
    shrink = min(1.0, config.size / (bounds[2] - bounds[0]), config.size / (bounds[3] - bounds[1]))
    a, b, c, d, e, f = (shrink * entry for entry in matrix)
    x0, y0, x1, y1 = (shrink * edge for edge in bounds)
    return Placement(crop, (a, b, c, d, e, f), (x0, y0, x1, y1), flipped, degrees, tilt=(g, h))


def _draw_scale(config: CompositorConfig, rng: np.random.Generator, label: str) -> float:
    rule = config.scale_of_label.get(label, config.scale)
    if rule is None:
        return exp(rng.uniform(log(config.scale_min), log(config.scale_max)))
    return draw_scale(rule, rng)


def _centred(
    turn: tuple[float, ...], depths: tuple[float, ...], shape: CropShape
) -> tuple[Affine, tuple[float, float], Box]:
    """Matrix, tilt and bounds of a crop whose centre is turned (2x2) about the origin.

    depths: how much farther the right and the lower edge's middles are than the centre, as shares; the
    left's and the upper's are as much nearer.
    """
    a, b, d, e = turn
    half_w, half_h = shape.width / 2, shape.height / 2
    g, h = depths[0] / half_w, depths[1] / half_h
    xs, ys = [], []
    for u, v in ((-half_w, -half_h), (half_w, -half_h), (half_w, half_h), (-half_w, half_h)):
        depth = 1.0 + g * u + h * v
        xs.append((a * u + b * v) / depth)
        ys.append((d * u + e * v) / depth)
    corner = 1.0 - depths[0] - depths[1]  # the crop's own origin is its corner: its depth becomes 1
    x, y = -a * half_w - b * half_h, -d * half_w - e * half_h
    a, b, d, e, g, h, x, y = (entry / corner for entry in (a, b, d, e, g, h, x, y))
    return (a, b, x, d, e, y), (g, h), (min(xs), min(ys), max(xs), max(ys))


def _draw_start(rng: np.random.Generator, size: int, extent: float, truncation: float) -> float:
    slack = truncation * extent
    return rng.uniform(-slack, max(-slack, size - extent + slack))


def _snapped(bounds: Box) -> Box:
    """Brought to whole pixels, as boxes are: a plain resize can then paint an upright object."""
    x0, y0, x1, y1 = (float(round(edge)) for edge in bounds)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _filling(bounds: Box, shape: CropShape, flipped: bool) -> Affine:
    """The matrix that stretches an upright crop over bounds."""
    x0, y0, x1, y1 = bounds
    a, e = (x1 - x0) / shape.width, (y1 - y0) / shape.height
    return (-a, 0.0, x1, 0.0, e, y0) if flipped else (a, 0.0, x0, 0.0, e, y0)


def overlap_of_smaller(one: Box, other: Box) -> float:
    """Intersection over the smaller area, 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / min(areas)
