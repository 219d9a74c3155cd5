"""Pretrain on composites, finetune on a few photos, measure: ``python -m trainer.run``."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from configs.entry import run
from configs.errors import InputError
from configs.home import find_config, find_home, packaged_names
from configs.load import apply_overrides, read_yaml, to_yaml, validated
from shards.errors import ShardError
from trainer.augment import NO_CHANGE, AugmentConfig
from trainer.checkpoint import load_checkpoint, weights_of, write_text
from trainer.compositing.config import CompositorConfig
from trainer.compositing.render_gpu import BatchComposer
from trainer.dataset import BoxedImage, nested_subset
from trainer.detector import Detector
from trainer.device_loader import DeviceBatches
from trainer.evaluation import Evaluation, evaluate
from trainer.experiment import Cell, ExperimentConfig, cells_of
from trainer.loader import Stream, batches
from trainer.loop import LoadBatches, Validate, train
from trainer.optimisation import check_names
from trainer.precision import check_precision
from trainer.scene_validation import score_on_scenes
from trainer.sets import open_set, open_sets
from trainer.stopping import Stopped
from trainer.stream import Collection, CropCollection, MixedStream, PhotoStream, SyntheticStream
from trainer.summary import detection_sheet, scene_sheet, score_table
from trainer.trackers import check_trackers
from trainer.training_config import TrainingConfig

_EXAMPLES = """examples:
  python -m trainer.run
  python -m trainer.run cars dataset.root=photos/cars_voc
  python -m trainer.run my-run.yaml --out runs/mine seeds=[0] num_real=[20]

The same command again goes on where it stopped. Without CONFIG the run is 'offline'."""

# What a run's folder may differ in from one command to the next: its extent, and what changes no weight.
_FREE = {"phases", "num_real", "seeds", "workers", "threads", "loader"}
_FREE_IN_TRAINING = {"checkpoint_every", "keep_last", "log_every", "loggers"}


def main(argv: list[str]) -> int:
    """Parse, run the grid, print the table."""
    args = _parse(argv)
    home = find_home()
    config = load_experiment(args.config, args.overrides)
    out = args.out or home / "runs" / config.name
    experiment = Experiment(config, out, home)
    try:
        experiment.run()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.code
    print(experiment.table())
    print(f"scores, checkpoints and pictures: {out}")
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.run",
        description="Pretrain a detector on composites of a crop set, finetune it on photos, measure AP.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(packaged_names("runs"))
    parser.add_argument("arguments", nargs="*", metavar="CONFIG key=value", help=f"{known}, or a YAML file")
    parser.add_argument("--out", type=Path, help="run folder [runs/NAME]")
    args = parser.parse_intermixed_args(argv)
    names = [text for text in args.arguments if "=" not in text]
    if len(names) > 1:
        raise InputError(f"found the configurations {', '.join(names)}: wanted one")
    args.config = names[0] if names else "offline"
    args.overrides = [text for text in args.arguments if "=" in text]
    return args


def load_experiment(name: str, overrides: list[str]) -> ExperimentConfig:
    """A packaged experiment, or a YAML file's, with overrides. Raises InputError."""
    path = find_config("runs", name, "run")
    data = apply_overrides(read_yaml(path), overrides)
    data.setdefault("name", path.stem)
    return validated(ExperimentConfig, data, f"run {name}")


