"""Trainings that several runs have in common: each is done once, and linked where else it belongs."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.experiments.config import PlannedRun
from trainer.runs.config import Cell, RunConfig

# What decides a cell's weights and scores, besides its phase's training, its amount and its seed.
_PHOTOS = (
    *("classes", "dataset", "train_split", "test_split", "detector", "augment", "subset_seed"),
    "validation_images",
)
_SCENES = (
    *("crops", "backgrounds", "distractors", "compositor", "augment_scenes", "stream", "compose_on"),
    "validation_scenes",
)
_FREE_IN_TRAINING = ("checkpoint_every", "keep_last", "log_every", "loggers")


@dataclass(frozen=True, slots=True)
class Training:
    """A cell of a run, to be trained. before: the training, perhaps of another run, that it goes on from."""

    run: PlannedRun
    cell: Cell
    before: "Training | None"

    @property
    def folder(self) -> Path:
        """Where it lies below the experiment's folder."""
        return self.run.folder / self.cell.folder

    @property
    def name(self) -> str:
        """For people, and for a file's name."""
        return "-".join((self.run.name, *self.cell.folder.parts))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """trainings: each that is different, in an order that works. of: the training of each run's each cell."""

    trainings: Sequence[Training]
    of: dict[tuple[str, Cell], Training]


def share(runs: Sequence[PlannedRun]) -> Plan:
    """The first run that has a training does it."""
    by_identity: dict[str, Training] = {}
    of: dict[tuple[str, Cell], Training] = {}
    for run in runs:
        for cell in run.cells:
            earlier = cell.before
            goes_on_from = of[run.name, earlier] if earlier is not None else None
            training = Training(run, cell, goes_on_from)
            of[run.name, cell] = by_identity.setdefault(identity(run.config, cell), training)
    return Plan(list(by_identity.values()), of)


def identity(config: RunConfig, cell: Cell) -> str:
    """Equal for cells whose trainings are the same, whatever else their runs differ in."""
    values = config.model_dump(mode="json")
    training = config.training_of(cell.phase).model_dump(mode="json", exclude=set(_FREE_IN_TRAINING))
    parts: dict[str, Any] = {"phase": cell.phase, "num_real": cell.num_real, "seed": cell.seed}
    parts |= {"training": training, "ranks": config.cluster.workers} | {key: values[key] for key in _PHOTOS}
    if not config.classes:
        parts["classes"] = values["crops"]  # they say what there is to detect
    if cell.phase in ("pretrain", "mixed") or training["validate_on"] == "synthetic":
        parts |= {key: values[key] for key in _SCENES}
    if cell.phase == "mixed":
        parts["synthetic_share"] = config.synthetic_share
    if cell.phase == "self_training":
        parts["unlabelled"] = values["unlabelled"]
    earlier = cell.before
    if earlier is not None:
        parts["before"] = identity(config, earlier)
    return json.dumps(parts, sort_keys=True)


def link_shared(plan: Plan, run: PlannedRun, out: Path) -> None:
    """Relative links in a run's folder to those of its trainings that another run has done or begun."""
    for cell in run.cells:
        theirs, ours = out / plan.of[run.name, cell].folder, out / run.folder / cell.folder
        if theirs == ours or not theirs.exists() or ours.is_symlink():
            continue
        ours.parent.mkdir(parents=True, exist_ok=True)
        ours.symlink_to(os.path.relpath(theirs, ours.parent), target_is_directory=True)
