"""The scores that a data set is published with, beside Pascal VOC's and COCO's: WIDER FACE's and FDDB's."""

from collections.abc import Sequence
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
from trainer.metrics.wider import read_wider_truth, wider_average_precision
from trainer.sample import Detections

_TRUTH = "wider_easy_val.mat"
_FOLDERS = ("", "ground_truth", "wider_face_split", "eval_tools/ground_truth")
_FALSE_POSITIVES = (100, 500, 1000, 2000)


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
        folder = truth or next((root / f for f in _FOLDERS if (root / f / _TRUTH).is_file()), None)
        return {} if folder is None else {"wider": _wider(folder, photos, detections)}
    if isinstance(config, FddbConfig):
        folds = [root / config.folds / f"FDDB-fold-{k:02d}-ellipseList.txt" for k in config.splits[split]]
        return {"fddb": _fddb(folds, photos, detections, out)}
    return {}


def _wider(folder: Path, photos: Sequence[BoxedImage], detections: Sequence[Detections]) -> dict[str, float]:
    truth = read_wider_truth(folder)
    found = {photo.key: of_photo for photo, of_photo in zip(photos, detections, strict=True)}
    missing = [name for name in truth.names if name not in found]
    if missing:
        where = f"{len(missing)} of its {len(truth.names)} photos are not among the {len(photos)}"
        raise InputError(f"{folder}: {where}, {missing[0]} first: wanted all")
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
