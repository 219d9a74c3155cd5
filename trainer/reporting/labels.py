"""What a training had of labelled photos besides those that it learnt from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import get_args

from trainer.compositing.scales import FittedScale
from trainer.reporting.folder import CellResult
from trainer.runs.config import Cell, Phase, RunConfig

_PAINTED: tuple[Phase, ...] = ("pretrain", "mixed")


@dataclass(frozen=True, slots=True)
class OtherLabels:
    """chosen_by: photos with boxes that chose a checkpoint. fits_scales: boxes gave the scenes' sizes."""

    chosen_by: int = 0
    fits_scales: bool = False


def other_labels(cell: CellResult, config: RunConfig | None) -> OtherLabels | None:
    """Of the training and those that it goes on from.

    None where they are not known: without the run's settings, or in a folder not named after a phase.
    """
    name = PurePosixPath(cell.folder).name
    phase: Phase | None = next((each for each in get_args(Phase) if each == name), None)
    if config is None or phase is None:
        return None
    phases: list[Phase] = []
    earlier: Cell | None = Cell(phase, cell.num_real, cell.seed)
    while earlier is not None:
        phases.append(earlier.phase)
        earlier = earlier.before
    trainings = [config.training_of(each) for each in phases]
    is_chosen = any(each.keep == "best" and each.validate_on == "photos" for each in trainings)
    rules = [config.compositor.scale, *config.compositor.scale_of_label.values()]
    is_fitted = any(isinstance(rule, FittedScale) for rule in rules)
    is_painted = any(each in _PAINTED for each in phases)
    return OtherLabels(config.validation_images if is_chosen else 0, is_painted and is_fitted)


def together(found: Sequence[OtherLabels | None]) -> OtherLabels | None:
    """The most of any; None where one is not known."""
    known = [each for each in found if each is not None]
    if len(known) < len(found) or not known:
        return None
    return OtherLabels(max(each.chosen_by for each in known), any(each.fits_scales for each in known))
