"""How large objects are: rules for sqrt(area of the object) / side of the scene, and their draws."""

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from configs.kinds import StrictModel
from trainer.compositing.options import check_range

Scale = Annotated[float, Field(gt=0, le=1)]


class UniformScale(StrictModel):
    """``{kind: uniform, min: 0.1, max: 0.9}``"""

    kind: Literal["uniform"]
    min: Scale
    max: Scale

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        check_range(self, "min", "max")
        return self


class LogUniformScale(StrictModel):
    """``{kind: log_uniform, min: 0.1, max: 0.9}``: every doubling is equally likely."""

    kind: Literal["log_uniform"]
    min: Scale
    max: Scale

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        check_range(self, "min", "max")
        return self


class FittedScale(StrictModel):
    """``{kind: fitted, quantiles: [0.05, 0.12, …, 0.8]}``: evenly spaced quantiles, lowest and highest
    included, of the scales that real boxes have; linear in between. `fit_scales` makes one.
    """

    kind: Literal["fitted"]
    quantiles: Annotated[tuple[Scale, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _quantiles_rise(self) -> Self:
        if list(self.quantiles) != sorted(self.quantiles):
            raise ValueError(f"quantiles are {self.quantiles}, wanted rising numbers")
        return self


def _kind_of(value: Any) -> Any:
    return value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)


ScaleRule = Annotated[
    Annotated[UniformScale, Tag("uniform")]
    | Annotated[LogUniformScale, Tag("log_uniform")]
    | Annotated[FittedScale, Tag("fitted")],
    Discriminator(_kind_of),
]


def draw_scale(rule: ScaleRule, rng: np.random.Generator) -> float:
    """One scale, with one draw from rng."""
    if isinstance(rule, UniformScale):
        return rng.uniform(rule.min, rule.max)
    if isinstance(rule, LogUniformScale):
        return exp(rng.uniform(log(rule.min), log(rule.max)))
    whole, part = divmod(rng.random() * (len(rule.quantiles) - 1), 1.0)
    low, high = rule.quantiles[int(whole)], rule.quantiles[int(whole) + 1]
    return low + part * (high - low)


def fit_scales(
    boxes: Sequence[Any], sizes: Sequence[tuple[int, int]], num_quantiles: int = 17
) -> FittedScale:
    """The rule that gives scenes the sizes of real objects: of sqrt(box area / image area), all photos.

    boxes: one array (N, 4), xyxy pixels, a photo. sizes: (width, height) of each photo, px. A synthetic
    object's scale is that of its crop, which a small margin makes a little larger than its box.
    Raises ValueError without any box.
    """
    scales: list[float] = []
    for found, (width, height) in zip(boxes, sizes, strict=True):
        xyxy = np.asarray(found, np.float64).reshape(-1, 4)
        sides = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 0)
        scales += np.sqrt(sides.prod(axis=1) / (width * height)).tolist()
    shown = [min(scale, 1.0) for scale in scales if scale > 0]
    if not shown:
        raise ValueError(f"fit_scales: no box in {len(sizes)} photos, wanted at least one")
    quantiles = np.quantile(shown, np.linspace(0, 1, num_quantiles)).round(4)
    return FittedScale(kind="fitted", quantiles=tuple(np.maximum(quantiles, 1e-4).tolist()))
