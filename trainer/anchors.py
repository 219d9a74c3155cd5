"""The boxes that a single-shot detector starts from."""

from collections.abc import Sequence

import torch
from torch import Tensor


def make_anchors(
    map_sizes: Sequence[tuple[int, int]],
    scales: Sequence[Sequence[float]],
    ratios: Sequence[float],
    image_size: tuple[int, int],
) -> Tensor:
    """Anchors (A, 4) of all maps, float32 cxcywh px, in the order map, y, x, scale, ratio.

    map_sizes: (height, width) of each feature map, cells. scales: for each map, fractions of the image's
    side. ratios: width / height. image_size: (height, width), px. An anchor of scale s and ratio r is
    ``s * W * sqrt(r)`` by ``s * H / sqrt(r)``, each side cut to the image's, round the middle of its cell.
    """
    height, width = image_size
    maps = []
    for (rows, columns), map_scales in zip(map_sizes, scales, strict=True):
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * height / rows
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * width / columns
        shapes = torch.tensor(
            [
                (min(s * r**0.5, 1.0) * width, min(s / r**0.5, 1.0) * height)
                for s in map_scales
                for r in ratios
            ],
            dtype=torch.float64,
        )
        centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)  # (rows, columns, 2) as x, y
        grid = (rows, columns, len(shapes), 2)
        anchors = torch.cat((centres[:, :, None].expand(grid), shapes.expand(grid)), -1)
        maps.append(anchors.reshape(-1, 4))
    return torch.cat(maps).float()
