"""ReDO's mask network in the authors' checkpoints, alone (``netEncM``) or among the other networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factory.generators.found import Fact, Found
from factory.redo.mask_network import FAMILY, load_mask_network


def recognise(content: Any, path: Path) -> Found | None:
    """A mask network with the side and the temperature that it was trained at; None for something else.

    Raises InputError for one that does not load.
    """
    if not isinstance(content, Mapping):
        return None
    if "netEncM" not in content and "cnn.0.mods.7.weight" not in content:
        return None
    network = load_mask_network(path)
    trained_at: dict[str, Fact] = {"image_size": network.image_size, "temperature": network.temperature}
    return Found(FAMILY, {**trained_at, **network.sizes._asdict()}, dict(network.state_dict()))
