"""One training step of the generator and its discriminator, and what is looked at between steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from configs.embedded import embedded
from configs.kinds import StrictModel
from factory.gan.diff_augment import AUGMENTATIONS, diff_augment
from factory.gan.discriminator import FastganDiscriminator
from factory.gan.projected import ProjectedDiscriminator
from factory.generators.fastgan import FastganGenerator, FastganSizes, calibrate_norms
from factory.training.image_pool import Fit, ImagePool, to_signed
from factory.training.loop import LoopConfig
from factory.weights import read_weights


class GanConfig(StrictModel):
    """Settings of a generator's training. Learning rate is FastGAN's.

    discriminator: "fastgan" learns from the photos alone; "projected" judges features of MobileNetV2
        (ImageNet), costs twice as much a step and needs far fewer.

    fit: photos that are not square are cropped, or squashed, and the generated images stretched back to
        their median aspect: for objects that fill their photo.
    image_px: a power of two from 64. width, discriminator_width: channels at 64 px and at half of image_px.
    ema: the share of the averaged weights that a step keeps, reached gradually.
    precision: of the convolutions; bf16 is 5x faster on processors and GPUs that have it, fp32 runs anywhere.
    samples: images generated for the scores at every checkpoint.
    """

    image_px: int = Field(default=64, ge=64, le=256)
    fit: Fit = "crop"
    num_latent: int = Field(default=128, gt=0)
    discriminator: Literal["fastgan", "projected"] = "fastgan"
    width: int = Field(default=32, ge=4)
    discriminator_width: int = Field(default=32, ge=4)
    batch_size: int = Field(default=16, gt=1)
    lr: float = Field(default=2e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    ema: float = Field(default=0.999, ge=0, lt=1)
    augment: str = "color,translation"
    flip: bool = True
    precision: Literal["bf16", "fp32"] = "bf16"
    samples: int = Field(default=500, ge=100)
    seed: int = Field(default=0, ge=0)
    loop: LoopConfig = LoopConfig(steps=20_000, checkpoint_every=500)

    @field_validator("image_px")
    @classmethod
    def _is_power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"found {value}, wanted 64, 128 or 256")
        return value

    @field_validator("augment")
    @classmethod
    def _is_known(cls, value: str) -> str:
        unknown = sorted({*filter(None, value.split(","))} - {*AUGMENTATIONS})
        if unknown:
            raise ValueError(f"unknown {', '.join(unknown)}, known: {', '.join(AUGMENTATIONS)}")
        return value


class GanLearner:
    """Hinge losses on patches with a random margin of 0.8 to 1 (FastGAN), on differentiably augmented images.

    The same generated images serve the discriminator's step and, judged anew, the generator's.
    review: called with the averaged generator, calibrated, and the iteration; its figures go to the log.
    """

    def __init__(
        self,
        pool: ImagePool,
        config: GanConfig,
        review: Callable[[FastganGenerator, int], dict[str, float]],
        device: torch.device | None = None,
    ) -> None:
        self._pool, self._config, self._review = pool, config, review
        self._device = device or torch.device("cpu")
        with _seeded(config.seed):
            sizes = FastganSizes(config.num_latent, config.width, config.image_px)
            self.generator = _placed(FastganGenerator(sizes), self._device)
            self.discriminator = _placed(_discriminator(config), self._device)
        self._judged = [p for p in self.discriminator.parameters() if p.requires_grad]
        self.averaged = deepcopy(self.generator).eval().requires_grad_(False)
        self._optimisers = [
            torch.optim.Adam(parameters, config.lr, betas=config.betas)
            for parameters in (self.generator.parameters(), self._judged)
        ]
        self._iteration = 0

    @property
    def iteration(self) -> int:
        return self._iteration

    def step(self) -> dict[str, float]:
        """The discriminator's step, then the generator's, then the average's."""
        config, rng = self._config, self._rng(self._iteration)
        real = _channels_last(
            to_signed(self._pool.batch(self._iteration, config.batch_size)).to(self._device)
        )
        latents = torch.randn(config.batch_size, config.num_latent, generator=rng).to(self._device)
        row, column = torch.randint(0, 2, (2,), generator=rng).tolist()
        with self._autocast():
            fake = self.generator(latents)
            real_scores, redrawn = self.discriminator.judge_and_redraw(
                self._augmented(real, rng), (row, column)
            )
            fake_scores = self.discriminator(self._augmented(fake.detach(), rng))
        judge = _hinge(real_scores, rng) + _hinge(-fake_scores, rng)
        self._descend(1, judge + redrawn)
        self._freeze_judge(True)
        with self._autocast():
            fooled = -self.discriminator(self._augmented(fake, rng)).mean()
        self._descend(0, fooled)
        self._freeze_judge(False)
        self._average()
        self._iteration += 1
        return {"judge": judge.item(), "redraw": redrawn.item(), "generator": fooled.item()}

    def review(self) -> dict[str, float]:
        """The figures of the averaged generator."""
        return self._review(self.finished(), self._iteration)

    def finished(self) -> FastganGenerator:
        """A copy of the averaged generator on the CPU, its norms calibrated, ready to sample from."""
        generator: FastganGenerator = deepcopy(self.averaged).cpu()
        with torch.autocast("cpu", torch.bfloat16, enabled=self._config.precision == "bf16"):
            calibrate_norms(generator, torch.Generator().manual_seed(self._config.seed))
        return generator

    def state(self) -> dict[str, Any]:
        networks = {name: network.state_dict() for name, network in self._networks().items()}
        optimisers = [optimiser.state_dict() for optimiser in self._optimisers]
        return {"iteration": self._iteration, "networks": networks, "optimisers": optimisers}

    def load(self, state: dict[str, Any]) -> None:
        for name, network in self._networks().items():
            network.load_state_dict(state["networks"][name])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self._iteration = state["iteration"]

    def _networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "averaged": self.averaged}

    def _freeze_judge(self, frozen: bool) -> None:
        for parameter in self._judged:
            parameter.requires_grad_(not frozen)

    def _rng(self, iteration: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._config.seed * 1_000_003 + iteration)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bf16")

    def _augmented(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return _channels_last(diff_augment(images, rng, self._config.augment))

    def _descend(self, which: int, loss: Tensor) -> None:
        optimiser = self._optimisers[which]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    @torch.no_grad()
    def _average(self) -> None:
        kept = min(self._config.ema, (1 + self._iteration) / (10 + self._iteration))
        for average, now in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(now, 1 - kept)


def _discriminator(config: GanConfig) -> FastganDiscriminator | ProjectedDiscriminator:
    if config.discriminator == "fastgan":
        return FastganDiscriminator(config.image_px, config.discriminator_width)
    weights = read_weights(embedded("weights/mobilenet_v2.safetensors"), "MobileNetV2's weights")
    return ProjectedDiscriminator(weights, config.discriminator_width)


def _hinge(scores: Tensor, rng: torch.Generator) -> Tensor:
    """Mean of what is missing to a margin that is drawn, for each score, between 0.8 and 1."""
    margin = torch.rand(scores.shape, generator=rng).to(scores.device) * 0.2 + 0.8
    return F.relu(margin - scores).mean()


def _placed(network: Any, device: torch.device) -> Any:
    return network.to(device).to(memory_format=torch.channels_last)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's layers draw their first weights from the global generator: seed it, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
