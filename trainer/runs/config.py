"""What one run is: data, detector, phases, and the grid of (phase, number of photos, seed)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, model_validator

from configs.home import find_config
from configs.kinds import StrictModel, one_of
from configs.load import apply_overrides, read_yaml, validated
from trainer.cluster.config import ClusterConfig
from trainer.compositing.config import CompositorConfig
from trainer.dataset import DatasetConfig
from trainer.detector import DetectorConfig
from trainer.evaluation.scene_validation import SceneValidation
from trainer.runs.self_training import UnlabelledConfig
from trainer.streaming.augment import NO_CHANGE, AugmentConfig
from trainer.streaming.crop_pool import StreamConfig
from trainer.streaming.loader import LoaderConfig
from trainer.streaming.sets import OneOrMoreSets, SetConfig, SetList
from trainer.training.config import TrainingConfig

Phase = Literal["scratch", "pretrain", "finetune", "mixed", "self_training"]
GOES_ON_FROM: dict[Phase, Phase] = {"finetune": "pretrain", "self_training": "finetune"}


class RunConfig(StrictModel):
    """crops, backgrounds: folders or URLs of sets, each alone or with a weight. classes: what to detect;
    empty means the crop sets' own. distractors: crop sets of other classes, pasted and not labelled.
    stream: how sets are read. loader: how batches are, which changes nothing that is in them.
    compose_on: who paints the scenes of pretrain: the loader's processes, or the device that trains, which
    takes their plans and crops and agrees with the other within a level or two (`compositing.render_gpu`).
    augment: changes to photos; augment_scenes: the same to composites, none by default.

    phases: ``scratch`` trains on the photos alone, ``pretrain`` on composites alone, ``finetune`` goes on
    from pretrain with the photos, ``mixed`` trains on both at once; ``self_training`` goes on from finetune
    with the photos and those of ``unlabelled``, which finetune's detector has labelled.
    num_real: photos of the training split, nested subsets drawn by the seed (or by ``subset_seed`` for all
    seeds; 2020 is the paper's).
    pretrain, finetune, mixed, self_training, training: settings of the phases; without ``finetune`` or
    ``mixed`` these have those of ``training``, as ``scratch`` does, and without ``self_training`` it has
    those of finetune. With the steps of pretrain and finetune together ``mixed`` is a fair rival of both.
    With few photos a finetuning at the rate of a training from scratch can undo some of the pretraining: a
    lower ``finetune.lr``, or ``finetune.freeze``, keeps more of it.
    validation_images: photos from the end of the same seeded order, for `TrainingConfig.validate_every`.
    validation_scenes: what ``validate_on: synthetic`` looks at.
    """

    name: str = Field(default="run", pattern=r"[A-Za-z0-9_.-]+")
    crops: SetList
    backgrounds: OneOrMoreSets
    distractors: tuple[SetConfig, ...] = ()
    classes: tuple[str, ...] = ()
    dataset: Annotated[DatasetConfig, SerializeAsAny(), one_of("trainer.datasets", DatasetConfig)]
    train_split: str = "train"
    test_split: str = "test"
    detector: Annotated[DetectorConfig, SerializeAsAny(), one_of("trainer.detectors", DetectorConfig)]
    compositor: CompositorConfig = CompositorConfig()
    augment: AugmentConfig = AugmentConfig()
    augment_scenes: AugmentConfig = NO_CHANGE
    stream: StreamConfig = StreamConfig()
    phases: tuple[Phase, ...] = ("scratch", "pretrain", "finetune")
    num_real: tuple[Annotated[int, Field(ge=1)], ...] = (10, 50)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    subset_seed: int | None = Field(default=None, ge=0)
    validation_images: int = Field(default=0, ge=0)
    validation_scenes: SceneValidation = SceneValidation()
    synthetic_share: float = Field(default=0.5, gt=0, lt=1)
    pretrain: TrainingConfig = TrainingConfig()
    training: TrainingConfig = TrainingConfig()
    finetune: TrainingConfig | None = None
    mixed: TrainingConfig | None = None
    self_training: TrainingConfig | None = None
    unlabelled: UnlabelledConfig | None = None
    compose_on: Literal["cpu", "device"] = "cpu"
    workers: int = Field(default=0, ge=0)
    loader: LoaderConfig = LoaderConfig()
    threads: int | None = Field(default=None, ge=1)
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _check_phases(self) -> "RunConfig":
        if "finetune" in self.phases and "pretrain" not in self.phases:
            raise ValueError("phases: 'finetune' goes on from 'pretrain', which is not among them")
        if "self_training" in self.phases and ("finetune" not in self.phases or self.unlabelled is None):
            raise ValueError("phases: 'self_training' wants 'finetune' among them, and unlabelled.root")
        if not self.seeds or not self.phases:
            raise ValueError("seeds and phases: wanted at least one of each")
        if not self.num_real and set(self.phases) != {"pretrain"}:
            raise ValueError(f"num_real: found none, wanted some for {', '.join(self.phases)}")
        for name, training in self.trainings().items():
            shares = training.accumulate * self.cluster.workers
            if training.batch_size % shares:
                parts = f"{self.cluster.workers} workers' {training.accumulate} parts each"
                raise ValueError(
                    f"{name}.batch_size: found {training.batch_size}, wanted a multiple of {shares}: {parts}"
                )
            looks_at_photos = training.validate_every and training.validate_on == "photos"
            if looks_at_photos and not self.validation_images:
                raise ValueError(f"{name}: validate_on=photos wants validation_images > 0, or synthetic")
        return self

    def trainings(self) -> dict[str, TrainingConfig]:
        """The settings that the phases use, by the name they have here."""
        used = {self._name_of(phase): self.training_of(phase) for phase in self.phases}
        return dict(sorted(used.items()))

    def training_of(self, phase: Phase) -> TrainingConfig:
        """The settings of a phase."""
        training: TrainingConfig = getattr(self, self._name_of(phase))
        return training

    def _name_of(self, phase: Phase) -> str:
        if phase == "self_training" and self.self_training is None:
            phase = "finetune"
        given = {
            "pretrain": self.pretrain,
            "finetune": self.finetune,
            "mixed": self.mixed,
            "self_training": self.self_training,
        }
        return phase if given.get(phase) is not None else "training"


@dataclass(frozen=True, slots=True)
class Cell:
    """One training of the grid. num_real is 0 for pretrain, which sees no photo."""

    phase: Phase
    num_real: int
    seed: int

    @property
    def folder(self) -> Path:
        """Where it lies below the run folder."""
        amount = Path() if self.phase == "pretrain" else Path(f"n-{self.num_real}")
        return Path(f"seed-{self.seed}") / amount / self.phase

    @property
    def before(self) -> "Cell | None":
        """The training that this one goes on from."""
        earlier = GOES_ON_FROM.get(self.phase)
        if earlier is None:
            return None
        return Cell(earlier, 0 if earlier == "pretrain" else self.num_real, self.seed)


def load_run(name: str, overrides: list[str]) -> RunConfig:
    """A packaged run, or a YAML file's, with overrides. Raises InputError."""
    path = find_config("runs", name, "run")
    data = apply_overrides(read_yaml(path), overrides)
    data.setdefault("name", path.stem)
    return validated(RunConfig, data, f"run {name}")


def cells_of(config: RunConfig) -> list[Cell]:
    """The grid in the order it is run: seed by seed, each phase after the one it goes on from."""
    with_photos: Sequence[Phase] = sorted(
        (phase for phase in config.phases if phase != "pretrain"), key="self_training".__eq__
    )
    cells: list[Cell] = []
    for seed in config.seeds:
        if "pretrain" in config.phases:
            cells.append(Cell("pretrain", 0, seed))
        cells += [Cell(phase, amount, seed) for amount in config.num_real for phase in with_photos]
    return cells
