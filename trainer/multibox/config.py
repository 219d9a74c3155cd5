"""The settings that SSD300 and SSDLite share, and the boxes that they start from."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from trainer.anchoring.anchor_maps import AnchorMap, Shapes, even_map, stepped_map
from trainer.anchoring.matching import Claims
from trainer.detector import DetectorConfig

Ratios = tuple[tuple[PositiveFloat, ...], ...]

FEW, MANY = (2.0,), (2.0, 3.0)
SSD300_SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)  # for COCO (arXiv:1512.02325, 3.4)
SSD300_RATIOS: Ratios = (FEW, MANY, MANY, MANY, FEW, FEW)
SSD300_STEPS_PX = (8, 16, 32, 64, 100, 300)


class MultiBoxConfig(DetectorConfig):
    """SSD (arXiv:1512.02325): a backbone, extra layers, and hard negative mining.

    Defaults are the publishers' but for ``claims`` and ``min_negatives``: with their ``last`` and 0 an object
    can go without an anchor, and an image without objects teaches nothing.

    checkpoint: ``coco``, the detector's own published weights, or a file. Where its number of classes is
    another, what tells the classes apart starts anew. weights: of the backbone alone, ``imagenet``, ``none``
    or a file; not looked at with a checkpoint. Files lie relative to the working directory, else to home;
    published ones in ``data/weights`` of home, or where torch keeps its downloads. Nothing is downloaded.
    scales: s_0 to s_6, fractions of the image's side. Map k has squares of s_k and of sqrt(s_k * s_k+1), and
    for each ratio r of ``ratios[k]`` boxes of s_k * sqrt(r) by s_k / sqrt(r), lying and standing.
    positive_iou, claims: see `match_anchors`; what is not positive is background.
    negative_ratio, min_negatives: of each image, see `mined_cross_entropy`.
    class_topk, topk: detections of each class and of an image that enter the NMS (torchvision has no topk).

    ``lr_factors`` knows the backbone as ``network.backbone``, with ResNet50 as ``network.feature_extractor``.
    """

    anchor_settings: ClassVar[tuple[str, ...]] = ("scales", "ratios")
    steps_px: ClassVar[tuple[int, ...]] = ()  # between cells at native_px; none: cells cut the image evenly
    native_px: ClassVar[int] = 300
    least_px: ClassVar[int] = 1  # smaller images leave nothing of the last map
    keeps_centres_inside: ClassVar[bool] = False

    checkpoint: str | None = None
    weights: str = "imagenet"
    scales: tuple[PositiveFloat, ...] = SSD300_SCALES
    ratios: Ratios = SSD300_RATIOS
    positive_iou: float = Field(0.5, gt=0, le=1)
    claims: Claims = "greedy"
    negative_ratio: PositiveInt = 3
    min_negatives: int = Field(16, ge=0)
    score_threshold: float = Field(0.01, ge=0, le=1)
    nms_iou: float = Field(0.45, ge=0, le=1)
    class_topk: PositiveInt = 400
    topk: PositiveInt = 1000
    max_detections: PositiveInt = 200

    @model_validator(mode="after")
    def _check(self) -> Any:
        if len(self.ratios) != 6 or len(self.scales) != 7:
            found = f"{len(self.scales)} and {len(self.ratios)}"
            raise ValueError(f"scales and ratios: found {found}, wanted 7 scales and ratios of 6 maps")
        if self.image_size < self.least_px:
            raise ValueError(f"image_size: found {self.image_size}, wanted at least {self.least_px}")
        return self

    def anchor_shapes(self) -> list[Shapes]:
        """See `DetectorConfig.anchor_shapes`. Sides are cut to the image's."""
        return [
            np.minimum(_shapes(scale, following, ratios), 1.0) * self.image_size
            for scale, following, ratios in zip(self.scales, self.scales[1:], self.ratios, strict=False)
        ]

    def anchor_maps(self, map_sizes: list[tuple[int, int]]) -> list[AnchorMap]:
        """The anchors of maps of so many (rows, columns)."""
        side, shapes = self.image_size, self.anchor_shapes()
        if not self.steps_px or side != self.native_px:
            return [even_map(cells, (side, side), own) for cells, own in zip(map_sizes, shapes, strict=True)]
        maps = [
            stepped_map(cells, step, own)
            for cells, step, own in zip(map_sizes, self.steps_px, shapes, strict=True)
        ]
        if not self.keeps_centres_inside:
            return maps
        return [AnchorMap(np.minimum(m.x, side), np.minimum(m.y, side), m.shapes) for m in maps]


def _shapes(scale: float, following: float, ratios: tuple[float, ...]) -> Shapes:
    between = (scale * following) ** 0.5
    turned = [(scale * r**e, scale * r**-e) for r in ratios for e in (0.5, -0.5)]
    return np.array([(scale, scale), (between, between), *turned])
