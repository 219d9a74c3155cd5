"""python -m factory.convert: what it finds, says and writes."""

import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from configs.errors import InputError
from factory.convert import identify, main
from factory.generators.dcgan import DcganGenerator, DcganSizes
from factory.generators.found import Found, read_found, write_found
from factory.generators.stylegan2 import StyleGan2
from factory.redo.mask_network import MaskNetwork, load_mask_network
from factory.sources.dcgan import DcganConfig


def _dcgan(folder: Path) -> Path:
    path = folder / "generator.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = DcganGenerator(DcganSizes(nz=6, ngf=4, nc=3, image_px=16)).state_dict()
    torch.save({"netG": {f"module.{name}": value for name, value in state.items()}}, path)
    return path


def _masks(folder: Path) -> Path:
    path = folder / "lfw_netM_state.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = MaskNetwork(16, 1, 2, image_size=32).state_dict()
    options = Namespace(sizex=32, temperature=0.5, dataset="lfw")
    torch.save({"netEncM": state, "options": options}, path, _use_new_zipfile_serialization=False)
    return path


def test_it_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(_dcgan(tmp_path))]) == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["family"] == "dcgan" and printed["image_px"] == "16"
    assert printed["source_file"] == "generator.pt" and len(printed["source_sha256"]) == 64
    assert printed["tensors"].startswith("13, ")
    assert [path.name for path in tmp_path.iterdir()] == ["generator.pt"]


def test_a_dcgan_gives_the_same_images_from_the_converted_file(tmp_path: Path) -> None:
    source, target = _dcgan(tmp_path), tmp_path / "weights" / "faces.safetensors"
    assert main([str(source), "--to", str(target)]) == 0
    before, after = (
        next(DcganConfig(weights=path).open(0, tmp_path).images(3, 1)).image for path in (source, target)
    )
    assert (before == after).all()


def test_a_mask_network_keeps_its_side_and_temperature(tmp_path: Path) -> None:
    target = tmp_path / "masks.safetensors"
    main([str(_masks(tmp_path)), "--to", str(target)])
    before, after = load_mask_network(_masks(tmp_path)), load_mask_network(target)
    assert (after.image_size, after.temperature) == (32, 0.5)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(before(images), after(images))
    assert read_found(target).facts["source_file"] == "lfw_netM_state.pth"


def test_names_of_the_authors_are_known_in_a_bare_state_dict(tmp_path: Path) -> None:
    shapes = StyleGan2([4, 5], [4, 3], 3, 0.01, 1.0).state_dict()
    path = tmp_path / "g_ema.pt"
    torch.save({name: torch.zeros_like(value) for name, value in shapes.items()}, path)
    found = identify(path)
    assert (found.family, found.facts["resolution"]) == ("stylegan2", 8)


def test_our_own_file_is_described_and_copied_as_it_is(tmp_path: Path) -> None:
    found = Found("anything", {"steps": 3}, {"a": torch.ones(2)})
    path, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_found(found, path)
    main([str(path), "--to", str(again)])
    assert again.read_bytes() == path.read_bytes()


def test_what_nobody_knows_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(
        InputError, match=r"holds 1 entries, the first 'conv.weight' a tensor, wanted .*stylegan"
    ):
        identify(path)
    path.write_bytes(pickle.dumps(["a list"]))
    with pytest.raises(InputError, match="holds a list, wanted"):
        identify(path)
    with pytest.raises(InputError, match="no such file"):
        identify(tmp_path / "missing.pkl")


def test_a_dcgan_that_lacks_a_layer_is_named(tmp_path: Path) -> None:
    path = _dcgan(tmp_path)
    state = torch.load(path, weights_only=True)["netG"]
    del state["module.main.3.weight"]
    torch.save(state, path)
    with pytest.raises(InputError, match="looks like a DCGAN generator, but: "):
        identify(path)


def test_the_target_must_be_safetensors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--to: found a\.pth, wanted a name that ends with \.safetensors"):
        main([str(_dcgan(tmp_path)), "--to", "a.pth"])
