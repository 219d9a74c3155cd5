"""The one loop that trains generators and mask networks: log, save, resume, stop on a non-finite figure."""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from configs.errors import InputError
from configs.kinds import StrictModel
from configs.load import read_yaml
from configs.log_file import LOG_NAME, keep_log
from factory.training.checkpoint import load_newest, save_checkpoint, write_whole


class LoopConfig(StrictModel):
    """Lengths in steps. keep: checkpoints left on disk."""

    steps: int = Field(default=20_000, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    log_every: int = Field(default=50, gt=0)
    keep: int = Field(default=2, gt=0)


class Learner(Protocol):
    """What is being trained. All it draws is a function of its seed and its iteration."""

    @property
    def iteration(self) -> int:
        """Steps trained so far; a restart sets it back to 0."""
        ...

    def step(self) -> dict[str, float]:
        """Train one step, add one to the iteration. Named losses, and other figures worth a line."""
        ...

    def review(self) -> dict[str, float]:
        """Look at what was learnt, before each checkpoint: figures for the log. It may write pictures and
        weights, and may start over."""
        ...

    def state(self) -> dict[str, Any]:
        """All that going on needs: tensors, numbers, text, lists and dicts of them."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state."""
        ...


def train(learner: Learner, folder: Path, config: LoopConfig, title: str) -> None:
    """Train up to ``config.steps`` iterations, from the newest checkpoint in ``folder`` where there is one.

    Writes ``metrics.jsonl`` and ``checkpoints/``. On SIGTERM and Ctrl-C the step is finished and saved
    before it stops. Raises InputError when a figure of a step is not finite, naming the step.
    """
    saved = load_newest(folder / "checkpoints")
    if saved is not None:
        learner.load(saved["learner"])
    seconds = float(saved["seconds"]) if saved is not None else 0.0
    started = time.monotonic() - seconds
    total = int(saved["total"]) if saved is not None else 0
    with _stop_asked() as asked, _Log(folder / "metrics.jsonl", title, config.steps, total) as log:

        def save() -> None:
            state = {"learner": learner.state(), "seconds": time.monotonic() - started, "total": total}
            save_checkpoint(folder / "checkpoints", total, state, config.keep)

        while learner.iteration < config.steps:
            figures = learner.step()
            total += 1
            _refuse_not_finite(figures, folder, learner.iteration)
            log.add(total, learner.iteration, figures, write=learner.iteration % config.log_every == 0)
            is_last = learner.iteration == config.steps
            if is_last or learner.iteration % config.checkpoint_every == 0:
                iteration = learner.iteration
                log.write(total, iteration, {**learner.review(), "seconds": time.monotonic() - started})
                save()
            if asked and not is_last:
                save()
                raise KeyboardInterrupt


def claim_folder(folder: Path, config: StrictModel, identity: dict[str, Any]) -> None:
    """Make the training's folder and say in ``config.yaml`` what is trained; or see that it is the same.

    It keeps the command's log. Lengths (``loop``) may differ, so that a training can be prolonged.
    Raises InputError when the folder holds another training, or something else.
    """
    path = folder / "config.yaml"
    wanted = {**config.model_dump(mode="json"), "identity": identity}
    if path.exists():
        found = read_yaml(path)
        differing = sorted(
            key
            for key in {*found, *wanted} - {"loop"}
            if found.get(key) != json.loads(json.dumps(wanted.get(key)))
        )
        if differing:
            raise InputError(
                f"{path}: another training ({', '.join(differing)} differ): wanted the same, or another --out"
            )
    else:
        _refuse_foreign(folder)
    write_whole(path, yaml.safe_dump(wanted, sort_keys=False).encode())
    keep_log(folder)


def _refuse_foreign(folder: Path) -> None:
    """A new training begins in a new or empty folder: not among somebody's photos."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, wanted a folder")
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if foreign := [name for name in there if name != LOG_NAME and not name.startswith(".")]:
        raise InputError(f"{folder}: holds {foreign[0]}: wanted a new or empty folder")


def _refuse_not_finite(figures: dict[str, float], folder: Path, iteration: int) -> None:
    bad = next((name for name, value in figures.items() if not math.isfinite(value)), None)
    if bad is not None:
        raise InputError(
            f"{folder}: step {iteration}: {bad} is {figures[bad]}, wanted finite numbers:"
            " nothing after the last checkpoint is kept; lower the learning rate or change the seed"
        )


@contextmanager
def _stop_asked() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM or SIGINT comes; a second one stops at once."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Log:
    """Means of the figures between two lines, in ``metrics.jsonl``; a bar on a terminal.

    Lines past ``resumed_at`` are cut off first: those steps are about to be trained again.
    """

    def __init__(self, path: Path, title: str, steps: int, resumed_at: int) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        kept = "".join(f"{line}\n" for line in lines if _total_of(line) <= resumed_at)
        write_whole(path, kept.encode())
        self._file = path.open("a")
        self._sums: dict[str, float] = {}
        self._count = 0
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(
            TextColumn(title),
            *columns,
            console=Console(stderr=True),
            disable=not Console(stderr=True).is_terminal,
        )
        self._task = self._bar.add_task(title, total=steps, note="")

    def add(self, total: int, iteration: int, figures: dict[str, float], *, write: bool) -> None:
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if write:
            means = {name: value / self._count for name, value in self._sums.items()}
            self._sums, self._count = {}, 0
            note = " ".join(f"{name} {value:.3g}" for name, value in list(means.items())[:3])
            self._bar.update(self._task, completed=iteration, note=note)
            self.write(total, iteration, means)

    def write(self, total: int, iteration: int, figures: dict[str, float]) -> None:
        rounded = {name: float(f"{value:.5g}") for name, value in figures.items()}
        self._file.write(json.dumps({"total": total, "iteration": iteration, **rounded}) + "\n")
        self._file.flush()

    def __enter__(self) -> "_Log":
        self._bar.start()
        return self

    def __exit__(self, *exit_of: object) -> None:
        self._bar.stop()
        self._file.close()


def _total_of(line: str) -> float:
    """The line's step; a line that a crash cut short counts as past every step."""
    try:
        return float(json.loads(line)["total"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
