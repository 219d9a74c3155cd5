"""Trained weights from a file that is not trusted: state dicts in, no code run, one-line errors out."""

import hashlib
import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from configs.embedded import EMBEDDED_WEIGHTS
from configs.errors import InputError
from configs.home import locate
from configs.unreadable import why_unreadable

# What the loaders raise on a file of another kind, which they read as if it were one of theirs.
# OSError: on a truncated archive torch seeks to before its start.
_LOADER_ERRORS = (
    OSError,
    *(pickle.UnpicklingError, SafetensorError, struct.error, EOFError, RuntimeError, ValueError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError),
)


def find_weights(setting: str, path: Path, home: Path, wanted: str) -> Path:
    """The weight file that ``setting`` names: as it stands, else in the home's data/weights, else embedded.

    ``wanted`` says in the errors, here and below, whose state dict it should be. Raises InputError when there
    is no such file.
    """
    found = locate(path, home, "data/weights")
    if not found.is_file() and (EMBEDDED_WEIGHTS / path).is_file():
        return EMBEDDED_WEIGHTS / path
    if not found.is_file():
        raise InputError(f"{setting}: no file {found}, wanted {wanted}")
    return found


def read_weights(path: Path, wanted: str, allowed: Sequence[type] = ()) -> Any:
    """What a torch or safetensors file holds; the code that a pickle may carry is never run.

    allowed: plain data classes that a torch file may hold besides tensors and containers.
    Raises InputError for a file of another kind.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _LOADER_ERRORS as error:
        raise InputError(
            f"{path}: not a weight file ({why_unreadable(path, error)}), wanted {wanted}"
        ) from error


def state_dict_in(content: Any, path: Path, wrappers: Sequence[str], wanted: str) -> dict[str, Tensor]:
    """The state dict, out of its wrappers (a trainer's checkpoint) and without DataParallel's prefix.

    Raises InputError when it is none.
    """
    for name in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__}, wanted {wanted}")
    foreign = next((str(name) for name, value in content.items() if not isinstance(value, Tensor)), None)
    if foreign is not None:
        raise InputError(f"{path}: '{foreign}' is not a tensor, wanted {wanted}")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def sha256_of(path: Path) -> str:
    """The file's sha256, 64 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
