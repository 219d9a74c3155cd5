"""How long an experiment takes: from cells that are done, else from a few steps of each kind of training."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from trainer.evaluation.scores import evaluate
from trainer.experiments.config import PlannedRun
from trainer.experiments.results import steps_and_seconds
from trainer.experiments.sharing import Training
from trainer.runs.config import Cell, RunConfig
from trainer.runs.data import RunData
from trainer.training.loop import train

_CALIBRATION_STEPS = 6  # the first two, which warm up, do not count
_CALIBRATION_PHOTOS = 16
_START_S = 8.0  # a process with torch and the annotations, on one core


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one training: seconds a step, and besides the steps (start, evaluation on the test photos)."""

    step_s: float
    besides_s: float


class Costs:
    """Measures each kind of training once: same detector, photos or scenes, and settings of the steps."""

    def __init__(self, out: Path, home: Path, device: torch.device) -> None:
        self._out, self._home, self._device = out, home, device
        self._known: dict[str, Cost] = {}

    def learn(self, trainings: Sequence[Training]) -> None:
        """Take the steps' times from those of the trainings that are done."""
        for training in trainings:
            config, folder = training.run.config, self._out / training.folder
            steps, seconds = steps_and_seconds(folder, config, training)
            if steps and seconds and (folder / "scores.json").exists():
                self._known.setdefault(_kind(config, training.cell), Cost(seconds / steps, _START_S))

    def seconds(self, training: Training) -> float:
        """That the training takes from its beginning to its scores. Raises as opening its data does."""
        config, cell = training.run.config, training.cell
        kind = _kind(config, cell)
        if kind not in self._known:
            self._known[kind] = _measure(training.run, cell, self._home, self._device)
        cost = self._known[kind]
        return config.training_of(cell.phase).steps * cost.step_s + cost.besides_s


def _kind(config: RunConfig, cell: Cell) -> str:
    shown = cell.phase if cell.phase in ("pretrain", "mixed") else "photos"
    training = config.training_of(cell.phase).model_dump(mode="json", exclude={"steps", "lr", "schedule"})
    values = config.model_dump(mode="json", include={"detector", "dataset", "compositor", "compose_on"})
    return json.dumps([shown, training, values], sort_keys=True)


def _measure(run: PlannedRun, cell: Cell, home: Path, device: torch.device) -> Cost:
    config, data = run.config, RunData(run.config, home)
    detector = config.detector.build(len(data.classes), home)
    settings = {"steps": _CALIBRATION_STEPS, "log_every": 2, "validate_every": 0, "keep": "last"}
    training = config.training_of(cell.phase).model_copy(update=settings)
    with TemporaryDirectory() as folder:
        stream = data.stream(cell)
        train(detector, stream, training, Path(folder), device, workers=config.workers, seed=cell.seed)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    paces = [line["images_per_s"] for line in lines[1:]]
    begun, photos = time.monotonic(), [photo for photo in data.test if len(photo.target.boxes)]
    shown = photos[:_CALIBRATION_PHOTOS]
    evaluate(detector, shown, len(data.classes), config.detector.image_size, device, thorough=False)
    photo_s = (time.monotonic() - begun) / max(1, len(shown))
    return Cost(training.batch_size * len(paces) / sum(paces), _START_S + photo_s * len(data.test))
