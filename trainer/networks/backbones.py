"""ImageNet classifiers cut into the stages whose maps a detector reads.

| name | library | maps at 300 px |
|---|---|---|
| mobilenet_v1 | timm mobilenetv1_100 | pw_10, pw_11 (512), pw_12, pw_13 (1024): 19, 19, 10, 10 cells |
| mobilenet_v2 | torchvision | expansions before strides 16 and 32, last: 38 (192), 19 (576), 10 (1280) |
| resnet50 | torchvision | conv4_block4..6 (1024), conv5_block1..3 (2048): 19, 19, 19, 10, 10, 10 |

With Keras' padding MobileNet v1 gives 18, 18, 9, 9. ``timm/NAME`` is any other of timm's, see
`trainer.networks.timm_backbones`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import torch
from pydantic import AfterValidator
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, ResNet50_Weights, mobilenet_v2, resnet50

from configs.embedded import EMBEDDED_WEIGHTS
from configs.errors import InputError
from configs.kinds import did_you_mean
from trainer.networks.timm_backbones import PREFIX, TimmBackbone, make_timm_backbone, timm_maps
from trainer.networks.weights import StateDict, first_line, load_strictly, read_state_dict

OwnBackboneName = Literal["mobilenet_v1", "mobilenet_v2", "resnet50"]


def _known(name: str) -> str:
    if name.startswith(PREFIX):
        timm_maps(name)
    elif name not in get_args(OwnBackboneName):
        raise ValueError(f"no backbone {did_you_mean(name, get_args(OwnBackboneName))} (or {PREFIX}NAME)")
    return name


BackboneName = Annotated[str, AfterValidator(_known)]
AnyBackbone: TypeAlias = "Backbone | TimmBackbone"

_TIMM_NAME = "mobilenetv1_100.ra4_e3600_r224_in1k"


class Backbone(nn.Module):
    """uint8 RGB images to feature maps, finest first.

    mean, std: of R, G and B, 0..255, as the weights were trained with.
    channels and map_sizes (height, width): of each map, the latter for images of image_size px.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, stages: list[nn.Sequential], mean: list[float], std: list[float], image_size: int
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)
        shapes = _map_shapes(self, image_size)
        self.channels = [shape[1] for shape in shapes]
        self.map_sizes = [(shape[2], shape[3]) for shape in shapes]

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: uint8 (B, 3, H, W). Returns one (B, C, h, w) for each stage."""
        x = ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def make_backbone(
    name: BackboneName, weights: str, home: Path, *, image_size: int, keras_padding: bool = False
) -> AnyBackbone:
    """A backbone without its classifier; for ``timm/NAME`` see `make_timm_backbone`.

    weights: ``none`` (the library's random initialisation, from torch's global generator), ``imagenet``, or a
    file: a state dict of the library's model, ``.safetensors`` or torch's format (relative to the working
    directory, else to home). ``imagenet`` looks for the file in ``home/data/weights``, then in an installed
    package that ships it, then lets the library download it.
    keras_padding: strided convolutions pad below and right only, as Keras' MobileNet v1 does (300 px: 18
    cells at stride 16 where the symmetric padding gives 19).
    Raises InputError when the weights are missing or those of something else.
    """
    if name.startswith(PREFIX):
        return make_timm_backbone(name, weights, home, image_size=image_size)
    architecture = _ARCHITECTURES[name]
    model = architecture.make()
    if weights != "none":
        source, state = _find_weights(name, weights, architecture, home)
        load_strictly(model, state, source, f"{name} (the classifier aside)", _is_classifier)
    if keras_padding:
        _pad_like_keras(model)
    return Backbone(architecture.cut(model), architecture.mean, architecture.std, image_size)


@dataclass(frozen=True)
class _Architecture:
    """make: the untrained classifier. cut: its stages. file: the name of its ImageNet weights.
    download: has the library fetch them. mean, std: of RGB, 0..255.
    """

    make: Callable[[], nn.Module]
    cut: Callable[[nn.Module], list[nn.Sequential]]
    file: str
    download: Callable[[], StateDict]
    mean: list[float]
    std: list[float]


def _make_mobilenet_v1(pretrained: bool = False) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(_TIMM_NAME, pretrained=pretrained)
    return model


def _cut_mobilenet_v1(model: nn.Module) -> list[nn.Sequential]:
    blocks = [block for stage in model.get_submodule("blocks").children() for block in stage.children()]
    stem = [model.get_submodule("conv_stem"), model.get_submodule("bn1")]
    return [nn.Sequential(*stem, *blocks[:10]), *(nn.Sequential(block) for block in blocks[10:])]


def _cut_mobilenet_v2(model: nn.Module) -> list[nn.Sequential]:
    """Cuts inside the blocks that halve the map, after their expansion (as torchvision's SSDlite does)."""
    features = list(model.get_submodule("features").children())
    to_16, to_32 = (list(features[i].get_submodule("conv").children()) for i in (7, 14))
    return [
        nn.Sequential(*features[:7], to_16[0]),
        nn.Sequential(*to_16[1:], *features[8:14], to_32[0]),
        nn.Sequential(*to_32[1:], *features[15:]),
    ]


def _cut_resnet50(model: nn.Module) -> list[nn.Sequential]:
    stem = [model.get_submodule(name) for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2")]
    blocks = [*model.get_submodule("layer3").children(), *model.get_submodule("layer4").children()]
    return [nn.Sequential(*stem, *blocks[:4]), *(nn.Sequential(block) for block in blocks[4:])]


_IMAGENET_MEAN, _IMAGENET_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
_V2, _R50 = MobileNet_V2_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V1

_ARCHITECTURES: Mapping[str, _Architecture] = {
    "mobilenet_v1": _Architecture(
        _make_mobilenet_v1,
        _cut_mobilenet_v1,
        f"{_TIMM_NAME}.safetensors",
        lambda: _make_mobilenet_v1(pretrained=True).state_dict(),
        [127.5] * 3,
        [127.5] * 3,
    ),
    "mobilenet_v2": _Architecture(
        mobilenet_v2,
        _cut_mobilenet_v2,
        Path(_V2.url).name,
        lambda: _V2.get_state_dict(progress=False, check_hash=True),
        _IMAGENET_MEAN,
        _IMAGENET_STD,
    ),
    "resnet50": _Architecture(
        resnet50,
        _cut_resnet50,
        Path(_R50.url).name,
        lambda: _R50.get_state_dict(progress=False, check_hash=True),
        _IMAGENET_MEAN,
        _IMAGENET_STD,
    ),
}


def _find_weights(name: str, weights: str, architecture: _Architecture, home: Path) -> tuple[str, StateDict]:
    """The state dict and where it is from."""
    if weights != "imagenet":
        path = Path(weights)
        path = path if path.is_absolute() or path.exists() else home / path
        return str(path), read_state_dict(path)
    place = home / "data" / "weights" / architecture.file
    for file in (place, EMBEDDED_WEIGHTS / f"{name}.safetensors"):
        if file.exists():
            return str(file), read_state_dict(file)
    try:
        return architecture.file, architecture.download()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{place}: found no file, and the download failed ({first_line(error)}), "
            f"wanted ImageNet weights: put {architecture.file} there, or set weights=none"
        ) from error


def _is_classifier(key: str) -> bool:
    return key.startswith(("classifier.", "fc."))


def _pad_like_keras(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2) and child.padding == (1, 1):
                child.padding = (0, 0)
                setattr(parent, name, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), child))


def _map_shapes(backbone: Backbone, image_size: int) -> list[torch.Size]:
    backbone.eval()
    with torch.no_grad():
        shapes = [m.shape for m in backbone(torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8))]
    backbone.train()
    return shapes
