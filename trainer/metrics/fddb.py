"""FDDB's discrete and continuous scores (Jain, Learned-Miller 2010), by the rules of its evaluation code.

At each score the detections that reach it are matched to the annotated faces of their image, one to one,
for the largest sum of IoUs (Hungarian method). Discrete: a pair of IoU over 0.5 is true. Continuous: a pair
is as true as its IoU. All other detections are false. The matching is that of the whole image at each score,
so a true detection can turn false at a lower one; greedy matching differs a little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from trainer.metrics.overlaps import Float64Array, IntArray, find_overlaps
from trainer.sample import Detections, Target, UInt8Array, make_target

_Pairs = tuple[IntArray, IntArray, Float64Array]  # detection, face, IoU


@dataclass(frozen=True, slots=True, eq=False)
class FddbCurve:
    """A point for each score that occurs, falling: the rows of FDDB's DiscROC.txt and ContROC.txt.

    discrete, continuous: true positive rates, 0..1; NaN without faces. false_positives: counts, of both.
    """

    scores: Float64Array  # (U,)
    false_positives: Float64Array  # (U,)
    discrete: Float64Array  # (U,)
    continuous: Float64Array  # (U,)

    def at(self, false_positives: float) -> tuple[float, float]:
        """Best discrete and continuous rate with at most so many false positives."""
        allowed = self.false_positives <= false_positives
        if not allowed.any():
            return 0.0, 0.0
        return float(self.discrete[allowed].max()), float(self.continuous[allowed].max())

    def write(self, folder: Path) -> None:
        """DiscROC.txt and ContROC.txt as FDDB's plots read them: rate, false positives, score a line."""
        for name, rates in (("DiscROC.txt", self.discrete), ("ContROC.txt", self.continuous)):
            rows = zip(rates, self.false_positives, self.scores, strict=True)
            (folder / name).write_text("".join(f"{r:.9g} {f:.0f} {s:.9g}\n" for r, f, s in rows))


def ellipse_boxes(ellipses: npt.ArrayLike) -> Float64Array:
    """Tight xyxy boxes (N, 4) of FDDB's ellipses (N, 5): half-axes a, b px, angle u rad, cx, cy px.

    A point of one is ``(cx + a cos t cos u - b sin t sin u, cy + a cos t sin u + b sin t cos u)``, so its
    half-width is ``sqrt((a cos u)^2 + (b sin u)^2)``. The centre is a place in a frame whose origin is the
    photo's corner; FDDB does not say whether its numbers mean corners or centres of pixels.
    """
    major, minor, angle, cx, cy = np.asarray(ellipses, np.float64).reshape(-1, 5).T
    half_width = np.hypot(major * np.cos(angle), minor * np.sin(angle))
    half_height = np.hypot(major * np.sin(angle), minor * np.cos(angle))
    return np.stack([cx - half_width, cy - half_height, cx + half_width, cy + half_height], axis=1)


def fddb_curve_of_boxes(detections: Sequence[Detections], targets: Sequence[Target]) -> FddbCurve:
    """The curve with each face a box: quick, and without the ceiling that a box meets against an ellipse.

    Labels and ignore play no part. Raises ValueError when there is not one of each per image.
    """
    faces = [make_target(t.boxes) for t in targets]
    found = [Detections(d.boxes, d.scores, np.ones(len(d), np.int64)) for d in detections]
    overlaps = find_overlaps(found, faces, np.finfo(float).tiny)
    pairs = (overlaps.detections, overlaps.objects, overlaps.ious)
    return _curve(overlaps.scores, sum(map(len, targets)), pairs)


def fddb_curve(
    detections: Sequence[Detections],
    ellipses: Sequence[npt.ArrayLike],
    sizes_px: Sequence[tuple[int, int]],
) -> FddbCurve:
    """The official curve: IoU counts pixels of boxes and of ellipses (N, 5) painted on the image, w x h px.

    As there, radii and the ellipse's centre go to whole pixels, and a box covers its last row and column. The
    ellipse of a face fills at most 0.79 of its tight box, so boxes cannot score more than that continuously.
    Raises ValueError when there is not one of each per image.
    """
    firsts, seconds, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    start = num_faces = 0
    for found, of_image, size in zip(detections, ellipses, sizes_px, strict=True):
        boxes, canvas = _painted_boxes(found, size), np.zeros(size[::-1], np.uint8)
        for ellipse in np.asarray(of_image, np.float64).reshape(-1, 5):
            ious = _pixel_ious(boxes, ellipse, canvas)
            at = np.flatnonzero(ious > 0)
            firsts.append(at + start)
            seconds.append(np.full(len(at), num_faces))
            values.append(ious[at])
            num_faces += 1
        start += len(found)
    scores = np.concatenate([np.zeros(0), *(d.scores for d in detections)]).astype(np.float64)
    pairs = (np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values))
    return _curve(scores, num_faces, pairs)


def _painted_boxes(found: Detections, size_px: tuple[int, int]) -> IntArray:
    """Boxes (N, 4) as pixels first to last + 1, within the image."""
    corners = np.rint(np.asarray(found.boxes, np.float64).reshape(-1, 4)).astype(np.int64)
    corners[:, 2:] += 1
    limits = np.array([*size_px, *size_px])
    painted: IntArray = np.clip(corners, 0, limits)
    return painted


