"""DCGAN generators in the files of others: state dicts named as in PyTorch's example, bare or wrapped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from configs.errors import InputError
from factory.generators.dcgan import DcganGenerator
from factory.generators.found import Found

_WRAPPERS = ("netG_state_dict", "netG", "generator", "state_dict")


def recognise(content: Any, path: Path) -> Found | None:
    """A DCGAN generator; None for something else. Raises InputError for one that does not load."""
    state = content
    for name in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return None
    tensors = {str(name).removeprefix("module."): value for name, value in state.items()}
    if "main.0.weight" not in tensors or tensors["main.0.weight"].shape[2:] != (4, 4):
        return None
    try:
        generator = DcganGenerator.from_state_dict(tensors)
    except ValueError as error:
        raise InputError(f"{path}: looks like a DCGAN generator, but: {error}") from error
    return Found("dcgan", generator.sizes._asdict(), tensors)
