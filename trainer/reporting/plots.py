"""The geometry of the page's drawings: AP over the amount of real photos, precision over recall.

All numbers are units of the drawing, x to the right and y down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from trainer.reporting.scores import Grid, Row, photos

WIDTH, HEIGHT = 480, 330
_LEFT, _TOP, _BOTTOM = 40, 14, 288  # of the plotting area
_RIGHT = 318  # the labels stand right of it
_LABEL_SIGNS = 22  # that there is room for
_ZERO_PX = 46  # from where no photo stands to where the logarithms begin
_LABEL_PX = 17  # from one label to the next
_DIGIT_PX = 7.2  # at most
_SIDE_LEFT, _SIDE_TOP, _SIDE = 44, 12, 300  # of the square of precision and recall

MARKERS = (  # about 9 units wide, around the origin
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.7-3.7h7.4v7.4h-7.4z",
    "M0-4.8L4.6 3.6H-4.6z",
    "M0-5.2L5.2 0 0 5.2-5.2 0z",
    "M0 4.8L4.6-3.6H-4.6z",
    "M-4.6-1.5h3.1v-3.1h3v3.1h3.1v3h-3.1v3.1h-3v-3.1h-3.1z",
    "M-4.4-4.4L0-1.6 4.4-4.4 1.6 0 4.4 4.4 0 1.6-4.4 4.4-1.6 0z",
    "M-5-2.4H5V2.4H-5z",
)
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "5 2", "1 2", "12 4", "4 4")


@dataclass(frozen=True, slots=True)
class Point:
    """A mean. low, high: ends of the seeds' spread. is_paper: the paper's value, drawn hollow."""

    x: float
    y: float
    low: float
    high: float
    text: str
    is_paper: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """number: colour and marker. path, band: outlines of SVG, empty where there is one point."""

    name: str
    number: int
    path: str
    band: str
    points: list[Point]
    label_y: float
    end: tuple[float, float]
    is_level: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing. break_x: where the axis of x is broken, None where it is not."""

    title: str
    description: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    break_x: float | None = None
    has_paper: bool = False


def amounts_plot(grid: Grid) -> Plot | None:
    """A score over the amount of real photos on a logarithmic axis; None without any score.

    What learnt from no photo stands left of a break; a condition with nothing else is level.
    """
    rows = [row for row in grid.rows if any(each.by_seed for each in row.spreads.values())]
    if not rows:
        return None
    shown = sorted({n for row in rows for n, each in row.spreads.items() if each.by_seed})
    axis = _Amounts(shown)
    low, high, step = _range(rows, shown)

    def height(value: float) -> float:
        return round(_BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP), 1)

    lines = [_line(row, axis, height) for row in rows]
    return Plot(
        f"{grid.metric} over real photos: {grid.title}",
        " ".join(_said(row) for row in rows),
        _spaced(lines),
        axis.ticks(),
        [Tick(height(value), f"{value:g}") for value in np.arange(low, high + step / 2, step)],
        axis.break_x,
        any(point.is_paper for line in lines for point in line.points),
    )


class _Amounts:
    """Where amounts of photos stand."""

    def __init__(self, amounts: Sequence[int]) -> None:
        self.amounts = amounts
        self._positive = [n for n in amounts if n]
        self._begin = _LEFT + 14 + (_ZERO_PX if 0 in amounts and self._positive else 0)
        self.break_x = self._begin - _ZERO_PX / 2 if 0 in amounts and self._positive else None

    def at(self, amount: int) -> float:
        if amount == 0:
            return _LEFT + 14
        first, last = np.log(self._positive[0]), np.log(self._positive[-1])
        share = (np.log(amount) - first) / (last - first) if last > first else 0.5
        return round(float(self._begin + share * (_RIGHT - 12 - self._begin)), 1)

    def ticks(self) -> list[Tick]:
        """Those that have room: the last always."""
        kept: list[Tick] = []
        for amount in reversed(self.amounts):
            tick = Tick(self.at(amount), f"{amount:,}")
            if not kept or kept[-1].at - tick.at >= _DIGIT_PX * (len(tick.text) + len(kept[-1].text)) / 2 + 5:
                kept.append(tick)
        return kept[::-1]


def _range(rows: Sequence[Row], amounts: Sequence[int]) -> tuple[float, float, float]:
    """Ends of the axis of scores and the step of its ticks, round numbers, within 0 and 100."""
    spreads = [each for row in rows for each in row.spreads.values() if each.by_seed]
    paper = [v.mean for row in rows for n, v in row.paper.items() if n in amounts]
    lows, highs = [s.low for s in spreads] + paper, [s.high for s in spreads] + paper
    extent = max(highs) - min(lows)
    step = next(step for step in (1, 2, 5, 10, 20) if extent <= 6 * step or step == 20)
    low = max(0, step * np.floor(min(lows) / step))
    high = min(100, step * np.ceil(max(highs) / step))
    return float(low), float(high if high > low else low + step), float(step)


