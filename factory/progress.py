"""How a build gets on: a bar on a terminal, else a plain line now and then, for a cluster job's log."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from types import TracebackType

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from shards.manifest import ShardEntry

_LINE_EVERY_S = 10.0
_BAR_EVERY_S = 0.25
_WINDOW_S = 120.0  # the rate is that of the last two minutes: workers come and go
_MARK_EVERY_S = 1.0
_MOST_REASONS = 3
_BAR_CELLS = 16


class BuildProgress:
    """Counts source images (finite) or kept crops (endless) against what is expected.

    Running totals only: a shard costs the same whether it is the first or the hundred thousandth.
    """

    def __init__(
        self,
        expected: int,
        *,
        counts_images: bool,
        already: Iterable[ShardEntry] = (),
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """already: shards of earlier runs; they count as done, and not for the rate."""
        self._expected, self._counts_images = expected, counts_images
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._kept = self._seen = self._bytes = 0
        self._dropped: Counter[str] = Counter()
        for entry in already:
            self._count(entry)
        self._marks = deque([(clock(), self._kept, self._done)])  # (seconds, crops, done)
        self._next_show = clock() + self._every_s
        self._shown: int | None = None  # images seen when a line was last shown
        self._bar = Progress(
            BarColumn(bar_width=_BAR_CELLS),
            TextColumn("{task.description}"),
            console=self._console,
        )
        self._task: TaskID = self._bar.add_task("", total=max(1, expected), completed=self._done)

    def add(self, entry: ShardEntry) -> None:
        """One more shard is done."""
        self._count(entry)
        now = self._clock()
        if now - self._marks[-1][0] >= _MARK_EVERY_S:
            self._marks.append((now, self._kept, self._done))
            while now - self._marks[1][0] >= _WINDOW_S:
                self._marks.popleft()
        if now >= self._next_show:
            self._next_show = now + self._every_s
            self._show()

    def line(self) -> str:
        """``1,200 of 2,000 crops (60%), 45.6 crops/s, 18 s left, 8.4 MB, dropped 268 (177 fragmented …)``."""
        what = "images" if self._counts_images else "crops"
        parts = [f"{self._done:,} of {self._expected:,} {what} ({self._done / max(1, self._expected):.0%})"]
        seconds, kept, done = (last - first for last, first in zip(self._mark(), self._marks[0], strict=True))
        if seconds > 0 and kept:
            parts.append(f"{kept / seconds:,.1f} crops/s")
        if seconds > 0 and done:
            left_s = max(0, self._expected - self._done) * seconds / done
            parts.append(f"{describe_duration(left_s)} left")
        parts.append(decimal(self._bytes))
        if self._counts_images:
            parts.append(f"kept {self._kept:,}")
        parts.append(f"dropped {self._describe_drops()}")  # last: a narrow terminal cuts it off
        return ", ".join(parts)

    def __enter__(self) -> "BuildProgress":
        if self._console.is_terminal:
            self._bar.start()
            self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is not None and self._shown != self._seen:  # a build of seconds leaves a log as it was
            self._show()
        if self._console.is_terminal:
            self._bar.stop()

    @property
    def _done(self) -> int:
        return self._seen if self._counts_images else self._kept

    @property
    def _every_s(self) -> float:
        return _BAR_EVERY_S if self._console.is_terminal else _LINE_EVERY_S

    def _mark(self) -> tuple[float, int, int]:
        return self._clock(), self._kept, self._done

    def _count(self, entry: ShardEntry) -> None:
        self._kept += entry.records
        self._seen += entry.seen
        self._bytes += entry.bytes
        self._dropped.update(entry.dropped)

    def _describe_drops(self) -> str:
        total = sum(self._dropped.values())
        main = ", ".join(f"{count:,} {name}" for name, count in self._dropped.most_common(_MOST_REASONS))
        return f"{total:,}" + (f" ({main})" if main else "")

    def _show(self) -> None:
        self._shown = self._seen
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._done, description=self.line())
        else:
            self._console.print(self.line(), soft_wrap=True, markup=False, highlight=False)


def describe_duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``4.5 days``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 86400:,.1f} days"
