"""One training step of the copy-pasting GAN (arXiv:1905.11369; see `losses` for what is known of it)."""

from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from configs.kinds import StrictModel
from factory.copy_paste.losses import generator_losses, judge_loss, mask_loss
from factory.copy_paste.networks import CopyPasteDiscriminator, paste, zero_border
from factory.redo.mask_network import MaskNetwork
from factory.stages import UInt8Array
from factory.training.image_pool import Fit, ImagePool, to_signed
from factory.training.loop import LoopConfig

_BETAS = (0.5, 0.999)


class CopyPasteConfig(StrictModel):
    """Settings of a copy-pasting GAN's training.

    num_features, num_res_blocks: of the mask network; discriminator_features: channels at the full side.
    blur_px: sigma of the blur that the discriminator sees images through. border_px: masks are empty there.
    head_start: steps at the start in which the discriminator alone is trained.
    mask_weight: of the discriminator's auxiliary loss. real_target: what it is taught of real images.
    real_destinations: weight of judging the plain destinations real as well; for destinations that are
        unlike the objects' own surroundings, by which every composite could be told.
    backgrounds: a background set to paste on (folder or URL); unset: on other images of the class.
    precision: of the convolutions.
    """

    image_px: int = Field(default=64, ge=24, le=256, multiple_of=8)
    num_features: int = Field(default=32, ge=8, multiple_of=4)
    num_res_blocks: int = Field(default=2, ge=0)
    discriminator_features: int = Field(default=32, ge=2)
    batch_size: int = Field(default=16, ge=2)
    lr: float = Field(default=2e-4, gt=0)
    blur_px: float = Field(default=1.0, ge=0)
    border_px: int = Field(default=2, ge=0)
    head_start: int = Field(default=200, ge=0)
    mask_weight: float = Field(default=0.1, ge=0)
    real_target: float = Field(default=0.75, gt=0, le=1)
    real_destinations: float = Field(default=0.0, ge=0)
    backgrounds: str | None = None
    flip: bool = True
    fit: Fit = "crop"
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = Field(default=0, ge=0)
    loop: LoopConfig = LoopConfig(steps=10_000, checkpoint_every=500)

    @model_validator(mode="after")
    def _leaves_an_inside(self) -> "CopyPasteConfig":
        if 4 * self.border_px > self.image_px:
            raise ValueError(f"border_px is {self.border_px}, wanted a quarter of image_px at most")
        return self


