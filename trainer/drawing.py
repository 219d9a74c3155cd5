"""Pictures of boxes for people to look at: annotated photos, contact sheets, PNG files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from trainer.images import resize_antialiased
from trainer.sample import Detections, FloatArray, Target, UInt8Array

Colour = tuple[int, int, int]

GREEN: Colour = (40, 200, 70)  # RGB, objects
ORANGE: Colour = (255, 140, 0)  # detections
GREY: Colour = (170, 170, 170)  # ignored objects
_DARK: Colour = (20, 20, 20)
_PAPER: Colour = (245, 245, 245)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_detections(
    image: UInt8Array, detections: Detections | None = None, target: Target | None = None
) -> UInt8Array:
    """A copy with the objects in green (ignored ones thin and grey), detections in orange with scores."""
    drawn = np.ascontiguousarray(image).copy()
    thickness = max(1, round(max(drawn.shape[:2]) / 200))
    if target is not None:
        for box, ignored in zip(target.boxes, target.ignore, strict=True):
            _draw_box(drawn, box, GREY if ignored else GREEN, 1 if ignored else thickness)
    if detections is not None:
        # the best last, on top
        for box, score in zip(detections.boxes[::-1], detections.scores[::-1], strict=True):
            _draw_box(drawn, box, ORANGE, thickness)
            _draw_score(drawn, box, f"{score:.2f}")
    return drawn


def contact_sheet(
    images: Sequence[UInt8Array], columns: int, cell_px: int, captions: Sequence[str] | None = None
) -> UInt8Array:
    """The images in rows, each fitted into a cell, aspect kept, captions below. uint8 (H, W, 3) RGB."""
    gap, strip = 6, 0 if captions is None else 18
    rows = max(1, -(-len(images) // columns))
    pitch_x, pitch_y = cell_px + gap, cell_px + strip + gap
    sheet = np.full((rows * pitch_y + gap, columns * pitch_x + gap, 3), _PAPER, np.uint8)
    for i, image in enumerate(images):
        left, top = gap + (i % columns) * pitch_x, gap + (i // columns) * pitch_y
        fitted = _fit(image, cell_px)
        height, width = fitted.shape[:2]
        y, x = top + (cell_px - height) // 2, left + (cell_px - width) // 2
        sheet[y : y + height, x : x + width] = fitted
        if captions is not None:
            cell = sheet[top + cell_px : top + cell_px + strip, left : left + cell_px]
            cell[:] = _write_text(cell, captions[i], (1, strip - 5), _DARK)
    return sheet


def write_png(path: Path, image: UInt8Array) -> None:
    """Write uint8 (H, W, 3) RGB pixels; the folder is made. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(encoded.tobytes())


def _fit(image: UInt8Array, cell_px: int) -> UInt8Array:
    height, width = image.shape[:2]
    scale = cell_px / max(height, width)
    return resize_antialiased(image, max(1, round(width * scale)), max(1, round(height * scale)))


def _draw_box(image: UInt8Array, box: FloatArray, colour: Colour, thickness: int) -> None:
    """The outline, in place, just inside the box; a dark rim makes it show on any ground."""
    x0, y0 = (round(float(value)) for value in box[:2])
    x1, y1 = (max(round(float(value)) - 1, low) for value, low in zip(box[2:], (x0, y0), strict=True))
    if thickness > 1:
        cv2.rectangle(image, (x0, y0), (x1, y1), _DARK, thickness + 2)
    cv2.rectangle(image, (x0, y0), (x1, y1), colour, thickness)


def _draw_score(image: UInt8Array, box: FloatArray, text: str) -> None:
    """The score on a label above the box, or within it at the image's top. In place."""
    scale = max(0.35, max(image.shape[:2]) / 900)
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    x, y = round(float(box[0])), round(float(box[1]))
    bottom = y if y >= height + below else y + height + below
    x = max(0, min(x, image.shape[1] - width))
    cv2.rectangle(image, (x, bottom - height - below), (x + width, bottom), ORANGE, cv2.FILLED)
    cv2.putText(image, text, (x, bottom - below + 1), _FONT, scale, _DARK, 1, cv2.LINE_AA)


def _write_text(image: UInt8Array, text: str, place: tuple[int, int], colour: Colour) -> UInt8Array:
    """A copy with a line of text; letters that the font lacks become ``?``."""
    written = np.ascontiguousarray(image).copy()
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(written, plain, place, _FONT, 0.38, colour, 1, cv2.LINE_AA)
    return written
