"""How near generated images come to real ones, and whether they are only copies.

Features: the 1280 pooled features of torchvision's MobileNetV2 (ImageNet) at 96 px, not the Inception
features of published FIDs: figures compare runs of this program with one another, nothing else.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import mobilenet_v2

from factory.stages import UInt8Array
from factory.weights import read_weights, state_dict_in

FloatArray = npt.NDArray[np.float64]
Features = Callable[[UInt8Array], FloatArray]  # (N, S, S, 3) -> (N, D)

_SIDE_PX = 96
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's ImageNet normalisation
_BLOCK = 100  # images of each side in one of KID's blocks
_WANTED = "MobileNetV2's ImageNet weights"


def mobilenet_features(weights: Path) -> Features:
    """Images uint8 (N, S, S, 3) to features (N, 1280). Raises InputError for a file of other weights."""
    network = mobilenet_v2(weights=None)
    state = state_dict_in(read_weights(weights, _WANTED), weights, (), _WANTED)
    network.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    network.eval().to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))

    @torch.inference_mode()
    def features(images: UInt8Array) -> FloatArray:
        parts = []
        for start in range(0, len(images), 64):
            pixels = torch.from_numpy(images[start : start + 64]).permute(0, 3, 1, 2).float() / 255
            large = F.interpolate(pixels, (_SIDE_PX, _SIDE_PX), mode="bilinear", antialias=True)
            with torch.autocast("cpu", torch.bfloat16):
                maps: Tensor = network.features(
                    ((large - mean) / std).contiguous(memory_format=torch.channels_last)
                )
            parts.append(maps.float().mean(dim=(2, 3)).double().numpy())
        return np.concatenate(parts)

    return features


def kernel_distance(real: FloatArray, fake: FloatArray) -> float:
    """KID (Bińkowski et al., "Demystifying MMD GANs", 2018): the unbiased squared maximum mean discrepancy
    under the kernel (x.y / D + 1)^3, averaged over blocks of 100 real and 100 generated images in order, or
    over one block of as many as there are. Raises ValueError for fewer than two of either.
    """
    size = min(len(real), len(fake), _BLOCK)
    if size < 2:
        raise ValueError(f"{len(real)} real and {len(fake)} generated images, wanted 2 of each at least")
    blocks = [slice(size * i, size * (i + 1)) for i in range(min(len(real), len(fake)) // size)]
    return float(np.mean([_squared_discrepancy(real[block], fake[block]) for block in blocks]))


def frechet_distance(real: FloatArray, fake: FloatArray) -> float:
    """FID (Heusel et al., 2017) between Gaussians fitted to two sets of features (N, D).

    With fewer images than features it is biased upwards: compare only equal numbers of images.
    """
    mean = real.mean(axis=0) - fake.mean(axis=0)
    real_covariance, fake_covariance = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    values, vectors = np.linalg.eigh(real_covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ fake_covariance @ root).clip(0)).sum()
    return float(mean @ mean + np.trace(real_covariance) + np.trace(fake_covariance) - 2 * cross)


def nearest(
    queries: FloatArray, known: FloatArray, *, same: bool = False
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """For each query (N, D) the distance to its nearest known row and that row's index.

    same: the two are one set, in which a row is not its own neighbour.
    """
    squared = (queries**2).sum(axis=1)[:, None] + (known**2).sum(axis=1)[None] - 2 * queries @ known.T
    if same:
        np.fill_diagonal(squared, np.inf)
    indices = squared.argmin(axis=1)
    return np.sqrt(squared[np.arange(len(queries)), indices].clip(0)), indices


def copying(real: FloatArray, fake: FloatArray) -> float:
    """Median distance of a generated image to its nearest training image, over that between training images.

    Near 1: as new as another photo of the class would be. Near 0: copies.
    """
    return float(np.median(nearest(fake, real)[0]) / np.median(nearest(real, real, same=True)[0]))


def _squared_discrepancy(real: FloatArray, fake: FloatArray) -> float:
    count = len(real)
    own = sum(_kernel(x, x).sum() - np.trace(_kernel(x, x)) for x in (real, fake)) / (count * (count - 1))
    return float(own - 2 * _kernel(real, fake).mean())


def _kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)