def _pixel_ious(boxes: IntArray, ellipse: Float64Array, canvas: UInt8Array) -> Float64Array:
    """IoU (N,) of boxes with one ellipse painted on the canvas, which is clean before and after.

    Sums over boxes come from an integral image of the painted part.
    """
    major, minor, angle, cx, cy = ellipse.tolist()
    middle = round(cx), round(cy)  # halves to even, as OpenCV does
    cv2.ellipse(canvas, middle, (int(major), int(minor)), np.degrees(angle), 0, 360, 1, -1)
    reach = int(max(major, minor)) + 2
    x0, y0 = (max(at - reach, 0) for at in middle)
    patch = canvas[y0 : max(middle[1] + reach, 0), x0 : max(middle[0] + reach, 0)]
    sums = cv2.integral(patch) if patch.size else np.zeros((1, 1), np.int32)  # (h + 1, w + 1)
    patch[:] = 0
    ax, bx = np.clip(boxes[:, [0, 2]] - x0, 0, sums.shape[1] - 1).T
    ay, by = np.clip(boxes[:, [1, 3]] - y0, 0, sums.shape[0] - 1).T
    shared = (sums[by, bx] - sums[ay, bx] - sums[by, ax] + sums[ay, ax]).astype(np.float64)
    union = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) + sums[-1, -1] - shared
    ious: Float64Array = np.divide(shared, union, out=np.zeros(len(boxes)), where=shared > 0)
    return ious


def _curve(scores: Float64Array, num_faces: int, pairs: _Pairs) -> FddbCurve:
    order = np.argsort(-scores, kind="stable")
    rank = np.empty(len(scores), np.int64)
    rank[order] = np.arange(len(scores))
    discrete, continuous = np.zeros(len(scores)), np.zeros(len(scores))  # gains of the ranked detections
    for of_component in _components(len(scores), num_faces, pairs):
        detections, faces, ious = (column[of_component] for column in pairs)
        ranks, rows = np.unique(rank[detections], return_inverse=True)
        columns_of, columns = np.unique(faces, return_inverse=True)
        matrix = np.zeros((len(ranks), len(columns_of)))
        matrix[rows, columns] = ious
        count, total = _best_matchings(matrix)
        discrete[ranks], continuous[ranks] = np.diff(count, prepend=0), np.diff(total, prepend=0)
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))[: len(scores)]
    last = last if len(scores) else np.zeros(0, np.int64)
    num_true = np.cumsum(discrete)[last]
    faces_or_nan = num_faces or np.nan
    return FddbCurve(
        scores=scores[order][last],
        false_positives=last + 1 - num_true,
        discrete=num_true / faces_or_nan,
        continuous=np.cumsum(continuous)[last] / faces_or_nan,
    )


def _components(num_detections: int, num_faces: int, pairs: _Pairs) -> list[IntArray]:
    """The pairs of each set of detections and faces that hang together: the best sum adds up over them."""
    detections, faces, ious = pairs
    if not len(ious):
        return []
    of_detections, of_faces = np.full(num_detections, num_faces), np.arange(num_faces)
    while True:  # the lowest face's number spreads over its component
        np.minimum.at(of_detections, detections, of_faces[faces])
        before = of_faces.copy()
        np.minimum.at(of_faces, faces, of_detections[detections])
        if (before == of_faces).all():
            break
    order = np.argsort(of_faces[faces], kind="stable")
    return np.split(order, np.flatnonzero(np.diff(of_faces[faces[order]])) + 1)


def _best_matchings(ious: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Number of pairs of IoU over 0.5, and sum of IoUs, of the best matching of the first 1, 2, … rows.

    The Hungarian method takes in one row after the other by a shortest augmenting path (Jonker, Volgenant
    1987, as in Crouse 2016), so a single run holds the best matching of every first n rows. A row may stay
    alone, on a column of its own beyond the faces.
    """
    num_rows, num_faces = ious.shape
    if num_faces == 1:
        best = np.maximum.accumulate(ious[:, 0])
        return (best > 0.5).astype(np.float64), best
    costs = np.hstack([-ious, np.zeros((num_rows, num_rows))])
    row_prices, prices = np.zeros(num_rows), np.zeros(costs.shape[1])
    column_of, row_of = np.full(num_rows, -1), np.full(costs.shape[1], -1)
    counts, sums = np.zeros(num_rows), np.zeros(num_rows)
    for new in range(num_rows):
        lengths, via, end = _shortest_path(new, costs - prices, row_prices, row_of)
        closer = np.flatnonzero((lengths < lengths[end]) & (row_of >= 0))
        row_prices[new] += lengths[end]
        row_prices[row_of[closer]] += lengths[end] - lengths[closer]
        prices[closer] -= lengths[end] - lengths[closer]
        while end >= 0:  # each row of the path moves on by one column
            row_of[end] = row = via[end]
            column_of[row], end = end, (-1 if row == new else column_of[row])
        matched = np.flatnonzero(row_of[:num_faces] >= 0)
        values = ious[row_of[matched], matched]
        counts[new], sums[new] = (values > 0.5).sum(), values.sum()
    return counts, sums


def _shortest_path(
    start: int, costs: Float64Array, row_prices: Float64Array, row_of: IntArray
) -> tuple[Float64Array, IntArray, int]:
    """Lengths (C,) of the shortest paths from a row to the columns, the row before each, and the nearest free
    column. Lengths beyond that one's are not final. Dijkstra's method.
    """
    lengths, via = np.full(len(row_of), np.inf), np.full(len(row_of), -1)
    is_open = np.ones(len(row_of), bool)
    row, length = start, 0.0
    while True:
        through = length + costs[row] - row_prices[row]
        shorter = is_open & (through < lengths)
        lengths[shorter], via[shorter] = through[shorter], row
        column = int(np.where(is_open, lengths, np.inf).argmin())
        row, length = int(row_of[column]), float(lengths[column])
        if row < 0:
            return lengths, via, column
        is_open[column] = False
