"""Pixels of many rectangles of unequal sizes, laid end to end, so that a device handles them all at once.

Nothing here waits for the device: whatever decides a shape is known beforehand. Images are rows of int32,
one RGBA pixel each, its bytes in that order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """Widths and heights of rectangles; num_px: pixels of all of them; num_rows, num_columns likewise."""

    width: Tensor  # (J,) int32
    height: Tensor  # (J,) int32
    num_px: int
    num_rows: int
    num_columns: int


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Each pixel's rectangle, and its place there."""

    sizes: Sizes
    job: Tensor  # (P,) int32
    row: Tensor  # (P,) int32
    column: Tensor  # (P,) int32


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Where pictures lie in an atlas; tensors of one shape that goes with the coordinates'."""

    start: Tensor
    pitch: Tensor
    width: Tensor
    height: Tensor


def spans_of(sizes: Sizes) -> Spans:
    job = repeated(sizes.width * sizes.height, sizes.num_px)
    place = torch.arange(sizes.num_px, dtype=torch.int32, device=job.device) - taken(
        starts(sizes.width * sizes.height), job
    )
    width = taken(sizes.width, job)
    row = torch.div(place, width, rounding_mode="floor")
    return Spans(sizes, job, row, place - row * width)


def repeated(counts: Tensor, total: int) -> Tensor:
    """0, 1, … each as often as its count (J,) says: (total,) int32."""
    numbers = torch.arange(len(counts), dtype=torch.int32, device=counts.device)
    return torch.repeat_interleave(numbers, counts, output_size=total)


def starts(counts: Tensor) -> Tensor:
    """Sum of the counts before each, (J,) int32."""
    return (counts.cumsum(0) - counts).to(torch.int32)


def taken(values: Tensor, index: Tensor) -> Tensor:
    """values[index] along the first dimension."""
    return values.index_select(0, index.reshape(-1)).reshape(*index.shape, *values.shape[1:])