def _line(row: Row, axis: _Amounts, height: Any) -> Line:
    own = [(n, each) for n, each in sorted(row.spreads.items()) if each.by_seed]
    points = [
        Point(axis.at(n), height(s.mean), height(s.low), height(s.high), f"{row.name}, {photos(n)}: {s}")
        for n, s in own
    ]
    on_curve = [point for (n, _), point in zip(own, points, strict=True) if n]
    paper = [
        Point(axis.at(n), height(v.mean), height(v.mean), height(v.mean), f"the paper, {photos(n)}", True)
        for n, v in row.paper.items()
        if n in axis.amounts
    ]
    is_level = not on_curve
    end = points[-1]
    path = f"M{end.x} {end.y}H{_RIGHT}" if is_level and axis.break_x else _through(on_curve)
    label = row.name if len(row.name) <= _LABEL_SIGNS else f"{row.name[:11]}…{row.name[-10:]}"
    return Line(label, row.number, path, _band(on_curve), [*points, *paper], end.y, (end.x, end.y), is_level)


def _through(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{p.x} {p.y}" for p in points) if len(points) > 1 else ""


def _band(points: Sequence[Point]) -> str:
    if len(points) < 2 or all(p.low == p.high for p in points):
        return ""
    there = [f"{p.x} {p.high}" for p in points]
    back = [f"{p.x} {p.low}" for p in reversed(points)]
    return "M" + "L".join([*there, *back]) + "z"


def _spaced(lines: Sequence[Line]) -> list[Line]:
    """Labels at their lines' ends, moved apart no further than they must be."""
    order = sorted(range(len(lines)), key=lambda i: lines[i].label_y)
    places = [lines[i].label_y for i in order]
    for _ in range(200):
        for one, other in pairwise(range(len(places))):
            lack = _LABEL_PX - (places[other] - places[one])
            if lack > 0:
                places[one] -= lack / 2
                places[other] += lack / 2
        places = [min(max(place, _TOP + 2), _BOTTOM - 2) for place in places]
    by_line = dict(zip(order, places, strict=True))
    return [replace(each, label_y=round(by_line[i], 1)) for i, each in enumerate(lines)]


def _said(row: Row) -> str:
    own = [f"{s} with {photos(n)}" for n, s in sorted(row.spreads.items()) if s.by_seed]
    return f"{row.name}: {', '.join(own)}."


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision over recall of one class. best: where F1 is best, None where nothing is found."""

    name: str
    number: int
    path: str
    best: tuple[float, float] | None
    caption: str


@dataclass(frozen=True, slots=True)
class CurvePlot:
    """A square drawing, its legend beside it."""

    title: str
    description: str
    curves: list[Curve]
    ticks: list[tuple[float, float, str]]


def curve_plot(title: str, reports: Sequence[tuple[str, int, dict[str, Any]]]) -> CurvePlot:
    """The curves of reports (`evaluation_report`), each with its name and colour's number.

    Of several classes the one with most objects is drawn.
    """
    curves = []
    for name, number, report in reports:
        shown = max(report["classes"], key=lambda each: each["objects"])
        of_many = f", {shown['name']}" if len(report["classes"]) > 1 else ""
        places = [
            _place(*pair) for pair in zip(shown["curve"]["recall"], shown["curve"]["precision"], strict=True)
        ]
        path = "M" + "L".join(f"{x} {y}" for x, y in places) if len(places) > 1 else ""
        best = shown["best"]
        at = _place(best["recall"], best["precision"]) if best["score"] is not None else None
        curves.append(Curve(name + of_many, number, path, at, _caption(shown)))
    ticks = [(*_place(value, value), f"{value:.1f}") for value in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    said = " ".join(f"{curve.name}: {curve.caption}." for curve in curves)
    return CurvePlot(f"Precision over recall: {title}", said, curves, ticks)


def _caption(shown: dict[str, Any]) -> str:
    text = f"AP50 {100 * shown['AP50']:.1f}"
    if shown["low"] is not None:
        text += f" ({100 * shown['low']:.1f} to {100 * shown['high']:.1f})"
    best = shown["best"]
    return text if best["score"] is None else f"{text}, best F1 {best['f1']:.2f} at score {best['score']:.2f}"


def _place(recall: float, precision: float) -> tuple[float, float]:
    return round(_SIDE_LEFT + recall * _SIDE, 1), round(_SIDE_TOP + (1 - precision) * _SIDE, 1)
