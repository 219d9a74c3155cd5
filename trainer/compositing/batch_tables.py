"""What a device needs to compose a batch of scenes: a few tables, whatever the number of objects."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainer.compositing.atlas import Halvings
from trainer.compositing.batch_artefacts import ArtefactTable
from trainer.compositing.batch_looks import BlendTable, Part, StepTable
from trainer.compositing.ragged import Sizes
from trainer.compositing.render import Rect


@dataclass(frozen=True, slots=True, eq=False)
class WarpTable:
    """Rectangles to be filled from pictures of the atlas; see `ragged.warped`."""

    pictures: Tensor  # (J, 4) int32
    inverse: Tensor  # (J, 6) or (J, 9)
    limits: Tensor  # (J, 4)
    sizes: Sizes


@dataclass(frozen=True, slots=True, eq=False)
class FrameTable:
    """The paper's detour. first, then: where the square frames and the warped ones lie in the atlas, px."""

    to_frame: WarpTable
    steps: tuple[StepTable, ...]
    warp: WarpTable
    first: int
    then: int


@dataclass(frozen=True, slots=True, eq=False)
class LayerTable:
    """The objects that are painted at the same time, one of each scene at most, as a part of all objects.

    first, stop: their pixels. harmonised: those of them, with strengths, whose colours follow the scene's.
    """

    first: int
    stop: int
    harmonised: Part | None
    strength: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """All objects, the scenes' first ones first. x, y: left upper corner on the canvas, px.

    straight: bool, whether colours are painted as they are multiplied by the opacity here, and not before.
    """

    warp: WarpTable
    scene: Tensor  # (J,) int32
    x: Tensor  # (J,) int32
    y: Tensor  # (J,) int32
    order: Tensor  # (J,) int32, the scene's objects counted from 1
    straight: Tensor  # (J,) bool
    steps: tuple[StepTable, ...]
    blends: BlendTable
    layers: tuple[LayerTable, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BackgroundTable:
    """Pictures (B, 4) int32, and axes (B, 4) that bring the canvas's pixels to theirs: factor and offset of
    x, factor and offset of y.
    """

    pictures: Tensor
    axes: Tensor


@dataclass(frozen=True, slots=True)
class ObjectNote:
    """What the targets need to know of an object. label: 0 for a distractor."""

    scene: int
    label: int
    frame: Rect | None


@dataclass(frozen=True, slots=True, eq=False)
class BatchTables:
    """What is computed with on the device, apart from the pixels."""

    halvings: tuple[Halvings, ...]
    backgrounds: BackgroundTable
    frames: FrameTable | None
    objects: ObjectTable
    artefacts: tuple[ArtefactTable, ...]

    def to(self, device: torch.device) -> "BatchTables":
        moved: BatchTables = _each_tensor(self, lambda tensor: tensor.to(device, non_blocking=True))
        return moved


@dataclass(frozen=True, slots=True, eq=False)
class PackedScenes:
    """A batch before it is painted. atlas_px: pixels of the atlas, which pixels (P, 4) uint8 begin."""

    keys: tuple[str, ...]
    pixels: Tensor
    tables: BatchTables
    atlas_px: int
    notes: tuple[ObjectNote, ...]  # in the order of the object table

    def pin_memory(self) -> "PackedScenes":
        """In page-locked memory, from which copies to a device overlap with its work."""
        tables = _each_tensor(self.tables, Tensor.pin_memory)
        return replace(self, pixels=self.pixels.pin_memory(), tables=tables)


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same dataclass, tuple or tensor with changed tensors."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_each_tensor(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: _each_tensor(getattr(value, field.name), change) for field in fields(value)}
        return type(value)(**named)
    return value
