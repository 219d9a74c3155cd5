"""What an experiment is: runs of each object, detector and variant, and the conditions they stand for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from configs.errors import InputError
from configs.home import find_config
from configs.kinds import StrictModel
from configs.load import apply_overrides, read_yaml, validated
from shards.errors import ShardError
from shards.manifest import Kind
from trainer.runs.config import GOES_ON_FROM, Cell, Phase, RunConfig, cells_of
from trainer.runs.data import RunData
from trainer.streaming.sets import open_set

_NAME = r"[A-Za-z0-9_.-]+"
Changes = dict[str, Any]


class ObjectConfig(StrictModel):
    """base: the experiment's where there is none. set: changes to it, ``dotted.key: value``."""

    base: str | dict[str, Any] | None = None
    set: Changes = Field(default_factory=dict)


class VariantConfig(StrictModel):
    """conditions: what each phase's cells are called in tables, in the paper's terms where it has one.

    Phases that others go on from are trained unasked, and not shown unless they are named here.
    """

    conditions: dict[Phase, str] = Field(min_length=1)
    set: Changes = Field(default_factory=dict)


class ExperimentConfig(StrictModel):
    """Every variant in ``runs`` with every detector on every object; each is a run, see `RunConfig`.

    base: a run file by name or path, or its settings.
    objects, detectors, runs: by names that the runs' names are made of. detectors: changes to the run.
    set: changes to all runs. Changes are put in in this order: the experiment's, the object's, the
    detector's, the variant's; ``{object}`` in them is the object's name. ``all`` among num_real is the whole
    training split.
    overrides: ``key=value`` for all runs, over everything else; a folder's experiment.yaml has those of its
    last command.
    paper: the paper's tables whose rows stand beside. sets: how to make a set that is missing, by its place.
    """

    name: str = Field(default="experiment", pattern=_NAME)
    title: str
    paper: tuple[str, ...] = ()
    base: str | dict[str, Any] = "{object}"
    objects: dict[str, ObjectConfig] = Field(min_length=1)
    detectors: dict[str, Changes] = Field(min_length=1)
    runs: dict[str, VariantConfig] = Field(min_length=1)
    set: Changes = Field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    sets: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class PlannedRun:
    """One run of an experiment. conditions: of the phases that are shown. wants_all: besides its amounts."""

    name: str
    object: str
    detector: str
    conditions: Mapping[Phase, str]
    config: RunConfig
    wants_all: bool = False

    @property
    def folder(self) -> Path:
        """Where it lies below the experiment's folder."""
        return Path("runs") / self.name

    @property
    def cells(self) -> list[Cell]:
        """What it trains, in order."""
        return cells_of(self.config)


def load_experiment(name: str, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """A packaged experiment, or a YAML file's, with overrides behind its own. Raises InputError."""
    path = find_config("experiments", name, "experiment")
    data = read_yaml(path)
    data.setdefault("name", path.stem)
    experiment = validated(ExperimentConfig, data, f"experiment {name}")
    return experiment.model_copy(update={"overrides": (*experiment.overrides, *overrides)})


def plan_runs(experiment: ExperimentConfig, overrides: Sequence[str], home: Path) -> list[PlannedRun]:
    """All runs, see `runs_of`, with ``all`` as the number that it is.

    Raises InputError also for sets that are missing, with what makes them.
    """
    runs = runs_of(experiment, overrides)
    _check_sets(experiment, [run.config for run in runs], home)
    return [replace(run, config=_with_all(run.config, home)) if run.wants_all else run for run in runs]


def runs_of(experiment: ExperimentConfig, overrides: Sequence[str]) -> list[PlannedRun]:
    """All runs, without a look at data. overrides: ``key=value`` for every run, over the experiment's own.

    Raises InputError for settings that are wrong.
    """
    runs = []
    for object_name, of_object in experiment.objects.items():
        for detector, of_detector in experiment.detectors.items():
            for variant_name, variant in experiment.runs.items():
                changes = [experiment.set, of_object.set, of_detector, variant.set]
                base = of_object.base or experiment.base
                data = _settings(base, changes, object_name, [*experiment.overrides, *overrides])
                data["name"] = _run_name(experiment, object_name, detector, variant_name)
                config, wants_all = _without_all(variant, data)
                runs.append(
                    PlannedRun(data["name"], object_name, detector, variant.conditions, config, wants_all)
                )
    return runs


def _run_name(experiment: ExperimentConfig, *names: str) -> str:
    """The names of those axes that have several, and the variant's."""
    axes: tuple[Sequence[str], ...] = (list(experiment.objects), list(experiment.detectors))
    shown = [name for name, axis in zip(names, axes, strict=False) if len(axis) > 1]
    return "-".join([*shown, names[-1]])


def _settings(
    base: str | dict[str, Any], changes: Sequence[Changes], object_name: str, overrides: Sequence[str]
) -> dict[str, Any]:
    if isinstance(base, str):
        base = read_yaml(find_config("runs", base.replace("{object}", object_name), "run"))
    data: dict[str, Any] = json.loads(json.dumps(base).replace("{object}", object_name))
    for change in changes:
        texts = [f"{key}={json.dumps(value)}" for key, value in change.items()]
        data = apply_overrides(data, [text.replace("{object}", object_name) for text in texts])
    data = apply_overrides(data, overrides)
    return {"num_real": list(RunConfig.model_fields["num_real"].default)} | data


def _without_all(variant: VariantConfig, data: Mapping[str, Any]) -> tuple[RunConfig, bool]:
    """The run with its phases and the amounts that are numbers, and whether ``all`` was among them."""
    phases = list(variant.conditions)
    for phase in phases:  # grows while it is gone through
        before = GOES_ON_FROM.get(phase)
        if before is not None and before not in phases:
            phases.append(before)
    place, amounts = f"run {data['name']}", data["num_real"]
    if not isinstance(amounts, list):
        raise InputError(f"{place}: num_real: found {amounts!r}, wanted a list of numbers and 'all'")
    numbers = [amount for amount in amounts if amount != "all"]
    config = validated(RunConfig, {**data, "phases": phases, "num_real": numbers}, place)
    return config, len(numbers) < len(amounts)


def _with_all(config: RunConfig, home: Path) -> RunConfig:
    total = len(RunData(config, home).photos) - config.validation_images
    return config.model_copy(update={"num_real": tuple(dict.fromkeys((*config.num_real, total)))})


def _check_sets(experiment: ExperimentConfig, configs: Sequence[RunConfig], home: Path) -> None:
    """Raises InputError that names each missing set and the command that makes it."""
    makers = {
        place.replace("{object}", name): command.replace("{object}", name)
        for place, command in experiment.sets.items()
        for name in experiment.objects
    }
    problems: dict[str, str] = {}
    wanted: dict[str, Kind] = {}
    for config in configs:
        wanted |= {each.place: "crops" for each in (*config.crops, *config.distractors)}
        wanted |= {each.place: "backgrounds" for each in config.backgrounds}
    for place, kind in wanted.items():
        try:
            open_set(place, kind, home)
        except (InputError, ShardError) as error:
            problems[place] = str(error)
    missing = [f"{place}: run {makers[place]}" for place in problems if place in makers]
    if missing:
        raise InputError("sets are missing:\n  " + "\n  ".join(missing))
    for problem in problems.values():
        raise InputError(problem)
