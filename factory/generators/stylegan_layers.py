"""What the three StyleGANs share: the mapping from latents to styles, truncation, resampling by filters.

Weights are stored with unit variance; a layer scales them at run time by 1 / sqrt(fan-in) ("equalised
learning rate", Karras et al. 2018).

Each generator has ``z_dim`` and ``image_px``, and takes

* latents: (B, z_dim), standard normal;
* psi: truncation, 1 for none, of the first ``cutoff`` styles (None: of all);
* image_px: the side of the images, its own or a smaller power of two from 4 (None: its own);
* noise: maps (B, 1, S, S) of the sides that ``noise_sides`` lists (None: those stored with the weights);

to images (B, C, S, S), roughly in -1..1.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from factory.generators.found import Fact

SQRT2 = math.sqrt(2)

M = TypeVar("M", bound=nn.Module)


class Dense(nn.Module):
    """An equalised fully connected layer. rate: its learning rate multiplier, for weight and bias."""

    def __init__(self, num_in: int, num_out: int, rate: float = 1.0, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in))
        self.bias = nn.Parameter(torch.empty(num_out))
        self._scale, self._rate = gain * rate / math.sqrt(num_in), rate

    def forward(self, x: Tensor) -> Tensor:  # (B, num_in) -> (B, num_out)
        return F.linear(x * self._scale, self.weight, self.bias * self._rate)


class MappingNetwork(nn.Module):
    """Latents (B, z_dim) to truncated styles (B, num_styles, w_dim).

    widths: z_dim, then the outputs of the layers. gain_first: the gain sqrt(2) comes with the weights, before
    the bias (StyleGAN), else after the activation (StyleGAN2 and 3).
    """

    def __init__(self, widths: Sequence[int], rate: float = 0.01, gain_first: bool = False) -> None:
        super().__init__()
        self.num_layers = len(widths) - 1
        self._gain = 1.0 if gain_first else SQRT2
        for i, (before, after) in enumerate(pairwise(widths)):
            self.add_module(f"fc{i}", Dense(before, after, rate, SQRT2 if gain_first else 1.0))
        self.register_buffer("w_avg", torch.empty(widths[-1]))

    def forward(
        self, latents: Tensor, num_styles: int, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        x = latents * (latents.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for i in range(self.num_layers):
            x = F.leaky_relu(self.get_submodule(f"fc{i}")(x), 0.2) * self._gain
        truncated = self.get_buffer("w_avg").lerp(x, psi)
        num_truncated = num_styles if cutoff is None else min(cutoff, num_styles)
        return torch.stack([truncated] * num_truncated + [x] * (num_styles - num_truncated), dim=1)


def mapping_widths(tensors: Mapping[str, Tensor]) -> list[int]:
    """z_dim and the layers' outputs, off ``mapping.fc0.weight`` and so on. Raises ValueError without them."""
    count = sum(name.startswith("mapping.fc") and name.endswith(".weight") for name in tensors)
    if not count:
        raise ValueError("no 'mapping.fc0.weight'")
    kernels = [_tensor(tensors, f"mapping.fc{i}.weight", 2) for i in range(count)]
    return [kernels[0].shape[1], *(kernel.shape[0] for kernel in kernels)]


def sides_of(tensors: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Sides 4, 8, … of the resolutions that ``pattern`` (with ``{}`` for a side) names among the tensors."""
    sides = [4]
    while pattern.format(sides[-1] * 2) in tensors:
        sides.append(sides[-1] * 2)
    return sides


def num_channels(tensors: Mapping[str, Tensor], name: str, axis: int = 0) -> int:
    """Length of a kernel's axis. Raises ValueError when there is no such kernel (four axes)."""
    return _tensor(tensors, name, 4).shape[axis]


def _tensor(tensors: Mapping[str, Tensor], name: str, ndim: int) -> Tensor:
    if name not in tensors or tensors[name].ndim != ndim:
        raise ValueError(f"no '{name}' of {ndim} axes")
    return tensors[name]


def loaded(network: M, tensors: Mapping[str, Tensor]) -> M:
    """The network, built on the meta device, with these tensors as its float32 weights; in eval mode.

    Raises ValueError, naming what does not fit.
    """
    try:
        network.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error
    return network.float().eval().requires_grad_(False)


def number(facts: Mapping[str, Fact], name: str, default: float | None = None) -> float:
    """A fact that is a number. Raises ValueError when it is text, or not there and without a default."""
    value = facts.get(name, default)
    if not isinstance(value, int | float):
        raise ValueError(f"fact {name} is {value!r}, wanted a number")
    return value


def upsampled(x: Tensor, taps: Tensor, factor: int, pad: tuple[int, int]) -> Tensor:
    """Zeros put between the pixels (and after the last), ``pad`` zeros before and after, then filtered.

    taps: (k,) for each axis in turn, or (k, k); a filter that sums to 1 keeps the mean. pad may be negative,
    which cuts. The side grows from S to S * factor + pad - (k - 1).
    """
    length = taps.shape[-1]
    for kernel, axes in _kernels(taps):
        steps = (factor if axes[0] else 1, factor if axes[1] else 1)
        x = F.conv_transpose2d(x, _each(kernel * (steps[0] * steps[1]), x), stride=steps, groups=x.shape[1])
    before, after = pad[0] - length + 1, pad[1] - length + factor
    return F.pad(x, (before, after, before, after))


def filtered(x: Tensor, taps: Tensor, factor: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """``pad`` zeros before and after, filtered, every ``factor``-th pixel kept. taps: see `upsampled`."""
    even = pad[0] if pad[0] == pad[1] >= 0 else 0  # which the convolution adds by itself
    x = F.pad(x, (pad[0], pad[1], pad[0], pad[1])) if pad != (even, even) else x
    for kernel, axes in _kernels(taps.flip(tuple(range(taps.ndim)))):
        steps = (factor if axes[0] else 1, factor if axes[1] else 1)
        around = (even if axes[0] else 0, even if axes[1] else 0)
        x = F.conv2d(x, _each(kernel, x), stride=steps, padding=around, groups=x.shape[1])
    return x


def _kernels(taps: Tensor) -> list[tuple[Tensor, tuple[bool, bool]]]:
    """The filter as 2D kernels, with the axes (rows, columns) along which each works."""
    if taps.ndim == 2:
        return [(taps, (True, True))]
    return [(taps[:, None], (True, False)), (taps[None, :], (False, True))]


def _each(kernel: Tensor, x: Tensor) -> Tensor:
    """The same kernel for every channel of ``x``."""
    return kernel.to(x).expand(x.shape[1], 1, -1, -1)
