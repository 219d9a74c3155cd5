"""ReDO's mask network: the official keys, and weights that are not trusted."""

import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from configs.errors import InputError
from factory.generators.found import Found, write_found
from factory.redo.mask_network import FAMILY, MaskNetwork, MaskNetworkSizes, load_mask_network, sizes_of


def _network(*sizes: int, seed: int = 0, image_size: int = 128, temperature: float = 1.0) -> MaskNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MaskNetwork(*sizes, image_size=image_size, temperature=temperature)
        for tensor in network.parameters():
            if tensor.ndim == 4:
                torch.nn.init.orthogonal_(tensor, 0.8)
    return network.eval()


def _images(image_size: int, count: int = 2) -> Tensor:
    """Coarse blocks of random colours, 0..1: contrasty."""
    blocks = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(blocks, size=(image_size, image_size))


def _official(shared_data: Path) -> dict[str, tuple[int, ...]]:
    path = shared_data.parent / "facts" / "redo_keys.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there: it lists the official keys")
    section = path.read_text().partition("## netEncM")[2].partition("\n## ")[0]
    found = re.findall(r"^\s+(\S+) \(([\d, ]+)\)$", section, re.MULTILINE)
    return {name: tuple(int(n) for n in shape.split(",") if n.strip()) for name, shape in found}


def test_keys_and_shapes_are_the_official_ones(shared_data: Path) -> None:
    ours = {name: tuple(value.shape) for name, value in MaskNetwork().state_dict().items()}
    assert list(ours.items()) == list(_official(shared_data).items())


def test_there_are_46_keys_and_274966_parameters() -> None:
    state = MaskNetwork().state_dict()
    assert len(state) == 46
    assert sum(value.numel() for value in state.values()) == 274_966


@pytest.mark.parametrize("sizes", [(64, 3, 2), (16, 2, 3), (32, 0, 2)])
def test_sizes_are_inferred_and_weights_load_strictly(sizes: tuple[int, int, int]) -> None:
    network = _network(*sizes, image_size=48)
    state = network.state_dict()
    assert sizes_of(state) == MaskNetworkSizes(*sizes)
    again = MaskNetwork.from_state_dict(state, image_size=48)
    with torch.inference_mode():
        assert torch.equal(again(_images(48)), network(_images(48)))


@pytest.mark.parametrize("num_masks", [2, 3])
@pytest.mark.parametrize("image_size", [24, 32, 60])
def test_soft_masks_have_the_image_size_and_sum_to_one(num_masks: int, image_size: int) -> None:
    masks = _network(16, 1, num_masks, image_size=image_size)(_images(image_size))
    assert masks.shape == (2, num_masks, image_size, image_size)
    assert masks.min() >= 0
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(2, image_size, image_size))


def test_inputs_of_either_range_give_the_same_masks() -> None:
    network, images = _network(), _images(128)
    with torch.inference_mode():
        masks, signed = network(images), network(images * 2 - 1)
    assert masks.std() > 0.01
    assert (masks - signed).abs().max() < 1e-3


def test_a_low_temperature_hardens_the_masks() -> None:
    soft, hard = (_network(16, 1, 2, image_size=32, temperature=t)(_images(32)) for t in (1.0, 0.25))
    torch.testing.assert_close(hard[:, 0].logit(), 4 * soft[:, 0].logit(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("form", ["bare", "safetensors", "official", "parallel", "legacy"])
def test_every_form_of_the_weights_loads(tmp_path: Path, form: str) -> None:
    state = _network(16, 2, 2).state_dict()
    path = tmp_path / ("m.safetensors" if form == "safetensors" else "m.pth")
    if form == "safetensors":
        save_file(state, path)
    elif form == "official":
        options = Namespace(sizex=64, temperature=0.5, dataset="cub", nfM=16, useSelfAttG=True)
        torch.save({"netEncM": state, "options": options}, path)
    elif form == "parallel":
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form != "legacy")
    network = load_mask_network(path)
    assert not network.training
    assert (network.image_size, network.temperature) == ((64, 0.5) if form == "official" else (128, 1.0))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (Namespace(sizex=130), r"options\.sizex is 130"),
        (Namespace(sizex="128"), r"options\.sizex is '128'"),
        (Namespace(temperature=0.0), r"options\.temperature is 0\.0"),
        (Namespace(temperature=float("nan")), r"options\.temperature is nan"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: Namespace, found: str) -> None:
    torch.save({"netEncM": _network(16, 1, 2).state_dict(), "options": options}, tmp_path / "m.pth")
    with pytest.raises(InputError, match=found):
        load_mask_network(tmp_path / "m.pth")


def _without_last(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name != "psp.3.1.bias"}


def _with_nan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "psp.3.1.bias": torch.tensor([torch.nan])}


