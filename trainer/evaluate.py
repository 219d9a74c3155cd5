"""Score a trained detector on annotated photos: ``python -m trainer.evaluate``."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_home, locate
from configs.kinds import config_class, did_you_mean, kinds_in
from configs.load import apply_overrides, read_yaml, validated
from configs.text_file import write_text
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.evaluation.detection import Size
from trainer.evaluation.detections_file import read_detections, write_detections
from trainer.evaluation.official_scores import official_scores
from trainer.evaluation.pictures import draw_curves, telling_photos
from trainer.evaluation.report import evaluation_report, plain
from trainer.evaluation.scores import detect_photos
from trainer.imaging.drawing import write_png
from trainer.runs.config import RunConfig, cells_of
from trainer.runs.given_detector import add_detector_arguments, check_folder, open_given
from trainer.runs.trained import Trained
from trainer.sample import Detections

_KINDS = "trainer.datasets"
_FOUND = "detections.npz"

_EXAMPLES = """examples:
  python -m trainer.evaluate runs/birds --out birds-scores
  python -m trainer.evaluate runs/birds/seed-0/n-50/finetune --out scores --split test
  python -m trainer.evaluate best.pt --dataset voc data/VOC2007 one_based=true --split test --out scores
  python -m trainer.evaluate --detector retinaface checkpoint=mobilenet0.25_Final.pth --names face \\
      --dataset wider data/widerface --split val --out scores

OUT gets evaluation.json (what its values mean says trainer/evaluation/report.py), curves.png, photos.png, the
photos that say most, and detections.npz; of a run, a folder for each of its trainings. Without --dataset it
is the run's own, and what the run found is read, not found again. Intervals hold 95 % of draws of photos.
WIDER FACE's Easy, Medium and Hard need the official .mat files, FDDB's scores nothing more."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A training, or others' detector (``place`` None), and what it writes where."""

    place: Path | None
    out: Path


@dataclass(frozen=True, slots=True)
class _Photos:
    """What is looked at. is_own: whether it is what the run itself was tested on."""

    dataset: DatasetConfig
    split: str
    is_own: bool


def main(argv: list[str]) -> int:
    """Parse, detect, score, write, print."""
    args = _parse(argv)
    home = find_home()
    place = None if args.place is None else locate(args.place, home, "runs")
    run_config = None if place is None else _run_config(place)
    looked_at = _photos(args, run_config)
    jobs = _jobs(place, run_config, args.out)
    reports = {
        job.out.relative_to(args.out).as_posix(): _evaluate(job, looked_at, args, home) for job in jobs
    }
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    if len(jobs) > 1:
        console.print(_summary(reports))
    else:
        (report,) = reports.values()
        counts = (f"{report[name]} {name}" for name in ("photos", "objects", "ignored", "detections"))
        console.print(", ".join(counts))
        for table in tables(report):
            console.print(table)
    print(f"{args.out}: evaluation.json, curves.png and photos.png of {len(jobs)}")
    return 0


def _evaluate(job: _Job, looked_at: _Photos, args: argparse.Namespace, home: Path) -> dict[str, Any]:
    """The report of one detector, written."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained, size = open_given(job.place, args, home, device)
    dataset, split = looked_at.dataset, looked_at.split
    photos = dataset.read(split, trained.classes, home)
    found = _kept(job.place, photos, trained) if looked_at.is_own and size == "square" else None
    if found is None:
        found = detect_photos(trained.detector, photos, trained.config.image_size, device, size)
    official = official_scores(dataset, split, photos, found, home, job.out, args.truth)
    report = {
        **_about(trained, dataset, split, size),
        **evaluation_report(found, photos, trained.classes, num_draws=args.draws),
        "official": plain(official),
    }
    _write(job.out, report, found, photos, trained.classes)
    return report


def _run_config(place: Path) -> RunConfig | None:
    """The run that a place belongs to."""
    for folder in [place, *place.absolute().parents][:6]:
        path = folder / "config.yaml"
        if path.is_file():
            return validated(RunConfig, read_yaml(path), str(path))
    return None


def _photos(args: argparse.Namespace, run_config: RunConfig | None) -> _Photos:
    if args.dataset is not None:
        return _Photos(_dataset(args.dataset), args.split or "test", is_own=False)
    if run_config is None:
        raise InputError("found no --dataset, and no run that has one: wanted --dataset KIND ROOT")
    is_own = args.split in (None, run_config.test_split)
    return _Photos(run_config.dataset, args.split or run_config.test_split, is_own)


def _dataset(words: Sequence[str]) -> DatasetConfig:
    if len(words) < 2 or "=" in words[1]:
        raise InputError(f"--dataset: found {' '.join(words)}, wanted KIND ROOT and key=value")
    kind, root, *overrides = words
    if kind not in kinds_in(_KINDS):
        raise InputError(f"--dataset: unknown kind {did_you_mean(kind, kinds_in(_KINDS))}")
    family = config_class(_KINDS, kind, DatasetConfig)
    assert issubclass(family, DatasetConfig)
    data = apply_overrides({"kind": kind, "root": root}, overrides)
    return validated(family, data, f"--dataset {kind}")


def _jobs(place: Path | None, run_config: RunConfig | None, out: Path) -> list[_Job]:
    """Of a run's folder all of its trainings that are done."""
    if place is None or run_config is None or not (place / "config.yaml").is_file():
        return [_Job(place, out)]
    cells = [cell.folder for cell in cells_of(run_config)]
    jobs = [_Job(place / cell, out / cell) for cell in cells if (place / cell / "scores.json").is_file()]
    if not jobs:
        raise InputError(f"{place}: holds no finished training, wanted one")
    return jobs


