"""A sheet of near-duplicates: pairs side by side, the most alike first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.auditing.near_duplicates import Copy, Rect
from trainer.imaging.drawing import contact_sheet, mark_boxes, stacked, titled, write_png
from trainer.sample import UInt8Array

PAIRS = 12
"""Pairs of a section that are drawn, at most."""

_PAIRS_A_ROW = 3
_CELL_PX = 200
_CAPTION = 27  # letters that a cell has room for


@dataclass(frozen=True, slots=True, eq=False)
class ShownPair:
    """A pair: both pictures, (H, W, 3) RGB, their keys, and what was found."""

    picture: UInt8Array
    key: str
    photo: UInt8Array
    photo_key: str
    copy: Copy


def draw_pairs(path: Path, sections: Sequence[tuple[str, Sequence[ShownPair]]]) -> None:
    """Write the PNG: a section a comparison, under its title. Sections without a pair are only titles."""
    write_png(path, stacked([_section(title, pairs) for title, pairs in sections]))


def _section(title: str, pairs: Sequence[ShownPair]) -> UInt8Array:
    if not pairs:
        return titled(np.zeros((0, _PAIRS_A_ROW * 2 * _CELL_PX, 3), np.uint8), title)
    images, captions = [], []
    for pair in pairs:
        images += [pair.picture, _marked(pair.photo, pair.copy.rect)]
        turned = " mirrored" if pair.copy.mirrored else ""
        score = f"{pair.copy.correlation:.2f}{turned} "
        captions += [score + _end_of(pair.key, len(score)), _end_of(pair.photo_key)]
    sheet = contact_sheet(images, min(2 * _PAIRS_A_ROW, len(images)), _CELL_PX, captions)
    return titled(sheet, title)


def _marked(photo: UInt8Array, rect: Rect) -> UInt8Array:
    """The photo with the part that was found again, unless that is all of it."""
    height, width = photo.shape[:2]
    if rect == (0.0, 0.0, float(width), float(height)):
        return photo
    return mark_boxes(photo, np.array([rect], np.float32))


def _end_of(key: str, taken: int = 0) -> str:
    return Path(key).name[taken - _CAPTION :]
