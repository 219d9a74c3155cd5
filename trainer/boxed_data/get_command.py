"""``python -m trainer.datasets get``: a published data set, from its official place into its folder."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from configs.entry import names_in
from configs.errors import InputError
from trainer.boxed_data.fetching import State, fetch, locked, state_of, wanted_archives
from trainer.boxed_data.sources import SOURCES, Archive, Source, find_source

_LINE_EVERY_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command."""
    parser.add_argument("kind", metavar="KIND", help=", ".join(sorted([*SOURCES, "voc"])))
    parser.add_argument("--out", type=Path, metavar="DIR", help="[data/KIND, of VOC data/vocYEAR]")
    parser.add_argument(
        "--splits", type=names_in, default=[], metavar="A,B", help="of coco, voc, wider [all]"
    )
    parser.add_argument("--year", help="of VOC, 2007 to 2012 [2007]")
    parser.add_argument(
        "--mirror", default="", metavar="URL", help="of a folder to take the files from instead"
    )
    parser.add_argument("--keep", action="store_true", help="the archives, once they are unpacked")


def get(args: argparse.Namespace, home: Path) -> int:
    """Fetch what is not there yet, and say what is. 0 when all is there.

    Raises InputError: see `fetch`; also for a file that no official place offers, once it is said which.
    """
    source = find_source(args.kind, args.year)
    root = args.out or home / "data" / source.folder
    if args.mirror and not args.mirror.startswith(("http://", "https://")):
        raise InputError(f"--mirror: found {args.mirror}, wanted http://… or https://…")
    archives = wanted_archives(source, args.splits)
    states = {archive.name: state_of(archive, root) for archive in archives}
    todo = [each for each in archives if not states[each.name].is_complete]
    lacking = [each for each in todo if not (args.mirror or each.address or (root / each.name).exists())]
    if todo != lacking:
        with locked(root):
            for archive in todo:
                if archive not in lacking:
                    _fetch(archive, source, root, args)
    for archive in archives:
        if archive not in lacking:
            print(_line(archive, root, states[archive.name]))
    if lacking:
        _print_what_to_fetch(lacking, source, root)
        raise InputError(f"{root}: lacks {len(lacking)} files that no official place offers, wanted by hand")
    print(f"{root}: nothing left to fetch; {source.terms} ({source.page})")
    settings = f" {source.settings}" if source.settings else ""
    print(f"look it through: python -m trainer.datasets check {source.kind} {root}{settings}")
    return 0


class TransferProgress:
    """A bar on a terminal, else a plain line now and then, for a job's log."""

    def __init__(
        self, name: str, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """name: of the file."""
        self._name, self._clock = name, clock
        self._console = console or Console(stderr=True)
        self._begun: tuple[float, int] | None = None  # when, and how many bytes were there
        self._next_line = clock() + _LINE_EVERY_S
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID = self._bar.add_task(name, total=None)

    def report(self, there: int, size: int) -> None:
        """How many bytes are there, and of how many; 0 when unknown."""
        now = self._clock()
        self._begun = self._begun or (now, there)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=there, total=size or None)
        elif now >= self._next_line:
            self._next_line = now + _LINE_EVERY_S
            self._print(self.line(there, size))

    def line(self, there: int, size: int) -> str:
        """``val2017.zip: 120.5 MB of 815.6 MB (15%), 11.2 MB/s``."""
        began_s, had = self._begun or (self._clock(), there)
        seconds = self._clock() - began_s
        rate = f", {decimal(int((there - had) / seconds))}/s" if seconds > 0 and there > had else ""
        share = f" of {decimal(size)} ({there / size:.0%})" if size else ""
        return f"{self._name}: {decimal(there)}{share}{rate}"

    def say(self, text: str) -> None:
        """What comes after the transfer, which takes its time: shown on a terminal alone."""
        if self._console.is_terminal:
            self._bar.stop()
            self._print(text)

    def __enter__(self) -> "TransferProgress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


def _fetch(archive: Archive, source: Source, root: Path, args: argparse.Namespace) -> None:
    try:
        with TransferProgress(archive.name) as shown:
            fetch(archive, root, shown.report, mirror=args.mirror, say=shown.say, keep=args.keep)
    except InputError as error:
        if (root / archive.name).exists():
            raise
        raise InputError(f"{error} (by hand: {source.page}, into {root})") from error


def _line(archive: Archive, root: Path, before: State) -> str:
    """What there is of an archive."""
    now = state_of(archive, root)
    if now.is_foreign or now.receipt is None:
        return f"{archive.name}: unpacked there already, not by this command: left as it is, not checked"
    did = "there already" if before.is_complete else f"fetched, {decimal(now.receipt.size)}"
    number = len(now.changed)
    changed = f"; {number} of its files have another size here, first {now.changed[0]}" if number else ""
    return f"{archive.name}: {did}, checked by {now.receipt.checked}{changed}"


def _print_what_to_fetch(lacking: list[Archive], source: Source, root: Path) -> None:
    print(f"{source.kind}: {source.page} {source.gone}.")
    print(f"Put these files into {root}; the same command then checks and unpacks them:")
    width = max(len(archive.name) for archive in lacking)
    for archive in lacking:
        algorithm, _, digest = archive.checksum.partition(":")
        print(f"  {archive.name:{width}}  {algorithm} {digest} ({archive.told_by})")
