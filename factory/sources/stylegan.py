"""Object images from a StyleGAN of any generation: an endless row, one latent vector a slot."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from configs.errors import InputError
from factory.device import placed
from factory.generators.dcgan import to_uint8
from factory.generators.found import Fact
from factory.generators.rows import aligned_slots
from factory.generators.stylegan3 import StyleGan3
from factory.generators.stylegan_files import WANTED, StyleGan, build_stylegan, load_stylegan
from factory.stages import ObjectImage, Scalar, SourceConfig, UInt8Array
from factory.weights import find_weights, sha256_of

_MIN_SIDE_PX = 4


class StyleganConfig(SourceConfig):
    """A trained StyleGAN, StyleGAN2 (also ADA) or StyleGAN3 generator.

    weights: see `stylegan_files` for the formats; a relative one is looked up from the working directory,
        then in the home's data/weights. It must be set.
    weights_hint: what to tell a user who lacks the file: where it is to be had.
    psi: truncation; 1 for none, smaller for more typical objects. cutoff: number of first layers that it is
        for; unset: as the network was published (8 for StyleGAN, else all of them).
    image_px: side at which the network stops, a power of two from 4; unset: its own. StyleGAN and StyleGAN2
        get cheaper by it; StyleGAN3 is computed in full and averaged down.
    noise: "stored" for the network's own maps, the same in every image, or "random" for new ones a slot.
    frame_rows_frac: share of the rows that are kept, the middle ones: 0.75 for the cars, whose 512x512 images
        have black bars. frame_zoom: then the centre is kept, 1 / frame_zoom of both sides.
    batch_size: images made at once; device: where. Part of what an image is: another may change its last bit.
        On a processor large images are quickest one by one.
    precision: bf16 is 2 to 4x faster on processors that compute in it, slow on others; part of what an image
        is. Not for StyleGAN3.
    """

    kind: Literal["stylegan"] = "stylegan"
    weights: Path | None = None
    weights_hint: str = ""
    psi: float = Field(default=0.7, ge=0, le=2)
    cutoff: int | None = Field(default=None, ge=0)
    image_px: int | None = Field(default=None, ge=_MIN_SIDE_PX)
    noise: Literal["stored", "random"] = "stored"
    frame_rows_frac: float = Field(default=1.0, gt=0, le=1)
    frame_zoom: float = Field(default=1.0, ge=1)
    batch_size: int = Field(default=8, gt=0)
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"

    def open(self, seed: int, home: Path) -> "StyleganSource":
        """The generator, loaded. Raises InputError when its weights are missing or not a StyleGAN's."""
        wanted = f"{WANTED}; {self.weights_hint}" if self.weights_hint else WANTED
        if self.weights is None:
            raise InputError(f"source.weights is not set: wanted {wanted}")
        path = find_weights("source.weights", self.weights, home, wanted)
        found = load_stylegan(path)
        channels = found.facts.get("image_channels", 3)
        if channels not in (1, 3):
            raise InputError(f"{path}: makes images of {channels} channels, wanted 1 or 3")
        generator = build_stylegan(found)
        sides = _sides_of(generator.image_px)
        if self.image_px is not None and self.image_px not in sides:
            known = ", ".join(map(str, sides))
            raise InputError(
                f"source.image_px: found {self.image_px}, wanted one of {known}: sides of {path}"
            )
        if self.precision == "bf16":
            if isinstance(generator, StyleGan3):
                raise InputError(f"source.precision: found bf16, wanted fp32: {path} holds a StyleGAN3")
            generator = generator.in_bfloat16()
        return StyleganSource(generator, path, seed, self, found.facts)


class StyleganSource:
    """Slot ``i`` is the image of a latent vector, and of noise where it is random, drawn from (seed, i)."""

    size: None = None

    def __init__(
        self,
        generator: StyleGan,
        weights: Path,
        seed: int,
        config: StyleganConfig,
        facts: Mapping[str, Fact],
    ) -> None:
        self._generator = generator
        self._weights = weights
        self._seed = seed
        self._config = config
        self._cutoff = config.cutoff if config.cutoff is not None else _published_cutoff(facts)
        self._image_px = config.image_px or generator.image_px

    def images(self, start: int, count: int) -> Iterator[ObjectImage]:
        """Slots ``start`` to ``start + count``."""
        for index, image in aligned_slots(start, count, self._config.batch_size, self._batch):
            origin: dict[str, Scalar] = {
                "source": "stylegan",
                "latent_seed": self._seed,
                "latent_index": index,
            }
            yield ObjectImage(str(index), self._framed(image), origin)

    def identity(self) -> Mapping[str, Scalar]:
        """sha256 of the weight file."""
        return {"weights_sha256": self._weights_sha256}

    @cached_property
    def _weights_sha256(self) -> str:
        return sha256_of(self._weights)

    def _batch(self, start: int) -> UInt8Array:  # (B, S, S, 3)
        generator = self._placed
        drawn = [self._drawn(index) for index in range(start, start + self._config.batch_size)]
        latents, *noise = (torch.stack(parts).to(self._config.device) for parts in zip(*drawn, strict=True))
        with torch.inference_mode():
            images = generator(
                latents, self._config.psi, self._cutoff, self._image_px, noise if noise else None
            )
            pixels: UInt8Array = to_uint8(images).cpu().numpy()
        return pixels

    @cached_property
    def _placed(self) -> StyleGan:
        return placed(self._generator, "cuda" if self._config.device == "cuda" else None, "source.device")

    def _drawn(self, index: int) -> list[Tensor]:
        """The slot's latent vector (z_dim,), then its noise maps (1, S, S) where they are random."""
        rng = np.random.default_rng([self._seed, index])
        drawn = [rng.standard_normal(self._generator.z_dim).astype(np.float32)]
        if self._config.noise == "random":
            for side in self._generator.noise_sides(self._image_px):
                drawn.append(rng.standard_normal((1, side, side), dtype=np.float32))
        return [torch.from_numpy(part) for part in drawn]

    def _framed(self, image: UInt8Array) -> UInt8Array:
        image = _middle(image, self._config.frame_rows_frac, 1.0)
        share = 1 / self._config.frame_zoom
        return np.ascontiguousarray(_middle(image, share, share))


def _middle(image: UInt8Array, rows_frac: float, columns_frac: float) -> UInt8Array:
    """The middle rows and columns, at least one of each."""
    height, width = image.shape[:2]
    num_rows, num_columns = max(1, round(height * rows_frac)), max(1, round(width * columns_frac))
    top, left = (height - num_rows) // 2, (width - num_columns) // 2
    return image[top : top + num_rows, left : left + num_columns]


def _sides_of(image_px: int) -> list[int]:
    """The powers of two at which a network of that side can stop, and the side itself."""
    powers = [_MIN_SIDE_PX << i for i in range(image_px.bit_length())]
    return [side for side in powers if side < image_px and image_px % side == 0] + [image_px]


def _published_cutoff(facts: Mapping[str, Fact]) -> int | None:
    cutoff = facts.get("cutoff")
    return cutoff if isinstance(cutoff, int) else None