def columns(values: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """The columns of values[index], each in a piece: (P,) of every column of (J, C)."""
    return values.T.contiguous().index_select(1, index).unbind(0)


def pixels_of(spans: Spans, jobs: Tensor, sizes: Sizes) -> tuple[Spans, Tensor]:
    """The spans of some of the rectangles alone, and the places of their pixels among all."""
    part = spans_of(sizes)
    first = starts(spans.sizes.width * spans.sizes.height)[jobs]
    place = part.row * taken(sizes.width, part.job) + part.column
    return part, (place + taken(first, part.job)).long()


def bytes_of(pixels: Tensor) -> Tensor:
    """(...) int32 as (..., 4) uint8."""
    return pixels.contiguous().view(torch.uint8).reshape(*pixels.shape, 4)


def whole_of(rgba: Tensor) -> Tensor:
    """(..., 4) uint8 as (...) int32."""
    return rgba.contiguous().view(torch.int32)[..., 0]


def bilinear(atlas: Tensor, pictures: Pictures, x: Tensor, y: Tensor) -> Tensor:
    """Pixels (..., 4) uint8 at x and y, px, whole numbers at the pixels' centres; 0 outside the pictures."""
    across = _neighbours(x, pictures.width)
    down = [
        (pictures.start + place * pictures.pitch, weight) for place, weight in _neighbours(y, pictures.height)
    ]
    total = torch.full((1,), 0.5, device=atlas.device)  # what is cut off in the end is rounded then
    for row, row_weight in down:
        for column, column_weight in across:
            texel, weight = bytes_of(taken(atlas, row + column)), (row_weight * column_weight)[..., None]
            total = total.addcmul(texel, weight) if total.dim() == 1 else total.addcmul_(texel, weight)
    return total.to(torch.uint8)


def _neighbours(at: Tensor, size: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The two pixels around a coordinate, int32, and their weights, 0 for one outside."""
    before = at.floor()
    share, first = at - before, before.to(torch.int32)
    last = size - 1
    return [
        (place.clamp(min=0).minimum(last), torch.where((place >= 0) & (place <= last), weight, 0.0))
        for place, weight in ((first, 1 - share), (first + 1, share))
    ]


def warped(atlas: Tensor, pictures: Tensor, inverse: Tensor, limits: Tensor, spans: Spans) -> Tensor:
    """Each rectangle filled from its picture: (P, 4) uint8.

    pictures: int32 (J, 4), start, pitch, width, height. inverse: (J, 6), the rectangle's pixels to the
    picture's, or (J, 9) with perspective. limits: (J, 4), least x, y and greatest x, y that are looked up.
    """
    column, row = spans.column.float(), spans.row.float()
    inv = columns(inverse, spans.job)
    x, y = inv[0] * column + inv[1] * row + inv[2], inv[3] * column + inv[4] * row + inv[5]
    if len(inv) == 9:
        depth = inv[6] * column + inv[7] * row + inv[8]
        x, y = x / depth, y / depth
    x0, y0, x1, y1 = columns(limits, spans.job)
    source = Pictures(*columns(pictures, spans.job))
    return bilinear(atlas, source, x.maximum(x0).minimum(x1), y.maximum(y0).minimum(y1))


def halved(atlas: Tensor, pictures: Tensor, spans: Spans) -> Tensor:
    """Means of 2x2 pixels, rounded half up, 0 outside the pictures: (P,) int32. Arguments as of `warped`."""
    start, pitch, width, height = columns(pictures, spans.job)
    total = torch.full((len(spans.job), 4), 2, dtype=torch.int16, device=atlas.device)
    for dy in (0, 1):
        for dx in (0, 1):
            x, y = 2 * spans.column + dx, 2 * spans.row + dy
            inside = (x < width) & (y < height)
            place = torch.where(inside, start + y * pitch + x, 0)
            total += bytes_of(torch.where(inside, taken(atlas, place), 0))
    return whole_of((total >> 2).to(torch.uint8))


def gaussian(values: Tensor, spans: Spans, taps: Tensor, border: str) -> Tensor:
    """values (P, C) float32 through each rectangle's separable filter.

    taps: (J, R + 1), weights of the centre and of the pixels 1..R away. border: ``reflect`` about the
    outermost pixel, ``zero`` outside.
    """
    for along_rows in (True, False):
        total = torch.zeros_like(values)
        for offset in range(1 - taps.shape[1], taps.shape[1]):
            place, inside = _moved(spans, offset, along_rows, border)
            weight = taken(taps[:, abs(offset)].contiguous(), spans.job)
            if inside is not None:
                weight = torch.where(inside, weight, 0.0)
            total.addcmul_(taken(values, place), weight[:, None])
        values = total
    return values


def eroded(values: Tensor, spans: Spans, radius: Tensor, max_radius: int) -> Tensor:
    """Least value (P,) in a square window around each pixel, 0 outside. radius: (J,) int32."""
    reach = taken(radius, spans.job)
    for along_rows in (True, False):
        least = values
        for offset in range(-max_radius, max_radius + 1):
            place, inside = _moved(spans, offset, along_rows, "zero")
            assert inside is not None
            found = torch.where(inside, taken(values, place), 0)
            least = torch.where(reach >= abs(offset), least.minimum(found), least)
        values = least
    return values


def _moved(spans: Spans, offset: int, along_rows: bool, border: str) -> tuple[Tensor, Tensor | None]:
    """Places of the pixels ``offset`` to the right or below, and which of them there are (None: all)."""
    width = taken(spans.sizes.width, spans.job)
    here, size = (spans.column, width) if along_rows else (spans.row, taken(spans.sizes.height, spans.job))
    at, inside = here + offset, None
    if border == "zero":
        inside = (at >= 0) & (at < size)
        at = torch.where(inside, at, here)
    else:
        period = (2 * size - 2).clamp(min=1)
        at = at.remainder(period)
        at = at.minimum(period - at).minimum(size - 1)
    step = 1 if along_rows else width
    place = torch.arange(len(here), dtype=torch.int32, device=here.device) + (at - here) * step
    return place, inside


def gaussian_taps(sigmas: Sequence[float], radii: Sequence[int]) -> list[list[float]]:
    """Rows of one length, sum 1 each counted to both sides, from the centre outwards."""
    longest = max(radii, default=0) + 1
    rows = torch.zeros(len(radii), longest, dtype=torch.float64)
    for row, sigma, radius in zip(rows, sigmas, radii, strict=True):
        distance = torch.arange(radius + 1, dtype=torch.float64)
        weight = torch.exp(-(distance**2) / (2 * sigma**2))
        row[: radius + 1] = weight / (2 * weight.sum() - weight[0])
    found: list[list[float]] = rows.tolist()
    return found


def blur_radius(sigma_px: float) -> int:
    """Of an object's blur, as `trainer.compositing.photometric` has it."""
    return max(2, ceil(1.65 * sigma_px))


def to_bytes(values: Tensor) -> Tensor:
    """Rounded to even and clipped, uint8, as OpenCV does."""
    return values.round().clamp(0, 255).to(torch.uint8)
