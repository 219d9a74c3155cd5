"""Clustering by a small network that is trained on the one image it divides.

Kanezaki 2018, "Unsupervised Image Segmentation by Backpropagation", in the form of its successor: Kim,
Kanezaki and Tanaka 2020, "Unsupervised Learning of Image Segmentation Based on Differentiable Feature
Clustering", arXiv:2007.09990, whose continuity loss takes the place of superpixels. Every pixel's label is
the channel that answers loudest; the network is taught its own labels, and that neighbours answer alike, so
that labels die out until few are left. The papers stop there; which of the clusters are the object is told
here from where they lie (`region_shares`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from factory.segmenters._regions import FloatArray, IntArray, region_shares, solid_part, to_opacity
from factory.stages import ObjectImage, Scalar, Segmentation, SegmenterConfig, UInt8Array

_MIN_SIDE_PX = 8  # below this no frame and no inside can be told apart
_FAINT = 0.01  # share that counts for nothing when frame and inside are compared
_MOMENTUM = 0.9  # the paper's


class ClusteringConfig(SegmenterConfig):
    """The papers train 100 channels for up to 1000 rounds on a GPU; the defaults are for a CPU core."""

    kind: Literal["clustering"] = "clustering"
    side_px: int = Field(
        default=96, ge=16, le=512, description="longest side of the working image; time is its square"
    )
    channels: int = Field(default=32, ge=2, le=256, description="of every layer: the labels at the start")
    layers: int = Field(default=3, ge=1, le=8, description="3x3 convolutions, with the first")
    max_iters: int = Field(default=60, ge=1, description="training rounds at most")
    min_labels: int = Field(default=4, ge=2, description="stop when so few labels are left")
    learning_rate: float = Field(default=0.1, gt=0, description="of SGD with momentum 0.9")
    continuity: float = Field(default=1.0, ge=0, description="weight of the continuity loss")
    frame_frac: float = Field(default=0.08, gt=0, lt=0.4, description="width of the frame, share of a side")
    object_ratio: float = Field(
        default=0.4, gt=0, description="a cluster is the object's below this share on the frame over inside"
    )
    island_frac: float = Field(
        default=0.3, ge=0, le=1, description="islands smaller than this share of the largest go"
    )

    def open(self, home: Path) -> "ClusteringSegmenter":
        """The segmenter; ``home`` is not used."""
        return ClusteringSegmenter(self)


class ClusteringSegmenter:
    """One network an image, from the same first weights every time: a mask depends on its image only.

    Confidence: how clearly the clusters part into those of the frame and those inside, the mean over the
    pixels of ``|b - i| / (b + i)`` where b and i are the shares that the pixel's cluster has of the frame and
    of the inside: 1 when no cluster is in both, 0 when all are spread evenly.
    """

    def __init__(self, config: ClusteringConfig) -> None:
        self.config = config

    def segment(self, images: Sequence[ObjectImage]) -> list[Segmentation]:
        """Masks in the order of the images; empty, with confidence 0, where nothing is found."""
        return [self._segment(item.image) for item in images]

    def identity(self) -> Mapping[str, Scalar]:
        """Nothing besides the config."""
        return {}

    def _segment(self, image: UInt8Array) -> Segmentation:
        height, width = image.shape[:2]
        work = _shrink(image, self.config.side_px)
        is_flat = bool((work == work[0, 0]).all())
        if min(work.shape[:2]) < _MIN_SIDE_PX or is_flat:
            return Segmentation(np.zeros((height, width), np.uint8), 0.0)
        labels = cluster(work, self.config)
        border, inside = region_shares(labels, self.config.channels, self.config.frame_frac)
        is_object = border + _FAINT < self.config.object_ratio * (inside + _FAINT)
        found = solid_part(is_object[labels].astype(np.uint8), self.config.island_frac)
        if not found.any():
            return Segmentation(np.zeros((height, width), np.uint8), 0.0)
        return Segmentation(to_opacity(found, width, height), _parting(labels, border, inside))


def cluster(image: UInt8Array, config: ClusteringConfig) -> IntArray:
    """The image (H, W, 3) divided: labels (H, W), each below ``config.channels``."""
    inputs = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    weights = _first_weights(config)
    speeds = [torch.zeros_like(weight) for weight in weights]
    for _ in range(config.max_iters):
        answers = respond(inputs, weights)  # (1, C, H, W)
        labels = answers.argmax(dim=1)
        if torch.bincount(labels.flatten()).count_nonzero() <= config.min_labels:
            break
        loss = F.cross_entropy(answers, labels) + config.continuity * continuity_loss(answers)
        _descend(weights, speeds, torch.autograd.grad(loss, weights), config.learning_rate)
    with torch.no_grad():
        return np.asarray(respond(inputs, weights).argmax(dim=1)[0].numpy(), np.int32)


def respond(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:  # (1, 3, H, W) -> (1, C, H, W)
    """3x3 convolutions, ReLU and batch norm, then a 1x1 convolution and batch norm: the response map.

    The border is repeated outwards, so that it answers no differently from the rest. Each norm's scale and
    shift follow its kernel in ``weights``.
    """
    maps = inputs
    for kernel, scale, shift in zip(*(iter(weights),) * 3, strict=True):
        is_last = kernel.shape[-1] == 1
        maps = F.conv2d(maps if is_last else F.pad(maps, (1, 1, 1, 1), mode="replicate"), kernel)
        maps = F.batch_norm(maps if is_last else maps.relu(), None, None, scale, shift, training=True)
    return maps


def continuity_loss(answers: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and of vertical neighbours, summed (the paper's equation 3)."""
    down = (answers[:, :, 1:] - answers[:, :, :-1]).abs().mean()
    right = (answers[:, :, :, 1:] - answers[:, :, :, :-1]).abs().mean()
    return down + right


def _descend(
    weights: Sequence[Tensor], speeds: Sequence[Tensor], slopes: Sequence[Tensor], learning_rate: float
) -> None:
    """One step of SGD with momentum, in place."""
    with torch.no_grad():
        for weight, speed, slope in zip(weights, speeds, slopes, strict=True):
            speed.mul_(_MOMENTUM).add_(slope)
            weight.sub_(speed, alpha=learning_rate)


def _first_weights(config: ClusteringConfig) -> list[Tensor]:
    """Kernels uniform in 1 / sqrt(fan-in), the same for every image; norms that change nothing."""
    generator = torch.Generator().manual_seed(0)
    widths = [3, *[config.channels] * config.layers]
    sizes = [*((config.channels, width, 3, 3) for width in widths[:-1]), (config.channels, widths[-1], 1, 1)]
    weights: list[Tensor] = []
    for size in sizes:
        reach = (size[1] * size[2] * size[3]) ** -0.5
        kernel = (torch.rand(size, generator=generator) * 2 - 1) * reach
        weights += [kernel, torch.ones(config.channels), torch.zeros(config.channels)]
    return [weight.requires_grad_() for weight in weights]


def _parting(labels: IntArray, border: FloatArray, inside: FloatArray) -> float:
    areas = np.bincount(labels.ravel(), minlength=len(border)) / labels.size
    return float((areas * np.abs(border - inside) / np.maximum(border + inside, 1e-9)).sum())


def _shrink(image: UInt8Array, side_px: int) -> UInt8Array:
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
