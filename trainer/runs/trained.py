"""A trained detector from its checkpoint alone: the file says what it is of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, SerializeAsAny

from configs.errors import InputError
from configs.kinds import StrictModel, one_of
from configs.load import validated
from trainer.detector import Detector, DetectorConfig
from trainer.training.checkpoint import load_checkpoint, weights_of


class TrainedAs(StrictModel):
    """What a checkpoint says of itself. classes: names of labels 1, 2, ... keep: which file to hand on."""

    detector: Annotated[DetectorConfig, SerializeAsAny(), one_of("trainer.detectors", DetectorConfig)]
    classes: tuple[str, ...] = Field(min_length=1)
    keep: str = "last"


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A detector in eval mode, with what it was trained as, and the file it is from."""

    detector: Detector
    config: DetectorConfig
    classes: tuple[str, ...]
    path: Path


def open_trained(place: Path, home: Path, device: torch.device | None = None) -> Trained:
    """The detector of a checkpoint, or of a training's folder, whose checkpoint to hand on is taken.

    Raises InputError for a file that is missing, foreign, or of a program before checkpoints said what they
    are of.
    """
    path = place
    if place.is_dir():
        folder = place / "checkpoints" if (place / "checkpoints").is_dir() else place
        path = folder / f"{_said(folder / 'last.pt', load_checkpoint(folder / 'last.pt')).keep}.pt"
    state = load_checkpoint(path)
    trained_as = _said(path, state)
    detector = trained_as.detector.without_weights().build(len(trained_as.classes), home)
    try:
        detector.load_state_dict(weights_of(state))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path}: {reason}: wanted the weights of the detector it names") from error
    detector.to(device or torch.device("cpu")).eval()
    return Trained(detector, trained_as.detector, trained_as.classes, path)


def _said(path: Path, state: Mapping[str, Any]) -> TrainedAs:
    if "trained_as" not in state:
        raise InputError(f"{path}: does not say of which detector it is: wanted a checkpoint of trainer.run")
    return validated(TrainedAs, state["trained_as"], f"{path}: trained_as")
