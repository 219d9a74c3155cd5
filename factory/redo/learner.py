"""ReDO's training (Chen, Artières and Denoyer 2019, algorithm 1): step, review, start over on collapse.

Masks, region generators and latent recovery take one step together; then the discriminator takes its own on
images drawn anew with the networks just updated.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import InputError
from factory.generators.found import Fact
from factory.redo.candidates import choose, keep_candidate, read_candidates, review_masks
from factory.redo.losses import discriminator_loss, realism_loss, recovery_loss, redraw
from factory.redo.networks import generator_of, make_networks, make_optimisers, placed, started
from factory.redo.selection import FloatArray, region_areas
from factory.redo.settings import RedoTraining
from factory.redo.spectral import redraw_kernels
from factory.training.image_pool import ImagePool, to_signed

_STREAMS = 4  # of the pool, an attempt: images, real images, two to spare
_START, _LATENTS, _REVIEW = 0, 1, 2  # what a generator's key begins with after the seed


class Collapsed(InputError):
    """One region took the whole image, too late or too often to start over."""


class RedoLearner:
    """Trains masks by redrawing regions.

    pool: the training's images. held_out: uint8 (N, 3, S, S), looked at in reviews only. folder: gets
    ``masks/``. warm: start values of the mask network; else random ones, as for the other networks.
    """

    def __init__(
        self,
        config: RedoTraining,
        pool: ImagePool,
        held_out: Tensor,
        folder: Path,
        device: torch.device,
        warm: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._config, self._pool, self._held_out, self._folder = config, pool, held_out, folder
        self._device, self._warm = device, warm
        self._iteration = self._attempt = 0
        self._areas: FloatArray | None = None  # of the last training batch
        self._masks_before: FloatArray | None = None  # of the held-out images, at the last review
        self.networks = make_networks(config.networks, config.image_size)
        started(self.networks.recovery, config.seed, _START, 3, 0)
        self._start()

    @property
    def iteration(self) -> int:
        return self._iteration

    @property
    def attempt(self) -> int:
        """How often it started over."""
        return self._attempt

    def step(self) -> dict[str, float]:
        """One step of all networks."""
        images, real, latents = self._draw()
        self.networks.train()
        figures = self._step_generators(images, latents) | self._step_discriminator(images, real, latents)
        self._iteration += 1
        return figures

    def _step_generators(self, images: Tensor, latents: Tensor) -> dict[str, float]:
        nets = self.networks
        nets.discriminator.requires_grad_(False)
        nets.masks.requires_grad_(self._iteration >= self._config.optimiser.mask_frozen_steps)
        with self._autocast():
            masks = nets.masks(images)
            regions = nets.regions(masks, latents)
            scores = nets.discriminator(redraw(images, masks, regions))
            recovered = nets.recovery(regions.sum(dim=1))
        realism = realism_loss(scores.float())
        recovery = recovery_loss(latents, recovered.float())
        self._update(
            realism + self._config.optimiser.recovery_weight * recovery,
            *("optimizerEncM", "optimizerGenX", "optimizerRecZ"),
        )
        nets.discriminator.requires_grad_(True)
        self._areas = region_areas(masks.detach().float().cpu().numpy())
        return {
            "realism": realism.item(),
            "recovery": recovery.item(),
            "min_region": float(self._areas.min()),
        }

    def _step_discriminator(self, images: Tensor, real: Tensor, latents: Tensor) -> dict[str, float]:
        nets = self.networks
        with self._autocast():
            with torch.no_grad():
                masks = nets.masks(images)
                redrawn = redraw(images, masks, nets.regions(masks, latents))
            real_scores, scores = nets.discriminator(real), nets.discriminator(redrawn)
        loss = discriminator_loss(real_scores.float(), scores.float())
        self._update(loss, "optimizerDX")
        return {"discriminator": loss.item()}

    def _update(self, loss: Tensor, *names: str) -> None:
        for name in names:
            self._optimisers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name in names:
            self._optimisers[name].step()

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images, other real images and latents of this iteration."""
        batch, stream = self._config.batch_size, _STREAMS * self._attempt
        images, real = (
            to_signed(self._pool.batch(self._iteration, batch, stream + k).to(self._device)) for k in (0, 1)
        )
        return images, real, self._latents(batch, _LATENTS, self._attempt, self._iteration)

    def _latents(self, count: int, *key: int) -> Tensor:  # (B, n, Z, 1, 1)
        sizes = self._config.networks
        shape = (count, sizes.num_regions, sizes.latent_size, 1, 1)
        return torch.randn(shape, generator=generator_of(self._config.seed, *key)).to(self._device)

    def _autocast(self) -> torch.autocast:
        enabled = self._config.precision == "bfloat16"
        return torch.autocast(self._device.type, torch.bfloat16, enabled=enabled)

    def review(self) -> dict[str, float]:
        """Keep this checkpoint's masks and look for collapse.

        Raises Collapsed when starting over is no longer possible.
        """
        masks, figures = review_masks(self.networks.masks, self._held_out, self._device, self._masks_before)
        figures = replace(figures, realism_gap=self._realism_gap())
        name = f"step-{self._attempt}-{self._iteration:06d}"
        facts: dict[str, Fact] = {
            "iteration": self._iteration,
            "attempt": self._attempt,
            "stage": "adversarial",
        }
        kept = keep_candidate(
            self._folder / "masks", name, self.networks.masks, self._held_out, masks, figures, facts
        )
        self._masks_before = masks
        known = {key: value for key, value in kept.found.facts.items() if isinstance(value, float)}
        smallest = {
            "min_region_train": float(self._areas.min()) if self._areas is not None else 1.0,
            "min_region_held_out": float(region_areas(masks).min()),
        }
        has_collapsed = max(smallest.values()) < self._config.collapse.min_region_frac
        if has_collapsed:
            self._start_over()
        return {**known, **smallest, "collapsed": float(has_collapsed), "attempt": float(self._attempt)}

    @torch.no_grad()
    def _realism_gap(self) -> float:
        """Mean score of held-out images minus that of the same, each region redrawn in turn."""
        nets, count = self.networks, len(self._held_out)
        nets.train(training=False)
        latents = self._latents(count, _REVIEW)
        gap = 0.0
        batches = (torch.split(each, self._config.batch_size) for each in (self._held_out, latents))
        for part, z in zip(*batches, strict=True):
            images = to_signed(part.to(self._device))
            masks = nets.masks(images)
            redrawn = nets.discriminator(redraw(images, masks, nets.regions(masks, z)))
            gap += len(part) / count * float((nets.discriminator(images).mean() - redrawn.mean()).item())
        return gap

    def _start_over(self) -> None:
        limits = self._config.collapse
        if self._iteration > limits.within_steps or self._attempt + 1 >= limits.attempts:
            kept = choose(read_candidates(self._folder / "masks", self._folder / "distill" / "masks"))
            raise Collapsed(
                f"{self._folder}: step {self._iteration}, attempt {self._attempt + 1}: one region takes the"
                f" whole image; the best checkpoint kept is {kept.path} (score {kept.score:.2f})"
            )
        self._attempt += 1
        self._iteration = 0
        generator = generator_of(self._config.seed, _START, 3, self._attempt)
        redraw_kernels(self.networks.recovery, generator)
        self._start()

    def _start(self) -> None:
        """New masks, region generators, discriminator and optimisers; the latent recovery stays as it is."""
        nets = self.networks
        for number, network in enumerate((nets.masks, nets.regions, nets.discriminator)):
            started(network, self._config.seed, _START, number, self._attempt)
        if self._warm is not None:
            nets.masks.load_state_dict(self._warm, strict=True)
        for _, network in nets.items():
            placed(network, self._device)
        self._optimisers = make_optimisers(nets, self._config)
        self._masks_before = None

    def state(self) -> dict[str, Any]:
        """Networks and optimisers under the authors' names, and where it stands."""
        before = self._masks_before
        return {
            **self.networks.state(),
            **{name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
            "iteration": self._iteration,
            "attempt": self._attempt,
            "masks_before": None if before is None else torch.from_numpy(before),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state; the networks stay on their device."""
        self.networks.load(state)
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state[name])
        self._iteration, self._attempt = int(state["iteration"]), int(state["attempt"])
        before = state["masks_before"]
        self._masks_before = None if before is None else before.numpy()