class CopyPasteLearner:
    """The generator copies through its mask; the discriminator tells composites from real images.

    It is also shown grounded fakes (pasted through random polygons), which are plainly wrong, so that it
    learns what a paste looks like even while the generator copies next to nothing.
    review: called with the mask network in eval mode and the iteration; its figures go to the log.
    """

    def __init__(
        self,
        objects: ImagePool,
        destinations: ImagePool,
        config: CopyPasteConfig,
        review: Callable[[MaskNetwork, int], dict[str, float]],
        device: torch.device | None = None,
    ) -> None:
        self._objects, self._destinations, self._config, self._review = objects, destinations, config, review
        self._device = device or torch.device("cpu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.generator = MaskNetwork(config.num_features, config.num_res_blocks, 2, config.image_px)
            self.discriminator = CopyPasteDiscriminator(config.discriminator_features, config.blur_px)
        self._networks: dict[str, nn.Module] = {
            "generator": self.generator.to(self._device),
            "discriminator": self.discriminator.to(self._device),
        }
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), config.lr, _BETAS)
            for name, network in self._networks.items()
        }
        self._iteration = 0

    @property
    def iteration(self) -> int:
        return self._iteration

    def step(self) -> dict[str, float]:
        """The discriminator's step, then, after its head start, the generator's."""
        objects, irrelevant = self._drawn(self._objects, 0), self._drawn(self._objects, 1)
        destinations = self._drawn(self._destinations, 2)
        with self._autocast():
            masks = copy_masks(self.generator, objects, self._config.border_px)
            judged = self._discriminator_losses(objects, irrelevant, destinations, masks.detach())
        self._descend("discriminator", judged)
        figures = {name: loss.item() for name, loss in judged.items()}
        if self._iteration >= self._config.head_start:
            self.discriminator.requires_grad_(False)
            with self._autocast():
                pasted = self.discriminator(paste(masks, objects, destinations))[0].float()
                wrong = self.discriminator(paste(masks, irrelevant, destinations))[0].float()
            taught = generator_losses(pasted, wrong)
            self._descend("generator", taught)
            self.discriminator.requires_grad_(True)
            figures |= {name: loss.item() for name, loss in taught.items()}
        self._iteration += 1
        return {**figures, "area": masks.detach().float().mean().item()}

    def review(self) -> dict[str, float]:
        """The figures of the mask network."""
        try:
            return self._review(self.generator.eval(), self._iteration)
        finally:
            self.generator.train()

    def state(self) -> dict[str, Any]:
        return {
            "iteration": self._iteration,
            "networks": {name: network.state_dict() for name, network in self._networks.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        self._iteration = state["iteration"]
        for name, network in self._networks.items():
            network.load_state_dict(state["networks"][name])
            self._optimisers[name].load_state_dict(state["optimisers"][name])

    def _discriminator_losses(
        self, objects: Tensor, irrelevant: Tensor, destinations: Tensor, masks: Tensor
    ) -> dict[str, Tensor]:
        config = self._config
        random = polygon_masks(len(objects), config.image_px, [config.seed, 3, self._iteration])
        random = random.to(objects)
        shown = {
            "real": (objects, torch.zeros_like(random)),
            "fake": (paste(masks, objects, destinations), masks),
            "grounded": (paste(random, objects, destinations), random),
            "irrelevant": (paste(masks, irrelevant, destinations), masks),
        }
        if config.real_destinations > 0:
            shown["plain"] = (destinations, torch.zeros_like(random))
        scores, logits = self.discriminator(torch.cat([image for image, _ in shown.values()]))
        targets = torch.cat([mask for _, mask in shown.values()]).float()
        by_kind = dict(zip(shown, scores.float().chunk(len(shown)), strict=True))
        losses = {
            "real": judge_loss(by_kind["real"], config.real_target),
            "fake": judge_loss(by_kind["fake"], 0.0),
            "grounded": judge_loss(by_kind["grounded"], 0.0),
            "mask": config.mask_weight * len(shown) * mask_loss(logits.float(), targets),
        }
        if "plain" in by_kind:
            losses["plain"] = config.real_destinations * judge_loss(by_kind["plain"], config.real_target)
        return losses

    def _drawn(self, pool: ImagePool, stream: int) -> Tensor:
        images = pool.batch(self._iteration, self._config.batch_size, stream)
        return to_signed(images).to(self._device).contiguous(memory_format=torch.channels_last)

    def _descend(self, name: str, losses: dict[str, Tensor]) -> None:
        self._optimisers[name].zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        self._optimisers[name].step()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bf16")


def copy_masks(network: MaskNetwork, images: Tensor, border_px: int) -> Tensor:
    """What is copied of images (B, 3, S, S) in -1..1: (B, 1, S, S) in 0..1, nothing along the border."""
    return zero_border(network(images)[:, :1], border_px)


def polygon_masks(count: int, side_px: int, seed: list[int]) -> Tensor:
    """Random polygons, float32 (count, 1, S, S) of 0 and 1: 4 to 6 corners around a point of the middle.

    The paper says random polygons; their shape is ours.
    """
    rng = np.random.default_rng(seed)
    masks: UInt8Array = np.zeros((count, side_px, side_px), np.uint8)
    for mask in masks:
        corners = int(rng.integers(4, 7))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = rng.uniform(0.15, 0.45, corners) * side_px
        centre = rng.uniform(0.3, 0.7, 2) * side_px
        points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return torch.from_numpy(masks)[:, None].float()
