"""A training's progress: a bar on a terminal, ``metrics.jsonl`` on disk."""

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingLog:
    """Appends to ``metrics.jsonl`` and moves the bar. Lines of steps past ``resumed_at`` are cut off first:
    those steps are about to be trained again.
    """

    def __init__(self, path: Path, name: str, steps: int, resumed_at: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= resumed_at]
        path.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")
        self._bar = Progress(
            TextColumn(f"{name:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=steps, completed=resumed_at, note="")

    def write(self, step: int, **values: Any) -> None:
        """One line of the log."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def advance(self, step: int, note: str) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step, note=note)

    def __enter__(self) -> "TrainingLog":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()


def _step_of(line: str) -> float:
    """The line's step; a line that a crash cut short counts as past every step."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