def _misshapen(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "out.mods.1.weight": torch.zeros(3, 3, 3, 3)}


def test_foreign_weights_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    state = _network(16, 3, 2).state_dict()
    foreign = {"conv.weight": torch.zeros(3, 3, 1, 1), **{f"fc{i}.bias": torch.zeros(1) for i in range(11)}}
    cases: list[tuple[object, str]] = [
        (
            foreign,
            r"holds 12 keys, the first 'conv\.weight': wanted ReDO's mask network \(netEncM\), 46 keys",
        ),
        (_without_last(state), r"holds 45 keys.*wanted ReDO's mask.*Missing key.*psp\.3\.1\.bias"),
        (_misshapen(state), r"size mismatch for out\.mods\.1\.weight"),
        (_with_nan(state), r"'psp\.3\.1\.bias' is not finite"),
        ({"netGenX": state, "options": Namespace()}, "'netGenX' is not a tensor, wanted ReDO's mask network"),
        ({"netEncM": {}}, "'netEncM' is not a tensor|holds a dict"),
        ([1, 2], "holds a list"),
    ]
    for content, found in cases:
        torch.save(content, tmp_path / "m.pth")
        with pytest.raises(InputError, match=found) as error:
            load_mask_network(tmp_path / "m.pth")
        assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path / "m.pth"))


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    state = _network(16, 1, 2).state_dict()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"not a weight file.*wanted ReDO's mask network"):
            load_mask_network(path)


class _Hostile:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("place", ["alone", "in the options", "beside the weights"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, place: str, is_zip: bool) -> None:
    marker, path, state = tmp_path / "marker", tmp_path / "m.pth", _network(16, 1, 2).state_dict()
    hostile = _Hostile(marker)
    content: object = {
        "alone": hostile,
        "in the options": {"netEncM": state, "options": Namespace(sizex=hostile)},
        "beside the weights": {**state, "more": hostile},
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(InputError, match="not a weight file"):
        load_mask_network(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the trap itself must work"


def _kept(path: Path, family: str = FAMILY, **facts: str | int | float) -> Path:
    write_found(Found(family, facts, _network(16, 1, 2, image_size=32).state_dict()), path)
    return path


def test_our_own_file_says_its_size_temperature_and_object(tmp_path: Path) -> None:
    path = _kept(tmp_path / "m.safetensors", image_size=32, temperature=0.5, object_channel=1)
    network = load_mask_network(path)
    assert (network.image_size, network.temperature, network.object_channel) == (32, 0.5, 1)
    assert load_mask_network(_kept(path, image_size=32)).object_channel is None


@pytest.mark.parametrize(
    ("family", "facts", "found"),
    [
        ("stylegan2", {"image_size": 32}, "a network of the family 'stylegan2'"),
        (FAMILY, {"image_size": 30}, "image_size is 30"),
        (FAMILY, {"image_size": 32, "temperature": "hot"}, "temperature is 'hot'"),
        (FAMILY, {"image_size": 32, "object_channel": 2}, "object_channel is 2, wanted 0 to 1"),
        (FAMILY, {"image_size": 32, "object_channel": "auto"}, "object_channel is 'auto', wanted 0 to 1"),
    ],
)
def test_headers_that_cannot_be_are_refused(
    tmp_path: Path, family: str, facts: dict[str, str | int | float], found: str
) -> None:
    path = _kept(tmp_path / "m.safetensors", family, **facts)
    with pytest.raises(InputError, match=found):
        load_mask_network(path)
