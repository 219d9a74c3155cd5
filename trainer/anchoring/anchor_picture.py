"""Box sizes against anchors, for people to look at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.anchoring.anchor_fit import Coverage, Floats
from trainer.anchoring.anchor_maps import AnchorMap
from trainer.imaging.drawing import Colour
from trainer.sample import UInt8Array

IOU_LEVELS = (0.3, 0.5, 0.7)

_LEVELS: tuple[Colour, ...] = ((200, 60, 40), (235, 165, 40), (110, 185, 235), (20, 140, 105))
_LEVEL_NAMES = ("below 0.3", "0.3 to 0.5", "0.5 to 0.7", "0.7 and over")
_MAPS: tuple[Colour, ...] = (
    (20, 20, 20),
    (130, 40, 140),
    (0, 70, 160),
    (150, 75, 0),
    (90, 90, 90),
    (190, 0, 110),
)
_PAPER, _INK, _FAINT = (250, 250, 250), (30, 30, 30), (222, 222, 222)
_SIDE, _MARGIN, _BARS, _TOP = 460, 46, 330, 34
_TEXT_PX = 13


def size_bins(sides: Floats) -> list[tuple[str, np.ndarray]]:
    """Names and members (N,) bool of the sizes that occur: bins from a power of two px to the next."""
    octaves = np.floor(np.log2(sides.clip(min=1))).astype(int).clip(min=2)
    found = np.unique(octaves)
    names = {k: f"{2**k} to {2 ** (k + 1)} px" for k in found} | {2: "under 8 px"}
    return [(names[k], octaves == k) for k in found]


def draw_anchors(
    title: str, maps: Sequence[AnchorMap], boxes: Floats, cover: Coverage, image_size: int
) -> UInt8Array:
    """Left each box as a dot at its width and height, px, and each anchor as a frame with its map's number,
    right the objects of each size, coloured by their best IoU. boxes: (N, 4) xyxy px. uint8 (H, W, 3) RGB.
    """
    width, height = _SIDE + 2 * _MARGIN + _BARS, _SIDE + _MARGIN + _TOP
    canvas = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(canvas, "RGBA")
    pen.text((12, 22), title, _INK, _font(15), anchor="ls")
    least = min((boxes[:, 2:] - boxes[:, :2]).min(), *(each.shapes.min() for each in maps))
    scale = _LogScale(max(0.8 * least, 1.0), image_size * 1.1)
    _draw_axes(pen, scale)
    levels = np.digitize(cover.best_iou, IOU_LEVELS)
    order = np.random.default_rng(0).permutation(len(boxes))  # no level hides the others
    for (w, h), level in zip((boxes[:, 2:] - boxes[:, :2])[order], levels[order], strict=True):
        x, y = scale.place(w, h)
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(*_LEVELS[level], 170))
    for number, each in enumerate(maps):
        for w, h in each.shapes:
            x, y = scale.place(w, h)
            colour = _MAPS[number % len(_MAPS)]
            pen.rectangle((x - 7, y - 7, x + 7, y + 7), outline=colour, width=2)
            pen.text((x, y), str(number), colour, _font(10), anchor="mm", stroke_width=2, stroke_fill=_PAPER)
    _draw_bars(pen, cover, levels)
    return np.array(canvas)


class _LogScale:
    """Px of a box to px of the picture, alike on both axes."""

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = least, most

    def along(self, value: float) -> float:
        share = np.log(max(value, self.least) / self.least) / np.log(self.most / self.least)
        return float(share * _SIDE)

    def place(self, width: float, height: float) -> tuple[float, float]:
        return _MARGIN + self.along(width), _TOP + _SIDE - self.along(height)


def _draw_axes(pen: ImageDraw.ImageDraw, scale: _LogScale) -> None:
    left, bottom = _MARGIN, _TOP + _SIDE
    tick = 1
    while tick <= scale.most:
        if tick >= scale.least:
            x, y = scale.place(tick, tick)
            pen.line((x, _TOP, x, bottom), fill=_FAINT)
            pen.line((left, y, left + _SIDE, y), fill=_FAINT)
            pen.text((x, bottom + 5), str(tick), _INK, _font(11), anchor="mt")
            pen.text((left - 5, y), str(tick), _INK, _font(11), anchor="rm")
        tick *= 2
    pen.line((left, bottom, left + _SIDE, _TOP), fill=_FAINT)
    pen.rectangle((left, _TOP, left + _SIDE, bottom), outline=(120, 120, 120))
    words = "width across, height up, px of the detector's square; frames: anchors, by map"
    pen.text((left, bottom + 24), words, _INK, _font(11), anchor="lt")


def _draw_bars(pen: ImageDraw.ImageDraw, cover: Coverage, levels: np.ndarray) -> None:
    left, y, room = _SIDE + 2 * _MARGIN, _TOP, _BARS - 24
    pen.text((left, y), "best IoU with an anchor", _INK, _font(_TEXT_PX), anchor="lt")
    for colour, name in zip(_LEVELS, _LEVEL_NAMES, strict=True):
        y += 18
        pen.rectangle((left, y, left + 11, y + 11), fill=colour)
        pen.text((left + 18, y + 6), name, _INK, _font(_TEXT_PX), anchor="lm")
    y += 34
    for name, members in size_bins(cover.sides):
        without = int((cover.answering[members] == 0).sum())
        words = f"{name}: {members.sum()} objects" + (f", {without} without an anchor" if without else "")
        pen.text((left, y), words, _INK, _font(_TEXT_PX), anchor="lt")
        x = float(left)
        for level, colour in enumerate(_LEVELS):
            wide = room * float((levels[members] == level).mean())
            if wide:
                pen.rectangle((x, y + 17, x + wide, y + 29), fill=colour)
            x += wide
        y += 42


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
