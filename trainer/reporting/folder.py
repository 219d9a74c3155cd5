"""What the folder of an experiment, or of a single run, holds for a report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from configs.errors import InputError
from configs.load import read_yaml, validated
from trainer.experiments.config import ExperimentConfig, PlannedRun
from trainer.experiments.results import paper_rows, steps_and_seconds
from trainer.experiments.sharing import Training
from trainer.runs.config import Cell, Phase, RunConfig, cells_of
from trainer.runs.provenance import Origin, read_origins

_CONDITIONS: Mapping[Phase, str] = {  # of a run's phases, in the paper's terms
    "scratch": "no_pretraining",
    "pretrain": "pretrain_only",
    "finetune": "with_pretraining",
}
_PAPER_OBJECTS = ("faces", "birds", "cars", "wider")


class CellResult(BaseModel):
    """One training. num_real is 0 where it learnt from no photo; scores 0..1, None while it is not done.

    folder: below the report's folder. steps, seconds: None where the run does not say.
    """

    model_config = ConfigDict(frozen=True)

    run: str
    object: str
    detector: str
    condition: str
    num_real: int = Field(ge=0)
    seed: int
    scores: dict[str, float | None] | None
    steps: int | None = None
    seconds: float | None = None
    folder: str
    error: str | None = None

    @property
    def reason(self) -> str | None:
        """Why there are no scores; None where there are."""
        if self.scores is not None:
            return None
        if self.error:
            return f"failed: {self.error.strip().splitlines()[-1]}"
        return f"under way, at step {self.steps}" if self.steps else "not begun"


class PaperValue(BaseModel):
    """A row of the paper's tables: AP50 in percent; of ``wider_easy`` and its like WIDER FACE's AP."""

    model_config = ConfigDict(frozen=True)

    table: str
    object: str
    detector: str
    condition: str
    num_real: int
    mean: float
    std: float | None = None


class _ResultsFile(BaseModel):
    """``results.json`` of an experiment."""

    name: str
    title: str
    commit: str | None = None
    machine: str | None = None
    cells: list[CellResult]
    paper: list[PaperValue] = []


@dataclass(frozen=True, slots=True)
class RunFolder:
    """config: None where it cannot be read by this version, and then ``problem`` says why."""

    name: str
    path: Path
    text: str
    config: RunConfig | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Results:
    """All that a report is made of. kind: ``experiment`` or ``run``.

    origins: commands that trained; none in a folder of before they were kept, which may say commit and
    machine all the same.
    """

    kind: str
    name: str
    title: str
    folder: Path
    commit: str | None
    machine: str | None
    cells: Sequence[CellResult]
    paper: Sequence[PaperValue]
    runs: Sequence[RunFolder]
    origins: Sequence[Origin]


def read_folder(folder: Path) -> Results:
    """Of an experiment, finished or not, or of a run. Raises InputError for any other folder."""
    if (folder / "results.json").is_file():
        return _read_experiment(folder)
    if (folder / "config.yaml").is_file():
        return _read_run(folder)
    raise InputError(f"{folder}: found neither results.json nor config.yaml, wanted an experiment or a run")


def _read_experiment(folder: Path) -> Results:
    path = folder / "results.json"
    file = validated(_ResultsFile, _read_json(path), str(path))
    for cell in file.cells:
        if Path(cell.folder).is_absolute() or ".." in Path(cell.folder).parts:
            raise InputError(f"{path}: folder: found {cell.folder}, wanted one below the experiment's")
    names = dict.fromkeys(cell.run for cell in file.cells)
    runs = [
        open_run(name, folder / "runs" / name)
        for name in names
        if (folder / "runs" / name / "config.yaml").is_file()
    ]
    return Results(
        kind="experiment",
        name=file.name,
        title=file.title,
        folder=folder,
        commit=file.commit,
        machine=file.machine,
        cells=file.cells,
        paper=file.paper,
        runs=runs,
        origins=read_origins(folder),
    )


def _read_run(folder: Path) -> Results:
    raw = read_yaml(folder / "config.yaml")
    name = str(raw.get("name", folder.name))
    run = open_run(name, folder)
    cells = _cells_of(run, raw)
    if run.config is None and not cells:
        raise InputError(f"{folder}: holds no run of trainer.run, wanted one: {run.problem}")
    paper = [PaperValue(**row) for row in _paper_of(name.split("-")[0], run.config)]
    return Results(
        kind="run",
        name=name,
        title=name,
        folder=folder,
        commit=None,
        machine=None,
        cells=cells,
        paper=paper,
        runs=[run],
        origins=read_origins(folder),
    )


def open_run(name: str, folder: Path) -> RunFolder:
    """Its settings as they were written, and as this version reads them."""
    path = folder / "config.yaml"
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        config, problem = validated(RunConfig, read_yaml(path), "config.yaml"), None
    except InputError as error:
        config, problem = None, str(error)
    return RunFolder(name, folder, text, config, problem)


def _cells_of(run: RunFolder, raw: Mapping[str, Any]) -> list[CellResult]:
    """Of a run, by its configuration; of one of another version, as far as the folders tell."""
    kind = raw["detector"].get("kind", "detector") if isinstance(raw.get("detector"), dict) else "detector"
    found = []
    for cell in cells_of(run.config) if run.config is not None else _cells_by_folder(run.path):
        path = run.path / cell.folder / "scores.json"
        cost = _cost(run, cell)
        found.append(
            CellResult(
                run=run.name,
                object=run.name,
                detector=str(kind),
                condition=_CONDITIONS.get(cell.phase, cell.phase),
                num_real=cell.num_real,
                seed=cell.seed,
                scores=_read_json(path) if path.is_file() else None,
                steps=cost and cost[0],
                seconds=cost and round(cost[1], 1),
                folder=cell.folder.as_posix(),
            )
        )
    return found


def _cells_by_folder(folder: Path) -> list[Cell]:
    cells = []
    for path in sorted(folder.glob("seed-*/**/scores.json")):
        where = path.parent.relative_to(folder)
        seed, amount = where.parts[0].removeprefix("seed-"), where.parts[1].removeprefix("n-")
        for phase in get_args(Phase):
            cell = Cell(phase, int(amount) if amount.isdigit() else 0, int(seed) if seed.isdigit() else 0)
            if cell.folder == where:
                cells.append(cell)
    return cells


def _cost(run: RunFolder, cell: Cell) -> tuple[int, float] | None:
    if run.config is None:
        return None
    planned = PlannedRun(run.name, run.name, run.config.detector.kind, {}, run.config)
    return steps_and_seconds(run.path / cell.folder, run.config, Training(planned, cell, None))


def _paper_of(name: str, config: RunConfig | None) -> list[dict[str, Any]]:
    """The rows of Table I, or II for a ResNet, or VII, where the run is of one of the paper's objects."""
    if name not in _PAPER_OBJECTS or config is None:
        return []
    table = "II" if "resnet" in str(config.detector.model_dump().get("backbone", "")) else "I"
    table = "VII" if name == "wider" else table
    asked = {"title": "", "paper": [table], "objects": {name: {}}, "detectors": {"any": {}}}
    variant = {"runs": {"any": {"conditions": {"scratch": "no_pretraining"}}}}
    return paper_rows(ExperimentConfig.model_validate(asked | variant))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except ValueError as error:
        raise InputError(f"{path}: {error}: wanted what trainer.experiment or trainer.run wrote") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: found {type(value).__name__}, wanted what trainer.experiment wrote")
    return value
