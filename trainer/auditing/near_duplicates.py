"""Near-duplicates: the same picture again, coded anew, resized, mirrored, cropped a little or cut out.

Two stages. A shortlist by the correlation of 24 by 24 thumbnails over what a mask lets through, all pairs in
a few matrix products; then, for each pair on it, the correlation at the best of many small shifts and
stretches. Against a hash of as few false alarms the shortlist misses fewer pictures that were cropped, and it
can leave out what is not the object.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

import cv2
import numpy as np

from trainer.sample import FloatArray, UInt8Array

THRESHOLD = 0.9
"""Correlation from which a pair counts: see the figures in docs/training.md."""

_SIDE = 24  # of a thumbnail
_TEMPLATE = 48
_BLUR = 1.0  # px of the template: half a pixel of misfit then costs little
_SHORTLIST = 0.7
_WHOLE_CELL = 0.97  # of a cell's area that must be the object's: others show its surroundings too
_LEAST_CELLS, _LEAST_TEMPLATE_CELLS = 12, 200
_LEAST_CONTRAST = 3.0  # grey levels, standard deviation: below it there is nothing to compare
_LEAST_DETAIL = 2.0  # the same, of what is left without shading
_PROMISING = 0.75  # correlation without a stretch, from which stretches are tried
_STRETCHES = (0.88, 0.94, 1.0, 1.06, 1.12)
_CENTRE = (0.1, 0.1, 0.9, 0.9)  # of a photo: what must be found in another that was cropped
_ROOM = 0.15  # around the place where a template should be, in its sides
_WIDER = (0.0, 0.08, 0.16)  # around a box: how photos of single objects are cropped
_LEAST_BOX_PX = 32
_CHUNK = 1024  # pictures whose prints are held together
_BLOCK = 1 << 22  # correlations at a time: bounds the memory

Rect = tuple[float, float, float, float]  # xyxy


@dataclass(frozen=True, slots=True, eq=False)
class Print:
    """What is kept of a picture that is looked for. values, weights: its thumbnail, (576,) each.

    template, inside: (48, 48), the part that is looked for again, and where it counts. place: that part's, as
    shares of the whole picture.
    """

    values: FloatArray
    weights: FloatArray
    template: FloatArray
    inside: FloatArray
    place: Rect


@dataclass(frozen=True, slots=True)
class Candidate:
    """Print ``query`` may be a copy of photo ``photo``. rect: where its picture would lie in it, px."""

    query: int
    photo: int
    rect: Rect
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """Picture ``query`` of a row is nearly photo ``photo`` of a gallery, within ``rect`` of it, px."""

    query: int
    photo: int
    correlation: float
    mirrored: bool
    rect: Rect


@dataclass(slots=True)
class Comparison:
    """All pictures of a row against a gallery. unclear: pictures with too little in them to be compared."""

    pictures: int = 0
    unclear: int = 0
    copies: list[Copy] = field(default_factory=list)


def compare(
    prints: Iterable["Print | None"],
    gallery: "Gallery",
    read: Callable[[int], UInt8Array],
    threshold: float = THRESHOLD,
) -> Comparison:
    """The copies among pictures, given as their prints, the most alike first. read: a gallery's photo again.

    Holds a thousand prints at a time.
    """
    found = Comparison()
    rest = iter(prints)
    while chunk := list(islice(rest, _CHUNK)):
        clear = [(number, each) for number, each in enumerate(chunk, found.pictures) if each is not None]
        candidates = gallery.shortlist([each for _, each in clear])
        for photo, group in groupby(sorted(candidates, key=_photo_of), key=_photo_of):
            pixels = read(photo)
            for candidate in group:
                number, each = clear[candidate.query]
                correlation = confirm(each, candidate, pixels)
                if correlation >= threshold:
                    found.copies.append(Copy(number, photo, correlation, candidate.mirrored, candidate.rect))
        found.pictures += len(chunk)
        found.unclear += len(chunk) - len(clear)
    found.copies.sort(key=lambda copy: (-copy.correlation, copy.query, copy.photo))
    return found


def photo_print(image: UInt8Array) -> Print | None:
    """Of a whole photo, (H, W, 3) RGB. None when it has no contrast."""
    grey = _grey(image)
    height, width = grey.shape
    x0, y0, x1, y1 = (round(part * side) for part, side in zip(_CENTRE, (width, height) * 2, strict=True))
    middle = grey[y0:y1, x0:x1]
    return _print(grey, np.ones_like(grey), middle, np.ones_like(middle), _CENTRE)


def crop_print(image: UInt8Array, mask: UInt8Array, frame: tuple[int, int, int, int] | None) -> Print | None:
    """Of an object (H, W, 3) RGB with its opacity (H, W), put back into its frame.

    frame: width, height and the object's place x, y in px, as `shards.records` has them; without, the picture
    is its own frame. None when there is too little of it to compare.
    """
    grey, inside = _grey(image), (mask >= 128).astype(np.float32)
    if not inside.any():
        return None
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    tight = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    width, height, left, top = frame or (grey.shape[1], grey.shape[0], 0, 0)
    size = max(height, top + grey.shape[0]), max(width, left + grey.shape[1])  # rounding may let it stick out
    whole, whole_inside = np.zeros(size, np.float32), np.zeros(size, np.float32)
    spot = np.s_[top : top + grey.shape[0], left : left + grey.shape[1]]
    whole[spot], whole_inside[spot] = grey, inside
    place = (
        (left + float(columns[0])) / size[1],
        (top + float(rows[0])) / size[0],
        (left + float(columns[-1]) + 1) / size[1],
        (top + float(rows[-1]) + 1) / size[0],
    )
    return _print(whole, whole_inside, grey[tight], inside[tight], place)


class Gallery:
    """The photos that copies are looked for in: each whole, and each of its boxes with several margins."""

    def __init__(self, photos: Iterable[tuple[UInt8Array, FloatArray]]) -> None:
        """photos: pixels (H, W, 3) and boxes (N, 4) xyxy px of each, read one after the other."""
        views: list[FloatArray] = []
        self._rects: list[Rect] = []
        self._starts: list[int] = []
        for image, boxes in photos:
            self._starts.append(len(views))
            grey = _grey(image)
            for rect in _rects_of(boxes, grey.shape[1], grey.shape[0]):
                views.append(_resized(_part(grey, rect), _SIDE, _SIDE).ravel() - 128)
                self._rects.append(rect)
        self._views = np.stack(views) if views else np.zeros((0, _SIDE * _SIDE), np.float32)

    def __len__(self) -> int:
        return len(self._starts)

    def shortlist(self, prints: Sequence[Print], least: float = _SHORTLIST) -> list[Candidate]:
        """Which prints may show which photo, mirrored or not, by thumbnails alone: at its most alike view."""
        rows = max(1, _BLOCK // max(1, len(self._views)))
        starts = range(0, len(prints) if len(self) else 0, rows)
        return [found for at in starts for found in self._among(prints[at : at + rows], at, least)]

    def _among(self, prints: Sequence[Print], first: int, least: float) -> Iterator[Candidate]:
        values = np.stack([each.values for each in prints])
        weights = np.stack([each.weights for each in prints])
        plain = masked_correlation(values, weights, self._views)  # (Q, V)
        flipped = self._views.reshape(-1, _SIDE, _SIDE)[:, :, ::-1].reshape(len(self._views), -1)
        mirrored = masked_correlation(values, weights, flipped)
        best = np.maximum(plain, mirrored)
        ends = [*self._starts[1:], len(self._views)]
        for row, photo in np.argwhere(np.maximum.reduceat(best, self._starts, axis=1) >= least).tolist():
            view = self._starts[photo] + int(best[row, self._starts[photo] : ends[photo]].argmax())
            is_mirrored = bool(mirrored[row, view] > plain[row, view])
            yield Candidate(first + row, photo, self._rects[view], is_mirrored)


def masked_correlation(values: FloatArray, weights: FloatArray, views: FloatArray) -> FloatArray:
    """Pearson's, of each row of values (Q, D) with each of views (V, D), weighted by weights (Q, D): (Q, V).

    Grey levels around 0. What has less contrast than 3 levels correlates with nothing.
    """
    total = weights.sum(1, keepdims=True)
    centred = weights * (values - (weights * values).sum(1, keepdims=True) / total)
    variance = (centred * values).sum(1, keepdims=True)
    mean = weights @ views.T / total
    view_variance = weights @ (views * views).T - total * mean * mean
    least = total * _LEAST_CONTRAST**2
    product = np.sqrt(np.maximum(variance, least) * np.maximum(view_variance, least))
    correlation: FloatArray = centred @ views.T / product
    return correlation


def confirm(found: Print, candidate: Candidate, photo: UInt8Array) -> float:
    """The correlation, -1 to 1, of details of the print's template where it fits the photo best."""
    grey = _grey(photo)
    place, (x0, y0, x1, y1) = found.place, candidate.rect
    if candidate.mirrored:  # the photo is: its rectangle counts from the other side
        grey = np.ascontiguousarray(grey[:, ::-1])
        x0, x1 = grey.shape[1] - x1, grey.shape[1] - x0
    width, height = (place[2] - place[0]) * (x1 - x0), (place[3] - place[1]) * (y1 - y0)
    left, top = x0 + place[0] * (x1 - x0), y0 + place[1] * (y1 - y0)
    margin_x, margin_y = _ROOM * width, _ROOM * height
    around = (left - margin_x, top - margin_y, left + width + margin_x, top + height + margin_y)
    region = _part(grey, around)
    across, down = _TEMPLATE * region.shape[1] / width, _TEMPLATE * region.shape[0] / height
    score, patch = _best_fit(found, region, round(across), round(down))
    if score < _PROMISING:
        return min(score, _detail_correlation(found, patch))
    fits = (
        _best_fit(found, region, round(across / x), round(down / y)) for x in _STRETCHES for y in _STRETCHES
    )
    return _detail_correlation(found, max(fits, key=lambda fit: fit[0])[1])


