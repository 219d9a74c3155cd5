"""One run folder: the grid of trainings of a run, what is done of it, and its scores."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import InputError
from configs.kinds import did_you_mean
from configs.load import read_yaml, to_yaml, validated
from configs.log_file import LOG_NAME
from configs.text_file import write_text
from trainer.cluster.workers import Workers
from trainer.compositing.render_gpu import BatchComposer
from trainer.dataset import BoxedImage
from trainer.detector import Detector
from trainer.evaluation.detections_file import write_detections
from trainer.evaluation.official_scores import find_truth, shown_metrics, table_scores
from trainer.evaluation.scene_validation import score_on_scenes
from trainer.evaluation.scores import Evaluation, evaluate
from trainer.runs.config import Cell, RunConfig, cells_of
from trainer.runs.data import RunData
from trainer.runs.self_training import (
    PSEUDO_LABELS_NAME,
    UnlabelledConfig,
    boxed_photos,
    find_root,
    label_photos,
    read_labels,
    write_labels,
)
from trainer.runs.summary import detection_sheet, photo_sheet, scene_sheet, score_table
from trainer.runs.trained import TrainedAs, open_trained
from trainer.streaming.device_loader import DeviceBatches
from trainer.streaming.loader import batches
from trainer.training.checkpoint import load_checkpoint, weights_of
from trainer.training.config import TrainingConfig
from trainer.training.loop import LoadBatches, Validate, train
from trainer.training.optimisation import check_names
from trainer.training.precision import check_precision
from trainer.training.ranks import ALONE, Ranks
from trainer.training.trackers import check_trackers

# What a run's folder may differ in from one command to the next: its extent, and what changes no weight.
_FREE = {"phases", "num_real", "seeds", "workers", "threads", "loader"}
_NO_RUNS = {"scenes.png", LOG_NAME}  # what may lie in a folder before a run claims it
_FREE_IN_CLUSTER = {"address", "gpus_per_worker", "cpus_per_worker", "max_failures"}
_FREE_IN_TRAINING = {"checkpoint_every", "keep_last", "log_every", "loggers"}


class Run:
    """One run folder: opens the data, trains the grid's cells that are not done, keeps their scores."""

    def __init__(self, config: RunConfig, out: Path, home: Path) -> None:
        """Raises InputError or ShardError when data is missing, or ``out`` belongs to another run."""
        self.config, self.out, self.home = config, out, home
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if config.threads:
            torch.set_num_threads(config.threads)
        self.data = RunData(config, home)
        self.classes = self.data.classes
        self._check()
        self._claim()

    def _check(self) -> None:
        self.config.cluster.check()
        for name, training in self.config.trainings().items():
            self._check_training(name, training)
        if not self.data.test:
            raise InputError(
                f"{self.config.dataset.root}: {self.config.test_split}: found no photo, wanted one"
            )
        find_truth(self.config.dataset, self.home)  # a damaged one is not found after hours of training
        if self.config.unlabelled is not None:
            self._check_unlabelled(self.config.unlabelled)
        if set(self.config.phases) != {"pretrain"}:
            self._check_amounts()

    def _check_unlabelled(self, config: UnlabelledConfig) -> None:
        find_root(config, self.home)
        if config.label is None and len(self.classes) > 1:
            raise InputError(f"unlabelled.label: is not set, wanted one of {', '.join(self.classes)}")
        if config.label is not None and config.label not in self.classes:
            raise InputError(f"unlabelled.label: unknown {did_you_mean(config.label, self.classes)}")

    def _check_amounts(self) -> None:
        total, held_out = len(self.data.photos), self.config.validation_images
        if max(self.config.num_real, default=0) > total - held_out:
            held = f"{held_out} of its {total} photos kept for validation"
            raise InputError(
                f"num_real: found {max(self.config.num_real)}, wanted at most {total - held_out} ({held})"
            )

    def _check_training(self, name: str, training: TrainingConfig) -> None:
        try:
            if self.config.cluster.device_type == self.device.type:  # else the workers look
                check_precision(training.precision, self.device)
            check_trackers(training.loggers)
            if training.freeze.names_parts or training.lr_factors:
                check_names(self.config.detector.build(len(self.classes), self.home), training)
        except InputError as error:
            raise InputError(f"{name}.{error}") from error

    def _claim(self) -> None:
        """Write the resolved config; refuse a folder whose config differs in what its weights depend on."""
        path = self.out / "config.yaml"
        if path.exists():
            before = _identity(validated(RunConfig, read_yaml(path), str(path)))
            differing = [key for key, value in _identity(self.config).items() if before[key] != value]
            if differing and any(self.out.glob("seed-*")):  # else nothing was trained with what is mended now
                raise InputError(
                    f"{self.out}: holds a run with another {', '.join(differing)}: wanted another --out"
                )
        elif foreign := self._foreign():
            raise InputError(f"{self.out}: holds {foreign[0]}, wanted a new or empty folder, or a run's")
        write_text(path, to_yaml(self.config))

    def _foreign(self) -> list[str]:
        """What no run leaves. Trainings of another run may be linked here before this one claims it."""
        names = sorted(found.name for found in self.out.glob("*"))
        return [name for name in names if name not in _NO_RUNS and not name.startswith("seed-")]

    def run(self, cells: Sequence[Cell] | None = None) -> None:
        """Train and score what is missing of the cells, by default of the whole grid; write scores.json,
        table.md and the sheets. What a cell goes on from must be done, or stand before it.
        """
        sheet = self.out / "scenes.png"
        if not sheet.exists():
            scenes = self.data.scenes(self.config.seeds[0])
            scene_sheet([scenes[i] for i in range(24)], sheet)
        with Workers(self.config.cluster) as workers:
            for cell in cells_of(self.config) if cells is None else cells:
                if self.scores_of(cell) is None:
                    self._run_cell(cell, workers)
        write_text(self.out / "scores.json", json.dumps(self._scores(), indent=1) + "\n")
        write_text(self.out / "table.md", self.table() + "\n")

    @property
    def left(self) -> list[Cell]:
        """What of the grid is not trained and scored."""
        return [cell for cell in cells_of(self.config) if self.scores_of(cell) is None]

    def table(self) -> str:
        """Test AP50 (VOC), AP (COCO) and the data set's own in percent, mean ± std over the seeds."""
        found = {cell: self.scores_of(cell) for cell in cells_of(self.config)}
        tables = []
        for metric in shown_metrics(found.values()):
            having = {cell: scores for cell, scores in found.items() if scores and metric in scores}
            tables.append(score_table(self.config, having.get, metric))
        return "\n\n".join(tables)

    def scores_of(self, cell: Cell) -> dict[str, Any] | None:
        """A cell's scores, or None while it is not done."""
        path = self.out / cell.folder / "scores.json"
        return json.loads(path.read_text()) if path.exists() else None

    def _scores(self) -> list[dict[str, Any]]:
        cells = [(cell, self.scores_of(cell)) for cell in cells_of(self.config)]
        return [
            {"phase": cell.phase, "num_real": cell.num_real, "seed": cell.seed} | (scores or {})
            for cell, scores in cells
        ]

    def _run_cell(self, cell: Cell, workers: Workers) -> None:
        folder = self.out / cell.folder
        self._label_photos(cell)
        if workers.are_many:
            workers.run(partial(_train_part, self, cell), folder, self.config.threads)
            detector = open_trained(folder, self.home, self.device).detector
        else:
            detector = self._train(cell)
        result = self._evaluate(detector, self.data.test)
        keys = [photo.key for photo in self.data.test]
        write_detections(folder / "detections.npz", keys, result.detections)
        detection_sheet(self.data.test, result.detections, self.classes, folder / "samples.png")
        scores = result.scores | self._official(result, folder) | {"photos": len(self.data.test)}
        write_text(folder / "scores.json", json.dumps(scores) + "\n")

    def _official(self, result: Evaluation, folder: Path) -> dict[str, float]:
        config = self.config
        return table_scores(
            config.dataset, config.test_split, self.data.test, result.detections, self.home, folder
        )

    def _train(self, cell: Cell, ranks: Ranks = ALONE) -> Detector:
        torch.manual_seed(cell.seed)
        detector = self.config.detector.build(len(self.classes), self.home)
        if (before := cell.before) is not None:
            detector.load_state_dict(self._handed_on(before))
        training = self.config.training_of(cell.phase)
        return train(
            detector,
            self.data.stream(cell, self._self_labelled(cell)),
            training,
            self.out / cell.folder,
            self.device,
            validate=self._validate(cell, training),
            workers=self.config.workers,
            seed=cell.seed,
            ranks=ranks,
            load_batches=self._load_batches(cell),
            trained_as=TrainedAs(
                detector=self.config.detector, classes=self.classes, keep=training.keep
            ).model_dump(mode="json"),
        )

    def _self_labelled(self, cell: Cell) -> list[BoxedImage]:
        """The photos that `_label_photos` labelled."""
        config = self.config.unlabelled
        if cell.phase != "self_training" or config is None:
            return []
        labels = read_labels(self.out / cell.folder / PSEUDO_LABELS_NAME)
        return boxed_photos(labels, find_root(config, self.home), self._label_of(config))

    def _label_photos(self, cell: Cell) -> None:
        """Finetune's detector labels the photos without boxes, once."""
        config, before = self.config.unlabelled, cell.before
        path = self.out / cell.folder / PSEUDO_LABELS_NAME
        if cell.phase != "self_training" or config is None or before is None or path.exists():
            return
        trained = open_trained(self.out / before.folder, self.home, self.device)
        label = self._label_of(config)
        labels, looked_at = label_photos(trained, label, config, self.home, cell.seed, self.device)
        if not labels:
            raise InputError(
                f"{config.root}: none of {looked_at} photos passed: lower unlabelled.min_score or min_iou"
            )
        write_labels(path, labels, looked_at)
        photos = boxed_photos(labels, find_root(config, self.home), label)
        photo_sheet(photos, path.with_suffix(".png"))

    def _label_of(self, config: UnlabelledConfig) -> int:
        return self.data.label_ids[config.label or self.classes[0]]

    def _handed_on(self, cell: Cell) -> dict[str, Tensor]:
        """The weights that a finished training leaves."""
        name = f"{self.config.training_of(cell.phase).keep}.pt"
        return weights_of(load_checkpoint(self.out / cell.folder / "checkpoints" / name))

    def _validate(self, cell: Cell, training: TrainingConfig) -> Validate | None:
        """What scores the detector while it trains: on held-out photos, or on scenes, which need no label."""
        if not training.validate_every:
            return None
        if training.validate_on == "photos":
            photos, thorough = self.data.validation_photos(cell), training.best_by == "AP"
            return lambda detector: self._evaluate(detector, photos, thorough=thorough).scores
        scenes, count = self.data.validation_scenes(), self.config.validation_scenes.count
        return lambda detector: score_on_scenes(detector, scenes, count, len(self.classes), self.device)

    def _load_batches(self, cell: Cell) -> LoadBatches:
        if cell.phase != "pretrain" or self.config.compose_on == "cpu":
            return partial(batches, loader=self.config.loader)
        composer = BatchComposer(self.data.compositor, self.data.label_ids, self.device)
        return DeviceBatches(composer, self.config.loader)

    def _evaluate(self, detector: Detector, photos: list[BoxedImage], *, thorough: bool = True) -> Evaluation:
        size = self.config.detector.image_size
        return evaluate(detector, photos, len(self.classes), size, self.device, thorough=thorough)


def _train_part(part: Run, cell: Cell, device: torch.device, ranks: Ranks) -> None:
    """A worker's part of a training; the run is its own copy."""
    part.device = device
    part._train(cell, ranks)


def _identity(config: RunConfig) -> dict[str, Any]:
    """The settings that the weights depend on. Those that an older config.yaml lacks have their defaults."""
    names = ("pretrain", "training", "finetune", "mixed", "self_training")
    trainings = dict.fromkeys(names, _FREE_IN_TRAINING)
    free: dict[str, Any] = {**dict.fromkeys(_FREE, True), "cluster": _FREE_IN_CLUSTER}
    return config.model_dump(mode="json", exclude={**free, **trainings})
