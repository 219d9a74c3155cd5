"""ReDO's generators, discriminator and latent recovery: official keys, spectral norm, checkpoints."""

import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from configs.errors import InputError
from factory.redo.discriminator import Discriminator, LatentRecovery
from factory.redo.networks import generator_of, make_networks, started
from factory.redo.official import read_official, write_official
from factory.redo.region_generator import RegionGenerators, num_halvings
from factory.redo.settings import NetworksConfig, RedoTraining
from factory.redo.spectral import SelfAttention, SpectralConv2d, initialise, redraw_kernels

_SMALL = NetworksConfig(
    latent_size=3,
    mask_features=8,
    mask_res_blocks=1,
    generator_features=4,
    discriminator_features=4,
    recovery_features=4,
    generator_attention=True,
)


def _training(**settings: object) -> RedoTraining:
    plain = {"name": "x", "label": "x", "source": {"kind": "images"}, "teacher": {"kind": "whole"}}
    return RedoTraining.model_validate({**plain, "image_size": 32, "networks": _SMALL, **settings})


def _listed(shared_data: Path, name: str) -> dict[str, tuple[int, ...]]:
    path = shared_data.parent / "facts" / "redo_keys.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there: it lists the official keys")
    section = path.read_text().partition(f"## {name} ")[2].partition("\n## ")[0]
    found = re.findall(r"^\s+(\S+) \(([\d, ]+)\)$", section, re.MULTILINE)
    listed = {key: tuple(int(n) for n in shape.split(",") if n.strip()) for key, shape in found}
    if name != "netGenX":
        return listed
    return listed | {key.replace("net.0.", "net.1."): shape for key, shape in listed.items()}


def _images(count: int = 2, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=generator_of(5)) * 2 - 1


@pytest.mark.parametrize("name", ["netEncM", "netGenX", "netDX", "netRecZ"])
def test_official_state_dicts_load_strictly(shared_data: Path, name: str) -> None:
    listed = _listed(shared_data, name)
    with torch.device("meta"):
        sizes = NetworksConfig(generator_attention=True, discriminator_attention=True)
        network = dict(make_networks(sizes, 128).items())[name]
        state = {key: torch.zeros(shape) for key, shape in listed.items()}
    network.load_state_dict(state, strict=True, assign=True)
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert list(ours.items()) == list(listed.items())
    assert len(ours) == {"netEncM": 46, "netGenX": 236, "netDX": 83, "netRecZ": 70}[name]


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*")
def test_spectral_norm_is_that_of_torch() -> None:
    ours = SpectralConv2d(3, 5, 3)
    initialise(ours, generator_of(1))
    theirs = nn.utils.spectral_norm(nn.Conv2d(3, 5, 3, padding=1))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for training in (True, False):
        ours.train(training), theirs.train(training)
        for _ in range(2):
            one, two = ours(_images()), theirs(_images())
            assert torch.equal(one, two)
    ours.train(), theirs.train()
    for network in (ours, theirs):
        (network(_images()) + network(_images()).square()).sum().backward()
    torch.testing.assert_close(ours.weight_orig.grad, theirs.weight_orig.grad)
    assert torch.equal(ours.weight_u, theirs.weight_u)


def test_the_kernel_is_divided_by_its_largest_singular_value() -> None:
    conv = SpectralConv2d(3, 5, 3)
    initialise(conv, generator_of(1))
    with torch.no_grad():
        conv.weight_orig.mul_(torch.arange(1, 6).view(5, 1, 1, 1))
        for _ in range(200):
            kernel = conv.normalised()
    assert torch.linalg.matrix_norm(kernel.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)


def test_start_values_are_orthogonal_of_gain_08_and_a_function_of_their_key() -> None:
    conv, again, other = (SpectralConv2d(4, 6, 3) for _ in range(3))
    started(conv, 3, 0), started(again, 3, 0), started(other, 3, 1)
    matrix = conv.weight_orig.detach().flatten(1)
    torch.testing.assert_close(matrix @ matrix.T, 0.64 * torch.eye(6), atol=1e-5, rtol=0)
    assert all(torch.equal(one, two) for one, two in zip(conv.parameters(), again.parameters(), strict=True))
    assert not torch.equal(conv.weight_orig, other.weight_orig)
    assert conv.weight_v.norm().item() == pytest.approx(1, abs=1e-5)


