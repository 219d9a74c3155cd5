"""Weights that others trained: read without running code, loaded strictly, faults named."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.errors import InputError
from configs.unreadable import why_unreadable

StateDict = Mapping[str, Tensor]

_WRAPPERS = ("state_dict", "model")  # where training programs put the tensors among other things


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a file by name, also below ``state_dict`` or ``model``, without a leading ``module.``.

    Raises InputError when it is missing or holds no tensors by name. Runs no code from the file.
    """
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: found no file, wanted weights") from error
    except Exception as error:  # torch's unpickler raises anything at all on foreign bytes
        why = why_unreadable(path, error)
        raise InputError(f"{path}: found no readable tensors ({why}), wanted a file of tensors") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path}: found {type(content).__name__}, wanted tensors by name (a state dict)")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def load_strictly(
    model: nn.Module,
    state: StateDict,
    source: str,
    name: str,
    is_unused: Callable[[str], bool] = lambda key: False,
) -> None:
    """Every tensor of the model from the state, none left over. Raises InputError that names what differs.

    source, name: of the file and of the model, for the error. is_unused: keys that either side may lack;
    batch norms' counters of batches, which old files lack, are always among them.
    """

    def is_used(key: str) -> bool:
        return not (is_unused(key) or key.endswith("num_batches_tracked"))

    wanted = {key: value for key, value in model.state_dict().items() if is_used(key)}
    found = {key: value for key, value in state.items() if is_used(key)}
    missing, foreign = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    reshaped = sorted(key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape)
    faults = [("missing", missing), ("foreign", foreign), ("of another shape", reshaped)]
    if any(keys for _, keys in faults):
        listed = "; ".join(f"{len(keys)} {fault}, first {keys[0]}" for fault, keys in faults if keys)
        raise InputError(
            f"{source}: found {len(found)} tensors, {listed}, wanted the {len(wanted)} of {name}"
        )
    model.load_state_dict(dict(found), strict=False)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
