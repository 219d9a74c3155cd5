"""The mask networks that a training leaves behind, one a review: written, looked at, chosen from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from factory.generators.found import Fact, Found, read_found, write_found
from factory.redo.mask_network import FAMILY, MaskNetwork
from factory.redo.selection import FloatArray, MaskFigures, measure, score
from factory.stages import UInt8Array
from factory.training.image_pool import to_signed
from factory.training.picture import grid, write_picture

_BATCH = 32  # images a forward
_SHIFT_FRAC = 1 / 16  # of the side
_SHOWN = 12  # images on a sheet
_SHEET_SCALE_PX = 96  # smaller images are enlarged to about this side


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mask network on disk and its figures. name: the file's, without its ending."""

    path: Path
    found: Found

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def score(self) -> float:
        return float(self.found.facts["score"])


@torch.no_grad()
def masks_of(network: MaskNetwork, images: Tensor, device: torch.device) -> FloatArray:
    """Soft masks (N, n, S, S) of uint8 images (N, 3, S, S)."""
    network.eval()
    parts = [network(to_signed(part.to(device))).float().cpu() for part in torch.split(images, _BATCH)]
    return np.asarray(torch.cat(parts).numpy(), np.float32)


def review_masks(
    network: MaskNetwork, images: Tensor, device: torch.device, before: FloatArray | None
) -> tuple[FloatArray, MaskFigures]:
    """The masks of held-out images, and what they say of the network; it is left in eval mode."""
    shift_px = max(1, round(images.shape[-1] * _SHIFT_FRAC))
    masks = masks_of(network, images, device)
    flipped = masks_of(network, images.flip(3), device)
    shifted = masks_of(network, _moved(images, shift_px), device)
    return masks, measure(masks, flipped, shifted, shift_px, before)


def _moved(images: Tensor, shift_px: int) -> Tensor:
    """Right and down by ``shift_px``, mirrored at the border that opens."""
    padded = torch.nn.functional.pad(images.float(), (shift_px, 0, shift_px, 0), mode="reflect")
    return padded[..., : images.shape[2], : images.shape[3]].to(torch.uint8)


def keep_candidate(
    folder: Path,
    name: str,
    network: MaskNetwork,
    images: Tensor,
    masks: FloatArray,
    figures: MaskFigures,
    facts: Mapping[str, Fact],
) -> Candidate:
    """Write ``NAME.safetensors`` and the sheet ``NAME.png`` (image | mask | cut-out)."""
    known = {key: value for key, value in asdict(figures).items() if value is not None}
    trained = {
        "image_size": network.image_size,
        "temperature": network.temperature,
        "num_masks": network.sizes.num_masks,
    }
    # Clones: a network on the CPU trains on in the same memory.
    tensors = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
    found = Found(FAMILY, {**facts, **trained, **known, "score": score(figures)}, tensors)
    path = folder / f"{name}.safetensors"
    write_found(found, path)
    shown = np.ascontiguousarray(images[:_SHOWN].permute(0, 2, 3, 1).numpy())
    write_picture(folder / f"{name}.png", sheet(shown, masks[:_SHOWN, figures.object_channel]))
    return Candidate(path, found)


def sheet(images: UInt8Array, masks: FloatArray) -> UInt8Array:
    """Three columns an image, two images a row: image (N, S, S, 3), mask (N, S, S), object on magenta."""
    grey = np.repeat(np.asarray(masks * 255 + 0.5, np.uint8)[..., None], 3, axis=3)
    ground = np.array([255, 0, 255], np.float32)
    cut = np.asarray(images * masks[..., None] + ground * (1 - masks[..., None]) + 0.5, np.uint8)
    triples = np.stack([images, grey, cut], axis=1).reshape(-1, *images.shape[1:])
    scale = max(1, _SHEET_SCALE_PX // images.shape[1])
    large = [cv2.resize(i, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) for i in triples]
    return grid(np.asarray(np.stack(large), np.uint8), columns=6)


def read_candidates(*folders: Path) -> list[Candidate]:
    """What `keep_candidate` wrote into these folders, by name."""
    paths = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    return [Candidate(path, read_found(path)) for path in paths]


def choose(candidates: list[Candidate]) -> Candidate:
    """The highest score; the later of equals. Raises ValueError when there is none."""
    if not candidates:
        raise ValueError("no checkpoint to choose from")
    return max(enumerate(candidates), key=lambda item: (item[1].score, item[0]))[1]
