"""Pictures of boxes for people to look at: annotated photos, contact sheets, PNG files."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.imaging.images import resize_antialiased
from trainer.sample import Detections, FloatArray, Target, UInt8Array

Colour = tuple[int, int, int]

GREEN: Colour = (40, 200, 70)  # RGB, objects
ORANGE: Colour = (255, 140, 0)  # detections
GREY: Colour = (170, 170, 170)  # ignored objects
RED: Colour = (230, 40, 60)  # errors
_LANDMARK: Colour = (255, 60, 200)
_DARK: Colour = (20, 20, 20)
_PAPER: Colour = (245, 245, 245)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_OBJECTS: tuple[Colour, ...] = (  # bright, and apart also for the colour-blind: after Okabe and Ito 2008
    (240, 228, 66),
    (86, 200, 255),
    (255, 140, 30),
    (40, 215, 140),
    (255, 130, 200),
    (255, 255, 255),
)
_DASH_PX = 7
_TAG_PX = 12  # height of a tag's letters

Rect = tuple[int, int, int, int]  # x0, y0, x1, y1, the last pixels included


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


def draw_objects(
    image: UInt8Array,
    target: Target,
    names: Sequence[str],
    scale: float = 1.0,
    anchors: Sequence[FloatArray] | None = None,
) -> UInt8Array:
    """A copy, ``scale`` times as large, each object with its box, number and class; ignored ones dashed.

    names: of labels 1, 2, … anchors: of each object those that answer for it, (A_n, 4) xyxy px, drawn thin in
    the object's colour and counted in its tag.
    """
    height, width = (round(side * scale) for side in image.shape[:2])
    canvas = Image.fromarray(resize_antialiased(np.ascontiguousarray(image), width, height))
    pen = ImageDraw.Draw(canvas, "RGBA")
    places = [_pixels_of(box, scale) for box in target.boxes]
    colours = [_OBJECTS[k % len(_OBJECTS)] for k in range(len(target))]
    for own, colour in zip(anchors or (), colours, strict=anchors is not None):
        for anchor in own:
            pen.rectangle(_pixels_of(anchor, scale), outline=(*colour, 110))
    for place, colour, ignored in zip(places, colours, target.ignore, strict=True):
        (_dashed if ignored else _framed)(pen, place, colour)
    taken: list[Rect] = []
    for k, (place, colour) in enumerate(zip(places, colours, strict=True)):
        words = [str(k), names[target.labels[k] - 1], "ignored" if target.ignore[k] else ""]
        if anchors is not None and not target.ignore[k]:
            words.append(f"x{len(anchors[k])}")
        taken.append(_tag(pen, place, " ".join(filter(None, words)), colour, canvas.size, taken))
    return np.array(canvas)


def draw_named(image: UInt8Array, detections: Detections, names: Sequence[str]) -> UInt8Array:
    """A copy with each detection's box, class and score, in a colour of its class, and its landmarks as dots.

    names: of labels 1, 2, … Lines and letters grow with the image.
    """
    canvas = Image.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(canvas, "RGBA")
    longest = max(image.shape[:2])
    line_px, text_px = max(2, round(longest / 400)), max(_TAG_PX, round(longest / 60))
    places = [_pixels_of(box, 1.0) for box in detections.boxes]
    colours = [_OBJECTS[(label - 1) % len(_OBJECTS)] for label in detections.labels]
    for place, colour in zip(places[::-1], colours[::-1], strict=True):  # the best last, on top
        _framed(pen, place, colour, line_px)
    for points, box in zip(_landmarks_of(detections), detections.boxes, strict=False):
        radius = max(1.0, min(1.5 * line_px, float(box[2] - box[0]) / 24))
        for x, y in points:
            pen.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), _DARK)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), _LANDMARK)
    taken: list[Rect] = []
    for place, colour, label, score in zip(
        places, colours, detections.labels, detections.scores, strict=True
    ):
        text = f"{names[label - 1]} {score:.2f}"
        taken.append(_tag(pen, place, text, colour, canvas.size, taken, text_px))
    return np.array(canvas)


def mark_boxes(image: UInt8Array, boxes: FloatArray, colour: Colour = RED) -> UInt8Array:
    """A copy with boxes (N, 4) outlined, thicker than the others."""
    drawn = np.ascontiguousarray(image).copy()
    for box in boxes:
        _draw_box(drawn, box, colour, max(2, round(max(drawn.shape[:2]) / 130)))
    return drawn


def encode_image(image: UInt8Array, suffix: str) -> bytes:
    """The file of uint8 (H, W, 3) RGB pixels in the format of a suffix, ``.jpg``: any that OpenCV writes."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix in (".jpg", ".jpeg") else []
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    return encoded.tobytes()


