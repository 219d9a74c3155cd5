"""Pretrain on composites, finetune on a few photos, measure: ``python -m trainer.run``."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from configs.entry import run
from configs.errors import InputError
from configs.home import find_config, find_home, packaged_names
from configs.load import apply_overrides, read_yaml, to_yaml, validated
from shards.errors import ShardError
from trainer.checkpoint import load_checkpoint, write_text
from trainer.dataset import BoxedImage, nested_subset
from trainer.detector import Detector
from trainer.evaluation import Evaluation, evaluate
from trainer.experiment import Cell, ExperimentConfig, cells_of
from trainer.loop import train
from trainer.sets import open_set
from trainer.stream import CropCollection, MixedStream, PhotoStream, Stream, SyntheticStream
from trainer.summary import detection_sheet, scene_sheet, score_table

_EXAMPLES = """examples:
  python -m trainer.run
  python -m trainer.run cars dataset.root=photos/cars_voc
  python -m trainer.run my-run.yaml --out runs/mine seeds=[0] num_real=[20]

The same command again goes on where it stopped. Without CONFIG the run is 'offline'."""


def main(argv: list[str]) -> int:
    """Parse, run the grid, print the table."""
    args = _parse(argv)
    home = find_home()
    config = load_experiment(args.config, args.overrides)
    out = args.out or home / "runs" / config.name
    experiment = Experiment(config, out, home)
    experiment.run()
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
        self.crops = CropCollection([open_set(place, "crops", home) for place in config.crops])
        self.backgrounds = open_set(config.backgrounds, "backgrounds", home)
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
        room = len(self.photos) - self.config.validation_images
        if max(self.config.num_real, default=0) > room:
            held = f"{self.config.validation_images} of its {len(self.photos)} photos kept for validation"
            raise InputError(f"num_real: found {max(self.config.num_real)}, wanted at most {room} ({held})")

    def _claim(self) -> None:
        """Write the resolved config; refuse a folder whose config differs in more than the grid's extent."""
        resolved = self.config.model_dump(mode="json")
        path = self.out / "config.yaml"
        if path.exists():
            before = read_yaml(path)
            extent = {"phases", "num_real", "seeds", "workers", "threads"}
            differing = [k for k in resolved if k not in extent and before.get(k) != resolved[k]]
            if differing:
                raise InputError(
                    f"{self.out}: holds a run with another {', '.join(differing)}: wanted another --out"
                )
        write_text(path, to_yaml(self.config))

    def run(self) -> None:
        """Train and score what is missing; write scores.json, table.md and the sheets."""
        sheet = self.out / "scenes.png"
        if not sheet.exists():
            scene_sheet([self._synthetic(self.config.seeds[0])[i] for i in range(24)], sheet)
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
            detector.load_state_dict(load_checkpoint(_kept(before, self.config.pretrain.keep))["model"])
        training = self.config.pretrain if cell.phase == "pretrain" else self.config.training
        validation = self._subset(cell)[1]
        train(
            detector,
            self._stream(cell),
            training,
            folder,
            self.device,
            validate=(lambda net: self._evaluate(net, validation, thorough=False).scores)
            if validation
            else None,
            workers=self.config.workers,
        )
        result = self._evaluate(detector, self.test)
        detection_sheet(self.test, result.detections, self.classes, folder / "samples.png")
        write_text(folder / "scores.json", json.dumps(result.scores | {"photos": len(self.test)}) + "\n")

    def _evaluate(self, detector: Detector, photos: list[BoxedImage], *, thorough: bool = True) -> Evaluation:
        size = self.config.detector.image_size
        return evaluate(detector, photos, len(self.classes), size, self.device, thorough=thorough)

    def _stream(self, cell: Cell) -> Stream:
        if cell.phase == "pretrain":
            return self._synthetic(cell.seed)
        photos = PhotoStream(
            self._subset(cell)[0], self.config.detector.image_size, self.config.augment, cell.seed
        )
        if cell.phase == "mixed":
            return MixedStream(photos, self._synthetic(cell.seed), self.config.synthetic_share)
        return photos

    def _synthetic(self, seed: int) -> SyntheticStream:
        compositor = self.config.compositor.model_copy(update={"size": self.config.detector.image_size})
        return SyntheticStream(self.crops, self.backgrounds, compositor, self.label_ids, seed)

    def _subset(self, cell: Cell) -> tuple[list[BoxedImage], list[BoxedImage]]:
        """The cell's training photos, and the validation photos: the two ends of one seeded order."""
        seed = cell.seed if self.config.subset_seed is None else self.config.subset_seed
        order = [self.photos[i] for i in nested_subset(len(self.photos), len(self.photos), seed)]
        held_out = self.config.validation_images
        return order[: cell.num_real], order[len(order) - held_out :] if held_out else []


def _kept(folder: Path, keep: str) -> Path:
    return folder / "checkpoints" / f"{keep}.pt"


if __name__ == "__main__":
    run(main, ShardError)
