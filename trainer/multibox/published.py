"""Weights that others publish, found on disk and never fetched."""

from dataclasses import dataclass
from pathlib import Path

import torch

from configs.errors import InputError
from trainer.multibox.detector import MultiBoxNetwork
from trainer.networks.weights import StateDict, load_strictly, read_state_dict


@dataclass(frozen=True, slots=True)
class Published:
    """A file of the web. what: for the error."""

    url: str
    what: str

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rsplit("/", 1)[-1]


def find_weights(given: str, keyword: str, published: Published, home: Path) -> Path:
    """The file that ``given`` names, or where it is ``keyword`` the published one, wherever it lies.

    Raises InputError that says what to fetch.
    """
    if given != keyword:
        path = Path(given)
        return path if path.is_absolute() or path.exists() else home / path
    place = home / "data" / "weights" / published.file
    for path in (place, Path(torch.hub.get_dir()) / "checkpoints" / published.file):
        if path.exists():
            return path
    raise InputError(f"{place}: found no file, wanted {published.what}: put {published.url} there")


def load_detector(network: MultiBoxNetwork, path: Path, name: str) -> None:
    """A whole detector's tensors; where its classes are others, those that tell them apart stay as they are.

    The file is the publisher's, or of a training of ours. Raises InputError that names what differs.
    """
    state = {key.removeprefix("network."): value for key, value in read_state_dict(path).items()}
    own = network.state_dict()
    of_other_classes = {
        key
        for key in state.keys() & own.keys()
        if key.startswith(network.class_head) and state[key].shape != own[key].shape
    }
    load_strictly(network, state, str(path), name, of_other_classes.__contains__)


def load_backbone(module: torch.nn.Module, path: Path, name: str, unused: tuple[str, ...]) -> None:
    """A classifier's tensors, but for those whose names begin as ``unused`` says. Raises InputError."""
    state: StateDict = read_state_dict(path)
    load_strictly(
        module, state, str(path), f"{name} (the classifier aside)", lambda key: key.startswith(unused)
    )