def _best_fit(found: Print, region: FloatArray, width: int, height: int) -> tuple[float, FloatArray]:
    """The template's best correlation in the region at a size, and what the region shows there, (48, 48)."""
    scene = _blurred(_resized(region, max(width, _TEMPLATE), max(height, _TEMPLATE)))
    scores = cv2.matchTemplate(scene, found.template, cv2.TM_CCOEFF_NORMED, mask=found.inside)
    scores[~(np.abs(scores) <= 1.001)] = -1  # of flat places, not finite either
    y, x = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[y, x]), scene[y : y + _TEMPLATE, x : x + _TEMPLATE]


def _detail_correlation(found: Print, patch: FloatArray) -> float:
    """Pearson's, of the details of the template and of a patch (48, 48)."""
    first, second = (_details(grey, found.inside) for grey in (found.template, patch))
    lengths = (max(float(np.linalg.norm(each)), np.sqrt(len(each))) for each in (first, second))
    return float(first @ second / math.prod(lengths))


def _details(grey: FloatArray, inside: FloatArray) -> FloatArray:
    """What is left of the cells inside (P,) without each part's mean and the nearest quadratic in x and y.

    Light falls alike on many things: shading alone, or a dark part and a bright one, is no evidence.
    """
    count, parts = cv2.connectedComponents(inside.astype(np.uint8))
    y, x = np.nonzero(inside)
    u, v = x / len(grey) - 0.5, y / len(grey) - 0.5
    means = parts[y, x][:, None] == np.arange(1, count)  # (P, parts)
    shading = np.linalg.qr(np.column_stack([means, u, v, u * u, u * v, v * v]))[0]
    levels = grey[y, x].astype(np.float64)
    return (levels - shading @ (shading.T @ levels)).astype(np.float32)


