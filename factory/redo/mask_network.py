"""ReDO's mask network (Chen, Artières and Denoyer 2019, "Unsupervised Object Segmentation by Redrawing").

Key for key the layout of the authors' checkpoints (there `netEncM`), so that theirs load strictly.
"""

import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from configs.errors import InputError
from factory.generators.found import Found, read_content
from factory.instance_norm import InstanceNorm
from factory.weights import read_weights, state_dict_in

WANTED = "ReDO's mask network (netEncM), 46 keys"
FAMILY = "redo-masks"  # in the header of our own safetensors files

_POOL_BINS = (1, 2, 3, 6)
_MIN_SIZE_PX = 4 * max(_POOL_BINS)  # a pixel a bin at the quarter of the side where the pyramid pools


class MaskNetworkSizes(NamedTuple):
    """num_features: channels at the quarter of the side. num_masks: regions the image is divided into."""

    num_features: int
    num_res_blocks: int
    num_masks: int


class _Stack(nn.Module):
    """Layers in a row, under the name `mods` of the official keys."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.mods = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mods(x)
        return y


class _ReflectionPad(nn.ReflectionPad2d):
    """Torch's, which autocast would do in float32 there and back."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


class _ResBlock(nn.Module):
    """Two 3x3 convolutions around a skip, normalised after the sum."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.blocs = nn.Sequential(
            *_conv_norm_relu(num_features, num_features, 3, padding=1),
            nn.Conv2d(num_features, num_features, 3, padding=1),
        )
        self.activationF = nn.Sequential(InstanceNorm(num_features), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activationF(x + self.blocs(x))
        return y


class MaskNetwork(nn.Module):
    """Images (B, 3, S, S) to soft masks (B, num_masks, S, S) that sum to 1 over the masks.

    Which mask is the object is arbitrary, settled anew by every training. Trained on images in -1..1; the
    first convolution has no bias and an instance norm after it, so that 0..1 gives the same masks.
    image_size: S, a multiple of 4 from 24; the pyramid's pools are fixed by it.
    temperature: divides the logits; below 1 the masks get harder. object_channel: the region that is the
    object, where the file that the weights came from says so.
    """

    object_channel: int | None = None

    def __init__(
        self,
        num_features: int = 64,
        num_res_blocks: int = 3,
        num_masks: int = 2,
        image_size: int = 128,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.sizes = MaskNetworkSizes(num_features, num_res_blocks, num_masks)
        self.image_size = image_size
        self.temperature = temperature
        nf, quarter = num_features, image_size // 4
        stem = _Stack(
            _ReflectionPad(3),
            *_conv_norm_relu(3, nf // 4, 7),
            *_conv_norm_relu(nf // 4, nf // 2, 3, stride=2, padding=1),
            *_conv_norm_relu(nf // 2, nf, 3, stride=2, padding=1),
        )
        self.cnn = nn.Sequential(stem, *(_ResBlock(nf) for _ in range(num_res_blocks)))
        self.psp = nn.ModuleList(
            nn.Sequential(
                nn.AvgPool2d(quarter // bins),
                nn.Conv2d(nf, 1, 1),
                nn.Upsample(size=(quarter, quarter), mode="bilinear", align_corners=False),
            )
            for bins in _POOL_BINS
        )
        width = nf + len(_POOL_BINS)
        self.out = _Stack(
            nn.Upsample(scale_factor=2, mode="nearest"),
            *_conv_norm_relu(width, width // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="nearest"),
            *_conv_norm_relu(width // 2, width // 4, 3, padding=1),
            _ReflectionPad(3),
            nn.Conv2d(width // 4, 1 if num_masks == 2 else num_masks, 7),
        )

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, S, S) -> (B, num_masks, S, S)
        features = self.cnn(images)
        pooled = [pool(features) for pool in self.psp]  # of one channel, whose order of axes says nothing
        features = torch.cat([features, *pooled], dim=1).contiguous(memory_format=_order_of(features))
        logits: Tensor = self.out(features) / self.temperature
        if self.sizes.num_masks == 2:
            mask = logits.sigmoid()
            return torch.cat([mask, 1 - mask], dim=1)
        return logits.softmax(dim=1)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], image_size: int = 128, temperature: float = 1.0
    ) -> Self:
        """The network these weights belong to, loaded strictly, in eval mode.

        Raises ValueError, naming what does not fit, for the weights of anything else.
        """
        sizes = sizes_of(state)
        try:
            network = cls(*sizes, image_size=image_size, temperature=temperature)
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())[:200]) from error
        return network.eval()


def sizes_of(state: Mapping[str, Tensor]) -> MaskNetworkSizes:
    """Read the sizes off the keys. Raises ValueError when these are not a mask network's weights."""
    kernel, bias = state.get("cnn.0.mods.7.weight"), state.get("out.mods.9.bias")
    if kernel is None or bias is None or kernel.ndim != 4 or bias.ndim != 1:
        raise ValueError("no kernel 'cnn.0.mods.7.weight' with a bias 'out.mods.9.bias'")
    num_res_blocks = sum(name.startswith("cnn.") and name.endswith(".blocs.0.weight") for name in state)
    num_outputs = bias.shape[0]
    if kernel.shape[0] < 4 or num_outputs == 0:
        raise ValueError(f"{kernel.shape[0]} features and {num_outputs} outputs")
    return MaskNetworkSizes(kernel.shape[0], num_res_blocks, 2 if num_outputs == 1 else num_outputs)


