"""Unpack an archive of strangers: files and folders alone, under one folder, and not endlessly many bytes.

Members are opened and copied one by one, so nothing of an archive decides where, as whom or how a file is
written: owners, modes, links and devices never reach the file system.
"""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from configs.errors import InputError

_CHUNK = 1 << 20
_MOST_TIMES = 30  # what is unpacked may be larger than the archive; text packs well, photos hardly
_ALWAYS_ALLOWED = 1 << 30
_UNREADABLE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError),  # zipfile's: packed in a way that it does not know, encrypted
)

Member = tuple[str, int, Callable[[], IO[bytes]]]  # name, bytes, its content


def is_archive(name: str) -> bool:
    """Whether `unpack` can take a file of this name apart."""
    return name.endswith((".zip", ".tar", ".tar.gz", ".tgz"))


def unpack(path: Path, name: str, to: Path, below: str = "") -> dict[str, int]:
    """Write an archive's files under ``to``; gives their sizes in it, by path relative to ``to``.

    A file that is there already stays as it is; each other appears whole or not at all, so unpacking again
    finishes what broke off.
    name: the archive's own, which tells its format. below: a folder in the archive whose content comes
    directly under ``to``; what lies beside it comes there too.
    Raises InputError, with nothing written outside of ``to``, for a member that leads out of it, is a link or
    a device, stands twice, or for an archive that is damaged or unpacks to 30 times its size (and 1 GiB).
    """
    left = max(_ALWAYS_ALLOWED, _MOST_TIMES * path.stat().st_size)
    sizes: dict[str, int] = {}
    with _refusals(path):
        for member, size, open_member in (_zip_members if name.endswith(".zip") else _tar_members)(path):
            place = _place(path, member, below)
            if place in sizes:
                raise InputError(f"{path}: {member}: found twice, wanted each file once")
            left -= size
            if left < 0:
                raise InputError(f"{path}: {member}: unpacks to {_MOST_TIMES} times its size, wanted less")
            sizes[place] = size
            if not (to / place).exists():
                with open_member() as source:
                    _copy(source, to / place, size, path)
    return sizes


def _place(path: Path, member: str, below: str) -> str:
    """Where a member goes, under the folder; only names that stay there on every system."""
    parts = PurePosixPath(member).parts
    if member.startswith("/") or ".." in parts or any(sign in member for sign in "\\:\0\n"):
        raise InputError(f"{path}: {member!r}: leads out of the folder, wanted files inside it")
    inner = PurePosixPath(*parts)
    return inner.relative_to(below).as_posix() if inner.is_relative_to(below) else inner.as_posix()


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:*") as archive:
        for info in archive:
            if info.isdir():
                _place(path, info.name, "")
            elif not info.isreg():
                raise InputError(f"{path}: {info.name}: a link or device, wanted files and folders")
            else:
                yield info.name, info.size, partial(_opened, archive, info)


def _opened(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    source = archive.extractfile(info)
    assert source is not None  # of a regular file
    return source


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise InputError(f"{path}: {info.filename}: a link or device, wanted files and folders")
            if info.is_dir():
                _place(path, info.filename, "")
            else:
                yield info.filename, info.file_size, partial(archive.open, info)


def _copy(source: IO[bytes], target: Path, size: int, path: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.new")
    there = 0
    with beside.open("wb") as file:
        while chunk := source.read(_CHUNK):
            there += len(chunk)
            if there > size:
                break
            file.write(chunk)
    if there != size:
        raise InputError(f"{path}: {target.name}: found another size than the {size} bytes that it says")
    beside.replace(target)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0].rstrip(": ") or type(error).__name__
        raise InputError(f"{path}: {reason}, wanted a whole archive") from error
    except OSError as error:
        if error.errno is not None:  # of the disk: it has its own line
            raise
        raise InputError(f"{path}: {error}, wanted a whole archive") from error
