"""What a JPEG file of baseline 4:2:0 does to pictures, on a device: all of it but the entropy coding.

Formulas and tables: ITU-T T.81 (A.3.3 the DCT, K.1 and K.2 the quantisation tables), JFIF 1.02 (colours); the
scaling of the tables by a quality 1..100 and the triangle filter that brings colours back to full size are
those of the Independent JPEG Group's library. The DCT is exact: on photos Pillow comes within 0.3 to 0.4
pixel values of it; simplejpeg, which the CPU path uses, is about one away from both.
"""

from functools import lru_cache
from math import cos, pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
FROM_YCC = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def through_jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """images (K, 3, H, W), 0..255, as files of quality (K,) would give them back; float32, not yet whole."""
    height, width = images.shape[2:]
    full = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    ycc = _coloured(full, _TO_YCC).round_()  # chrominances around 0, as the DCT wants them
    luma, chroma = ycc[:, :1] - 128, ycc[:, 1:]
    # means of 2x2, rounded up and down by turns along a row
    bias = torch.tensor([0.25, 0.5], device=images.device).repeat(chroma.shape[-1] // 4)
    chroma = (F.avg_pool2d(chroma, 2) + bias).floor()
    luma = _quantised(luma, tables(_LUMINANCE, quality))
    chroma = _quantised(chroma, tables(_CHROMINANCE, quality))
    chroma = chroma[..., : (height + 1) // 2, : (width + 1) // 2]
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).round()
    both = torch.cat([luma[..., :height, :width] + 128, chroma[..., :height, :width]], dim=1)
    return _coloured(both, FROM_YCC)


def tables(standard: tuple[int, ...], quality: Tensor) -> Tensor:
    """The steps (K, 8, 8) of each coefficient at quality (K,)."""
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    steps = torch.tensor(standard, dtype=torch.float32, device=quality.device).reshape(8, 8)
    return ((steps * percent[:, None, None] + 50) / 100).floor().clamp(1, 255)


def _quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """planes (K, C, H, W) around 0 as they are after a rounding of their blocks' coefficients, whole."""
    count, channels, height, width = planes.shape
    basis = torch.tensor(_basis(), device=planes.device)
    blocks = planes.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    steps = steps[:, None, None, None]
    coefficients = (basis @ blocks @ basis.T / steps).round() * steps
    blocks = (basis.T @ coefficients @ basis).round().clamp(-128, 127)
    return blocks.transpose(3, 4).reshape(count, channels, height, width)


@lru_cache(maxsize=1)
def _basis() -> list[list[float]]:
    """The DCT of 8 numbers as a matrix."""
    return [
        [(sqrt(1 / 8) if k == 0 else 0.5) * cos((2 * n + 1) * k * pi / 16) for n in range(8)]
        for k in range(8)
    ]


def _coloured(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """images (K, 3, H, W) in other colours."""
    return torch.einsum("ij,kjhw->kihw", torch.tensor(matrix, device=images.device), images)
