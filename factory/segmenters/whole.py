"""The whole image is the object: naive pasting, the baseline that every mask has to beat."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from factory.stages import ObjectImage, Scalar, Segmentation, SegmenterConfig


class WholeSegmenter:
    """Opaque everywhere, confidence 1."""

    def segment(self, images: Sequence[ObjectImage]) -> list[Segmentation]:
        """Full masks in the order of the images."""
        return [Segmentation(np.full(i.image.shape[:2], 255, np.uint8), 1.0, is_whole=True) for i in images]

    def identity(self) -> Mapping[str, Scalar]:
        """Nothing besides the config."""
        return {}


class WholeConfig(SegmenterConfig):
    """No settings. Its masks say that they are whole, and the gate lets them through."""

    kind: Literal["whole"] = "whole"

    def open(self, home: Path) -> WholeSegmenter:
        """The segmenter; ``home`` is not used."""
        return WholeSegmenter()