def test_redrawn_kernels_leave_the_biases_alone() -> None:
    conv = SpectralConv2d(4, 6, 3)
    started(conv, 3, 0)
    kernel, bias = conv.weight_orig.detach().clone(), conv.bias.detach().clone()
    redraw_kernels(conv, generator_of(9))
    assert torch.equal(conv.bias, bias)
    assert not torch.equal(conv.weight_orig, kernel)


def test_attention_starts_as_the_identity() -> None:
    attention = SelfAttention(8)
    initialise(attention, generator_of(1))
    x = torch.rand(2, 8, 6, 6, generator=generator_of(2))
    assert torch.equal(attention(x), x)


@pytest.mark.parametrize("side", [16, 32, 64])
@pytest.mark.parametrize("regions", [2, 3])
def test_shapes_hold_at_any_size_and_number_of_regions(side: int, regions: int) -> None:
    masks = torch.full((2, regions, side, side), 1 / regions)
    latents = torch.ones(2, regions, 3, 1, 1)
    generators = RegionGenerators(4, 3, regions, side, attention=True)
    discriminator, recovery = Discriminator(4, side, attention=True), LatentRecovery(4, 3, regions, side)
    for network in (generators, discriminator, recovery):
        initialise(network, generator_of(0))
    drawn = generators(masks, latents)
    assert drawn.shape == (2, regions, 3, side, side)
    assert discriminator(drawn[:, 0]).shape == (2, 1)
    assert recovery(drawn.sum(1)).shape == latents.shape


def test_a_region_is_drawn_inside_its_mask_only() -> None:
    masks = torch.zeros(1, 2, 32, 32)
    masks[:, 0, :, :16] = masks[:, 1, :, 16:] = 1
    generators = RegionGenerators(4, 3, 2, 32)
    initialise(generators, generator_of(0))
    drawn = generators(masks, torch.ones(1, 2, 3, 1, 1))
    assert drawn[0, 0, :, :, 16:].abs().max() == drawn[0, 1, :, :, :16].abs().max() == 0
    assert drawn[0, 0, :, :, :16].abs().min() > 0


@pytest.mark.parametrize("side", [0, 8, 24, 100])
def test_sides_that_do_not_halve_to_4_px_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"image size is {side} px"):
        num_halvings(side)


def test_an_official_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    networks = make_networks(_SMALL, 32)
    for number, (_, network) in enumerate(networks.items()):
        started(network, 0, number)
    write_official(tmp_path / "state_00010.pth", networks, _training())
    found = read_official(tmp_path / "state_00010.pth")
    assert (found.image_size, found.sizes) == (32, _SMALL)
    for name, state in networks.state().items():
        again = found.networks[name].state_dict()
        assert list(again) == list(state)
        assert all(torch.equal(again[key], value) for key, value in state.items())


def test_a_published_part_with_one_width_for_all_networks_is_read(tmp_path: Path) -> None:
    sizes = NetworksConfig.model_validate({**_SMALL.model_dump(), "discriminator_features": 8})
    networks = make_networks(sizes, 32)
    options = Namespace(sizex=32, nf=8, nfD=None, nResM=1, dataset="cub", unknown=3)
    content = {"netEncM": networks.masks.state_dict(), "netDX": networks.discriminator.state_dict()}
    torch.save({**content, "options": options}, tmp_path / "x.pth")
    assert sorted(read_official(tmp_path / "x.pth").networks) == ["netDX", "netEncM"]


class _Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("planted"),)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"weights": 1}, "holds weights: wanted a ReDO checkpoint"),
        ({"netDX": {}, "options": 3}, "options is a int"),
        ({"netDX": {}, "options": Namespace(sizex=100)}, "options.sizex is 100"),
        ({"netDX": {}, "options": Namespace(nf="x")}, "found 'x', wanted a number"),
        ({"netDX": {}, "options": Namespace(nf=4)}, "netDX: .*Missing key"),
        ({"netDX": 3, "options": Namespace(nf=4)}, "netDX: is a int"),
        ({"netDX": _Hostile(), "options": Namespace()}, "not a weight file"),
    ],
)
def test_foreign_checkpoints_are_named_and_none_of_their_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=f"x.pth: .*{found}"):
        read_official(tmp_path / "x.pth")
    assert not (tmp_path / "planted").exists()
