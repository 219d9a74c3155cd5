"""What can be seen of each object of a composed batch, and the targets that follow from it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.compositing.batch_tables import ObjectNote
from trainer.compositing.config import CompositorConfig
from trainer.compositing.ragged import Spans, repeated, starts, taken
from trainer.sample import Target

NumPixels = npt.NDArray[np.int64]
_NONE = 2**31 - 1


def measure_seen(spans: Spans, solid: Tensor, is_seen: Tensor) -> Tensor:
    """(J, 6) int32 of each object: solid pixels, those seen, and x0, y0, x1, y1 of them, px of its rectangle.

    solid, is_seen: bool (P,). The box of an object that is not seen means nothing.
    """
    sizes = spans.sizes
    ends = (sizes.width * sizes.height).cumsum(0, dtype=torch.int32)
    counts = []
    for counted in (solid, is_seen):
        summed = torch.cat([ends.new_zeros(1), counted.cumsum(0, dtype=torch.int32)])
        counts.append(summed[ends] - summed[ends - sizes.width * sizes.height])
    x0, x1 = _extent(spans.job, spans.column, is_seen, sizes.width, sizes.num_columns)
    y0, y1 = _extent(spans.job, spans.row, is_seen, sizes.height, sizes.num_rows)
    return torch.stack([part.to(torch.int32) for part in (*counts, x0, y0, x1, y1)], dim=1)


def _extent(
    job: Tensor, place: Tensor, is_seen: Tensor, lengths: Tensor, total: int
) -> tuple[Tensor, Tensor]:
    """First row (or column) of each object that shows a pixel, and the one after the last.

    Rows are flagged first, by writes that agree: far fewer numbers then meet in a minimum.
    """
    first = starts(lengths)
    flagged = torch.where(is_seen, taken(first, job) + place, total).long()
    flags = torch.zeros(total + 1, dtype=torch.bool, device=job.device)
    flags.scatter_(0, flagged, True)
    line_job = repeated(lengths, total)
    line = torch.arange(total, dtype=torch.int32, device=job.device) - taken(first, line_job)
    shown = flags[:total]
    low = torch.full_like(lengths, _NONE)
    low.scatter_reduce_(0, line_job.long(), torch.where(shown, line, _NONE), "amin")
    high = torch.zeros_like(lengths)
    high.scatter_reduce_(0, line_job.long(), torch.where(shown, line + 1, 0), "amax")
    return low, high


def targets_of(
    config: CompositorConfig,
    canvas_px: int,
    num_scenes: int,
    notes: Sequence[ObjectNote],
    corners: NumPixels,
    seen: NumPixels,
) -> list[Target]:
    """The boxes of each scene by the rules of `render_scene`.

    corners: (J, 2), x and y of the objects' rectangles on the canvas. seen: (J, 6), see `measure_seen`.
    """
    scale, side = config.size / canvas_px, float(config.size)
    boxes: list[list[tuple[float, ...]]] = [[] for _ in range(num_scenes)]
    labels: list[list[int]] = [[] for _ in range(num_scenes)]
    ignore: list[list[bool]] = [[] for _ in range(num_scenes)]
    for note, (x, y), (num_pixels, visible, x0, y0, x1, y1) in zip(
        notes, corners.tolist(), seen.tolist(), strict=True
    ):
        if note.label == 0 or visible == 0 or visible < config.drop_visible * num_pixels:
            continue
        left, top, right, bottom = note.frame or (x + x0, y + y0, x + x1, y + y1)
        box = (scale * left, scale * top, min(scale * right, side), min(scale * bottom, side))
        if min(box[2] - box[0], box[3] - box[1]) < config.min_box_px:
            continue
        boxes[note.scene].append(box)
        labels[note.scene].append(note.label)
        ignore[note.scene].append(visible < config.min_visible * num_pixels)
    return [
        Target(np.array(xyxy, np.float32).reshape(-1, 4), np.array(names, np.int64), np.array(flags, bool))
        for xyxy, names, flags in zip(boxes, labels, ignore, strict=True)
    ]
