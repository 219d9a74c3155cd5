"""The authors' checkpoints: any of the four networks with the ``options`` they were trained with.

A dict of ``netEncM``, ``netGenX``, ``netDX``, ``netRecZ`` (published files hold one, two or all of them),
perhaps of optimisers, and ``options``, an `argparse.Namespace`.
"""

import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs.errors import InputError
from configs.load import validated
from factory.redo.networks import RedoNetworks, make_networks
from factory.redo.region_generator import num_halvings
from factory.redo.settings import NetworksConfig, RedoTraining
from factory.weights import read_weights

_WANTED = "a ReDO checkpoint: netEncM, netGenX, netDX or netRecZ, and options"
_NAMES = ("netEncM", "netGenX", "netDX", "netRecZ")
# the authors' option, ours; nf stands for each of nfM, nfX, nfD and nfZ that is not there
_OPTIONS = {
    "nMasks": "num_regions",
    "nz": "latent_size",
    "nfM": "mask_features",
    "nResM": "mask_res_blocks",
    "nfX": "generator_features",
    "nfD": "discriminator_features",
    "nfZ": "recovery_features",
    "useSelfAttG": "generator_attention",
    "useSelfAttD": "discriminator_attention",
    "temperature": "temperature",
}


@dataclass(frozen=True)
class OfficialCheckpoint:
    """networks: those that the file holds, under the authors' names, in eval mode on the CPU."""

    networks: Mapping[str, nn.Module]
    sizes: NetworksConfig
    image_size: int


def read_official(path: Path) -> OfficialCheckpoint:
    """The networks of a checkpoint, loaded strictly; no code that it carries is run.

    Raises InputError, saying what was found, for anything else.
    """
    content = read_weights(path, _WANTED, allowed=[Namespace])
    held = [name for name in _NAMES if isinstance(content, Mapping) and name in content]
    if not held:
        found = ", ".join(map(str, list(content)[:4])) if isinstance(content, Mapping) else type(content)
        raise InputError(f"{path}: holds {found}: wanted {_WANTED}")
    sizes, image_size = _sizes_in(content.get("options"), path)
    with torch.device("meta"):
        networks = dict(make_networks(sizes, image_size).items())
    for name in held:
        _load(networks[name], content[name], f"{path}: {name}")
    return OfficialCheckpoint({name: networks[name].eval() for name in held}, sizes, image_size)


def write_official(
    path: Path, networks: RedoNetworks, config: RedoTraining, optimisers: Mapping[str, Any] | None = None
) -> None:
    """A checkpoint that the authors' code reads, whole or not at all.

    optimisers: state dicts under the authors' names, to go on training with.
    """
    sizes = config.networks.model_dump()
    options = Namespace(
        sizex=config.image_size,
        nx=3,
        dataset=config.name,
        **{theirs: sizes[ours] for theirs, ours in _OPTIONS.items()},
        nf=sizes["generator_features"],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    torch.save({**networks.state(), **(optimisers or {}), "options": options}, beside)
    beside.replace(path)


def _sizes_in(options: Any, path: Path) -> tuple[NetworksConfig, int]:
    if not isinstance(options, Namespace):
        raise InputError(f"{path}: options is a {type(options).__name__}, wanted an argparse.Namespace")
    told = vars(options)
    widths = dict.fromkeys(("nfM", "nfX", "nfD", "nfZ"), told.get("nf", 64))
    told_sizes = {name: told[name] for name in _OPTIONS if told.get(name) is not None}
    known = {_OPTIONS[name]: value for name, value in {**widths, **told_sizes}.items()}
    sizes = validated(NetworksConfig, known, f"{path}: options")
    image_size = told.get("sizex", 128)
    try:
        num_halvings(image_size if isinstance(image_size, int) else 0)
    except ValueError as error:
        raise InputError(f"{path}: options.sizex is {image_size!r}: {error}") from error
    return sizes, int(image_size)


def _load(network: nn.Module, state: Any, place: str) -> None:
    if not isinstance(state, Mapping):
        raise InputError(f"{place}: is a {type(state).__name__}, wanted a state dict")
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: {reason}: wanted the weights that the options describe") from error
