"""Whole batches of planned scenes as a few tensors: all that a device needs to compose them.

Packing touches each object once, on the CPU and without a device, so a loader's workers can do it:
a `ScenePacker` is a ``collate_fn``, what it makes can be pinned, and tensors travel in shared memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log2, sqrt
from typing import NamedTuple, Protocol

import numpy as np
import torch

from configs.errors import InputError
from shards.records import CropRecord
from trainer.compositing.atlas import AtlasPlan, IntArray, sizes_of
from trainer.compositing.batch_artefacts import pack_artefacts
from trainer.compositing.batch_looks import pack_blends, pack_part, pack_steps
from trainer.compositing.batch_tables import (
    BackgroundTable,
    BatchTables,
    FrameTable,
    LayerTable,
    ObjectNote,
    ObjectTable,
    PackedScenes,
    WarpTable,
)
from trainer.compositing.config import CompositorConfig
from trainer.compositing.plan import (
    Affine,
    FramePlan,
    Placement,
    ScenePlan,
    area_scale,
    compose,
    shifted,
)
from trainer.compositing.ragged import Sizes
from trainer.compositing.render import frame_box, reach_of
from trainer.compositing.resampling import is_filled_by, merge_weighted
from trainer.sample import UInt8Array

MOST_OBJECTS = 255
"""An owner's number fits a byte."""

_MOST_PX = 1 << 31  # places in the atlas are int32


class PlannedScene(Protocol):
    """A scene before it is painted, as `SyntheticStream.parts` gives it. crops: by the plan's numbers."""

    @property
    def key(self) -> str: ...
    @property
    def plan(self) -> ScenePlan: ...
    @property
    def background(self) -> UInt8Array: ...
    @property
    def crops(self) -> Mapping[int, CropRecord]: ...


class ScenePacker:
    """Packs the scenes of one config. Raises InputError for what only the CPU can paint."""

    def __init__(self, config: CompositorConfig, label_ids: Mapping[str, int]) -> None:
        check_composable(config)
        self._config, self._label_ids = config, dict(label_ids)

    def __call__(self, scenes: Sequence[PlannedScene]) -> PackedScenes:
        """Raises ValueError for a scene of another config."""
        for scene in scenes:
            if scene.plan.config is not self._config and scene.plan.config != self._config:
                raise ValueError(f"{scene.key}: planned with another config than the packer's")
        atlas, items = AtlasPlan(), _items(scenes)
        backgrounds = [_background_row(atlas, scene.plan, scene.background) for scene in scenes]
        numbers = _added(atlas, items)
        is_framed = any(item.placement.frame for item in items)
        rows = [
            _frame_row(atlas, item, number) if is_framed else _object_row(atlas, item, number)
            for item, number in zip(items, numbers, strict=True)
        ]
        pictures, halvings, atlas_px = atlas.placed()
        frames, warp = None, _warp_table(rows, pictures)
        if is_framed:
            frames, warp, atlas_px = _frame_tables(items, warp, atlas_px)
        if atlas_px >= _MOST_PX:
            raise ValueError(f"a batch's crops and photos are {atlas_px} px, wanted under {_MOST_PX}")
        tables = BatchTables(
            tuple(halvings),
            _background_table(backgrounds, scenes, pictures),
            frames,
            _object_table(self._config, items, rows, warp, is_framed),
            pack_artefacts([scene.plan.artefacts for scene in scenes], self._config.size),
        )
        notes = tuple(self._note(item) for item in items)
        return PackedScenes(tuple(scene.key for scene in scenes), atlas.pixels(), tables, atlas_px, notes)

    def _note(self, item: "_Item") -> ObjectNote:
        placement, frame = item.placement, item.placement.frame
        label = 0 if placement.is_distractor else self._label_ids[item.crop.label]
        wants_frame = frame is not None and self._config.paper.box_from == "frame"
        return ObjectNote(
            item.scene, label, frame_box(frame, _moved(frame)) if frame and wants_frame else None
        )


def check_composable(config: CompositorConfig) -> None:
    """Raises InputError, naming the setting, for what only the CPU can paint."""
    blends = (config.blend,) if isinstance(config.blend, str) else tuple(config.blend)
    wants_device = "wanted another to compose on a device"
    if config.layout == "sequential" and "poisson" in blends:
        raise InputError(f"blend: found poisson, {wants_device}: alpha, hard or gaussian")
    if config.layout == "paper" and config.paper.zoom_min <= 0.5:
        raise InputError(f"paper.zoom_min: found {config.paper.zoom_min}, {wants_device}: over 0.5")
    if config.max_objects + config.distractors.max > MOST_OBJECTS:
        found = config.max_objects + config.distractors.max
        raise InputError(f"max_objects and distractors.max: found {found}, {wants_device}: {MOST_OBJECTS}")


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    scene: int
    order: int
    placement: Placement
    crop: CropRecord


