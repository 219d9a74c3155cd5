"""A closer look at one finished training of each condition: curves, errors, the photos that say most."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs.errors import InputError
from shards.errors import ShardError
from trainer.dataset import BoxedImage
from trainer.evaluation.detections_file import read_detections
from trainer.evaluation.pictures import telling_photos
from trainer.evaluation.report import evaluation_report
from trainer.reporting.folder import CellResult, Results, RunFolder
from trainer.reporting.pictures import open_picture
from trainer.reporting.scores import name_of, numbers_of, photos
from trainer.runs.data import RunData

_SAME = 2e-3  # of AP50: how near the scores of the same detections in the same photos are


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """report: see `evaluation_report`, None where the run keeps no detections or the photos are not at hand.

    sheet: of the photos that say most, or of those that the run drew itself. problem: why something lacks.
    """

    cell: CellResult
    number: int
    report: dict[str, Any] | None
    sheet: Image.Image | None
    problem: str | None

    @property
    def name(self) -> str:
        """``mixed, 10 photos, seed 0``."""
        return f"{name_of(self.cell.condition)}, {photos(self.cell.num_real)}, seed {self.cell.seed}"


def looks_of(results: Results, home: Path, num_draws: int) -> list[Look]:
    """One of each object, detector and condition: where it can be, at the amount that most of them have."""
    runs = {run.name: _Truth(run, home) for run in results.runs}
    return [
        _look(cell, number, results.folder / cell.folder, runs.get(cell.run), num_draws)
        for number, cell in _chosen(results)
    ]


def _chosen(results: Results) -> list[tuple[int, CellResult]]:
    numbers = numbers_of(results)
    groups: dict[tuple[str, str, str], list[CellResult]] = {}
    for cell in results.cells:
        if cell.scores is not None:
            groups.setdefault((cell.object, cell.detector, cell.condition), []).append(cell)
    counts = Counter(n for cells in groups.values() for n in {cell.num_real for cell in cells} if n)
    amounts = [n for n, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

    def rank(cell: CellResult) -> tuple[int, int]:
        return (amounts.index(cell.num_real) if cell.num_real else len(amounts), cell.seed)

    chosen = [(numbers[key[2]], min(cells, key=rank)) for key, cells in groups.items()]
    pairs = list(dict.fromkeys(key[:2] for key in groups))
    return sorted(chosen, key=lambda each: (pairs.index((each[1].object, each[1].detector)), each[0]))


class _Truth:
    """A run's test photos, read once."""

    def __init__(self, run: RunFolder, home: Path) -> None:
        self._run, self._home = run, home
        self._known: tuple[Sequence[str], Sequence[BoxedImage]] | None = None

    def read(self) -> tuple[Sequence[str], Sequence[BoxedImage]]:
        """The classes, and the photos. Raises InputError, ShardError."""
        config = self._run.config
        if config is None:
            raise InputError(self._run.problem or "config.yaml: not read")
        if self._known is None:
            data = None if config.classes else RunData(config, self._home)
            classes = config.classes if data is None else data.classes
            self._known = classes, config.dataset.read(config.test_split, classes, self._home)
        return self._known


def _look(cell: CellResult, number: int, folder: Path, truth: _Truth | None, num_draws: int) -> Look:
    try:
        report, sheet = _evaluated(cell, folder, truth, num_draws)
        return Look(cell, number, report, sheet, None)
    except (InputError, ShardError) as error:
        return Look(cell, number, None, open_picture(folder / "samples.png"), str(error))


def _evaluated(
    cell: CellResult, folder: Path, truth: _Truth | None, num_draws: int
) -> tuple[dict[str, Any], Image.Image | None]:
    if truth is None:
        raise InputError("the run's config.yaml is not there")
    if not (folder / "detections.npz").is_file():
        raise InputError("the run kept no detections")
    classes, test = truth.read()
    found = read_detections(folder / "detections.npz")
    lacking = [photo.key for photo in test if photo.key not in found]
    if lacking:
        raise InputError(f"the test photos are not those of the run: {lacking[0]} is new")
    detections = [found[photo.key] for photo in test]
    if any((each.labels > len(classes)).any() or (each.labels < 1).any() for each in detections):
        raise InputError("detections.npz: found labels that the run's classes lack")
    report = evaluation_report(detections, test, classes, num_draws=num_draws)
    before, now = (cell.scores or {}).get("AP50"), report["scores"]["AP50"]
    if before is not None and abs(before - now) > _SAME:
        raise InputError(f"the test photos at hand give AP50 {now:.3f}, the run had {before:.3f}")
    sheet = telling_photos(report, detections, test, classes)
    return report, None if sheet is None else Image.fromarray(np.ascontiguousarray(sheet))
