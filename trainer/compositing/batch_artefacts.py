"""What a camera and a file do to whole scenes: on a device what `scene_artefacts` does to one on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.compositing.batch_jpeg import through_jpeg
from trainer.compositing.photometric import NOISE_LENGTH, Blur, Noise
from trainer.compositing.ragged import gaussian_taps, to_bytes
from trainer.compositing.scene_artefacts import Artefact, Jpeg, MotionBlur, Rescale, motion_kernel

_ORDER = (Rescale, Blur, MotionBlur, Noise, Jpeg)


@dataclass(frozen=True, slots=True, eq=False)
class ArtefactTable:
    """Artefacts of one kind on different scenes.

    scenes: (K,) int64. numbers: (K, N), per kind: the smaller side, px; the blur's taps from the centre
    outwards; the motion's kernel, N its square side; sigma, start and whether per channel; quality.
    """

    kind: type[Artefact]
    scenes: Tensor
    numbers: Tensor


def pack_artefacts(artefacts: Sequence[tuple[Artefact, ...]], size: int) -> tuple[ArtefactTable, ...]:
    """Tables in an order that keeps each scene's; one for each kind if all scenes follow its usual order."""
    left = [list(found) for found in artefacts]
    tables = []
    while any(left):
        for kind in _ORDER:
            scenes = [scene for scene, found in enumerate(left) if found and isinstance(found[0], kind)]
            if scenes:
                numbers = _numbers([left[scene].pop(0) for scene in scenes], size)
                tables.append(ArtefactTable(kind, torch.tensor(scenes), numbers))
    return tuple(tables)


def _numbers(found: Sequence[Artefact], size: int) -> Tensor:
    rescales = [step for step in found if isinstance(step, Rescale)]
    blurs = [max(step.sigma_px, 1e-3) for step in found if isinstance(step, Blur)]
    motions = [motion_kernel(s.length_px, s.angle_deg) for s in found if isinstance(s, MotionBlur)]
    qualities = [[float(step.quality)] for step in found if isinstance(step, Jpeg)]
    noises = [step for step in found if isinstance(step, Noise)]
    if rescales:
        return torch.tensor([[float(max(1, round(step.factor * size)))] for step in rescales])
    if blurs:
        return torch.tensor(gaussian_taps(blurs, [ceil(2.5 * sigma) for sigma in blurs]))
    if motions:
        reach = max(len(kernel) for kernel in motions) // 2
        return torch.stack([F.pad(torch.from_numpy(k), [reach - len(k) // 2] * 4).flatten() for k in motions])
    if qualities:
        return torch.tensor(qualities)
    rows = [[step.sigma, float(step.seed % NOISE_LENGTH), float(step.per_channel)] for step in noises]
    return torch.tensor(rows)


# On the device


def apply_tables(images: Tensor, tables: Sequence[ArtefactTable], noise_row: Tensor) -> Tensor:
    """images (B, 3, S, S) uint8, which may be changed, after the artefacts."""
    for table in tables:
        chosen = images[table.scenes].float()
        if table.kind is Rescale:
            chosen = _rescaled(chosen, table.numbers[:, 0])
        elif table.kind is Blur:
            chosen = _blurred(chosen, table.numbers)
        elif table.kind is MotionBlur:
            chosen = _moved(chosen, table.numbers)
        elif table.kind is Jpeg:
            chosen = through_jpeg(chosen, table.numbers[:, 0])
        else:
            chosen = _with_noise(chosen, table.numbers, noise_row)
        images.index_copy_(0, table.scenes, to_bytes(chosen))
    return images


def _rescaled(images: Tensor, small: Tensor) -> Tensor:
    """Averaged to small (K,) px a side, and bilinearly back: products with the weights' matrices."""
    side = images.shape[-1]
    place = torch.arange(side, dtype=torch.float32, device=images.device)
    step = (side / small)[:, None, None]
    low, pixel = step * place[:, None], place[None]  # (K, S, 1), (1, S)
    down = ((low + step).minimum(pixel + 1) - low.maximum(pixel)).clamp(min=0) / step
    down = torch.where(place[:, None] < small[:, None, None], down, 0.0)[:, None]  # (K, 1, S, S)
    source = ((place[:, None] + 0.5) / step - 0.5).clamp(min=0).minimum((small - 1)[:, None, None])
    up = (1 - (source - pixel).abs()).clamp(min=0)[:, None]
    shrunk = (down @ images @ down.mT).round()
    return up @ shrunk @ up.mT


def _blurred(images: Tensor, taps: Tensor) -> Tensor:
    kernels = torch.cat([taps[:, 1:].flip(1), taps], dim=1)
    return _filtered(_filtered(images, kernels[:, None]), kernels[:, :, None])


def _moved(images: Tensor, numbers: Tensor) -> Tensor:
    side = round(numbers.shape[1] ** 0.5)
    return _filtered(images, numbers.reshape(-1, side, side))


def _filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Each image (3, S, S) with its kernel (N, M), reflected about the outermost pixels."""
    count, (below, across) = len(images), (side // 2 for side in kernels.shape[1:])
    padded = F.pad(images, [across, across, below, below], mode="reflect")
    total = torch.zeros_like(images)
    for y in range(kernels.shape[1]):
        for x in range(kernels.shape[2]):
            part = padded[..., y : y + images.shape[2], x : x + images.shape[3]]
            total.addcmul_(part, kernels[:, y, x].reshape(count, 1, 1, 1))
    return total


def _with_noise(images: Tensor, numbers: Tensor, row: Tensor) -> Tensor:
    """The noise that `apply_noise` adds: pixel by pixel, channels last."""
    sigma, start, apart = (column.reshape(-1, 1, 1, 1) for column in numbers.unbind(1))
    side = images.shape[-1]
    place = torch.arange(side * side, device=images.device).reshape(side, side)
    channel = torch.arange(3, device=images.device).reshape(3, 1, 1)
    apart = apart.long()
    index = start.long() + place * (1 + 2 * apart) + channel * apart
    return images + sigma * row[index.remainder(len(row))]
