"""The pictures of a batch in one row of pixels, followed by those halved versions that are looked up."""

from dataclasses import dataclass
from itertools import accumulate

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.compositing.ragged import Sizes, halved, spans_of
from trainer.sample import UInt8Array

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Halvings:
    """Pictures to be halved once. start: of the results in the atlas, px."""

    pictures: Tensor  # (H, 4) int32, the sources: start, pitch, width, height
    sizes: Sizes  # of the results
    start: int


class AtlasPlan:
    """Gathers pictures and decides where they will lie; a picture's number is the order of its naming."""

    def __init__(self) -> None:
        self._pixels: list[UInt8Array] = []
        self._sizes: list[tuple[int, int]] = []  # width, height, px
        self._source: list[int] = []  # what it is halved from, else -1
        self._level: list[int] = []
        self._half_of: dict[int, int] = {}

    def add(self, pixels: UInt8Array) -> int:
        """Number of a picture RGBA (H, W, 4) or RGB (H, W, 3), which is then opaque."""
        self._pixels.append(pixels)
        return self._name(pixels.shape[1], pixels.shape[0], -1)

    def halved(self, number: int, times: int, *, keep_odd: bool) -> int:
        """Number of a picture halved so many times, always with the same ``keep_odd``: whether an odd last
        row or column stays, halved with zeros beside it.
        """
        for _ in range(times):
            if number not in self._half_of:
                width, height = ((side + keep_odd) // 2 for side in self._sizes[number])
                self._half_of[number] = self._name(width, height, number)
            number = self._half_of[number]
        return number

    def placed(self) -> tuple[IntArray, list[Halvings], int]:
        """Start, pitch, width and height (N, 4) of all pictures, the halvings in order, and pixels in all."""
        sizes = np.array(self._sizes, np.int32).reshape(-1, 2)
        level = np.array(self._level, np.int32)
        order = np.argsort(level, kind="stable")
        areas = sizes[order].prod(axis=1, dtype=np.int64)
        first = np.zeros(len(sizes), np.int64)
        first[order] = np.cumsum(areas) - areas
        pictures = np.column_stack([first, sizes[:, :1], sizes]).astype(np.int32)
        source = np.array(self._source, np.int64)
        halvings = []
        for step in range(1, int(level.max(initial=0)) + 1):
            made = np.flatnonzero(level == step)
            halvings.append(
                Halvings(
                    torch.from_numpy(pictures[source[made]]), sizes_of(sizes[made]), int(first[made].min())
                )
            )
        return pictures, halvings, int(areas.sum())

    def pixels(self) -> Tensor:
        """The added pictures (P, 4) uint8, in the order of the atlas, which they begin."""
        ends = list(accumulate(part.shape[0] * part.shape[1] for part in self._pixels))
        joined = torch.empty((ends[-1] if ends else 0, 4), dtype=torch.uint8)
        rows = joined.numpy()
        for part, end in zip(self._pixels, ends, strict=True):
            height, width, channels = part.shape
            there = rows[end - height * width : end].reshape(height, width, 4)
            if channels == 4:
                there[:] = part
            else:
                cv2.cvtColor(part, cv2.COLOR_RGB2RGBA, dst=there)
        return joined

    def _name(self, width: int, height: int, source: int) -> int:
        self._sizes.append((width, height))
        self._source.append(source)
        self._level.append(0 if source < 0 else self._level[source] + 1)
        return len(self._sizes) - 1


def sizes_of(sizes: IntArray) -> Sizes:
    """Rectangles from their widths and heights (J, 2)."""
    width, height = torch.from_numpy(sizes.astype(np.int32)).T.contiguous()
    columns, rows = sizes.sum(axis=0, dtype=np.int64).tolist()
    return Sizes(width, height, int(sizes.prod(axis=1, dtype=np.int64).sum()), rows, columns)


def fill_atlas(atlas: Tensor, pixels: Tensor, halvings: tuple[Halvings, ...]) -> None:
    """Write pictures (P, 4) uint8, from any device, and their halvings into atlas, int32."""
    atlas[: len(pixels)].copy_(pixels.view(torch.int32)[:, 0], non_blocking=True)
    for step in halvings:
        atlas[step.start : step.start + step.sizes.num_px] = halved(
            atlas, step.pictures, spans_of(step.sizes)
        )