def _print(
    whole: FloatArray, whole_inside: FloatArray, part: FloatArray, inside: FloatArray, place: Rect
) -> Print | None:
    values, cells = _masked_thumbnail(whole, whole_inside, _SIDE)
    template, template_cells = _masked_thumbnail(part, inside, _TEMPLATE)
    weights = (cells >= _WHOLE_CELL).astype(np.float32)
    covered = _blurred(template_cells)
    blurred = _mean(_blurred(template * template_cells), covered)
    clear = (covered >= _WHOLE_CELL).astype(np.float32)
    if weights.sum() < _LEAST_CELLS or clear.sum() < _LEAST_TEMPLATE_CELLS:
        return None
    if values[weights > 0].std() < _LEAST_CONTRAST or _details(blurred, clear).std() < _LEAST_DETAIL:
        return None
    return Print(values.ravel() - 128, weights.ravel(), blurred, clear, place)


def _masked_thumbnail(grey: FloatArray, inside: FloatArray, side: int) -> tuple[FloatArray, FloatArray]:
    """Means of the pixels inside, and how much of each cell these are: (side, side) each."""
    cells = _resized(inside, side, side)
    return _mean(_resized(grey * inside, side, side), cells), cells


def _mean(sums: FloatArray, shares: FloatArray) -> FloatArray:
    """0 where there is no share."""
    return (sums / np.maximum(shares, 1e-6)).astype(np.float32, copy=False)


def _rects_of(boxes: FloatArray, width: int, height: int) -> Iterator[Rect]:
    """The photo's, and of each box that is large enough those with its margins."""
    yield 0.0, 0.0, float(width), float(height)
    for x0, y0, x1, y1 in boxes.astype(float).tolist():
        if min(x1 - x0, y1 - y0) >= _LEAST_BOX_PX:
            for share in _WIDER:
                wider, higher = share * (x1 - x0), share * (y1 - y0)
                yield (
                    max(0.0, x0 - wider),
                    max(0.0, y0 - higher),
                    min(float(width), x1 + wider),
                    min(float(height), y1 + higher),
                )


def _part(grey: FloatArray, rect: Rect) -> FloatArray:
    """The pixels of a rectangle, clipped to the picture, one at least."""
    height, width = grey.shape
    x0, y0 = min(max(0, round(rect[0])), width - 1), min(max(0, round(rect[1])), height - 1)
    return grey[y0 : max(y0 + 1, round(rect[3])), x0 : max(x0 + 1, round(rect[2]))]


def _grey(image: UInt8Array) -> FloatArray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _blurred(grey: FloatArray) -> FloatArray:
    return cv2.GaussianBlur(grey, (0, 0), _BLUR).astype(np.float32, copy=False)


def _resized(grey: FloatArray, width: int, height: int) -> FloatArray:
    """As `resize_antialiased` does, without rounding."""
    shrunk = (min(width, grey.shape[1]), min(height, grey.shape[0]))
    resized = cv2.resize(np.ascontiguousarray(grey), shrunk, interpolation=cv2.INTER_AREA)
    return cv2.resize(resized, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def _photo_of(candidate: Candidate) -> int:
    return candidate.photo
