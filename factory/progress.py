"""The build's progress bar: rate, kept and dropped, time left. Silent when piped."""

import sys
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from shards.manifest import ShardEntry


class BuildProgress:
    """Counts source images (finite) or kept crops (endless) against what is expected."""

    def __init__(self, expected: int, *, counts_images: bool) -> None:
        self._counts_images = counts_images
        self._bar = Progress(
            TextColumn("{task.completed:.0f}/{task.total:.0f} " + ("images" if counts_images else "crops")),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task: TaskID = self._bar.add_task("", total=expected, note="")

    def show(self, entries: Iterable[ShardEntry]) -> None:
        """Bring the bar to the shards done so far."""
        entries = list(entries)
        kept = sum(entry.records for entry in entries)
        seen = sum(entry.seen for entry in entries)
        speed = self._bar.tasks[0].speed
        rate = f" {speed:.0f}/s" if speed else ""
        note = f"kept {kept}, dropped {seen - kept}{rate}"
        self._bar.update(self._task, completed=seen if self._counts_images else kept, note=note)

    def __enter__(self) -> "BuildProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
