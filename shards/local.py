"""Folders on this machine, or mounted there."""

import errno
import mmap
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from shards.errors import ShardError

_FOREIGN_STALE_S = 24 * 3600.0
_TEMPORARY = re.compile(r"\..+\.tmp-(?P<pid>\d+)-(?P<host>.+)-[0-9a-f]{8}")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_in_hand: set[str] = set()  # temporaries that a thread of this process is writing


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder on this machine, created by the first write."""

    folder: Path

    @property
    def location(self) -> str:
        return str(self.folder)

    def names(self) -> list[str]:
        return list(self.sizes())

    def sizes(self) -> dict[str, int]:
        if not self.folder.is_dir():
            return {}
        with _storage_errors(self.location), os.scandir(self.folder) as entries:
            found = [entry for entry in entries if not _TEMPORARY.fullmatch(entry.name)]
            sizes = [(entry.name, size) for entry in found if (size := _size_of(entry)) is not None]
        return dict(sorted(sizes))

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def size(self, name: str) -> int:
        with _storage_errors(self._path(name)):
            return self._path(name).stat().st_size

    def modified(self, name: str) -> float:
        with _storage_errors(self._path(name)):
            return self._path(name).stat().st_mtime

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with _storage_errors(path, "not written: "), self._temporary(name, data) as temporary:
            temporary.replace(path)

    def create(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        with _storage_errors(path, "not written: "), self._temporary(name, data) as temporary:
            return _link(temporary, path, data)

    def read(self, name: str) -> bytes:
        with _storage_errors(self._path(name)):
            return self._path(name).read_bytes()

    def view(self, name: str) -> memoryview:
        with _storage_errors(self._path(name)), self._path(name).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def remove(self, name: str, *, missing_ok: bool = False) -> None:
        with _storage_errors(self._path(name)):
            self._path(name).unlink(missing_ok=missing_ok)

    def remove_stale_temporaries(self, *, alone: bool = False) -> list[str]:
        if not self.folder.is_dir():
            return []
        with _storage_errors(self.location):
            stale = sorted(path for path in self.folder.iterdir() if _is_stale(path, alone))
            for path in stale:
                path.unlink(missing_ok=True)
        return [path.name for path in stale]

    @contextmanager
    def _temporary(self, name: str, data: bytes) -> Iterator[Path]:
        """The data in a file beside its final name, gone afterwards; the folder's changes then last."""
        unique = f"{os.getpid()}-{socket.gethostname()}-{secrets.token_hex(4)}"
        temporary = self.folder / f".{name}.tmp-{unique}"
        self.folder.mkdir(parents=True, exist_ok=True)
        _in_hand.add(temporary.name)
        try:
            _write_and_sync(temporary, data)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
            _in_hand.discard(temporary.name)
        _sync_folder(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / plain_name(name)


def plain_name(name: str, place: str = "") -> str:
    """The name. Raises ShardError, which begins with ``place``, when it could lead out of a folder."""
    if not name or name in {".", ".."} or "/" in name or "\\" in name or "\0" in name:
        raise ShardError(f"{place}{': ' if place else ''}{name!r}: not a plain file name")
    return name


@contextmanager
def _storage_errors(place: str | Path, what: str = "") -> Iterator[None]:
    """Storage errors as ShardErrors of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise ShardError(f"{place}: {what}not found") from error
    except OSError as error:
        raise ShardError(f"{place}: {what}{error.strerror or error}") from error


def _write_and_sync(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself last; systems that cannot open a folder have no way and need none."""
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _link(temporary: Path, path: Path, data: bytes) -> bool:
    """Gives a whole file its name if that is free. Readers may see it half where there are no hard links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return temporary.stat().st_nlink == 2  # NFS may have done it and lost the answer
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            _write_and_sync(path, data)
        except FileExistsError:
            return False
    return True


def _size_of(entry: os.DirEntry[str]) -> int | None:
    """Bytes of a file; None for what is no file, or was removed since it was listed."""
    with suppress(FileNotFoundError):
        if entry.is_file():
            return entry.stat().st_size
    return None


def _is_stale(path: Path, alone: bool) -> bool:
    found = _TEMPORARY.fullmatch(path.name)
    if found is None or path.name in _in_hand:
        return False
    if alone:
        return True
    if found["host"] == socket.gethostname():
        pid = int(found["pid"])
        return pid == os.getpid() or not _is_running(pid)
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _FOREIGN_STALE_S
    return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
