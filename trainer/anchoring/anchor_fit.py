"""How well anchors cover boxes, and settings with which they cover them better."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from configs.errors import InputError
from trainer.anchoring.anchor_maps import AnchorMap, lay_out
from trainer.anchoring.boxes import cxcywh_to_xyxy
from trainer.detector import Detector, DetectorConfig
from trainer.sample import Target

Floats = npt.NDArray[np.float64]

_STEPS = (0.3, 0.15, 0.07, 0.03, 0.015)  # of a number's logarithm
_SWEEPS = 3  # over all numbers, at most, with each step
_LARGEST = 8  # strides of a map, of its anchors' sides: what a cell of it sees is limited
_GOOD_IOU = 0.7
_MOST_BOXES = 2000  # that are fitted to


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """Of N objects: sides (N,), the root of the box's area, px; best_iou (N,), of any anchor; answering (N,),
    how many anchors the detector teaches to find it.
    """

    sides: Floats
    best_iou: Floats
    answering: npt.NDArray[np.int64]


def coverage(detector: Detector, targets: Sequence[Target]) -> Coverage:
    """Of the objects that count. targets: boxes in px of the detector's square."""
    maps = detector.anchor_maps()
    corners = cxcywh_to_xyxy(lay_out(maps))
    answering = [_answering(detector, corners, target)[~target.ignore] for target in targets]
    boxes = boxes_of(targets)
    return Coverage(
        sides_of(boxes), best_ious(maps, boxes), np.concatenate([*answering, np.empty(0, np.int64)])
    )


def _answering(detector: Detector, corners: torch.Tensor, target: Target) -> npt.NDArray[np.int64]:
    objects = (torch.from_numpy(part) for part in (target.boxes, target.labels, target.ignore))
    labels, index = detector.match(corners, *objects)
    return torch.bincount(index[labels > 0], minlength=len(target)).numpy()


def boxes_of(targets: Sequence[Target]) -> Floats:
    """The boxes (N, 4), xyxy px, of the objects that count."""
    counted = [target.boxes[~target.ignore] for target in targets]
    return np.concatenate([*counted, np.empty((0, 4))]).astype(np.float64)


def sides_of(boxes: Floats) -> Floats:
    """The root of each box's area, (N,) px."""
    sides: Floats = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    return sides


def best_ious(maps: Sequence[AnchorMap], boxes: Floats) -> Floats:
    """The IoU of each box (N, 4), xyxy px, with the anchor that it overlaps most, (N,).

    Among anchors of one shape that is the one whose middle is nearest in x and in y, so one cell of each map
    is looked at.
    """
    best = np.zeros(len(boxes))
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    for each in maps:
        away = np.stack([_distance(each.x, centres[:, 0]), _distance(each.y, centres[:, 1])], 1)[:, None]
        shapes, size = each.shapes[None], sizes[:, None]  # (1, K, 2), (N, 1, 2)
        shared = np.minimum((shapes + size) / 2 - away, np.minimum(shapes, size)).clip(min=0).prod(2)
        union = shapes.prod(2) + size.prod(2) - shared
        best = np.maximum(best, (shared / union.clip(min=1e-9)).max(1))
    return best


def _distance(middles: Floats, places: Floats) -> Floats:
    """From each place to the nearest of the ascending middles."""
    after = (
        np.searchsorted(middles, places).clip(1, len(middles) - 1) if len(middles) > 1 else np.zeros(1, int)
    )
    near = np.stack([middles[after], middles[after - 1]])
    away: Floats = np.abs(near - places).min(0)
    return away


def fit_anchors(
    config: DetectorConfig, maps: Sequence[AnchorMap], boxes: Floats, num_sizes: int | None = None
) -> DetectorConfig:
    """Settings of the same detector whose anchors overlap the boxes more: the mean best IoU is maximised, in
    which more than 0.7 counts as 0.7, since a few boxes met better are not worth others lost.

    A direct fit: each number of ``anchor_settings`` goes up and down by ever smaller steps while that helps,
    from the settings as they are and from sizes at even quantiles of the boxes; the better end is taken.
    Sizes stay in ascending order, so that finer maps keep the smaller ones, and within 1 to 8 strides of
    their map or what they are, but for the finest map's least and the coarsest's most.

    boxes: (N, 4) xyxy px of the detector's square; of more than 2000 an even choice. num_sizes: sizes in all,
    dealt out evenly over the maps, finest first; else as many as there are. Raises InputError where a kind's
    number is fixed.
    """
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), _MOST_BOXES)).round().astype(int)]
    quality = _Quality(config, maps, boxes)
    now = {name: getattr(config, name) for name in config.anchor_settings}
    spread = {**now, config.anchor_settings[0]: _spread(config, boxes, num_sizes)}
    starts = [spread] if num_sizes else [now, spread]
    best = max((_ascend(quality, start) for start in starts), key=quality)
    return config.model_copy(update={name: _rounded(value) for name, value in best.items()})


