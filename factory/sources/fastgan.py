"""Object images from a generator trained by `factory.train_gan`: an endless row, one latent vector a slot."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from pydantic import Field

from configs.errors import InputError
from factory.device import Device, placed
from factory.generators.dcgan import to_uint8
from factory.generators.fastgan import FastganGenerator
from factory.generators.found import Found, read_content
from factory.generators.rows import aligned_slots, draw_latents
from factory.stages import ObjectImage, Scalar, SourceConfig, UInt8Array
from factory.weights import find_weights, sha256_of

_WANTED = "a generator of factory.train_gan"


class FastganConfig(SourceConfig):
    """A generator that `factory.train_gan` trained.

    weights: its safetensors file; a relative one is looked up from the working directory, then in the home's
        data/weights, then among the embedded ones.
    batch_size: images made at once. Part of what an image is: another size may change its last bit.
    precision: bf16 is 3x faster on processors that compute in it, slow on others; part of what an image is.
    device: "cuda" for a GPU; part of what an image is.
    """

    kind: Literal["fastgan"] = "fastgan"
    weights: Path | None = None
    batch_size: int = Field(default=8, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Device = None

    def open(self, seed: int, home: Path) -> "FastganSource":
        """The generator, loaded. Raises InputError when its weights are missing or of another kind."""
        if self.weights is None:
            raise InputError(f"source.weights is not set: wanted a file that holds {_WANTED}")
        path = find_weights("source.weights", self.weights, home, _WANTED)
        content = read_content(path, _WANTED)
        if not isinstance(content, Found) or content.family != "fastgan":
            found = content.family if isinstance(content, Found) else "other weights"
            raise InputError(f"{path}: holds {found}, wanted {_WANTED}")
        try:
            generator = FastganGenerator.from_state_dict(content.tensors)
        except ValueError as error:
            raise InputError(f"{path}: {error}, wanted {_WANTED}") from error
        aspect = float(content.facts.get("aspect", 1.0))
        return FastganSource(
            generator, sha256_of(path), seed, self.batch_size, aspect, self.precision, self.device
        )


class FastganSource:
    """Slot ``i`` is the image of a latent vector drawn from (seed, i), stretched to ``aspect`` (width over
    height) by the side that grows.
    """

    size: None = None

    def __init__(
        self,
        generator: FastganGenerator,
        weights_sha256: str,
        seed: int,
        batch_size: int,
        aspect: float = 1.0,
        precision: Literal["fp32", "bf16"] = "fp32",
        device: Device = None,
    ) -> None:
        self._generator = generator.fold_norms().to(memory_format=torch.channels_last)
        self._device = device
        self._weights_sha256 = weights_sha256
        self._seed, self._batch_size, self._bf16 = seed, batch_size, precision == "bf16"
        side = generator.sizes.image_px
        self._frame = (round(side * max(1.0, aspect)), round(side * max(1.0, 1 / aspect)))  # width, height

    def images(self, start: int, count: int) -> Iterator[ObjectImage]:
        """Slots ``start`` to ``start + count``."""
        for index, image in aligned_slots(start, count, self._batch_size, self._batch):
            origin: dict[str, Scalar] = {
                "source": "fastgan",
                "latent_seed": self._seed,
                "latent_index": index,
            }
            yield ObjectImage(str(index), self._stretched(image), origin)

    def identity(self) -> Mapping[str, Scalar]:
        """sha256 of the weight file."""
        return {"weights_sha256": self._weights_sha256}

    def _stretched(self, image: UInt8Array) -> UInt8Array:
        if image.shape[1::-1] == self._frame:
            return image
        return np.asarray(cv2.resize(image, self._frame, interpolation=cv2.INTER_LINEAR), np.uint8)

    def _batch(self, start: int) -> UInt8Array:  # (B, S, S, 3)
        latents = draw_latents(self._seed, start, self._batch_size, self._generator.sizes.num_latent)
        generator, device = self._placed, self._device or "cpu"
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=self._bf16):
            pixels: UInt8Array = to_uint8(generator(latents.to(device))).cpu().numpy()
        return pixels

    @cached_property
    def _placed(self) -> FastganGenerator:
        return placed(self._generator, self._device, "source.device")
