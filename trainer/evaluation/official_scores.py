"""The scores that a data set is published with, beside Pascal VOC's and COCO's: WIDER FACE's and FDDB's."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import InputError
from configs.home import locate
from trainer.boxed_data.annotations import read_text
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.datasets.fddb import FddbConfig
from trainer.datasets.wider import WiderConfig
from trainer.metrics.fddb import fddb_curve
from trainer.metrics.wider import SETTINGS, WiderTruth, read_wider_truth, wider_average_precision
from trainer.sample import Detections

_TRUTH = "wider_easy_val.mat"
_FOLDERS = ("", "ground_truth", "wider_face_split", "eval_tools/ground_truth")
_FALSE_POSITIVES = (100, 500, 1000, 2000)
_TABLED = 1000  # false positives: where a table has FDDB's rates

WIDER_METRICS = {f"AP_{setting}": setting for setting in SETTINGS}
FDDB_METRICS = {"TPR_discrete": "discrete", "TPR_continuous": "continuous"}


def official_scores(
    config: DatasetConfig,
    split: str,
    photos: Sequence[BoxedImage],
    detections: Sequence[Detections],
    home: Path,
    out: Path,
    truth: Path | None = None,
) -> dict[str, Any]:
    """Empty for a data set without scores of its own. Detections are in pixels of the files.

    ``wider``: AP ``easy``, ``medium``, ``hard``, where the official ``.mat`` files are in ``truth`` (else
    looked for in the data set) and the split holds all of their photos. ``fddb``: ``faces`` and of at most
    100, 500, 1000 and 2000 ``false_positives`` the rates ``discrete`` and ``continuous``; the curves go to
    DiscROC.txt and ContROC.txt in ``out``. The published ones are of all ten folds.
    Raises InputError for a truth without its files or of other photos.
    """
    root = locate(config.root, home)
    if isinstance(config, WiderConfig):
        folder = truth or _truth_folder(root)
        return {} if folder is None else {"wider": _wider(folder, photos, detections)}
    if isinstance(config, FddbConfig):
        folds = [root / config.folds / f"FDDB-fold-{k:02d}-ellipseList.txt" for k in config.splits[split]]
        return {"fddb": _fddb(folds, photos, detections, out)}
    return {}


def table_scores(
    config: DatasetConfig,
    split: str,
    photos: Sequence[BoxedImage],
    detections: Sequence[Detections],
    home: Path,
    out: Path,
) -> dict[str, float]:
    """Those of `official_scores` that tables have, six digits: AP_easy, AP_medium and AP_hard of WIDER FACE;
    TPR_discrete and TPR_continuous of FDDB at 1000 false positives, its curves in ``out``.

    Empty for other data sets, and for WIDER FACE without the ``.mat`` files or with only some of their
    photos. Raises InputError for a damaged file.
    """
    if isinstance(config, WiderConfig):
        truth = find_truth(config, home)
        if truth is None or not {*truth.names} <= {photo.key for photo in photos}:
            return {}
        of_wider = _wider_scores(truth, photos, detections)
        found = {name: of_wider[setting] for name, setting in WIDER_METRICS.items()}
    elif isinstance(config, FddbConfig):
        of_fddb = official_scores(config, split, photos, detections, home, out)["fddb"]
        rates = of_fddb["false_positives"][str(_TABLED)]
        found = {name: rates[rate] for name, rate in FDDB_METRICS.items()}
    else:
        found = {}
    return {name: round(float(value), 6) for name, value in found.items() if math.isfinite(value)}


def shown_metrics(scores: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """What tables show of these: AP50, AP, and of `table_scores` whatever one of them has."""
    known = {name for each in scores if each is not None for name in each}
    return ["AP50", "AP", *(name for name in (*WIDER_METRICS, *FDDB_METRICS) if name in known)]


def find_truth(config: DatasetConfig, home: Path) -> WiderTruth | None:
    """WIDER FACE's tables, where they lie with it. Raises InputError for damaged ones."""
    folder = _truth_folder(locate(config.root, home)) if isinstance(config, WiderConfig) else None
    return None if folder is None else read_wider_truth(folder)


def _truth_folder(root: Path) -> Path | None:
    return next((root / f for f in _FOLDERS if (root / f / _TRUTH).is_file()), None)


def _wider(folder: Path, photos: Sequence[BoxedImage], detections: Sequence[Detections]) -> dict[str, float]:
    truth = read_wider_truth(folder)
    keys = {photo.key for photo in photos}
    missing = [name for name in truth.names if name not in keys]
    if missing:
        where = f"{len(missing)} of its {len(truth.names)} photos are not among the {len(photos)}"
        raise InputError(f"{folder}: {where}, {missing[0]} first: wanted all")
    return _wider_scores(truth, photos, detections)


def _wider_scores(
    truth: WiderTruth, photos: Sequence[BoxedImage], detections: Sequence[Detections]
) -> dict[str, float]:
    found = {photo.key: of_photo for photo, of_photo in zip(photos, detections, strict=True)}
    return wider_average_precision([found[name] for name in truth.names], truth).average_precision


def _fddb(
    folds: Sequence[Path], photos: Sequence[BoxedImage], detections: Sequence[Detections], out: Path
) -> dict[str, Any]:
    ellipses: dict[str, np.ndarray] = {}
    for path in folds:
        ellipses |= read_ellipses(path)
    of_photos = [ellipses[photo.key] for photo in photos]
    curve = fddb_curve(detections, of_photos, [(photo.width, photo.height) for photo in photos])
    out.mkdir(parents=True, exist_ok=True)
    curve.write(out)
    rates = {str(count): curve.at(count) for count in _FALSE_POSITIVES}
    return {
        "faces": sum(map(len, of_photos)),
        "false_positives": {
            count: {"discrete": discrete, "continuous": continuous}
            for count, (discrete, continuous) in rates.items()
        },
    }


def read_ellipses(path: Path) -> dict[str, np.ndarray]:
    """Of each photo of a fold (N, 5): half-axes px, angle rad, centre x and y px.

    The fold is one that `FddbConfig` has read: it is not checked once more.
    """
    lines = iter(line for line in read_text(path, "FDDB's ellipses").splitlines() if line.strip())
    return {
        name.strip(): np.array(
            [next(lines).split()[:5] for _ in range(int(next(lines)))], np.float64
        ).reshape(-1, 5)
        for name in lines
    }
