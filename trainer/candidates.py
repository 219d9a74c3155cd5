"""What a detector selects its detections from, as tensors: the seam between a network and the selection."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

UNFIT = -1.0  # the score of what is not to be selected


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Of B images with A boxes each. boxes are those that the NMS compares, xyxy px, clipped or not.

    scores: 0..1 of each class, `UNFIT` where too low. landmarks: px, None without them.
    """

    boxes: Tensor  # (B, A, 4) float32
    scores: Tensor  # (B, A, classes) float32
    landmarks: Tensor | None = None  # (B, A, 5, 2) float32


class Selection(Protocol):
    """How a detector selects.

    image_size: px, of the squares that it was trained on. topk: candidates of an image that enter the NMS,
    the best. nms_iou: of `torchvision.ops.nms`, within each class. max_detections: of an image, the best.
    """

    @property
    def image_size(self) -> int: ...
    @property
    def topk(self) -> int: ...
    @property
    def nms_iou(self) -> float: ...
    @property
    def max_detections(self) -> int: ...


@runtime_checkable
class Selecting(Protocol):
    """A detector whose ``detect`` takes its candidates, of them the ``topk``, of these what the NMS keeps
    within each class, of these the ``max_detections``, clips them to the image and drops what has no area.

    any_size: whether it takes images of any size, or squares of ``image_size`` alone.
    """

    any_size: bool

    @property
    def config(self) -> Selection: ...

    def candidates(self, images: Tensor) -> Candidates:
        """Of uint8 (B, 3, H, W) RGB images. `torch.export` follows it: no size is taken by ``len``."""
        ...
