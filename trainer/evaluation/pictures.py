"""What an evaluation shows for itself: precision over recall, and the photos that say most."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.dataset import BoxedImage
from trainer.imaging.drawing import Colour, contact_sheet, draw_detections, mark_boxes, stacked, titled
from trainer.imaging.images import read_boxed_image
from trainer.sample import Detections, UInt8Array

_COLOURS: tuple[Colour, ...] = (  # apart also for the colour-blind: after Okabe and Ito 2008
    (0, 114, 178),
    (213, 94, 0),
    (0, 140, 100),
    (190, 90, 150),
    (160, 120, 0),
    (70, 170, 220),
)
_PAPER, _INK, _FAINT = (250, 250, 250), (30, 30, 30), (222, 222, 222)
_SIDE, _MARGIN, _LEGEND, _ROW = 440, 56, 330, 22
_FINE = 2  # drawn so many times as large, for smooth lines
_COLUMNS, _CELL_PX = 4, 300
_TITLES = {
    "false": "most confident false detections (red; green: objects, orange: found)",
    "missed": "most objects missed (red; green: objects, orange: found)",
    "best": "all found and nothing else (green: objects, orange: found)",
}


def draw_curves(report: dict[str, Any], title: str) -> UInt8Array:
    """Precision over recall of the classes with most objects, a dot at the best F1. uint8 (H, W, 3) RGB.

    report: see `evaluation_report`.
    """
    with_objects = [each for each in report["classes"] if each["objects"]]
    shown = sorted(with_objects, key=lambda each: -each["objects"])[: len(_COLOURS)]
    width, height = _MARGIN + _SIDE + _LEGEND, 2 * _MARGIN + _SIDE
    canvas = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
    pen = ImageDraw.Draw(canvas)
    _text(pen, (_MARGIN, 28), title, 15)
    _axes(pen)
    for row, (each, colour) in enumerate(zip(shown, _COLOURS, strict=False)):
        curve, best = each["curve"], each["best"]
        line = [_at(r, p) for r, p in zip(curve["recall"], curve["precision"], strict=True)]
        if len(line) > 1:
            pen.line(line, colour, 2 * _FINE, joint="curve")
        if best["score"] is not None:
            x, y = _at(best["recall"], best["precision"])
            pen.ellipse((x - 5 * _FINE, y - 5 * _FINE, x + 5 * _FINE, y + 5 * _FINE), colour)
        left, top = _MARGIN + _SIDE + 16, _MARGIN + 12 + row * 2 * _ROW
        pen.rectangle((left * _FINE, (top - 9) * _FINE, (left + 14) * _FINE, (top + 1) * _FINE), colour)
        _text(pen, (left + 20, top), f"{each['name']}: AP50 {_interval(each)}", 13)
        _text(pen, (left + 20, top + 17), _best(best), 11)
    if len(with_objects) > len(shown):
        more = f"and {len(with_objects) - len(shown)} more classes"
        _text(pen, (_MARGIN + _SIDE + 36, _MARGIN + 12 + len(shown) * 2 * _ROW), more, 11)
    return np.array(canvas.resize((width, height), Image.Resampling.BOX))


def telling_photos(
    report: dict[str, Any],
    detections: Sequence[Detections],
    photos: Sequence[BoxedImage],
    classes: Sequence[str],
) -> UInt8Array | None:
    """The photos that a report lists as most wrong and most right; None where it lists none.

    Detections of at least the threshold of their class's best F1 are drawn.
    """
    least = np.array([np.inf, *(_least(each) for each in report["classes"])])
    sections = []
    for name, title in _TITLES.items():
        cells, captions = [], []
        for entry in report[name]:
            photo, found = photos[entry["photo"]], detections[entry["photo"]]
            confident = found.chosen(found.scores >= least[found.labels])
            drawn = draw_detections(read_boxed_image(photo), confident, photo.target)
            marked = {"false": [entry.get("box")], "missed": entry.get("boxes")}.get(name)
            cells.append(mark_boxes(drawn, np.array(marked, np.float32)) if marked else drawn)
            captions.append(_caption(name, entry, len(classes) > 1))
        if cells:
            sections.append(titled(contact_sheet(cells, _COLUMNS, _CELL_PX, captions), title))
    return stacked(sections) if sections else None


def _caption(name: str, entry: dict[str, Any], many: bool) -> str:
    where = entry["key"].rpartition("/")[2][-24:]
    if name == "false":
        label = f"{entry['label']}, " if many else ""
        return f"{where}: {label}{entry['kind']} {entry['score']:.2f}"
    if name == "missed":
        return f"{where}: {entry['missed']} of {entry['objects']}"
    return f"{where}: {entry['objects']}, at least {entry['score']:.2f}"


def _least(of_class: dict[str, Any]) -> float:
    score = of_class["best"]["score"]
    return np.inf if score is None else float(score) - 1e-6  # the report's is rounded


def _interval(each: dict[str, Any]) -> str:
    value = f"{100 * each['AP50']:.1f}"
    return value if each["low"] is None else f"{value} ({100 * each['low']:.1f} to {100 * each['high']:.1f})"


def _best(best: dict[str, Any]) -> str:
    if best["score"] is None:
        return "nothing found"
    return (
        f"best F1 {best['f1']:.2f} at score {best['score']:.2f}: "
        f"precision {best['precision']:.2f}, recall {best['recall']:.2f}"
    )


def _axes(pen: ImageDraw.ImageDraw) -> None:
    for step in range(6):
        value = step / 5
        pen.line([_at(value, 0), _at(value, 1)], _FAINT, _FINE)
        pen.line([_at(0, value), _at(1, value)], _FAINT, _FINE)
        x, y = (int(edge) // _FINE for edge in _at(value, value))
        _text(pen, (x - 8, _MARGIN + _SIDE + 18), f"{value:.1f}", 12)
        _text(pen, (_MARGIN - 28, y + 4), f"{value:.1f}", 12)
    _text(pen, (_MARGIN + _SIDE // 2 - 20, _MARGIN + _SIDE + 40), "recall", 13)
    _text(pen, (8, _MARGIN - 10), "precision", 13)


def _at(recall: float, precision: float) -> tuple[float, float]:
    """The place of a point of the plot on the canvas."""
    return (_MARGIN + recall * _SIDE) * _FINE, (_MARGIN + (1 - precision) * _SIDE) * _FINE


def _text(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size_px: int) -> None:
    x, y = place
    font = ImageFont.load_default(size_px * _FINE)
    pen.text((x * _FINE, y * _FINE), text, _INK, font, anchor="ls")
