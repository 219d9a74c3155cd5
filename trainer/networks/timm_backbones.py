"""Any backbone of timm, by its name: ``timm/mobilenetv3_large_100``."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import InputError
from trainer.networks.weights import first_line, load_strictly, read_state_dict

PREFIX = "timm/"

_LEAST_STRIDE = 8  # finer maps are not detected on
_LARGEST_SCALE = 0.85
_FIRST_SIZE = 2.5  # strides
_SIZES = 3  # anchor sizes of a map


@dataclass(frozen=True, slots=True)
class TimmMaps:
    """The maps that a detector reads: their numbers among timm's, px between their cells, and channels."""

    indices: tuple[int, ...]
    strides: tuple[int, ...]
    channels: tuple[int, ...]


class TimmBackbone(nn.Module):
    """See `trainer.networks.backbones.Backbone`. ``network`` is timm's, of features only."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, maps: TimmMaps, norm: tuple[Any, Any], image_size: int) -> None:
        """norm: mean and standard deviation of R, G and B, 0..1."""
        super().__init__()
        self.network = network
        self.channels = list(maps.channels)
        for name, values in zip(("mean", "std"), norm, strict=True):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)
        self.map_sizes = self._map_sizes(image_size)

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: uint8 (B, 3, H, W). Returns one (B, C, h, w) for each map."""
        x = ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = self.network(x)
        if getattr(self.network, "output_fmt", None) == "NHWC":
            return [each.permute(0, 3, 1, 2) for each in maps]
        return list(maps)

    def _map_sizes(self, image_size: int) -> list[tuple[int, int]]:
        self.eval()
        with torch.no_grad():
            maps = self(torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8))
        self.train()
        return [(each.shape[2], each.shape[3]) for each in maps]


@lru_cache(maxsize=8)
def timm_maps(name: str) -> TimmMaps:
    """The maps at stride 8 and coarser of ``timm/NAME``; nothing is initialised. Raises ValueError."""
    import timm

    model = name.removeprefix(PREFIX)
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), 1)
        hint = f"did you mean '{PREFIX}{near[0]}'?" if near else "see timm.list_models()"
        raise ValueError(f"timm has no model '{model}', {hint}")
    with torch.device("meta"):
        network = _create(name)
    strides, channels = network.feature_info.reduction(), network.feature_info.channels()
    read = [i for i, stride in enumerate(strides) if stride >= _LEAST_STRIDE]
    if not read:
        raise ValueError(f"{name} has maps at strides {strides}, wanted one of {_LEAST_STRIDE} or more")
    return TimmMaps(tuple(read), tuple(int(strides[i]) for i in read), tuple(int(channels[i]) for i in read))


def scales_of(strides: Sequence[int], image_size: int) -> tuple[tuple[float, ...], ...]:
    """Anchor sizes of each map, fractions of the image's side: three, from 2.5 strides up to the next map's.

    The coarsest map's go up to 0.85. Maps of one stride share their range.
    """
    firsts = [min(_FIRST_SIZE * stride / image_size, 0.6 * _LARGEST_SCALE) for stride in strides]
    starts = []
    for k, first in enumerate(firsts):
        end = next((later for later in firsts[k:] if later > first), _LARGEST_SCALE)
        starts.append(first * (end / first) ** ((k - firsts.index(first)) / firsts.count(first)))
    ends = [*starts[1:], _LARGEST_SCALE]
    last = len(strides) - 1
    return tuple(
        tuple(round(start * (end / start) ** (i / (_SIZES - (k == last))), 4) for i in range(_SIZES))
        for k, (start, end) in enumerate(zip(starts, ends, strict=True))
    )


def make_timm_backbone(name: str, weights: str, home: Path, *, image_size: int) -> TimmBackbone:
    """``timm/NAME`` without its classifier, and its maps at stride 8 and coarser.

    weights: ``none``; a file of timm's model; or ``imagenet``: NAME.TAG.safetensors or NAME.safetensors in
    ``home/data/weights``, or what timm has fetched before. Nothing is downloaded. Raises InputError.
    """
    import timm

    maps = timm_maps(name)
    options: dict[str, Any] = {"out_indices": maps.indices}
    published = timm.get_pretrained_cfg(name.removeprefix(PREFIX))
    if published is not None and published.fixed_input_size:
        options["img_size"] = image_size
    if weights != "none":
        state = _state(name, weights, home)
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
    try:
        network = _create(name, **options)
        network.pretrained_cfg.pop("state_dict", None)
        norm = (network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
        return TimmBackbone(network, maps, norm, image_size)
    except Exception as error:  # a model that wants another size says so in many ways
        raise InputError(
            f"backbone: {name} at {image_size} px: {first_line(error)}: wanted a size that it takes"
        ) from error


def _create(name: str, **options: Any) -> Any:
    import timm

    return timm.create_model(name.removeprefix(PREFIX), features_only=True, **options)


def _state(name: str, weights: str, home: Path) -> dict[str, Tensor]:
    """A classifier's tensors, checked against the whole model: timm forgives what its features lack."""
    import timm

    model = timm.create_model(name.removeprefix(PREFIX), pretrained=False)
    published: Any = model.pretrained_cfg
    path = _find(published, weights, home)
    heads = published.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    unused = tuple(f"{head}." for head in heads)
    load_strictly(
        model,
        read_state_dict(path),
        str(path),
        f"{name} (the classifier aside)",
        lambda key: key.startswith(unused) if unused else False,
    )
    return dict(model.state_dict())


def _find(published: dict[str, Any], weights: str, home: Path) -> Path:
    if weights != "imagenet":
        path = Path(weights)
        return path if path.is_absolute() or path.exists() else home / path
    folder, architecture, tag = (
        home / "data" / "weights",
        str(published["architecture"]),
        published.get("tag"),
    )
    whole = f"{architecture}.{tag}" if tag else architecture
    places = [folder / f"{whole}.safetensors", folder / f"{architecture}.safetensors"]
    for path in (*places, *_cached(published)):
        if path.exists():
            return path
    repository, url = published.get("hf_hub_id"), published.get("url")
    source = f"model.safetensors of {repository} on the Hugging Face Hub" if repository else url
    remedy = f"put {source} there, or set weights=none" if source else "timm has none, set weights=none"
    raise InputError(f"{places[0]}: found no file, wanted ImageNet weights: {remedy}")


def _cached(published: dict[str, Any]) -> list[Path]:
    """Where timm's downloads would lie."""
    from huggingface_hub import try_to_load_from_cache

    places = []
    if published.get("hf_hub_id"):
        for file in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(published["hf_hub_id"], file)
            places += [Path(found)] if isinstance(found, str) else []
    if published.get("url"):
        places.append(Path(torch.hub.get_dir()) / "checkpoints" / published["url"].rsplit("/", 1)[-1])
    return places