class _WarpRow(NamedTuple):
    """picture: its number in the atlas. matrix, tilt: that picture's pixels to the rectangle's.

    fills: the picture is stretched from edge to edge, and its outermost pixels are repeated.
    """

    picture: int
    matrix: Affine
    tilt: tuple[float, float]
    width: int
    height: int
    fills: bool
    x: int
    y: int


def _items(scenes: Sequence[PlannedScene]) -> list[_Item]:
    """All objects, the scenes' first ones first."""
    found = [
        _Item(number, order, placement, scene.crops[placement.crop])
        for number, scene in enumerate(scenes)
        for order, placement in enumerate(scene.plan.placements, start=1)
    ]
    return sorted(found, key=lambda item: item.order)


def _added(atlas: AtlasPlan, items: Sequence[_Item]) -> list[int]:
    """Each object's crop in the atlas, where a crop that is shown again lies once."""
    numbers: dict[int, int] = {}
    for item in items:
        if id(item.crop) not in numbers:
            numbers[id(item.crop)] = atlas.add(merge_weighted(item.crop.image, item.crop.mask))
    return [numbers[id(item.crop)] for item in items]


def _background_row(atlas: AtlasPlan, plan: ScenePlan, image: UInt8Array) -> int:
    """Number of the planned part of a photo, halved as `paint_background` does it."""
    height, width = image.shape[:2]
    where, levels = plan.background, 0
    if where.side_frac is not None:
        side = max(1, round(where.side_frac * min(height, width)))
        x, y = round(where.x_frac * (width - side)), round(where.y_frac * (height - side))
        image = image[y : y + side, x : x + side]
        levels = max(0, floor(log2(side / plan.canvas_px)))
    return atlas.halved(atlas.add(image), levels, keep_odd=False)


def _background_table(
    numbers: Sequence[int], scenes: Sequence[PlannedScene], pictures: IntArray
) -> BackgroundTable:
    found = pictures[numbers]
    canvas_px = np.array([scene.plan.canvas_px for scene in scenes])
    flipped = np.array([scene.plan.background.flipped for scene in scenes])
    x_step, y_step = found[:, 2] / canvas_px, found[:, 3] / canvas_px
    x_first = np.where(flipped, (canvas_px - 0.5) * x_step, 0.5 * x_step) - 0.5
    axes = np.column_stack([np.where(flipped, -x_step, x_step), x_first, y_step, 0.5 * y_step - 0.5])
    return BackgroundTable(torch.from_numpy(found), torch.from_numpy(axes.astype(np.float32)))


def _object_row(atlas: AtlasPlan, item: _Item, number: int) -> _WarpRow:
    height, width = item.crop.mask.shape
    x0, y0, x1, y1 = reach_of(item.placement, width, height)
    matrix, tilt = shifted(item.placement.matrix, item.placement.tilt, -x0, -y0), item.placement.tilt
    return _row(atlas, number, (height, width), matrix, tilt, (x0, y0, x1 - x0, y1 - y0))


def _frame_row(atlas: AtlasPlan, item: _Item, number: int) -> _WarpRow:
    frame = item.placement.frame
    if frame is None:
        raise ValueError("a batch of scenes holds placements with and without frames")
    side = frame.frame_px
    return _row(atlas, number, item.crop.mask.shape, frame.to_frame, (0.0, 0.0), (0, 0, side, side))


def _row(
    atlas: AtlasPlan,
    number: int,
    shape: tuple[int, ...],
    matrix: Affine,
    tilt: tuple[float, float],
    place: tuple[int, int, int, int],
) -> _WarpRow:
    """As `resampling.warp` goes about it. place: x, y, width, height."""
    height, width = shape
    x, y, new_width, new_height = place
    scale = sqrt(abs(area_scale(matrix, tilt, width / 2, height / 2)))
    levels = max(0, min(floor(log2(1 / max(scale, 1e-6))), floor(log2(max(height, width)))))
    fills = not levels and tilt == (0.0, 0.0) and is_filled_by(matrix, shape, new_width, new_height)
    factor = float(1 << levels)
    a, b, c, d, e, f = matrix
    matrix = (factor * a, factor * b, c, factor * d, factor * e, f)
    tilt = (factor * tilt[0], factor * tilt[1])
    number = atlas.halved(number, levels, keep_odd=True)
    return _WarpRow(number, matrix, tilt, new_width, new_height, fills, x, y)


def _warp_table(rows: Sequence[_WarpRow], pictures: IntArray) -> WarpTable:
    """pictures: all that rows name by number."""
    found = pictures[[row.picture for row in rows]].reshape(-1, 4)
    whole = np.array([(*row.matrix, *row.tilt, 1.0) for row in rows]).reshape(-1, 3, 3)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # from pixel centres at whole numbers to edges
    inverse = (np.linalg.inv(half) @ np.linalg.inv(whole) @ half).reshape(-1, 9)
    if all(row.tilt == (0.0, 0.0) for row in rows):
        inverse = inverse[:, :6]
    fills = np.array([row.fills for row in rows], bool).reshape(-1, 1)
    low, high = np.where(fills, [0, 0], [-1, -1]), found[:, 2:] - fills
    sizes = np.array([(row.width, row.height) for row in rows], np.int32).reshape(-1, 2)
    limits = np.column_stack([low, high]).astype(np.float32)
    return WarpTable(
        torch.from_numpy(found),
        torch.from_numpy(inverse.astype(np.float32)),
        torch.from_numpy(limits),
        sizes_of(sizes),
    )