def load_mask_network(path: Path) -> MaskNetwork:
    """The mask network in a safetensors or torch file, in eval mode, on the CPU.

    A torch file holds its state dict or, as the authors publish theirs, ``netEncM`` with the ``options`` of
    its training, whose ``sizex`` and ``temperature`` are used; the header of our own safetensors files says
    the same, and the object's channel; else they are 128 and 1. No code that a file carries is run. Raises
    InputError, saying what was found, for anything else.
    """
    content = _content_of(path)
    tensors = content.tensors if isinstance(content, Found) else content
    state = state_dict_in(tensors, path, ["netEncM"], WANTED)
    image_size, temperature = _trained_at(content, path)
    try:
        network = MaskNetwork.from_state_dict(state, image_size, temperature)
    except ValueError as error:
        raise InputError(
            f"{path}: holds {len(state)} keys, the first '{next(iter(state))}': wanted {WANTED} ({error})"
        ) from error
    broken = next((name for name, value in state.items() if not torch.isfinite(value).all()), None)
    if broken is not None:
        raise InputError(f"{path}: '{broken}' is not finite everywhere, wanted {WANTED}")
    network.object_channel = _object_channel(content, network.sizes.num_masks, path)
    return network


def _content_of(path: Path) -> Any:
    """A `Found`, or what `read_weights` reads."""
    if path.suffix != ".safetensors":
        return read_weights(path, WANTED, allowed=[Namespace])
    content = read_content(path, WANTED)
    if isinstance(content, Found) and content.family != FAMILY:
        raise InputError(f"{path}: holds a network of the family '{content.family}', wanted {WANTED}")
    return content


def _object_channel(content: Any, num_masks: int, path: Path) -> int | None:
    channel = content.facts.get("object_channel") if isinstance(content, Found) else None
    if channel is not None and (not isinstance(channel, int) or not 0 <= channel < num_masks):
        raise InputError(f"{path}: object_channel is {channel!r}, wanted 0 to {num_masks - 1}")
    return channel


def _trained_at(content: Any, path: Path) -> tuple[int, float]:
    """Image size and temperature out of a checkpoint's options or our own file's header."""
    if isinstance(content, Found):
        place, key, told = "", "image_size", dict(content.facts)
    else:
        place, key, told = "options.", "sizex", vars(content.get("options", Namespace()))
    size, temperature = told.get(key, 128), told.get("temperature", 1.0)
    if not isinstance(size, int) or size < _MIN_SIZE_PX or size > 1024 or size % 4:
        raise InputError(
            f"{path}: {place}{key} is {size!r}, wanted a multiple of 4 from {_MIN_SIZE_PX} to 1024"
        )
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise InputError(f"{path}: {place}temperature is {temperature!r}, wanted a number above 0")
    return size, float(temperature)


def _order_of(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _conv_norm_relu(
    before: int, after: int, kernel: int, stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
    return [conv, InstanceNorm(after), nn.ReLU()]
