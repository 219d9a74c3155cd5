"""The looks of a batch's objects on a device: colours changed in steps, edges blended, colours harmonised.

Each does what its twin of one object on the CPU does, `photometric`, `blend` and `harmonise`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.compositing.atlas import sizes_of
from trainer.compositing.config import CompositorConfig
from trainer.compositing.harmonise import (
    FROM_YCC,
    MAX_STRETCH,
    MIN_SPREAD,
    TO_STORED_YCC,
    TO_YCC,
)
from trainer.compositing.photometric import NOISE_LENGTH, Blur, Linear, Noise, Step
from trainer.compositing.plan import Placement
from trainer.compositing.ragged import (
    Sizes,
    Spans,
    blur_radius,
    eroded,
    gaussian,
    gaussian_taps,
    pixels_of,
    taken,
)

Sides = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of the objects: their numbers (K,) int64, and sizes."""

    jobs: Tensor
    sizes: Sizes


@dataclass(frozen=True, slots=True, eq=False)
class Blurs:
    part: Part
    taps: Tensor  # (K, R + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Noises:
    part: Part
    sigma: Tensor  # (K,)
    start: Tensor  # (K,) int32, in the row of noise
    per_channel: Tensor  # (K,) int32, 0 or 1


@dataclass(frozen=True, slots=True, eq=False)
class StepTable:
    """The k-th step of every object that has so many; linear: (J, 6), three gains and three offsets."""

    linear: Tensor | None
    blurs: Blurs | None
    noises: Noises | None


@dataclass(frozen=True, slots=True, eq=False)
class BlendTable:
    """What becomes of opacities. hard: (J,) bool, cut at 0.5. feathered: eroded, then blurred."""

    hard: Tensor | None
    feathered: Blurs | None
    radius: Tensor  # (K,) int32, of the erosion of those feathered
    max_radius: int


def pack_steps(placements: Sequence[Placement], sides: Sides) -> tuple[StepTable, ...]:
    """sides: width and height, px, at which each object's colours are changed."""
    count = max((len(placement.photometrics) for placement in placements), default=0)
    return tuple(
        _step_table([placement.photometrics[k : k + 1] for placement in placements], sides)
        for k in range(count)
    )


def _step_table(steps: Sequence[tuple[Step, ...]], sides: Sides) -> StepTable:
    linear = np.tile(np.array([1, 1, 1, 0, 0, 0], np.float32), (len(steps), 1))
    blurs: list[tuple[int, Blur]] = []
    noises: list[tuple[int, Noise]] = []
    for job, found in enumerate(steps):
        for step in found:
            if isinstance(step, Linear):
                linear[job] = (*step.gain, *step.offset)
            elif isinstance(step, Noise):
                noises.append((job, step))
            elif step.sigma_px >= 1e-3:
                blurs.append((job, step))
    is_linear = any(isinstance(step, Linear) for found in steps for step in found)
    return StepTable(
        torch.from_numpy(linear) if is_linear else None,
        _blurs([(job, step.sigma_px, blur_radius(step.sigma_px)) for job, step in blurs], sides),
        _noises(noises, sides),
    )


def _blurs(found: Sequence[tuple[int, float, int]], sides: Sides) -> Blurs | None:
    """found: object, sigma and radius, px."""
    if not found:
        return None
    jobs, sigmas, radii = zip(*found, strict=True)
    return Blurs(pack_part(jobs, sides), torch.tensor(gaussian_taps(sigmas, radii)))


def _noises(found: Sequence[tuple[int, Noise]], sides: Sides) -> Noises | None:
    if not found:
        return None
    steps = [step for _, step in found]
    return Noises(
        pack_part([job for job, _ in found], sides),
        torch.tensor([step.sigma for step in steps]),
        torch.tensor([step.seed % NOISE_LENGTH for step in steps], dtype=torch.int32),
        torch.tensor([step.per_channel for step in steps], dtype=torch.int32),
    )


def pack_part(jobs: Sequence[int], sides: Sides) -> Part:
    """jobs: numbers of objects, whose sides are given for all."""
    return Part(torch.tensor(jobs), sizes_of(np.array([sides[job] for job in jobs], np.int32).reshape(-1, 2)))


