from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import mobilenet_v2

from configs.embedded import embedded
from configs.errors import InputError
from trainer.networks.backbones import BackboneName, make_backbone


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "keras_padding", "cells", "channels"),
    [
        ("mobilenet_v1", True, [18, 18, 9, 9], [512, 512, 1024, 1024]),
        ("mobilenet_v1", False, [19, 19, 10, 10], [512, 512, 1024, 1024]),
        ("mobilenet_v2", False, [38, 19, 10], [192, 576, 1280]),
        ("resnet50", False, [19, 19, 19, 10, 10, 10], [1024] * 3 + [2048] * 3),
    ],
)
def test_maps_of_a_300_px_image_have_the_papers_sizes(
    name: BackboneName, keras_padding: bool, cells: list[int], channels: list[int], tmp_path: Path
) -> None:
    backbone = make_backbone(name, "none", tmp_path, image_size=300, keras_padding=keras_padding)
    assert backbone.map_sizes == [(n, n) for n in cells]
    assert backbone.channels == channels
    assert not any("classifier" in key or "fc." in key for key in backbone.state_dict())


def test_cut_stages_compute_what_the_library_model_computes(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    model = mobilenet_v2().eval()
    torch.save(model.state_dict(), path)
    backbone = make_backbone("mobilenet_v2", str(path), tmp_path, image_size=64).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(0))
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    with torch.no_grad():
        expected = model.features((images / 255 - mean) / std)
        torch.testing.assert_close(backbone(images)[-1], expected, rtol=1e-4, atol=1e-4)


def test_imagenet_weights_are_taken_from_the_weights_folder_first(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "weights"
    folder.mkdir(parents=True)
    model = mobilenet_v2()
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "mobilenet_v2-b0353104.pth")
    backbone = make_backbone("mobilenet_v2", "imagenet", tmp_path, image_size=64)
    assert torch.equal(backbone.stages[0][0][0].weight, model.features[0][0].weight)


def test_embedded_imagenet_weights_load_without_a_network(tmp_path: Path) -> None:
    backbone = make_backbone("mobilenet_v2", "imagenet", tmp_path, image_size=64)
    stored = load_file(embedded("weights/mobilenet_v2.safetensors"))["features.0.0.weight"]
    assert torch.equal(backbone.stages[0][0][0].weight, stored.float())


def test_weights_load_from_safetensors_relative_to_home(tmp_path: Path) -> None:
    model = mobilenet_v2()
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    backbone = make_backbone("mobilenet_v2", "mine.safetensors", tmp_path, image_size=64)
    assert torch.equal(backbone.stages[0][0][0].weight, model.features[0][0].weight)


def test_a_failed_download_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    place = tmp_path / "data" / "weights" / "resnet50-0676ba61.pth"
    with pytest.raises(InputError) as caught:
        make_backbone("resnet50", "imagenet", tmp_path, image_size=64)
    assert str(caught.value).startswith(f"{place}: found no file, and the download failed (no route to host)")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pth: found no file, wanted weights"):
        make_backbone("mobilenet_v2", "none.pth", tmp_path, image_size=64)


def test_a_file_of_another_network_is_refused_and_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"netG.weight": torch.zeros(2), "netG.bias": torch.zeros(2)}, tmp_path / "gan.pth")
    with pytest.raises(
        InputError, match=r"gan\.pth: found 2 tensors, .* 2 foreign, first netG\.bias, wanted the"
    ):
        make_backbone("mobilenet_v2", "gan.pth", tmp_path, image_size=64)


@pytest.mark.parametrize(
    ("file", "content"), [("a.pth", b"hello"), ("b.safetensors", b"hello"), ("c.pth", b"")]
)
def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match="wanted a file of tensors"):
        make_backbone("mobilenet_v2", file, tmp_path, image_size=64)
