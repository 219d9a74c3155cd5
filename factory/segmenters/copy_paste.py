"""A copy-pasting GAN's mask network as a segmenter (arXiv:1905.11369): trained by pasting, without labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from configs.errors import InputError
from factory.copy_paste.networks import zero_border
from factory.generators.found import read_found
from factory.redo.mask_network import MaskNetwork
from factory.stages import ObjectImage, Scalar, Segmentation, SegmenterConfig, UInt8Array
from factory.training.image_pool import fit_square
from factory.weights import find_weights, sha256_of

FloatArray = npt.NDArray[np.float32]

_FAMILY = "copy-paste-masks"
_WANTED = "the safetensors file of factory.train_copy_paste"
_BATCH = 32  # images a forward at most


class CopyPasteSegmenterConfig(SegmenterConfig):
    """A trained mask network.

    weights: a relative file is looked up from the working directory, then in the home's data/weights. It
        must be set.
    """

    kind: Literal["copy_paste"] = "copy_paste"
    weights: Path | None = None

    def open(self, home: Path) -> "CopyPasteSegmenter":
        """The network, loaded. Raises InputError when its weights are missing or another network's."""
        if self.weights is None:
            raise InputError(f"segmenter.weights is not set: wanted {_WANTED}")
        path = find_weights("segmenter.weights", self.weights, home, _WANTED)
        network, border_px = _load(path)
        return CopyPasteSegmenter(network, border_px, sha256_of(path))


class CopyPasteSegmenter:
    """The network sees an image squashed to its square; what it would copy is the mask.

    Confidence: the mean of |2m - 1| over the mask m in 0..1, border left out: 1 when every pixel is wholly in
    or out, 0 when all are undecided. It says how sharp a mask is, not how right.
    """

    def __init__(self, network: MaskNetwork, border_px: int, weights_sha256: str) -> None:
        self._network, self._border_px, self._weights_sha256 = network, border_px, weights_sha256

    def segment(self, images: Sequence[ObjectImage]) -> list[Segmentation]:
        """Masks in the order of the images, at most 32 of them a forward."""
        found: list[Segmentation] = []
        for start in range(0, len(images), _BATCH):
            batch = [item.image for item in images[start : start + _BATCH]]
            found += [self._enlarge(*pair) for pair in zip(batch, self._masks(batch), strict=True)]
        return found

    def identity(self) -> Mapping[str, Scalar]:
        """sha256 of the weight file."""
        return {"weights_sha256": self._weights_sha256}

    def _masks(self, images: Sequence[UInt8Array]) -> FloatArray:  # (B, S, S)
        side = self._network.image_size
        squares = torch.from_numpy(np.stack([fit_square(image, side, "squash") for image in images]))
        with torch.inference_mode():
            masks = self._network(squares.permute(0, 3, 1, 2).float() / 127.5 - 1)[:, 0]
        return np.asarray(zero_border(masks, self._border_px).numpy(), np.float32)

    def _enlarge(self, image: UInt8Array, mask: FloatArray) -> Segmentation:
        height, width = image.shape[:2]
        large = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        opacity = np.asarray(np.clip(large, 0, 1) * 255 + 0.5, np.uint8)
        inner = slice(self._border_px, len(mask) - self._border_px)
        return Segmentation(opacity, float(np.abs(2 * mask[inner, inner] - 1).mean()))


def _load(path: Path) -> tuple[MaskNetwork, int]:
    found = read_found(path)
    if found.family != _FAMILY:
        raise InputError(f"{path}: holds {found.family}, wanted {_WANTED}")
    size, border = found.facts.get("image_size"), found.facts.get("border_px")
    if not isinstance(size, int) or not isinstance(border, int) or size < 24 or not 0 <= 4 * border <= size:
        raise InputError(f"{path}: image_size is {size!r}, border_px {border!r}, wanted {_WANTED}")
    try:
        return MaskNetwork.from_state_dict(found.tensors, size), border
    except ValueError as error:
        raise InputError(f"{path}: wanted {_WANTED} ({error})") from error
