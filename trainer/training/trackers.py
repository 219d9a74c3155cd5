"""Where a training's figures go beside ``metrics.jsonl``: TensorBoard, Weights & Biases."""

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from configs.errors import InputError
from trainer.training.config import Tracker


class OpenTracker(Protocol):
    """Takes figures by step."""

    def write(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check_trackers(names: Sequence[Tracker]) -> None:
    """Raises InputError for one whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"loggers: found {name}, which is not installed: pip install {name}")


def open_tracker(name: Tracker, folder: Path, resumed_at: int) -> OpenTracker:
    """A tracker of the training in ``folder``, going on after step ``resumed_at``. Raises InputError."""
    check_trackers([name])
    return _TensorBoard(folder, resumed_at) if name == "tensorboard" else _Wandb(folder)


class _TensorBoard:
    """Event files in ``folder/tensorboard``."""

    def __init__(self, folder: Path, resumed_at: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = resumed_at + 1 if resumed_at else None  # these steps are trained again
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of the project ``crop-foundry``, known by its folder, so that going on prolongs it."""

    def __init__(self, folder: Path) -> None:
        place = folder.resolve()
        self._run: Any = importlib.import_module("wandb").init(
            project="crop-foundry",
            name="/".join(place.parts[-4:]),
            id=hashlib.sha256(str(place).encode()).hexdigest()[:16],
            resume="allow",
            dir=str(folder),
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()