def pack_blends(
    config: CompositorConfig, placements: Sequence[Placement], sides: Sides, side_px: Sequence[float]
) -> BlendTable:
    """side_px: sqrt(area) of each object."""
    hard = [placement.blend == "hard" for placement in placements]
    sigmas = [config.feather * side for side in side_px]
    soft = [
        job
        for job, placement in enumerate(placements)
        if placement.blend == "gaussian" and sigmas[job] >= 0.25
    ]
    # OpenCV's own choice of a Gaussian's width for uint8 is 6 sigma + 1, rounded to an odd number
    widths = [(job, sigmas[job], (round(6 * sigmas[job] + 1) | 1) // 2) for job in soft]
    radius = [round(sigmas[job]) for job in soft]
    return BlendTable(
        torch.tensor(hard) if any(hard) else None,
        _blurs(widths, sides),
        torch.tensor(radius, dtype=torch.int32),
        max(radius, default=0),
    )


# On the device


def straighten(colour: Tensor, opacity: Tensor) -> Tensor:
    """Colours (P, 3) uint8, multiplied by opacity (P,) 0..255, divided by it: uint8, 0 where it is 0."""
    return rounded(colour * (255 / opacity.clamp(min=1))[:, None])


def rounded(values: Tensor) -> Tensor:
    """values, float32 and used up, as the nearest whole numbers 0..255, uint8."""
    return values.add_(0.5).clamp_(0, 255).to(torch.uint8)


def apply_steps(
    colour: Tensor, opacity: Tensor, spans: Spans, steps: tuple[StepTable, ...], noise_row: Tensor
) -> Tensor:
    """Colours (P, 3) uint8 after the steps. opacity: (P,) 0..255 float32."""
    for step in steps:
        if step.linear is not None:
            gains, offsets = (taken(half, spans.job) for half in step.linear.chunk(2, dim=1))
            colour = rounded(offsets.addcmul_(colour, gains))
        if step.blurs is not None:
            colour = _blurred(colour, opacity, spans, step.blurs)
        if step.noises is not None:
            colour = _with_noise(colour, spans, step.noises, noise_row)
    return colour


def _blurred(colour: Tensor, opacity: Tensor, spans: Spans, blurs: Blurs) -> Tensor:
    part, places = pixels_of(spans, blurs.part.jobs, blurs.part.sizes)
    weight = opacity[places]
    values = (colour[places] * (weight / 255)[:, None]).round_()
    values = gaussian(torch.cat([values, weight[:, None]], dim=1), part, blurs.taps, "reflect").round_()
    return colour.index_copy(0, places, straighten(values[:, :3], values[:, 3]))


def _with_noise(colour: Tensor, spans: Spans, noises: Noises, row: Tensor) -> Tensor:
    part, places = pixels_of(spans, noises.part.jobs, noises.part.sizes)
    start, apart = taken(noises.start, part.job), taken(noises.per_channel, part.job)
    place = part.row * taken(part.sizes.width, part.job) + part.column
    channel = torch.arange(3, dtype=torch.int32, device=row.device)
    index = (start + place * (1 + 2 * apart))[:, None] + channel * apart[:, None]
    noise = taken(row, index.remainder(len(row))) * taken(noises.sigma, part.job)[:, None]
    return colour.index_copy(0, places, rounded(noise.add_(colour[places])))


def blend_opacities(opacity: Tensor, spans: Spans, blends: BlendTable) -> Tensor:
    """opacity (P,) 0..255 that objects are painted with."""
    painted = opacity
    if blends.hard is not None:
        cut = torch.where(opacity >= 128, 255.0, 0.0)
        painted = torch.where(taken(blends.hard, spans.job), cut, painted)
    if blends.feathered is not None:
        part, places = pixels_of(spans, blends.feathered.part.jobs, blends.feathered.part.sizes)
        here = opacity[places]
        inner = eroded(here, part, blends.radius, blends.max_radius)
        soft = gaussian(inner[:, None], part, blends.feathered.taps, "zero")[:, 0].round()
        painted = painted.index_copy(0, places, soft.minimum(here))
    return painted


def harmonise(
    colour: Tensor, opacity: Tensor, under: Tensor, is_on: Tensor, spans: Spans, strength: Tensor
) -> Tensor:
    """Colours (P, 3) uint8 of whole objects drawn towards what lies under their rectangles.

    under: (P, 3) uint8, the scene's colours; is_on: bool (P,), where there is a scene. strength: (J,) 0..1.
    Sums are of whole numbers, so that their order, which a device chooses, changes nothing.
    """
    areas = spans.sizes.width * spans.sizes.height
    own_count, own = _statistics(colour, opacity >= 128, areas)
    new_count, new = _statistics(under, is_on, areas)
    ratio = new[1] / own[1].clamp(min=MIN_SPREAD)
    share = (strength * (own_count > 0) * (new_count > 0))[:, None]
    factor = 1 + share * (ratio.clamp(1 / MAX_STRETCH, MAX_STRETCH) - 1)
    offset = own[0] + share * (new[0] - own[0]) - factor * own[0]
    from_ycc, to_ycc = (torch.tensor(m, device=colour.device) for m in (FROM_YCC, TO_YCC))
    matrix = torch.einsum("ij,nj,jk->nik", from_ycc, factor, to_ycc)
    moved = taken(matrix.float(), spans.job) * colour[:, None]  # (P, 3, 3)
    return rounded(moved.sum(-1) + taken((offset @ from_ycc.T).float(), spans.job))


def _statistics(colour: Tensor, counted: Tensor, areas: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Of each object, pixels counted (J,), and mean and spread (J, 3) of their YCbCr, float64."""
    to_stored = torch.tensor(TO_STORED_YCC, dtype=torch.float32, device=colour.device)
    stored = (colour.float() @ to_stored[:, :3].T + to_stored[:, 3]).round().clamp(0, 255).long()
    columns = torch.cat([counted[:, None].long(), stored, stored * stored], dim=1) * counted[:, None]
    summed = torch.cat([columns.new_zeros(1, 7), columns.cumsum(0)])
    ends = areas.cumsum(0)
    sums = (summed[ends] - summed[ends - areas]).double()
    count = sums[:, 0].clamp(min=1)[:, None]
    mean = sums[:, 1:4] / count
    spread = (sums[:, 4:] / count - mean**2).clamp(min=0).sqrt()
    return sums[:, 0], (mean - to_stored[:, 3].double(), spread)
