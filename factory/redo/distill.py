"""The warm start: a mask network learns the masks of a segmenter that needs no labels either.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", with another teacher: a mask
that the teacher gets wrong at random is not learnt, one that it gets wrong always is.
"""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from configs.errors import InputError
from configs.unreadable import why_unreadable
from factory.generators.found import Fact
from factory.quality import QualityConfig, judge
from factory.redo.candidates import keep_candidate, review_masks
from factory.redo.losses import dice_loss, opacity_loss
from factory.redo.mask_network import MaskNetwork
from factory.redo.networks import make_mask_network, placed, started
from factory.redo.selection import FloatArray, soft_overlap
from factory.redo.settings import RedoTraining
from factory.stages import ObjectImage, ObjectSource, Segmenter, UInt8Array
from factory.training.image_pool import Fit, fit_square, to_signed

_BATCH = 32  # images segmented together
_BETAS = (0.9, 0.999)
_START = 0
_DRAWS = 3  # what the key of a step's draws begins with after the seed
_ORDER = 4


@dataclass(frozen=True, slots=True, eq=False)
class TeacherMasks:
    """What the teacher sees, in the source's order. images: uint8 (N, S, S, 3). masks: opacity (N, S, S).
    good: (N,), whether the gate lets the mask pass.
    """

    images: UInt8Array
    masks: UInt8Array
    good: np.ndarray[Any, np.dtype[np.bool_]]


def teacher_masks(
    path: Path,
    source: ObjectSource,
    teacher: Segmenter,
    quality: QualityConfig,
    max_images: int,
    size_px: int,
    fit: Fit,
) -> TeacherMasks:
    """The teacher's masks of the source's first images, from ``path`` where it has been asked before.

    The teacher sees the images at their full size. Raises InputError when the gate lets no mask pass.
    """
    if path.is_file():
        found = _read(path)
    else:
        found = _ask(source, teacher, quality, max_images, size_px, fit)
        _write(path, found)
    if not found.good.any():
        raise InputError(f"teacher: none of {len(found.good)} masks passes quality.*: choose another teacher")
    return found


def _ask(
    source: ObjectSource, teacher: Segmenter, quality: QualityConfig, max_images: int, size_px: int, fit: Fit
) -> TeacherMasks:
    count = max_images if source.size is None else min(max_images, source.size)
    images, masks, good = [], [], []
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("teacher's masks", total=count)
        for item, found in _segmented(source, teacher, count):
            images.append(fit_square(item.image, size_px, fit))
            masks.append(fit_square(found.mask, size_px, fit))
            good.append(judge(found, quality).keep)
            progress.advance(task)
    if not images:
        raise InputError(f"source: {count} images, none of them readable: wanted photos")
    return TeacherMasks(np.stack(images), np.stack(masks), np.array(good, bool))


def _segmented(source: ObjectSource, teacher: Segmenter, count: int) -> Iterator[tuple[ObjectImage, Any]]:
    readable = (item for item in source.images(0, count) if isinstance(item, ObjectImage))
    while batch := list(islice(readable, _BATCH)):
        yield from zip(batch, teacher.segment(batch), strict=True)


