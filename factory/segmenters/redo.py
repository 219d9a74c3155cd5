"""ReDO's mask network as a segmenter: it was trained without labels, on photos of one class."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from pydantic import Field

from configs.errors import InputError
from factory.device import Device, placed
from factory.redo.mask_network import WANTED, MaskNetwork, load_mask_network
from factory.redo.selection import FloatArray, pick_channel
from factory.stages import ObjectImage, Scalar, Segmentation, SegmenterConfig, UInt8Array
from factory.weights import find_weights, sha256_of

_BATCH = 8  # images a forward at most: larger ones leave the processor's cache and are slower


class RedoConfig(SegmenterConfig):
    """A trained ReDO mask network.

    weights: a torch or safetensors file, see `load_mask_network`; a relative one is looked up from the
        working directory, then in the home's data/weights. It must be set.
    weights_hint: what to tell a user who lacks the file: where it is to be had.
    object_channel: the region that is the object, which every training settles anew; "auto": the one that
        the file names, else for each image the one that `pick_channel` picks.
    precision: bf16 is 2x faster on processors that compute in it, and slow on others.
    device: "cuda" for a GPU; it may move the last bits of a mask.
    """

    kind: Literal["redo"] = "redo"
    weights: Path | None = None
    weights_hint: str = ""
    object_channel: Annotated[int, Field(ge=0, strict=True)] | Literal["auto"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Device = None

    def open(self, home: Path) -> "RedoSegmenter":
        """The network, loaded. Raises InputError when its weights are missing or not a mask network's."""
        wanted = f"{WANTED}; {self.weights_hint}" if self.weights_hint else WANTED
        if self.weights is None:
            raise InputError(f"segmenter.weights is not set: wanted a file that holds {wanted}")
        path = find_weights("segmenter.weights", self.weights, home, wanted)
        network = load_mask_network(path)
        num_masks = network.sizes.num_masks
        if self.object_channel != "auto" and self.object_channel >= num_masks:
            raise InputError(
                f"segmenter.object_channel: found {self.object_channel}, wanted 0 to {num_masks - 1},"
                f" the regions of {path}"
            )
        channel = self.object_channel
        if channel == "auto" and network.object_channel is not None:
            channel = network.object_channel
        return RedoSegmenter(network, sha256_of(path), channel, self.precision, self.device)


class RedoSegmenter:
    """The network sees an image squashed to its square, as in its training, and each image's mask is its own.

    The size of a batch may move the last bits of a mask, as it does with any network.
    Confidence: the mean of |2m - 1| over the object's mask m in 0..1, as the network gives it: 1 when every
    pixel is wholly in or out, 0 when all are undecided. It says how sharp a mask is, not how right.
    """

    def __init__(
        self,
        network: MaskNetwork,
        weights_sha256: str,
        object_channel: int | Literal["auto"] = "auto",
        precision: Literal["fp32", "bf16"] = "fp32",
        device: Device = None,
    ) -> None:
        self._network, self._device = network.to(memory_format=torch.channels_last), device
        self._weights_sha256 = weights_sha256
        self._object_channel = object_channel
        self._bf16 = precision == "bf16"

    def segment(self, images: Sequence[ObjectImage]) -> list[Segmentation]:
        """Masks in the order of the images, at most 8 of them a forward."""
        found: list[Segmentation] = []
        for start in range(0, len(images), _BATCH):
            batch = [item.image for item in images[start : start + _BATCH]]
            found += [self._choose(*pair) for pair in zip(batch, self._masks(batch), strict=True)]
        return found

    def identity(self) -> Mapping[str, Scalar]:
        """sha256 of the weight file."""
        return {"weights_sha256": self._weights_sha256}

    def _masks(self, images: Sequence[UInt8Array]) -> FloatArray:  # (B, num_masks, S, S)
        side = self._network.image_size
        squares = torch.from_numpy(np.stack([squash(image, side) for image in images]))
        network, device = self._placed, self._device or "cpu"
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=self._bf16):
            inputs = squares.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            return np.asarray(network(inputs).float().cpu().numpy(), np.float32)

    @cached_property
    def _placed(self) -> MaskNetwork:
        return placed(self._network, self._device, "segmenter.device")

    def _choose(self, image: UInt8Array, masks: FloatArray) -> Segmentation:
        channel = pick_channel(masks) if self._object_channel == "auto" else self._object_channel
        mask = masks[channel]
        height, width = image.shape[:2]
        large = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        opacity = np.asarray(np.clip(large, 0, 1) * 255 + 0.5, np.uint8)
        return Segmentation(opacity, float(np.abs(2 * mask - 1).mean()))


def squash(image: UInt8Array, side_px: int) -> UInt8Array:
    """The image (H, W, 3) as a square, its aspect ignored: averaged when both sides shrink, else bilinear."""
    shrinks = min(image.shape[:2]) >= side_px
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side_px, side_px), interpolation=how), np.uint8)