class Experiment:
    """One run folder: opens the data, trains the grid's cells that are not done, keeps their scores."""

    def __init__(self, config: ExperimentConfig, out: Path, home: Path) -> None:
        """Raises InputError or ShardError when data is missing, or ``out`` belongs to another experiment."""
        self.config, self.out, self.home = config, out, home
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if config.threads:
            torch.set_num_threads(config.threads)
        self.crops = CropCollection(*open_sets(config.crops, "crops", home))
        self.backgrounds = Collection(*open_sets(config.backgrounds, "backgrounds", home))
        self.distractors: Collection | None = None
        if config.distractors:
            self.distractors = Collection(*open_sets(config.distractors, "crops", home))
        self.classes = config.classes or self.crops.classes
        self.label_ids = {name: number for number, name in enumerate(self.classes, start=1)}
        self.photos = config.dataset.read(config.train_split, self.classes, home)
        self.test = config.dataset.read(config.test_split, self.classes, home)
        self._check()
        self._claim()

    def _check(self) -> None:
        foreign = set(self.crops.classes) - set(self.classes)
        if foreign:
            raise InputError(
                f"crops: hold {', '.join(sorted(foreign))}, classes are {', '.join(self.classes)}"
            )
        for name, training in self.config.trainings().items():
            self._check_training(name, training)
        room = len(self.photos) - self.config.validation_images
        if max(self.config.num_real, default=0) > room:
            held = f"{self.config.validation_images} of its {len(self.photos)} photos kept for validation"
            raise InputError(f"num_real: found {max(self.config.num_real)}, wanted at most {room} ({held})")

    def _check_training(self, name: str, training: TrainingConfig) -> None:
        try:
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
            before = _identity(validated(ExperimentConfig, read_yaml(path), str(path)))
            differing = [key for key, value in _identity(self.config).items() if before[key] != value]
            if differing:
                raise InputError(
                    f"{self.out}: holds a run with another {', '.join(differing)}: wanted another --out"
                )
        write_text(path, to_yaml(self.config))

    def run(self) -> None:
        """Train and score what is missing; write scores.json, table.md and the sheets."""
        sheet = self.out / "scenes.png"
        if not sheet.exists():
            scenes = self._synthetic(self.config.seeds[0])
            scene_sheet([scenes[i] for i in range(24)], sheet)
        for cell in cells_of(self.config):
            if self.scores_of(cell) is None:
                self._run_cell(cell)
        write_text(self.out / "scores.json", json.dumps(self._scores(), indent=1) + "\n")
        write_text(self.out / "table.md", self.table() + "\n")

    def table(self) -> str:
        """Test AP50 (VOC) and AP (COCO) in percent, mean ± std over the seeds."""
        return "\n\n".join(score_table(self.config, self.scores_of, metric) for metric in ("AP50", "AP"))

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

    def _run_cell(self, cell: Cell) -> None:
        folder = self.out / cell.folder
        torch.manual_seed(cell.seed)
        detector = self.config.detector.build(len(self.classes), self.home)
        if cell.phase == "finetune":
            before = self.out / Cell("pretrain", 0, cell.seed).folder
            kept = before / "checkpoints" / f"{self.config.pretrain.keep}.pt"
            detector.load_state_dict(weights_of(load_checkpoint(kept)))
        training = self.config.training_of(cell.phase)
        train(
            detector,
            self._stream(cell),
            training,
            folder,
            self.device,
            validate=self._validate(cell, training),
            workers=self.config.workers,
            seed=cell.seed,
            load_batches=self._load_batches(cell),
        )
        result = self._evaluate(detector, self.test)
        detection_sheet(self.test, result.detections, self.classes, folder / "samples.png")
        write_text(folder / "scores.json", json.dumps(result.scores | {"photos": len(self.test)}) + "\n")

    def _validate(self, cell: Cell, training: TrainingConfig) -> Validate | None:
        """What scores the detector while it trains: on held-out photos, or on scenes, which need no label."""
        if not training.validate_every:
            return None
        if training.validate_on == "photos":
            photos, thorough = self._subset(cell)[1], training.best_by == "AP"
            return lambda detector: self._evaluate(detector, photos, thorough=thorough).scores
        settings = self.config.validation_scenes
        crops, backgrounds = self.crops, self.backgrounds
        if settings.crops:
            crops = CropCollection([open_set(place, "crops", self.home) for place in settings.crops])
        if settings.backgrounds:
            backgrounds = Collection([open_set(settings.backgrounds, "backgrounds", self.home)])
        scenes = self._scenes(crops, backgrounds, settings.seed)
        return lambda detector: score_on_scenes(
            detector, scenes, settings.count, len(self.classes), self.device
        )

    def _load_batches(self, cell: Cell) -> LoadBatches:
        if cell.phase != "pretrain" or self.config.compose_on == "cpu":
            return partial(batches, loader=self.config.loader)
        composer = BatchComposer(self._compositor, self.label_ids, self.device)
        return DeviceBatches(composer, self.config.loader)

    def _evaluate(self, detector: Detector, photos: list[BoxedImage], *, thorough: bool = True) -> Evaluation:
        size = self.config.detector.image_size
        return evaluate(detector, photos, len(self.classes), size, self.device, thorough=thorough)

    def _stream(self, cell: Cell) -> Stream:
        if cell.phase == "pretrain":
            return self._synthetic(cell.seed)
        size, kept_mb = self.config.detector.image_size, self.config.stream.decoded_mb
        photos = PhotoStream(self._subset(cell)[0], size, self.config.augment, cell.seed, kept_mb)
        if cell.phase == "mixed":
            return MixedStream(photos, self._synthetic(cell.seed), self.config.synthetic_share)
        return photos

    def _synthetic(self, seed: int) -> SyntheticStream:
        return self._scenes(self.crops, self.backgrounds, seed, self.config.augment_scenes)

    def _scenes(
        self, crops: Collection, backgrounds: Collection, seed: int, augment: AugmentConfig = NO_CHANGE
    ) -> SyntheticStream:
        return SyntheticStream(
            crops,
            backgrounds,
            self._compositor,
            self.label_ids,
            seed,
            self.config.stream,
            self.distractors,
            augment,
        )

    @property
    def _compositor(self) -> CompositorConfig:
        return self.config.compositor.model_copy(update={"size": self.config.detector.image_size})

    def _subset(self, cell: Cell) -> tuple[list[BoxedImage], list[BoxedImage]]:
        """The cell's training photos, and the validation photos: the two ends of one seeded order."""
        seed = cell.seed if self.config.subset_seed is None else self.config.subset_seed
        order = [self.photos[i] for i in nested_subset(len(self.photos), len(self.photos), seed)]
        held_out = self.config.validation_images
        return order[: cell.num_real], order[len(order) - held_out :] if held_out else []


def _identity(config: ExperimentConfig) -> dict[str, Any]:
    """The settings that the weights depend on. Those that an older config.yaml lacks have their defaults."""
    trainings = dict.fromkeys(("pretrain", "training", "finetune"), _FREE_IN_TRAINING)
    return config.model_dump(mode="json", exclude={**dict.fromkeys(_FREE, True), **trainings})


if __name__ == "__main__":
    run(main, ShardError)
