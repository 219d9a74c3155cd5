"""The seam between the training loop and a detector kind (`trainer/detectors/`)."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field
from torch import Tensor, nn

from configs.kinds import KindConfig
from trainer.anchoring.anchor_maps import AnchorMap, Shapes
from trainer.sample import Batch, Detections


class Detector(nn.Module):
    """A detector has two methods, `losses` and `detect`; neither changes its return type with ``training``.

    One with anchors says what they are and which of them answer for what, so that people can look.
    """

    any_size = False  # whether it detects in images of any size, or in squares of its image_size alone

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses; their sum is trained. Images without objects are welcome."""
        raise NotImplementedError

    def detect(self, images: Tensor) -> list[Detections]:
        """What is in uint8 (B, 3, H, W) RGB images; boxes in pixels of the input, after NMS."""
        raise NotImplementedError

    def anchor_maps(self) -> list[AnchorMap]:
        """The anchors of an image of the training's size, map by map in the order of the outputs."""
        raise NotImplementedError

    def match(self, corners: Tensor, boxes: Tensor, labels: Tensor, ignore: Tensor) -> tuple[Tensor, Tensor]:
        """What each anchor of one image should say: labels (A,), positive where it answers for an object, and
        the index of its object (A,), which means something only there.

        corners (A, 4) and boxes (N, 4) are xyxy px; labels (N,); ignore (N,) bool.
        """
        raise NotImplementedError


class DetectorConfig(KindConfig):
    """A detector kind's settings; each kind's file has one subclass."""

    anchor_settings: ClassVar[tuple[str, ...]] = ()  # the numbers that `anchor_shapes` is made of

    image_size: int = Field(300, ge=32)  # px, the square that the detector is fed

    def build(self, num_classes: int, home: Path) -> Detector:
        """The detector, its backbone initialised as configured, its heads from torch's global generator.

        num_classes does not count the background. home is where ``data/weights`` lies.
        Raises InputError when a weight file is missing or foreign.
        """
        raise NotImplementedError

    def anchor_shapes(self) -> list[Shapes]:
        """Of each map the anchors of one cell, (K, 2) width and height, px, in the order of the outputs."""
        raise NotImplementedError

    def without_weights(self) -> Self:
        """The same, for a detector whose weights are loaded once it is built: no weight file is read."""
        nothing = {"weights": "none", "checkpoint": None}
        return self.model_copy(update={k: v for k, v in nothing.items() if k in type(self).model_fields})
