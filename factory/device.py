"""Where a network runs: on the processor, or on a GPU that is looked for when it is first used.

A driver without a GPU can so open a recipe whose workers have one.
"""

from typing import Literal, TypeVar

import torch
from torch import nn

from configs.errors import InputError

_Network = TypeVar("_Network", bound=nn.Module)

Device = Literal["cuda"] | None
"""None is the processor. It is no part of a recipe's identity, which is older than the choice."""


def placed(network: _Network, device: Device, place: str) -> _Network:
    """The network on the device. Raises InputError that starts with ``place`` when torch sees no GPU."""
    if device is None:
        return network
    if not torch.cuda.is_available():
        raise InputError(f"{place}: found {device}, but torch sees no GPU here: leave it unset")
    return network.to(device)
