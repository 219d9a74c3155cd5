"""Scores of a folder by condition and amount of photos: means and spreads over seeds, the paper's beside."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from trainer.evaluation.official_scores import WIDER_METRICS
from trainer.reporting.folder import CellResult, PaperValue, Results
from trainer.reporting.labels import OtherLabels, other_labels, together

T = TypeVar("T")

_OF_SCENES = re.compile(r"(mixed_data|pretrain_finetune)_fake([0-9]+|inf)")

_NAMES: Mapping[str, str] = {  # also the order in which conditions are shown and take their colours
    "with_pretraining": "pretrained, finetuned",
    "no_pretraining": "from scratch",
    "pretrain_only": "pretrained only",
    "mixed": "mixed",
    "self_training": "then self-trained",
    "pretrain_naive_pasting": "naive pasting",
    "pretrain_real_objects": "real objects",
    "pretrain_gan_objects": "generated objects",
    "pretrain_segmentation": "segmented objects",
}


@dataclass(frozen=True)
class Spread:
    """A score of one condition at one amount of photos, in percent, by seed. missing: trainings without."""

    by_seed: Mapping[int, float]
    missing: Sequence[CellResult] = ()

    @cached_property
    def mean(self) -> float:
        """NaN without a value."""
        return float(np.mean(list(self.by_seed.values()))) if self.by_seed else np.nan

    @cached_property
    def std(self) -> float | None:
        """Of the seeds, with n - 1; None for fewer than two."""
        return float(np.std(list(self.by_seed.values()), ddof=1)) if len(self.by_seed) > 1 else None

    @property
    def low(self) -> float:
        """Mean less a standard deviation."""
        return self.mean - (self.std or 0)

    @property
    def high(self) -> float:
        """Mean and a standard deviation."""
        return self.mean + (self.std or 0)

    @property
    def reasons(self) -> list[str]:
        """Why values are missing."""
        return [f"seed {cell.seed}: {cell.reason or 'scores lack it'}" for cell in self.missing]

    def __str__(self) -> str:
        return percent_of(self.mean, self.std) if self.by_seed else "–"


@dataclass(frozen=True)
class Row:
    """A condition: its spreads by amount of photos, of ``metric``. number: its colour and marker.

    labels: besides those of the photos; None where they are not known.
    """

    condition: str
    number: int
    spreads: Mapping[int, Spread]
    paper: Mapping[int, PaperValue]
    labels: OtherLabels | None

    @property
    def name(self) -> str:
        """For people."""
        return name_of(self.condition)


@dataclass(frozen=True)
class Grid:
    """All conditions of one object and detector, of a metric. paper_detector: whose values are beside."""

    object: str
    detector: str
    metric: str
    amounts: Sequence[int]
    rows: Sequence[Row]
    paper_detector: str | None

    @property
    def title(self) -> str:
        """``birds, SSD``."""
        return f"{self.object}, {self.detector}"

    @property
    def label_notes(self) -> list[str]:
        """Labels that the amounts of photos do not count."""
        of_rows = [(f"“{row.name}”", row.labels or OtherLabels()) for row in self.rows]
        notes = []
        for count in sorted({labels.chosen_by for _, labels in of_rows} - {0}):
            names = listed([name for name, labels in of_rows if labels.chosen_by == count])
            notes.append(
                f"Checkpoints of {names} were chosen by {photos(count)} with boxes, not counted here."
            )
        if fitted := [name for name, labels in of_rows if labels.fits_scales]:
            notes.append(f"Scenes of {listed(fitted)} have sizes fitted to real boxes, not counted here.")
        return notes


def grids_of(results: Results, metric: str) -> list[Grid]:
    """A grid for each object and detector. The paper's values are of AP50, or of WIDER FACE's settings, and
    stand beside these alone.
    """
    pairs = dict.fromkeys((cell.object, cell.detector) for cell in results.cells)
    numbers = numbers_of(results)
    return [_grid(results, metric, *pair, numbers) for pair in pairs]


def conditions_of(results: Results) -> list[str]:
    """In the order in which they are shown."""
    known = list(_NAMES)
    found = list(dict.fromkeys(cell.condition for cell in results.cells))
    return sorted(found, key=lambda name: known.index(name) if name in known else len(known))


def numbers_of(results: Results) -> dict[str, int]:
    """Of each condition's colour and marker: the same in every report for those that have a name here."""
    known = list(_NAMES)
    others = [condition for condition in conditions_of(results) if condition not in known]
    every = [*known, *others]
    return {condition: every.index(condition) for condition in conditions_of(results)}


def name_of(condition: str) -> str:
    """For people; what the paper has no name for keeps its own."""
    of_scenes = _OF_SCENES.fullmatch(condition)  # the paper's Tables III and IV
    if of_scenes:
        amount = "∞" if of_scenes[2] == "inf" else of_scenes[2]
        return f"{'mixed' if of_scenes[1] == 'mixed_data' else 'pretrained'}, {amount} scenes"
    return _NAMES.get(condition, condition.replace("_", " "))


def percent_of(mean: float, std: float | None, digits: int = 1) -> str:
    """``86.3 ± 8.1``."""
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def photos(amount: int) -> str:
    """``10 photos``."""
    return f"{amount:,} photo{'' if amount == 1 else 's'}"


def listed(texts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def _grid(results: Results, metric: str, object_name: str, detector: str, numbers: Mapping[str, int]) -> Grid:
    cells = [cell for cell in results.cells if (cell.object, cell.detector) == (object_name, detector)]
    configs = {run.name: run.config for run in results.runs}
    paper, paper_detector = _paper_beside(results.paper, object_name, detector, metric)
    rows = []
    for condition, own in _by([(cell.condition, cell) for cell in cells]).items():
        by_amount = sorted(_by([(cell.num_real, cell) for cell in own]).items())
        values = {value.num_real: value for value in paper if value.condition == condition}
        spreads = {amount: _spread(of_amount, metric) for amount, of_amount in by_amount}
        labels = together([other_labels(each, configs.get(each.run)) for each in own])
        rows.append(Row(condition, numbers[condition], spreads, values, labels))
    amounts = sorted({cell.num_real for cell in cells})
    rows.sort(key=lambda row: row.number)
    return Grid(object_name, detector, metric, amounts, rows, paper_detector)


def _spread(cells: Sequence[CellResult], metric: str) -> Spread:
    values = {}
    for cell in cells:
        value = (cell.scores or {}).get(metric)
        if value is not None and np.isfinite(value):
            values[cell.seed] = 100 * value
    return Spread(values, [cell for cell in cells if cell.seed not in values])


def _paper_beside(
    paper: Sequence[PaperValue], object_name: str, detector: str, metric: str
) -> tuple[list[PaperValue], str | None]:
    """Of the detector of that name, else of one whose name begins so, else of the paper's first."""
    of_metric = {"AP50": object_name} | {
        name: f"{object_name}_{setting}" for name, setting in WIDER_METRICS.items()
    }
    own = [value for value in paper if value.object == of_metric.get(metric)]
    names = list(dict.fromkeys(value.detector for value in own))
    if not names:
        return [], None
    begun = [name for name in names if name.lower().startswith(detector.lower())]
    chosen = detector if detector in names else (begun or names)[0]
    return [value for value in own if value.detector == chosen], chosen


def _by(pairs: Sequence[tuple[T, CellResult]]) -> dict[T, list[CellResult]]:
    groups: dict[T, list[CellResult]] = {}
    for key, cell in pairs:
        groups.setdefault(key, []).append(cell)
    return groups