def _frame_tables(
    items: Sequence[_Item], to_frame: WarpTable, atlas_px: int
) -> tuple[FrameTable, WarpTable, int]:
    """The detour, what is painted after it, and the atlas's pixels with both of its stages."""
    frames = [item.placement.frame for item in items if item.placement.frame is not None]
    areas = np.array([frame.frame_px**2 for frame in frames])
    first = atlas_px + np.cumsum(areas) - areas
    then = first + areas.sum()
    windows = np.array([frame.window for frame in frames])
    side = np.array([frame.frame_px for frame in frames])
    start = first + windows[:, 1] * side + windows[:, 0]
    cut = np.column_stack([start, side, windows[:, 2:] - windows[:, :2]]).astype(np.int32)
    whole = np.column_stack([then, side, side, side]).astype(np.int32)
    warp = _warp_table([_moved_row(number, frame) for number, frame in enumerate(frames)], cut)
    cells = _warp_table([_cell_row(number, frame) for number, frame in enumerate(frames)], whole)
    sides = [(frame.frame_px, frame.frame_px) for frame in frames]
    steps = pack_steps([item.placement for item in items], sides)
    table = FrameTable(to_frame, steps, warp, int(first[0]), int(then[0]))
    return table, cells, int(then[-1] + areas[-1])


def _moved(frame: FramePlan) -> Affine:
    return compose(frame.warp, (1.0, 0.0, frame.window[0], 0.0, 1.0, frame.window[1]))


def _moved_row(number: int, frame: FramePlan) -> _WarpRow:
    x0, y0, x1, y1 = frame.window
    side, moved = frame.frame_px, _moved(frame)
    fills = is_filled_by(moved, (y1 - y0, x1 - x0), side, side)
    return _WarpRow(number, moved, (0.0, 0.0), side, side, fills, 0, 0)


def _cell_row(number: int, frame: FramePlan) -> _WarpRow:
    x, y, width, height = frame.cell
    matrix = (width / frame.frame_px, 0.0, 0.0, 0.0, height / frame.frame_px, 0.0)
    return _WarpRow(number, matrix, (0.0, 0.0), width, height, True, x, y)


def _object_table(
    config: CompositorConfig,
    items: Sequence[_Item],
    rows: Sequence[_WarpRow],
    warp: WarpTable,
    is_framed: bool,
) -> ObjectTable:
    placements = [item.placement for item in items]
    sides = [(row.width, row.height) for row in rows]
    corners = [
        p.frame.cell[:2] if p.frame else (row.x, row.y) for p, row in zip(placements, rows, strict=True)
    ]
    numbers = [(item.scene, item.order, *corner) for item, corner in zip(items, corners, strict=True)]
    scene, order, x, y = torch.tensor(numbers, dtype=torch.int32).reshape(-1, 4).T.contiguous()
    straight = [bool(p.photometrics) or p.blend != "alpha" or p.harmonise > 0 for p in placements]
    return ObjectTable(
        warp=warp,
        scene=scene,
        x=x,
        y=y,
        order=order,
        straight=torch.tensor([not is_framed and each for each in straight], dtype=torch.bool),
        steps=() if is_framed else pack_steps(placements, sides),
        blends=pack_blends(config, [] if is_framed else placements, sides, [_side_px(i) for i in items]),
        layers=_layers(items, warp.sizes),
    )


def _side_px(item: _Item) -> float:
    """sqrt(area) of a crop's rectangle on the canvas, as its middle shrinks."""
    height, width = item.crop.mask.shape
    scale = area_scale(item.placement.matrix, item.placement.tilt, width / 2, height / 2)
    return sqrt(abs(scale) * width * height)


def _layers(items: Sequence[_Item], sizes: Sizes) -> tuple[LayerTable, ...]:
    areas = np.concatenate([[0], np.cumsum((sizes.width.long() * sizes.height).numpy())])
    sides = list(zip(sizes.width.tolist(), sizes.height.tolist(), strict=True))
    layers = []
    for order in sorted({item.order for item in items}):
        jobs = [job for job, item in enumerate(items) if item.order == order]
        moved = [job for job in jobs if items[job].placement.harmonise > 0 and not items[job].placement.frame]
        strength = torch.tensor([items[job].placement.harmonise for job in moved])
        part = pack_part(moved, sides) if moved else None
        layers.append(LayerTable(int(areas[jobs[0]]), int(areas[jobs[-1] + 1]), part, strength))
    return tuple(layers)
