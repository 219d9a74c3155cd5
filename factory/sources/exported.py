"""Object images from a program ``z -> image`` of any framework's making: torch.export or TorchScript."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from configs.errors import InputError
from factory.generators.dcgan import to_uint8
from factory.generators.exported_program import ExportedProgram, names_in, read_exported_program
from factory.generators.rows import aligned_slots, draw_latents
from factory.generators.torchscript import read_torchscript
from factory.stages import ObjectImage, Scalar, SourceConfig, UInt8Array
from factory.weights import find_weights, sha256_of

_WANTED = "a program z -> image of torch.export.save (.pt2) or torch.jit.save"
_BATCH = 64

Range = Literal["-1..1", "0..1", "0..255"]


class ExportedConfig(SourceConfig):
    """A generator as a program: normal latents (B, *latent_shape) to images (B, 3 or 1, H, W).

    weights: a torch.export archive (.pt2), which is preferred, or a TorchScript one; what is refused in them,
        and why, say `factory.generators.exported_program` and `factory.generators.torchscript`. A relative
        one is looked up from the working directory, then in the home's data/weights. It must be set.
    latent_shape: of one latent, without the batch. An exported program says it; TorchScript does not.
    output_range: of the images' values, which no file says. It must be set.
    batch_size: images made at once, 64 unless set; a program exported for one size says it. Part of what an
        image is.
    """

    kind: Literal["exported"] = "exported"
    weights: Path | None = None
    latent_shape: tuple[Annotated[int, Field(gt=0, strict=True)], ...] | None = None
    output_range: Range | None = None
    batch_size: Annotated[int, Field(gt=0, strict=True)] | None = None

    def open(self, seed: int, home: Path) -> "ExportedSource":
        """The program, loaded and tried on one batch. Raises InputError when it is none or does not fit."""
        if self.weights is None:
            raise InputError(f"source.weights is not set: wanted {_WANTED}")
        if self.output_range is None:
            raise InputError("source.output_range is not set: wanted '-1..1', '0..1' or '0..255'")
        path = find_weights("source.weights", self.weights, home, _WANTED)
        names = names_in(path)
        if any(name.startswith("models/") for name in names):
            program = read_exported_program(path)
            batch_size, latent_shape = self._shapes_of(program, path)
            generate: Callable[[Tensor], Tensor] = program
        elif any(name.startswith("code/") for name in names):
            generate = read_torchscript(path)
            batch_size, latent_shape = self.batch_size or _BATCH, self._asked_shape(path)
        else:
            raise InputError(f"{path}: found neither, wanted {_WANTED}")
        source = ExportedSource(generate, path, seed, batch_size, latent_shape, self.output_range)
        source.check()
        return source

    def _asked_shape(self, path: Path) -> tuple[int, ...]:
        if self.latent_shape is None:
            raise InputError(f"source.latent_shape is not set: {path} does not say it, wanted e.g. [128]")
        return self.latent_shape

    def _shapes_of(self, program: ExportedProgram, path: Path) -> tuple[int, tuple[int, ...]]:
        """Batch size and latent shape as the program and the settings say."""
        if not program.input_shape or program.input_dtype != torch.float32:
            found = f"{program.input_dtype} of {len(program.input_shape)} axes"
            raise InputError(f"{path}: takes {found}, wanted float32 latents (B, ...)")
        batch_size, *shape = program.input_shape
        known = tuple(length for length in shape if length is not None)
        latent_shape = known if len(known) == len(shape) else self._asked_shape(path)
        if self.latent_shape not in (None, latent_shape):
            raise InputError(
                f"source.latent_shape: found {list(self.latent_shape or ())}, wanted {list(latent_shape)},"
                f" as {path} takes"
            )
        if None not in (batch_size, self.batch_size) and batch_size != self.batch_size:
            raise InputError(
                f"source.batch_size: found {self.batch_size}, wanted {batch_size}, as {path} was exported"
            )
        return batch_size or self.batch_size or _BATCH, latent_shape


class ExportedSource:
    """Slot ``i`` is the image of a latent drawn from (seed, i)."""

    size: None = None

    def __init__(
        self,
        generate: Callable[[Tensor], Tensor],
        weights: Path,
        seed: int,
        batch_size: int,
        latent_shape: tuple[int, ...],
        output_range: Range,
    ) -> None:
        self._generate = generate
        self._weights = weights
        self._seed = seed
        self._batch_size = batch_size
        self._latent_shape = latent_shape
        self._output_range = output_range

    def images(self, start: int, count: int) -> Iterator[ObjectImage]:
        """Slots ``start`` to ``start + count``."""
        for index, image in aligned_slots(start, count, self._batch_size, self._batch):
            origin: dict[str, Scalar] = {
                "source": "exported",
                "latent_seed": self._seed,
                "latent_index": index,
            }
            yield ObjectImage(str(index), image, origin)

    def identity(self) -> Mapping[str, Scalar]:
        """sha256 of the program, and the batch and the latent as it wants them."""
        shape = "x".join(str(length) for length in self._latent_shape)
        return {"weights_sha256": self._sha256, "batch_size": self._batch_size, "latent_shape": shape}

    def check(self) -> None:
        """Make the first batch twice. Raises InputError when it is not of images, or not the same again."""
        first, again = self._batch(0), self._batch(0)
        if not np.array_equal(first, again):
            raise InputError(
                f"{self._weights}: gives other images for the same latents (noise, or state that it keeps),"
                " wanted a function of its input"
            )

    @cached_property
    def _sha256(self) -> str:
        return sha256_of(self._weights)

    def _batch(self, start: int) -> UInt8Array:  # (B, H, W, 3)
        latents = draw_latents(self._seed, start, self._batch_size, prod(self._latent_shape))
        with torch.no_grad():
            images = self._run(latents.view(self._batch_size, *self._latent_shape))
            pixels: UInt8Array = to_uint8(_signed(images, self._output_range)).numpy()
        return pixels

    def _run(self, latents: Tensor) -> Tensor:
        wanted = f"images ({self._batch_size}, 3 or 1, H, W)"
        try:
            images = self._generate(latents)
        except (RuntimeError, TypeError, ValueError, LookupError) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise InputError(
                f"{self._weights}: fails on latents {tuple(latents.shape)} ({reason}), wanted {wanted}"
            ) from error
        if not isinstance(images, Tensor):
            raise InputError(f"{self._weights}: gives a {type(images).__name__}, wanted {wanted}")
        if images.ndim != 4 or images.shape[0] != len(latents) or images.shape[1] not in (1, 3):
            raise InputError(f"{self._weights}: gives {tuple(images.shape)}, wanted {wanted}")
        if not torch.isfinite(images).all():
            raise InputError(f"{self._weights}: gives values that are not finite, wanted {wanted}")
        return images


def _signed(images: Tensor, output_range: Range) -> Tensor:
    """The images with their range stretched to -1..1."""
    if output_range == "-1..1":
        return images.float()
    return images.float() * (2.0 if output_range == "0..1" else 2 / 255) - 1
