"""A training's progress: a bar on a terminal, ``metrics.jsonl`` on disk, and trackers that are asked for."""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.training.config import TrainingConfig
from trainer.training.pace import Pace, peak_memory_mb
from trainer.training.trackers import open_tracker


class TrainingLog:
    """Appends to ``metrics.jsonl`` and moves the bar. Lines of steps past ``resumed_at`` are cut off first:
    those steps are about to be trained again. A quiet one does nothing.
    """

    def __init__(self, folder: Path, config: TrainingConfig, resumed_at: int, *, quiet: bool = False) -> None:
        """Raises InputError when a tracker is not installed."""
        self.pace, self._config = Pace(), config
        self._trackers = [] if quiet else [open_tracker(n, folder, resumed_at) for n in config.loggers]
        self._file = None if quiet else _cut_and_open(folder / "metrics.jsonl", resumed_at)
        self._bar = Progress(
            TextColumn(f"{folder.name:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(folder.name, total=config.steps, completed=resumed_at, note="")

    def write(self, step: int, **values: Any) -> None:
        """One line of the log: numbers, and groups of them by name."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        figures = dict(_flat(values))
        for tracker in self._trackers:
            tracker.write(step, figures)

    def add(self, done: int, figures: Mapping[str, float], lr: float, device: torch.device) -> None:
        """A step's named losses and ``grad_norm``: a line every so many steps, and after the last."""
        self.pace.images += self._config.batch_size
        if done % self._config.log_every and done != self._config.steps:
            return
        losses = {name: round(value, 5) for name, value in figures.items() if name != "grad_norm"}
        norm = figures["grad_norm"]
        speed = self.pace.take()
        self.write(
            done,
            losses=losses,
            lr=lr,
            grad_norm=round(norm, 4) if math.isfinite(norm) else None,
            memory_mb=peak_memory_mb(device),
            **speed,
        )
        note = f"loss {sum(losses.values()):.3f} {speed['images_per_s']:.0f} images/s"
        self._bar.update(self._task, completed=done, note=note)

    def __enter__(self) -> "TrainingLog":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        for tracker in self._trackers:
            tracker.close()
        if self._file is not None:
            self._file.close()


def _cut_and_open(path: Path, resumed_at: int) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _step_of(line) <= resumed_at]
    path.write_text("".join(f"{line}\n" for line in kept))
    return path.open("a")


def _step_of(line: str) -> float:
    """The line's step; a line that a crash cut short counts as past every step."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """``{"losses": {"l2": 0.1}}`` as ``losses/l2`` 0.1."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif value is not None:
            yield f"{prefix}{name}", float(value)
