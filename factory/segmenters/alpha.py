"""Images that come with their own opacity: cut-outs saved as PNG or WebP."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from factory.stages import ObjectImage, Scalar, Segmentation, SegmenterConfig


class AlphaSegmenter:
    """The mask is the image's opacity, bit for bit.

    Confidence: 1, for nothing is estimated; 0 with an empty mask, which the gate drops as ``empty``, for an
    image that has no opacity of its own or is opaque everywhere.
    """

    def segment(self, images: Sequence[ObjectImage]) -> list[Segmentation]:
        """Masks in the order of the images."""
        return [_of(item) for item in images]

    def identity(self) -> Mapping[str, Scalar]:
        """Nothing besides the config."""
        return {}


class AlphaConfig(SegmenterConfig):
    """No settings."""

    kind: Literal["alpha"] = "alpha"

    def open(self, home: Path) -> AlphaSegmenter:
        """The segmenter; ``home`` is not used."""
        return AlphaSegmenter()


def _of(item: ObjectImage) -> Segmentation:
    if item.alpha is None:
        return Segmentation(np.zeros(item.image.shape[:2], np.uint8), 0.0)
    if item.alpha.shape != item.image.shape[:2]:
        raise ValueError(f"{item.name}: alpha is {item.alpha.shape}, image is {item.image.shape}")
    return Segmentation(item.alpha, 1.0)
