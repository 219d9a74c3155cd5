"""Backbones of timm by name, none of them fetched."""

from pathlib import Path

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from configs.errors import InputError
from trainer.detectors.ssd import Ssd, SsdConfig
from trainer.networks.backbones import make_backbone
from trainer.networks.timm_backbones import TimmBackbone, scales_of, timm_maps

NAME = "mobilenetv3_small_050"
SIZE = 96


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def config(**settings: object) -> SsdConfig:
    given = {"backbone": f"timm/{NAME}", "weights": "none", "image_size": SIZE, **settings}
    return SsdConfig.model_validate(given)


@pytest.mark.parametrize(
    ("name", "strides", "channels", "cells"),
    [
        (NAME, (8, 16, 32), [16, 24, 288], [12, 6, 3]),
        ("convnext_atto", (8, 16, 32), [80, 160, 320], [12, 6, 3]),
        ("vit_tiny_patch16_224", (16, 16, 16), [192] * 3, [6, 6, 6]),
        ("swin_tiny_patch4_window7_224", (8, 16, 32), [192, 384, 768], [12, 6, 3]),
    ],
)
def test_any_family_gives_its_maps_at_stride_8_and_coarser(
    name: str, strides: tuple[int, ...], channels: list[int], cells: list[int]
) -> None:
    assert timm_maps(f"timm/{name}").strides == strides
    backbone = make_backbone(f"timm/{name}", "none", Path(), image_size=SIZE)
    assert (backbone.channels, backbone.map_sizes) == (channels, [(n, n) for n in cells])
    maps = backbone(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8))
    assert [tuple(each.shape) for each in maps] == [
        (2, width, n, n) for width, n in zip(channels, cells, strict=True)
    ]


def test_an_ssd_trains_on_one_and_its_settings_resolve_to_themselves() -> None:
    settings = config()
    assert SsdConfig.model_validate(settings.model_dump(mode="json")) == settings
    detector = settings.build(1, Path())
    assert isinstance(detector, Ssd)
    assert len(detector.anchors) == (12 * 12 + 6 * 6 + 3 * 3) * 3 * 3
    detector(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8))[0].sum().backward()
    assert all(p.grad is not None for p in detector.backbone.parameters())


def test_default_sizes_follow_the_strides_and_end_at_most_of_the_image() -> None:
    fine, middle, coarse = scales_of((8, 16, 32), 320)
    assert fine == (0.0625, 0.0787, 0.0992)
    assert (middle[0], coarse[0], coarse[-1]) == (0.125, 0.25, 0.85)
    alike = [size for own in scales_of((16, 16, 16), 224) for size in own]
    assert alike == sorted(alike) and len(set(alike)) == 9 and alike[-1] == 0.85


@pytest.mark.parametrize("file", [f"{NAME}.lamb_in1k.safetensors", f"{NAME}.safetensors", "cached"])
def test_imagenet_weights_are_a_file_of_home_or_of_timms_cache(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {key: value.clone() for key, value in timm.create_model(NAME).state_dict().items()}
    path = tmp_path / "data" / "weights" / file
    path.parent.mkdir(parents=True)
    if file == "cached":
        path = tmp_path / "model.safetensors"
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(path))
    save_file(state, path)
    backbone = make_backbone(f"timm/{NAME}", "imagenet", tmp_path, image_size=SIZE)
    assert isinstance(backbone, TimmBackbone)
    loaded = backbone.network.state_dict()
    assert len(loaded) > 100 and all(torch.equal(value, state[key]) for key, value in loaded.items())
    assert "state_dict" not in backbone.network.pretrained_cfg


def test_weights_that_lie_nowhere_are_named_and_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        make_backbone(f"timm/{NAME}", "imagenet", tmp_path, image_size=SIZE)
    assert str(caught.value) == (
        f"{tmp_path}/data/weights/{NAME}.lamb_in1k.safetensors: found no file, wanted ImageNet weights: put "
        f"model.safetensors of timm/{NAME}.lamb_in1k on the Hugging Face Hub there, or set weights=none"
    )


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("mobilenetv3_small_075").state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        InputError, match=r"other\.pth: found .* of another shape, .* wanted the .* of timm/mobile"
    ):
        make_backbone(f"timm/{NAME}", "other.pth", tmp_path, image_size=SIZE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "timm/mobilnetv3_small_050"}, f"did you mean 'timm/{NAME}'"),
        ({"backbone": "timm/xyz"}, "timm has no model 'xyz', see timm.list_models()"),
        ({"backbone": "mobilnet_v2"}, r"did you mean 'mobilenet_v2'\? \(or timm/NAME\)"),
        ({"scales": [[0.1], [0.2]]}, "wanted one list for each of 3 maps"),
        ({"keras_padding": True}, f"keras_padding: found true, wanted false with timm/{NAME}"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**settings)


def test_a_size_that_a_model_does_not_take_is_one_line() -> None:
    with pytest.raises(
        InputError, match=r"backbone: timm/vit_tiny_patch16_224 at 8 px: .*: wanted a size"
    ) as caught:
        make_backbone("timm/vit_tiny_patch16_224", "none", Path(), image_size=8)
    assert "\n" not in str(caught.value)
