"""The boxes that a single-shot detector starts from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Shapes = npt.NDArray[np.float64]  # (K, 2) width and height, px


@dataclass(frozen=True, slots=True, eq=False)
class AnchorMap:
    """The anchors of one feature map: every shape round the middle of every cell.

    x: float64 (columns,), y: (rows,), px. shapes: see `Shapes`.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    shapes: Shapes

    def __len__(self) -> int:
        return len(self.x) * len(self.y) * len(self.shapes)


def even_map(cells: tuple[int, int], image_size: tuple[int, int], shapes: Shapes) -> AnchorMap:
    """An image cut evenly into cells (rows, columns). image_size: (height, width), px."""
    (rows, columns), (height, width) = cells, image_size
    return AnchorMap(_middles(columns, width / columns), _middles(rows, height / rows), shapes)


def stepped_map(cells: tuple[int, int], step_px: float, shapes: Shapes) -> AnchorMap:
    """Cells (rows, columns) of ``step_px`` each: the last ones may lie partly out of the image."""
    rows, columns = cells
    return AnchorMap(_middles(columns, step_px), _middles(rows, step_px), shapes)


def _middles(count: int, step_px: float) -> npt.NDArray[np.float64]:
    return (np.arange(count, dtype=np.float64) + 0.5) * step_px


def lay_out(maps: Sequence[AnchorMap]) -> Tensor:
    """Anchors (A, 4) of all maps, float32 cxcywh px, in the order map, y, x, shape."""
    return torch.cat([_lay_out(each) for each in maps]).float()


def _lay_out(anchors: AnchorMap) -> Tensor:
    y, x = (torch.from_numpy(middles) for middles in (anchors.y, anchors.x))
    shapes = torch.from_numpy(np.ascontiguousarray(anchors.shapes))
    centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)  # (rows, columns, 2) as x, y
    grid = (len(y), len(x), len(shapes), 2)
    return torch.cat((centres[:, :, None].expand(grid), shapes.expand(grid)), -1).reshape(-1, 4)


def scaled_shapes(scales: Sequence[float], ratios: Sequence[float], image_size: tuple[int, int]) -> Shapes:
    """A cell's anchors, scale slower than ratio: ``s * W * sqrt(r)`` by ``s * H / sqrt(r)``.

    scales: fractions of the image's side. ratios: width / height. image_size: (height, width), px. Each side
    is cut to the image's.
    """
    height, width = image_size
    return np.array(
        [(min(s * r**0.5, 1.0) * width, min(s / r**0.5, 1.0) * height) for s in scales for r in ratios]
    )
