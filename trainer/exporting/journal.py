"""What an export has written so far: a line of JSON for each scene, in order, once its files are there."""

import fcntl
import filecmp
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from configs.errors import InputError

Record = dict[str, Any]
"""scene: its number. files: path in the folder -> bytes. The rest is the export's."""

_NAME = "export.jsonl"


@contextmanager
def open_journal(folder: Path, first: int) -> Iterator["Journal"]:
    """The folder's journal, for this process alone. Raises InputError while another has it."""
    with (folder / _NAME).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another export is writing to it, wanted one at a time") from None
        yield Journal(folder, first, file)


class Journal:
    """Records of the scenes from ``first`` on, of which there are ``lines``."""

    def __init__(self, folder: Path, first: int, file: BinaryIO) -> None:
        self._folder, self._first, self._file = folder, first, file
        self.lines = 0

    def recover(self) -> list[int]:
        """Count the lines, cutting off one that was cut short, and return the scenes of which a file is gone
        or has another size. Raises InputError for lines that no export wrote.
        """
        self._file.seek(0)
        end, self.lines, damaged = 0, 0, []
        for line in self._file:
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                break
            record = self._parse(line, self.lines)
            if any(_size_of(self._folder / path) != size for path, size in record["files"].items()):
                damaged.append(record["scene"])
            end, self.lines = end + len(line), self.lines + 1
        return damaged

    def append(self, record: Record) -> None:
        """The next scene's record: from now on it is done."""
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        self.lines += 1

    def records(self) -> Iterator[Record]:
        """All of them, read as they are asked for."""
        with (self._folder / _NAME).open("rb") as file:
            for place, line in enumerate(file):
                yield self._parse(line, place)

    def _parse(self, line: bytes, place: int) -> Record:
        try:
            record: Record = json.loads(line)
            if record["scene"] == self._first + place:
                return record
        except (ValueError, KeyError, TypeError):
            pass
        wanted = f"the record of scene {self._first + place}"
        raise InputError(f"{self._folder / _NAME}: line {place + 1} is damaged, wanted {wanted}")


def write_whole(path: Path, content: bytes) -> None:
    """The file, whole or not at all. A name beside it that a lost process left is used again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_bytes(content)
    beside.replace(path)


def write_pieces(path: Path, pieces: Iterator[str]) -> None:
    """A text that need not fit in memory, whole or not at all; a file that says the same is left alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    if path.exists() and filecmp.cmp(beside, path, shallow=False):
        beside.unlink()
    else:
        beside.replace(path)


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
