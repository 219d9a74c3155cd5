"""StyleGAN3's generator (Karras et al. 2021, "Alias-Free GAN"; T and R), for inference. Its weights have
the names of the authors' code and bring their filters along; its sizes follow from a few facts (`LAYOUT`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from factory.generators.found import Fact
from factory.generators.stylegan_layers import (
    SQRT2,
    Dense,
    MappingNetwork,
    filtered,
    loaded,
    mapping_widths,
    number,
    upsampled,
)

# Facts with the authors' defaults; `conv_clamp` limits activations.
LAYOUT: dict[str, float] = {
    "num_layers": 14,
    "num_critical": 2,
    "first_cutoff": 2,
    "first_stopband": 2**2.1,
    "last_stopband_rel": 2**0.3,
    "margin_size": 10,
    "output_scale": 0.25,
    "lrelu_upsampling": 2,
    "conv_clamp": 256,
}


class Band(NamedTuple):
    """What a layer puts out. cutoff: highest frequency kept. rate: samples over the image's side.
    size_px: side of the map, with margins.
    """

    cutoff: float
    rate: int
    size_px: int


class StyleGan3(nn.Module):
    """See `stylegan_layers`. Noise has no part in it. It cannot stop early: it is computed in full, at the
    full cost, and averaged down.
    """

    def __init__(self, widths: Sequence[int], synthesis: "_Synthesis", image_px: int, rate: float) -> None:
        super().__init__()
        self.z_dim, self.image_px = widths[0], image_px
        self.mapping = MappingNetwork(widths, rate)
        self.synthesis = synthesis

    def forward(
        self,
        latents: Tensor,
        psi: float = 1.0,
        cutoff: int | None = None,
        image_px: int | None = None,
        noise: Sequence[Tensor] | None = None,
    ) -> Tensor:
        styles = self.mapping(latents, len(self.synthesis.layer_names) + 1, psi, cutoff)
        images: Tensor = self.synthesis(styles)
        return images if image_px is None else F.avg_pool2d(images, self.image_px // image_px)

    def noise_sides(self, image_px: int) -> list[int]:
        """None."""
        return []

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Fact]) -> Self:
        """The generator these weights belong to, loaded strictly. Raises ValueError for any others.

        facts: ``resolution``, ``mapping_rate`` [0.01], and those of `LAYOUT`.
        """
        widths, image_px = mapping_widths(tensors), int(number(facts, "resolution"))
        rate = number(facts, "mapping_rate", 0.01)
        with torch.device("meta"):
            network = cls(widths, _Synthesis(widths[-1], tensors, facts), image_px, rate)
        return loaded(network, tensors)


def bands_of(facts: Mapping[str, Fact]) -> list[Band]:
    """The bands of the layers, RGB layer last: cutoffs and stopbands grow geometrically up to the critically
    sampled layers at the end (Section 3.2 and Figure 4b of the paper).
    """
    layout = {name: number(facts, name, default) for name, default in LAYOUT.items()}
    image_px, count = int(number(facts, "resolution")), int(layout["num_layers"])
    last_cutoff = image_px / 2
    last_stopband = last_cutoff * layout["last_stopband_rel"]
    bands = []
    for i in range(count + 1):
        progress = min(i / (count - layout["num_critical"]), 1)
        cutoff = layout["first_cutoff"] * (last_cutoff / layout["first_cutoff"]) ** progress
        stopband = layout["first_stopband"] * (last_stopband / layout["first_stopband"]) ** progress
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, image_px)))
        size = image_px if i >= count - 1 else rate + 2 * int(layout["margin_size"])
        bands.append(Band(cutoff, rate, size))
    return bands


class _Synthesis(nn.Module):
    def __init__(self, w_dim: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Fact]) -> None:
        super().__init__()
        bands = bands_of(facts)
        self.layer_names = _layer_names(tensors, len(bands))
        self._scale = number(facts, "output_scale", LAYOUT["output_scale"])
        self.input = _FourierFeatures(w_dim, _part(tensors, "input"), bands[0])
        before = bands[0]
        for name, band in zip(self.layer_names, bands, strict=True):
            is_rgb = name == self.layer_names[-1]
            self.add_module(name, _Layer(w_dim, _part(tensors, name), before, band, is_rgb, facts))
            before = band

    def forward(self, styles: Tensor) -> Tensor:
        x = self.input(styles[:, 0])
        for i, name in enumerate(self.layer_names):
            x = self.get_submodule(name)(x, styles[:, i + 1])
        y: Tensor = x * self._scale
        return y


class _FourierFeatures(nn.Module):
    """Plane waves on a grid, shifted and turned by the style, mixed by a matrix."""

    def __init__(self, w_dim: int, shapes: Mapping[str, Tensor], band: Band) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty_like(shapes["weight"], device="meta"))
        self.affine = Dense(w_dim, 4)
        for name in ("transform", "freqs", "phases"):
            self.register_buffer(name, torch.empty_like(shapes[name], device="meta"))
        self._band = band

    def forward(self, style: Tensor) -> Tensor:  # (B, w_dim) -> (B, C, S, S)
        turn = self._transforms(style)  # (B, 3, 3)
        own = self.get_buffer("freqs")  # (C, 2), cycles over the image's side, x and y
        phases = self.get_buffer("phases") + (own @ turn[:, :2, 2:])[..., 0]  # (B, C)
        freqs = own @ turn[:, :2, :2]  # (B, C, 2)
        cutoff, rate, size = self._band
        fade = (1 - (freqs.norm(dim=2) - cutoff) / (rate / 2 - cutoff)).clamp(0, 1)
        at = (torch.arange(size, device=style.device, dtype=style.dtype) + 0.5 - size / 2) / rate
        turns = freqs[..., 1, None, None] * at[:, None] + freqs[..., 0, None, None] * at  # (B, C, S, S)
        waves = torch.sin((turns + phases[..., None, None]) * (2 * math.pi)) * fade[..., None, None]
        weight = self.weight / math.sqrt(self.weight.shape[1])
        return F.conv2d(waves, weight[:, :, None, None])

    def _transforms(self, style: Tensor) -> Tensor:
        """Of the sampling grid: the stored one, a shift, a turn (Appendix F), as matrices (B, 3, 3)."""
        pose = self.affine(style)  # (B, 4)
        cos, sin, right, down = (pose / pose[:, :2].norm(dim=1, keepdim=True)).unbind(dim=1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1)
        shift = torch.stack([one, zero, -right, zero, one, -down, zero, zero, one], dim=1)
        moved: Tensor = turn.reshape(-1, 3, 3) @ shift.reshape(-1, 3, 3)
        return moved @ self.get_buffer("transform")


class _Layer(nn.Module):
    """Modulated convolution, then a leaky ReLU at a higher sampling rate, between two filters."""

    def __init__(
        self,
        w_dim: int,
        shapes: Mapping[str, Tensor],
        before: Band,
        band: Band,
        is_rgb: bool,
        facts: Mapping[str, Fact],
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty_like(shapes["weight"], device="meta"))
        self.bias = nn.Parameter(torch.empty_like(shapes["bias"], device="meta"))
        self.affine = Dense(w_dim, self.weight.shape[1])
        for name in ("magnitude_ema", "up_filter", "down_filter"):
            value = shapes.get(name)
            self.register_buffer(name, None if value is None else torch.empty_like(value, device="meta"))
        factor = 1 if is_rgb else int(number(facts, "lrelu_upsampling", LAYOUT["lrelu_upsampling"]))
        rate = max(before.rate, band.rate) * factor
        self._up, self._down, self._is_rgb = rate // before.rate, rate // band.rate, is_rgb
        self._clamp = number(facts, "conv_clamp", LAYOUT["conv_clamp"])
        self._pad = self._padding(before.size_px, band.size_px)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = self._convolved(x, self.affine(style)) + self.bias[:, None, None]
        up, down = self._filter("up_filter"), self._filter("down_filter")
        x = upsampled(x, up, self._up, self._pad)
        x = x if self._is_rgb else F.leaky_relu(x, 0.2) * SQRT2
        return filtered(x.clamp(-self._clamp, self._clamp), down, self._down)

    def _convolved(self, x: Tensor, scales: Tensor) -> Tensor:
        """As `stylegan2.modulated`, without doubling; inputs are brought to unit magnitude first."""
        scale_in = self.get_buffer("magnitude_ema").rsqrt()
        if self._is_rgb:
            scales = scales / math.sqrt(self.weight[0].numel())
            return F.conv2d(x * (scales * scale_in)[:, :, None, None], self.weight)
        weight = self.weight * self.weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        scales = scales * scales.square().mean(dim=1, keepdim=True).rsqrt()
        lengths = (scales.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()
        x = F.conv2d(x * (scales * scale_in)[:, :, None, None], weight, padding=weight.shape[-1] - 1)
        return x * lengths[:, :, None, None]

    def _filter(self, name: str) -> Tensor:
        taps = getattr(self, name)
        return self.weight.new_ones(1) if taps is None else taps

    def _padding(self, before_px: int, after_px: int) -> tuple[int, int]:
        """Zeros around the upsampled map, so that the layer puts out ``after_px``."""
        num_taps = sum(self._filter(name).shape[-1] for name in ("up_filter", "down_filter"))
        convolved = before_px + self.weight.shape[-1] - 1
        total = (after_px - 1) * self._down + 1 - convolved * self._up + num_taps - 2
        first = (total + self._up) // 2
        return first, total - first


def _layer_names(tensors: Mapping[str, Tensor], count: int) -> list[str]:
    """The names ``L{index}_{size}_{channels}`` in order. Raises ValueError unless there are ``count``."""
    found = {m[2]: m[1] for name in tensors if (m := re.match(r"synthesis\.(L(\d+)_\d+_\d+)\.weight$", name))}
    names = [found[str(i)] for i in range(len(found)) if str(i) in found]
    if len(names) != count:
        raise ValueError(f"{len(names)} synthesis layers, the facts say {count}")
    return names


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one layer, for their shapes. Raises ValueError when some are missing."""
    prefix = f"synthesis.{name}."
    part = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    wanted = ("transform", "freqs", "phases") if name == "input" else ("bias", "magnitude_ema")
    for key in ("weight", *wanted):
        if key not in part:
            raise ValueError(f"no '{prefix}{key}'")
    return part
