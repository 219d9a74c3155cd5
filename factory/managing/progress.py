"""The bar of a command that goes through a set shard by shard. Silent when piped."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from shards.manifest import ShardEntry


class SetProgress:
    """Counts shards, and says what the new ones hold."""

    def __init__(self, shards: int, verb: str = "kept") -> None:
        self._verb = verb
        self._records = self._bytes = 0
        self._bar = Progress(
            TextColumn("{task.completed:.0f}/{task.total:.0f} shards"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task: TaskID = self._bar.add_task("", total=shards, note="")

    def skip(self) -> None:
        """One that is there already."""
        self._bar.update(self._task, advance=1)

    def add(self, entry: ShardEntry) -> None:
        """One that was made just now."""
        self._records += entry.records
        self._bytes += entry.bytes
        note = f"{self._verb} {self._records:,} records, {self._bytes / 1e6:,.0f} MB"
        self._bar.update(self._task, advance=1, note=note)

    def __enter__(self) -> "SetProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