def titled(sheet: UInt8Array, title: str) -> UInt8Array:
    """The picture below a line of text, on paper."""
    strip = np.full((28, sheet.shape[1], 3), _PAPER, np.uint8)
    return np.concatenate([_write_text(strip, title, (7, 20), _DARK, 15), sheet])


def stacked(sheets: Sequence[UInt8Array]) -> UInt8Array:
    """Pictures of any widths one below the other, on paper."""
    width = max(sheet.shape[1] for sheet in sheets)
    return np.concatenate([_widened(sheet, width) for sheet in sheets])


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
    path.write_bytes(encode_image(image, ".png"))


def _landmarks_of(detections: Detections) -> FloatArray:
    """(N, 5, 2), or (0, 5, 2) without."""
    points = detections.landmarks
    return np.zeros((0, 5, 2), np.float32) if points is None else points


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


def _write_text(
    image: UInt8Array, text: str, place: tuple[int, int], colour: Colour, size_px: int = 12
) -> UInt8Array:
    """A copy with a line of text, its base line beginning at a place."""
    canvas = Image.fromarray(np.ascontiguousarray(image))
    ImageDraw.Draw(canvas).text(place, text, colour, _font(size_px), anchor="ls")
    return np.array(canvas)


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own."""
    return ImageFont.load_default(size_px)


def _widened(sheet: UInt8Array, width: int) -> UInt8Array:
    wide = np.full((sheet.shape[0], width, 3), _PAPER, np.uint8)
    wide[:, : sheet.shape[1]] = sheet
    return wide


def _pixels_of(box: FloatArray, scale: float) -> Rect:
    """First and last pixels of a box in a picture that many times as large."""
    x0, y0, x1, y1 = (round(float(edge) * scale) for edge in box)
    return x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)


def _framed(pen: ImageDraw.ImageDraw, place: Rect, colour: Colour, line_px: int = 2) -> None:
    """A solid outline inside the box, with a dark rim around it that makes it show on any ground."""
    x0, y0, x1, y1 = place
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(*_DARK, 150))
    pen.rectangle(place, outline=colour, width=line_px)


def _dashed(pen: ImageDraw.ImageDraw, place: Rect, colour: Colour) -> None:
    """Dashes of the colour and of dark in turn."""
    x0, y0, x1, y1 = place
    pen.rectangle(place, outline=(*_DARK, 200), width=2)
    for x in range(x0, x1 + 1, 2 * _DASH_PX):
        for y in (y0, y1 - 1):
            pen.rectangle((x, y, min(x + _DASH_PX, x1), y + 1), fill=colour)
    for y in range(y0, y1 + 1, 2 * _DASH_PX):
        for x in (x0, x1 - 1):
            pen.rectangle((x, y, x + 1, min(y + _DASH_PX, y1)), fill=colour)


def _tag(
    pen: ImageDraw.ImageDraw,
    place: Rect,
    text: str,
    colour: Colour,
    size: tuple[int, int],
    taken: Sequence[Rect],
    text_px: int = _TAG_PX,
) -> Rect:
    """Text on a plate at a corner of the box where no other tag is, within the picture; returns the plate."""
    width, height = round(pen.textlength(text, _font(text_px))) + 7, text_px + 4
    x0, y0, x1, y1 = place
    corners = [
        (x, y)
        for x in (x0, x1 - width + 1)
        for y in (y0 - height, y1 + 1, y0, y1 - height + 1)
        if y >= 0 and y + height <= size[1]
    ]
    plates = [
        _plate(max(0, min(x, size[0] - width)), max(0, y), width, height) for x, y in [*corners, (x0, y0)]
    ]
    plate = next((each for each in plates if not any(_overlap(each, other) for other in taken)), plates[0])
    pen.rectangle(plate, fill=colour)
    pen.text((plate[0] + 4, plate[3] - 3), text, _DARK, _font(text_px), anchor="ls")
    return plate


def _plate(x: int, y: int, width: int, height: int) -> Rect:
    return x, y, x + width - 1, y + height - 1


def _overlap(one: Rect, other: Rect) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]