class _Quality:
    """What is maximised, less what sizes stray from their map's strides; -1 with sizes out of order."""

    def __init__(self, config: DetectorConfig, maps: Sequence[AnchorMap], boxes: Floats) -> None:
        self._config, self._maps, self._boxes = config, maps, boxes
        strides = [each.x[0] * 2 for each in maps]
        sides = [np.sqrt(each.shapes.prod(1)) for each in maps]
        self._least = [min(stride, own.min()) for stride, own in zip(strides, sides, strict=True)]
        self._most = [max(_LARGEST * stride, own.max()) for stride, own in zip(strides, sides, strict=True)]
        self._least[0], self._most[-1] = 0.0, np.inf

    def __call__(self, settings: Mapping[str, Any]) -> float:
        sizes = list(_numbers(settings[self._config.anchor_settings[0]]))
        if any(later < earlier for earlier, later in pairwise(sizes)):
            return -1.0
        shapes = self._config.model_copy(update=dict(settings)).anchor_shapes()
        maps = [AnchorMap(each.x, each.y, own) for each, own in zip(self._maps, shapes, strict=True)]
        strayed = sum(
            np.log(np.maximum(sides / most, least / sides).clip(min=1)).sum()
            for sides, least, most in zip(
                (np.sqrt(own.prod(1)) for own in shapes), self._least, self._most, strict=True
            )
        )
        return float(best_ious(maps, self._boxes).clip(max=_GOOD_IOU).mean() - strayed)


def _ascend(quality: Callable[[Mapping[str, Any]], float], start: Mapping[str, Any]) -> dict[str, Any]:
    """Each number in turn up and down, while the quality grows."""
    best, reached = dict(start), quality(start)
    for step in _STEPS:
        for _ in range(_SWEEPS):
            before = reached
            for name, value in list(best.items()):
                for place in range(len(list(_numbers(value)))):
                    for factor in (np.exp(step), np.exp(-step)):
                        tried = {**best, name: _with_factor(best[name], place, float(factor))}
                        if (found := quality(tried)) > reached:
                            best, reached = tried, found
            if reached == before:
                break
    return best


def _spread(config: DetectorConfig, boxes: Floats, num_sizes: int | None) -> Any:
    """Sizes at even quantiles of the boxes' sides, in the form and the unit of the setting."""
    name = config.anchor_settings[0]
    value = getattr(config, name)
    is_flat = not isinstance(value[0], tuple)
    count = num_sizes or len(list(_numbers(value)))
    if num_sizes and (is_flat or num_sizes < len(value)):
        wanted = "no number, its own is fixed" if is_flat else f"one for each of {len(value)} maps or more"
        raise InputError(f"--fit: found {num_sizes} sizes of {config.kind}, wanted {wanted}")
    unit = 1.0 if name.endswith("_px") else config.image_size  # house style: units stand in names
    sizes = iter(np.quantile(sides_of(boxes), (np.arange(count) + 0.5) / count) / unit)
    if is_flat:
        return tuple(float(size) for size in sizes)
    if num_sizes:
        dealt = [num_sizes // len(value) + (k < num_sizes % len(value)) for k in range(len(value))]
    else:
        dealt = [len(own) for own in value]
    return tuple(tuple(float(next(sizes)) for _ in range(own)) for own in dealt)


def _numbers(value: Any) -> Iterator[float]:
    """Of nested tuples, in order."""
    if isinstance(value, tuple):
        for part in value:
            yield from _numbers(part)
    else:
        yield value


def _with_factor(value: Any, place: int, factor: float) -> Any:
    """The nested tuples with their number at a place, counted as `_numbers` does, so many times as large."""
    if not isinstance(value, tuple):
        return value * factor if place == 0 else value
    parts = []
    for part in value:
        count = len(list(_numbers(part)))
        parts.append(_with_factor(part, place, factor) if 0 <= place < count else part)
        place -= count
    return tuple(parts)


def _rounded(value: Any) -> Any:
    """To four digits that count."""
    return tuple(_rounded(part) for part in value) if isinstance(value, tuple) else float(f"{value:.4g}")
