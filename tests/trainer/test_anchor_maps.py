from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.anchoring.anchor_maps import even_map, lay_out, scaled_shapes, stepped_map

RATIOS = (0.5, 1.0, 2.0)


def make_anchors(
    cells: Sequence[tuple[int, int]],
    scales: Sequence[Sequence[float]],
    ratios: Sequence[float],
    size: tuple[int, int],
) -> Tensor:
    return lay_out(
        [
            even_map(grid, size, scaled_shapes(own, ratios, size))
            for grid, own in zip(cells, scales, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("cells", "scales", "count"),
    [
        ((18, 18, 9, 9), (0.1, 0.2, 0.4, 0.8), 2430),
        ((19, 19, 19, 10, 10, 10), (0.05, 0.1, 0.2, 0.4, 0.6, 0.8), 4149),
    ],
)
def test_the_papers_detectors_have_their_number_of_anchors(
    cells: tuple[int, ...], scales: tuple[float, ...], count: int
) -> None:
    anchors = make_anchors([(n, n) for n in cells], [(s,) for s in scales], RATIOS, (300, 300))
    assert anchors.shape == (count, 4)
    assert anchors.dtype == torch.float32


def test_anchors_come_in_the_order_map_y_x_scale_ratio() -> None:
    anchors = make_anchors([(2, 4), (1, 1)], [(0.1, 0.2), (0.5,)], (1.0, 4.0), (100, 200))
    cell = [[20, 10], [40, 5], [40, 20], [80, 10]]  # w, h of (scale, ratio), scale slower
    assert anchors.shape == (2 * 4 * 4 + 2, 4)
    torch.testing.assert_close(anchors[:4], torch.tensor([[25.0, 25, w, h] for w, h in cell]))
    torch.testing.assert_close(anchors[4:8], torch.tensor([[75.0, 25, w, h] for w, h in cell]))
    torch.testing.assert_close(anchors[16:20], torch.tensor([[25.0, 75, w, h] for w, h in cell]))
    torch.testing.assert_close(anchors[32:], torch.tensor([[100.0, 50, 100, 50], [100, 50, 200, 25]]))


def test_anchors_are_no_larger_than_the_image() -> None:
    widest = make_anchors([(1, 1)], [(0.8,)], RATIOS, (300, 300))
    torch.testing.assert_close(widest[:, 2], torch.tensor([240 * 0.5**0.5, 240, 300]))
    torch.testing.assert_close(widest[:, 3], torch.tensor([300, 240, 240 * 0.5**0.5]))


def test_the_last_cells_of_a_stepped_map_may_lie_out_of_the_image() -> None:
    anchors = lay_out([stepped_map((1, 3), 32, np.array([[8.0, 6.0]]))])
    assert anchors.tolist() == [[16, 16, 8, 6], [48, 16, 8, 6], [80, 16, 8, 6]]