def _kept(place: Path | None, photos: Sequence[BoxedImage], trained: Trained) -> list[Detections] | None:
    """What the run found in these photos, where it is complete and no older than the checkpoint."""
    path = None if place is None else place / _FOUND
    if path is None or not path.is_file() or path.stat().st_mtime < trained.path.stat().st_mtime:
        return None
    found = read_detections(path)
    if any(photo.key not in found for photo in photos):
        return None
    return [found[photo.key] for photo in photos]


def _about(trained: Trained, dataset: DatasetConfig, split: str, size: Size) -> dict[str, Any]:
    return {
        "checkpoint": str(trained.path),
        "detector": trained.config.kind,
        "dataset": dataset.model_dump(mode="json"),
        "split": split,
        "size": size,
    }


def _write(
    out: Path,
    report: dict[str, Any],
    found: Sequence[Detections],
    photos: Sequence[BoxedImage],
    classes: Sequence[str],
) -> None:
    write_text(out / "evaluation.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_detections(out / _FOUND, [photo.key for photo in photos], found)
    title = f"{report['dataset']['kind']} {report['split']}, {report['photos']} photos: AP50 "
    write_png(out / "curves.png", draw_curves(report, title + _percent(report["scores"]["AP50"])))
    sheet = telling_photos(report, found, photos, classes)
    if sheet is not None:
        write_png(out / "photos.png", sheet)


def tables(report: dict[str, Any]) -> list[Table]:
    """A report for a terminal: its scores, classes, sizes and errors, in percent."""
    scores = _table("scores", "", "%", f"{report['intervals']['level']:.0%} interval")
    for name, value in report["scores"].items():
        scores.add_row(name, _percent(value), _ends(report["intervals"].get(name, {})))
    for name, values in report["official"].items():
        for row, value in _flat(values):
            scores.add_row(f"{name} {row}", _percent(value) if isinstance(value, float) else str(value), "")
    classes = _table("by class", "", "objects", "AP50", "interval", "11point", "AP", "AP75", "best F1", "at")
    for each in report["classes"]:
        numbers = (_percent(each[name]) for name in ("AP50_11point", "AP", "AP75"))
        best = [_percent(each["best"]["f1"]), _number(each["best"]["score"])]
        classes.add_row(
            each["name"], str(each["objects"]), _percent(each["AP50"]), _ends(each), *numbers, *best
        )
    sizes = _table("by size", "px", "objects", "AP50", "AP", "AR")
    for name, of_size in report["sizes"].items():
        numbers = (_percent(of_size[key]) for key in ("AP50", "AP", "AR"))
        sizes.add_row(name, str(of_size["objects"]), *numbers)
    errors = _table("errors", "", "count", "AP50 lost")
    for kind, of_kind in report["errors"].items():
        errors.add_row(kind, str(of_kind["count"]), _percent(of_kind["cost"]))
    return [scores, classes, sizes, errors]


def _summary(reports: dict[str, dict[str, Any]]) -> Table:
    """A row a training."""
    table = _table("test", "", "AP50", "interval", "AP", "interval", "11point", "AP75")
    for name, report in reports.items():
        scores, intervals = report["scores"], report["intervals"]
        of_both = [part for key in ("AP50", "AP") for part in (_percent(scores[key]), _ends(intervals[key]))]
        table.add_row(name, *of_both, _percent(scores["AP50_11point"]), _percent(scores["AP75"]))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves by their joined names."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        label = f"{prefix} {name}".strip().replace("_", " ")
        rows += _flat(value, label) if isinstance(value, dict) else [(label, value)]
    return rows


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _ends(values: dict[str, Any]) -> str:
    if values.get("low") is None:
        return ""
    return f"{100 * values['low']:.1f} to {100 * values['high']:.1f}"


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser("trainer.evaluate", "Score a trained detector on annotated photos.", _EXAMPLES)
    parser.add_argument("place", nargs="?", type=Path, metavar="RUN", help="or a training, or a checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--dataset",
        nargs="+",
        metavar=("KIND ROOT", "key=value"),
        help=f"{', '.join(kinds_in(_KINDS))} [the run's own]",
    )
    parser.add_argument("--split", help="[the run's test split, or test]")
    parser.add_argument("--truth", type=Path, metavar="FOLDER", help="of WIDER FACE's .mat files")
    parser.add_argument("--draws", type=int, default=1000, help="of photos, for the intervals [1000]")
    add_detector_arguments(parser)
    args = parser.parse_args(argv)
    check_folder(args.out)
    if args.draws < 0:
        raise InputError(f"--draws: found {args.draws}, wanted 0 or more")
    return args


if __name__ == "__main__":
    run(main)
