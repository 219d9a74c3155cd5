"""The seam between the training loop and a detector kind (`trainer/detectors/`)."""

from pathlib import Path
from typing import Self

from torch import Tensor, nn

from configs.kinds import KindConfig
from trainer.sample import Batch, Detections


class Detector(nn.Module):
    """A detector has two methods; neither changes its return type with ``training``."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses; their sum is trained. Images without objects are welcome."""
        raise NotImplementedError

    def detect(self, images: Tensor) -> list[Detections]:
        """What is in uint8 (B, 3, H, W) RGB images; boxes in pixels of the input, after NMS."""
        raise NotImplementedError


class DetectorConfig(KindConfig):
    """A detector kind's settings; each kind's file has one subclass."""

    image_size: int = 300  # px, the square that the detector is fed

    def build(self, num_classes: int, home: Path) -> Detector:
        """The detector, its backbone initialised as configured, its heads from torch's global generator.

        num_classes does not count the background. home is where ``data/weights`` lies.
        Raises InputError when a weight file is missing or foreign.
        """
        raise NotImplementedError

    def without_weights(self) -> Self:
        """The same, for a detector whose weights are loaded once it is built: no weight file is read."""
        nothing = {"weights": "none", "checkpoint": None}
        return self.model_copy(update={k: v for k, v in nothing.items() if k in type(self).model_fields})
