"""The three StyleGAN generators: their layers against formulas, their images against the authors' code."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.errors import InputError
from factory.generators.found import Found, write_found
from factory.generators.stylegan1 import StyleGan1, fused_kernel
from factory.generators.stylegan2 import FILTER, StyleGan2, modulated
from factory.generators.stylegan3 import LAYOUT, StyleGan3, bands_of
from factory.generators.stylegan_layers import MappingNetwork, filtered, upsampled
from factory.sources.stylegan import StyleganConfig

_FACTS3 = {"resolution": 32, "num_layers": 5, "num_critical": 2, "margin_size": 3, "conv_clamp": 4}
_CHANNELS3 = (8, 7, 6, 5, 4, 3)


def _filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that are the same everywhere: drawn in the order of their names."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name in sorted(shapes):
        value = rng.standard_normal(shapes[name])
        if name.startswith("mapping.fc"):
            value = value * 100  # their learning rate multiplier is 0.01
        if name.endswith("_filter"):
            value = abs(value) / abs(value).sum()
        if name.endswith("magnitude_ema"):
            value = abs(value) + 0.5
        tensors[name] = torch.from_numpy(np.asarray(value, np.float32))
    return tensors


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _stylegan1() -> StyleGan1:
    shapes = _shapes(StyleGan1([6, 8, 8], [8, 8, 6, 5, 4, 3], 3, 0.01))
    return StyleGan1.from_tensors(_filled(shapes), {})


def _stylegan2() -> StyleGan2:
    shapes = _shapes(StyleGan2([6, 8, 8], [8, 7, 6, 5], 3, 0.01, math.inf))
    return StyleGan2.from_tensors(_filled(shapes), {"conv_clamp": 20.0})


def _shapes3(kernel: int, down_axes: int) -> dict[str, tuple[int, ...]]:
    """As the authors' network names and shapes them, with filters of 6 taps at the lower rate."""
    shapes: dict[str, tuple[int, ...]] = {"mapping.w_avg": (8,), "mapping.fc0.weight": (8, 6)}
    shapes |= {"mapping.fc0.bias": (8,), "mapping.fc1.weight": (8, 8), "mapping.fc1.bias": (8,)}
    first = {"weight": (8, 8), "affine.weight": (4, 8), "affine.bias": (4,), "transform": (3, 3)}
    first |= {"freqs": (8, 2), "phases": (8,)}
    shapes |= {f"synthesis.input.{name}": shape for name, shape in first.items()}
    bands, before = bands_of(_FACTS3), 8
    rates = [bands[0].rate, *(band.rate for band in bands)]
    for i, width in enumerate(_CHANNELS3):
        is_rgb = i == len(_CHANNELS3) - 1
        top = 2 * max(rates[i], rates[i + 1])
        name = f"synthesis.L{i}_{bands[i].size_px}_{width}"
        side = 1 if is_rgb else kernel
        layer = {"weight": (width, before, side, side), "bias": (width,), "magnitude_ema": ()}
        layer |= {"affine.weight": (before, 8), "affine.bias": (before,)}
        if not is_rgb:
            layer |= {"up_filter": (6 * top // rates[i],)}
            num_axes = 1 if i >= _FACTS3["num_layers"] - _FACTS3["num_critical"] else down_axes
            layer |= {"down_filter": (6 * top // rates[i + 1],) * num_axes}
        shapes |= {f"{name}.{key}": shape for key, shape in layer.items()}
        before = width
    return shapes


def _stylegan3(kernel: int = 3, down_axes: int = 1) -> StyleGan3:
    return StyleGan3.from_tensors(_filled(_shapes3(kernel, down_axes)), _FACTS3)


def _latents(count: int = 2) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((count, 6)).astype(np.float32))


def _zeros_between(x: Tensor, factor: int) -> Tensor:
    spread = x.new_zeros(*x.shape[:2], x.shape[2] * factor, x.shape[3] * factor)
    spread[:, :, ::factor, ::factor] = x
    return spread


def _convolve(x: Tensor, taps: Tensor) -> Tensor:
    """True convolution of every channel, where the filter lies wholly inside."""
    kernel = (torch.outer(taps, taps) if taps.ndim == 1 else taps).flip(0, 1)
    planes = [F.conv2d(x[:, c : c + 1], kernel[None, None]) for c in range(x.shape[1])]
    return torch.cat(planes, dim=1)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("num_axes", [1, 2])
@pytest.mark.parametrize(
    ("factor", "pad"), [(1, (2, 3)), (2, (3, 1)), (2, (-2, 4)), (4, (9, 8)), (4, (-1, -3))]
)
def test_upsampling_is_zeros_between_padding_and_convolution(
    factor: int, pad: tuple[int, int], num_axes: int
) -> None:
    x, taps = _random(2, 3, 6, 6), _random(*(5,) * num_axes)
    grown = F.pad(_zeros_between(x, factor), (*pad, *pad))
    torch.testing.assert_close(upsampled(x, taps, factor, pad), _convolve(grown, taps) * factor**2)


@pytest.mark.parametrize("num_axes", [1, 2])
@pytest.mark.parametrize(("factor", "pad"), [(1, (0, 0)), (2, (0, 0)), (2, (1, 2)), (4, (3, 0))])
def test_filtering_is_padding_convolution_and_every_nth_pixel(
    factor: int, pad: tuple[int, int], num_axes: int
) -> None:
    x, taps = _random(2, 3, 11, 11), _random(*(4,) * num_axes)
    wanted = _convolve(F.pad(x, (*pad, *pad)), taps)[:, :, ::factor, ::factor]
    torch.testing.assert_close(filtered(x, taps, factor, pad), wanted)


@pytest.mark.parametrize("is_up", [False, True])
def test_modulation_gives_each_sample_its_own_unit_kernel(is_up: bool) -> None:
    x, weight, scales = _random(3, 4, 5, 5), _random(6, 4, 3, 3), _random(3, 4) + 2
    kernels = weight * scales[:, None, :, None, None]
    kernels = kernels / (kernels.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    wanted = []
    for sample, kernel in zip(x.split(1), kernels, strict=True):
        if is_up:
            spread = F.pad(_zeros_between(sample, 2), (2, 2, 2, 2))
            wide = F.conv2d(spread, kernel.flip(2, 3))  # (1, 6, 12, 12), from -0 on; the last row is a zero
            blurred = _convolve(F.pad(wide, (1, 0, 1, 0)), torch.tensor(FILTER, dtype=x.dtype)) * 4
            wanted.append(blurred)
        else:
            wanted.append(F.conv2d(sample, kernel, padding=1))
    torch.testing.assert_close(modulated(x, weight, scales, is_up), torch.cat(wanted))


def test_the_fused_kernel_convolves_the_doubled_image_with_the_flipped_kernel() -> None:
    x, weight = _random(2, 4, 5, 5), _random(3, 4, 3, 3)
    fused = F.conv_transpose2d(x, fused_kernel(weight), stride=2, padding=1)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(fused, F.conv2d(doubled, weight.flip(2, 3), padding=1))


@pytest.mark.parametrize("make", [_stylegan1, _stylegan2])
def test_bfloat16_moves_an_image_little(make: Callable[[], StyleGan1 | StyleGan2]) -> None:
    exact, rounded = make()(_latents(), 0.7), make().in_bfloat16()(_latents(), 0.7)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert (rounded - exact).abs().mean() < 0.03 * exact.std()


def test_truncation_moves_the_first_styles_towards_the_average() -> None:
    network = MappingNetwork([6, 8, 5])
    network.load_state_dict({name: torch.ones(shape) for name, shape in _shapes(network).items()})
    whole, cut = network(_latents(), 4), network(_latents(), 4, psi=0.25, cutoff=3)
    assert whole.shape == (2, 4, 5)
    torch.testing.assert_close(cut[:, :3], 1 + 0.25 * (whole[:, :3] - 1))
    assert torch.equal(cut[:, 3], whole[:, 3])
    assert torch.equal(network(_latents(), 4, psi=0.25)[:, 3], cut[:, 0])
    assert torch.allclose(network(_latents(), 4, psi=0.0), torch.ones(()))


def test_latents_are_brought_to_unit_length_first() -> None:
    network = MappingNetwork([6, 8], gain_first=True)
    network.load_state_dict({name: torch.ones(shape) for name, shape in _shapes(network).items()})
    torch.testing.assert_close(network(_latents(), 1), network(_latents() * 7, 1))


# Means, deviations and pixels of the same weights and latents in the authors' code, psi 0.7, cutoff 3
# (StyleGAN: in genforce's port of it, which was made from theirs).
_GOLDEN = {
    "stylegan1": [0.361788, 2.238114, 0.745528, 1.219204, -0.956449, -0.233667, 0.382979, -0.736537],
    "stylegan2": [5.293471, 12.522141, 10.132674, -7.480539, 9.691224, 12.583224, -8.842032, 11.866173],
    "stylegan3-t": [-0.569728, 0.629366, -1.0, -1.0, -0.150103, -1.0, -1.0, 0.199243],
    "stylegan3-r": [-0.280974, 0.908506, 0.71796, -1.0, -0.587572, 0.664856, -1.0, -0.668648],
}


def _summary(images: Tensor) -> list[float]:
    pixels = images.flatten()[:: images.numel() // 6][:6].tolist()
    return [images.mean().item(), images.std().item(), *pixels]


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("stylegan1", _stylegan1),
        ("stylegan2", _stylegan2),
        ("stylegan3-t", _stylegan3),
        ("stylegan3-r", lambda: _stylegan3(kernel=1, down_axes=2)),
    ],
)
def test_images_are_those_of_the_authors_code(name: str, network) -> None:
    with torch.inference_mode():
        found = _summary(network()(_latents(), psi=0.7, cutoff=3))
    np.testing.assert_allclose(found, _GOLDEN[name], rtol=2e-4, atol=2e-4)


def test_stopping_early_gives_smaller_images_of_the_same_thing() -> None:
    with torch.inference_mode():
        for network, small_px in ((_stylegan1(), 32), (_stylegan2(), 8), (_stylegan3(), 16)):
            whole, small = network(_latents(), 0.7), network(_latents(), 0.7, image_px=small_px)
            assert whole.shape == (2, 3, network.image_px, network.image_px)
            assert small.shape == (2, 3, small_px, small_px)
        torch.testing.assert_close(small, F.avg_pool2d(whole, 2))  # StyleGAN3


@pytest.mark.parametrize("network", [_stylegan1, _stylegan2])
def test_noise_may_be_given_and_the_stored_maps_are_the_default(network) -> None:
    generator = network()
    state = generator.state_dict()
    stored = [value for name, value in state.items() if name.endswith((".noise", ".noise_const"))]
    sides = generator.noise_sides(generator.image_px)
    assert [value.shape[-1] for value in stored] == sides
    with torch.inference_mode():
        usual = generator(_latents())
        torch.testing.assert_close(
            generator(_latents(), noise=[m.view(1, 1, *m.shape[-2:]) for m in stored]), usual
        )
        others = [torch.zeros(2, 1, side, side) for side in generator.noise_sides(8)]
        small = generator(_latents(), image_px=8, noise=others)
    assert small.shape[-1] == 8 and not torch.equal(small, usual[..., :8, :8])


def test_bands_of_the_published_layout_end_at_the_image() -> None:
    bands = bands_of({"resolution": 1024, **LAYOUT})
    sizes = [36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024, 1024]
    assert [band.size_px for band in bands] == sizes
    assert bands[0].cutoff == 2 and bands[-1].cutoff == 512


@pytest.mark.parametrize(
    ("network", "facts", "lacking"),
    [
        (_stylegan1, {}, "synthesis.layer3.bias"),
        (_stylegan2, {}, "synthesis.b8.conv1.noise_const"),
        (_stylegan3, _FACTS3, "synthesis.input.freqs"),
        (_stylegan3, _FACTS3, "synthesis.L5_32_3.weight"),
        (_stylegan1, {}, "mapping.fc0.weight"),
    ],
)
def test_weights_that_lack_a_part_are_refused_with_its_name(network, facts, lacking: str) -> None:
    generator = network()
    state = generator.state_dict()
    assert lacking in state
    del state[lacking]
    with pytest.raises(ValueError, match=r"synthesis|mapping"):
        type(generator).from_tensors(state, facts)


def test_facts_that_do_not_fit_the_weights_are_refused() -> None:
    state = _stylegan3().state_dict()
    with pytest.raises(ValueError, match="6 synthesis layers, the facts say 15"):
        StyleGan3.from_tensors(state, {"resolution": 32})
    with pytest.raises(ValueError, match="resolution is None"):
        StyleGan3.from_tensors(state, {})


def test_stylegan3_is_not_computed_in_bf16(tmp_path: Path) -> None:
    path = tmp_path / "three.safetensors"
    write_found(Found("stylegan3", _FACTS3, _filled(_shapes3(3, 1))), path)
    config = StyleganConfig(weights=path, precision="bf16")
    with pytest.raises(InputError, match=r"source\.precision: found bf16, wanted fp32: .* holds a StyleGAN3"):
        config.open(0, home=tmp_path)