def _read(path: Path) -> TeacherMasks:
    try:
        with np.load(path, allow_pickle=False) as kept:
            return TeacherMasks(kept["images"], kept["masks"], kept["good"])
    except (
        OSError,
        ValueError,
        LookupError,
        EOFError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        reason = why_unreadable(path, error)
        raise InputError(
            f"{path}: {reason}: wanted the teacher's masks (remove the file to make them anew)"
        ) from error


def _write(path: Path, found: TeacherMasks) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.savez(file, images=found.images, masks=found.masks, good=found.good)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


class DistillLearner:
    """Region 0 learns the teacher's opacities: cross entropy plus Dice, on flipped and cropped photos.

    images: uint8 (N, 3, S, S). targets: float32 (N, S, S) in 0..1. held_out: a pair of the same, for reviews;
    a target that the gate refused is all 0 and not compared with.
    """

    def __init__(
        self,
        config: RedoTraining,
        images: Tensor,
        targets: Tensor,
        held_out: tuple[Tensor, Tensor],
        folder: Path,
        device: torch.device,
    ) -> None:
        self._config, self._folder, self._device = config, folder, device
        self._images, self._targets, self._held_out = images, targets, held_out
        self._iteration = 0
        self._masks_before: FloatArray | None = None
        self.network: MaskNetwork = make_mask_network(config.networks, config.image_size)
        started(self.network, config.seed, _START, 0, 0)
        placed(self.network, device)
        self._optimiser = torch.optim.Adam(self.network.parameters(), config.distill.lr, _BETAS)

    @property
    def iteration(self) -> int:
        return self._iteration

    def step(self) -> dict[str, float]:
        """One step, at a rate that falls to 0 along half a cosine."""
        images, targets = self._draw()
        self.network.train()
        mask = self.network(images)[:, 0]
        opacity, dice = opacity_loss(mask, targets), dice_loss(mask, targets)
        progress = self._iteration / self._config.distill.steps
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.distill.lr * (1 + cos(pi * min(1.0, progress))) / 2
        self._optimiser.zero_grad(set_to_none=True)
        loss = opacity + dice
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._iteration += 1
        return {"opacity": opacity.item(), "dice": dice.item()}

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Signed images (B, 3, S, S) and targets (B, S, S) of this iteration, cut and flipped alike."""
        count, seed = self._config.distill.batch_size, self._config.seed
        first = self._iteration * count
        chosen = [self._place(position) for position in range(first, first + count)]
        both = torch.cat([to_signed(self._images[chosen]), self._targets[chosen].unsqueeze(1)], dim=1)
        rng = np.random.default_rng([seed, _DRAWS, self._iteration])
        both = random_crops(both, rng, self._config.distill.min_crop_frac).to(self._device)
        return both[:, :3], both[:, 3]

    def _place(self, position: int) -> int:
        epoch, place = divmod(position, len(self._images))
        rng = np.random.default_rng([self._config.seed, _ORDER, epoch])
        return int(rng.permutation(len(self._images))[place])

    def review(self) -> dict[str, float]:
        """Keep this checkpoint's masks; ``teacher_overlap`` is that with the teacher's on held-out images."""
        images, targets = self._held_out
        masks, figures = review_masks(self.network, images, self._device, self._masks_before)
        good = targets.flatten(1).any(dim=1).numpy()
        facts: dict[str, Fact] = {"iteration": self._iteration, "stage": "distilled"}
        if good.any():
            facts["teacher_overlap"] = soft_overlap(masks[good, 0], np.asarray(targets[good], np.float32))
        name = f"distilled-{self._iteration:06d}"
        kept = keep_candidate(self._folder / "masks", name, self.network, images, masks, figures, facts)
        self._masks_before = masks
        return {key: value for key, value in kept.found.facts.items() if isinstance(value, float)}

    def state(self) -> dict[str, Any]:
        before = self._masks_before
        return {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "iteration": self._iteration,
            "masks_before": None if before is None else torch.from_numpy(before),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"], strict=True)
        self._optimiser.load_state_dict(state["optimiser"])
        self._iteration = int(state["iteration"])
        before = state["masks_before"]
        self._masks_before = None if before is None else before.numpy()


def random_crops(images: Tensor, rng: np.random.Generator, min_frac: float) -> Tensor:
    """Each of (B, C, S, S) cut to a random square of ``min_frac`` to 1 of the side, mirrored by lot, and
    brought back to its size."""
    count = len(images)
    scale = rng.uniform(min_frac, 1, count)
    shift = rng.uniform(-1, 1, (count, 2)) * (1 - scale[:, None])
    sign = rng.choice([-1.0, 1.0], count)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = scale * sign, scale
    theta[:, :, 2] = shift
    places = functional.affine_grid(torch.from_numpy(theta), list(images.shape), align_corners=False)
    return functional.grid_sample(images, places, padding_mode="reflection", align_corners=False)
