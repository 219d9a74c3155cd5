"""Folders of named objects, local or remote: flat, each object written whole or not at all."""

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
from typing import Any, Protocol

import fsspec

from shards.errors import ShardError

_TEMPORARY = re.compile(r"\..+\.tmp-(?P<pid>\d+)-(?P<host>.+)-[0-9a-f]{8}")
_FOREIGN_STALE_S = 24 * 3600.0


class Store(Protocol):
    """A folder. Names are plain file names. Errors of the storage are ShardErrors that name the place."""

    @property
    def location(self) -> str:
        """The path or URL, as a message shows it."""
        ...

    def names(self) -> list[str]:
        """Names of the objects, sorted; none when the folder is missing. Temporaries are left out."""
        ...

    def exists(self, name: str) -> bool: ...

    def size(self, name: str) -> int: ...

    def write(self, name: str, data: bytes) -> None:
        """Puts an object there whole, over an older one; after an error the older one, or none, is there."""
        ...

    def read(self, name: str) -> bytes: ...

    def view(self, name: str) -> memoryview:
        """The bytes without a copy where the storage can (a local file is mapped)."""
        ...

    def remove(self, name: str) -> None: ...

    def remove_stale_temporaries(self) -> list[str]:
        """Removes what killed writers left half written and returns the names.

        Call it before this process writes. Living writers of this machine are spared, those of other
        machines for a day.
        """
        ...


def open_store(location: str | Path) -> Store:
    """The store at a local path or at any fsspec URL (``s3://``, ``gs://``, ``memory://``). Creates nothing.

    Raises ShardError for a URL of an unknown protocol or one whose driver is not installed.
    """
    text = str(location)
    if text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")))
    if isinstance(location, Path) or "://" not in text:
        return LocalStore(Path(text))
    store = RemoteStore(text.rstrip("/"))
    store.check()
    return store


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder on this machine, created by the first write."""

    folder: Path

    @property
    def location(self) -> str:
        return str(self.folder)

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        with _storage_errors(self.location):
            files = sorted(path.name for path in self.folder.iterdir() if path.is_file())
        return [name for name in files if not _TEMPORARY.fullmatch(name)]

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def size(self, name: str) -> int:
        with _storage_errors(self._path(name)):
            return self._path(name).stat().st_size

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        unique = f"{os.getpid()}-{socket.gethostname()}-{secrets.token_hex(4)}"
        temporary = self.folder / f".{name}.tmp-{unique}"
        with _storage_errors(path, "not written: "):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                _write_and_sync(temporary, data)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(self.folder)

    def read(self, name: str) -> bytes:
        with _storage_errors(self._path(name)):
            return self._path(name).read_bytes()

    def view(self, name: str) -> memoryview:
        with _storage_errors(self._path(name)), self._path(name).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def remove(self, name: str) -> None:
        with _storage_errors(self._path(name)):
            self._path(name).unlink()

    def remove_stale_temporaries(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        with _storage_errors(self.location):
            stale = sorted(path for path in self.folder.iterdir() if _is_stale(path))
            for path in stale:
                path.unlink(missing_ok=True)
        return [path.name for path in stale]

    def _path(self, name: str) -> Path:
        return self.folder / _plain(name)


@dataclass(frozen=True, slots=True)
class RemoteStore:
    """A prefix in an object store; one put is one whole object. fsspec connects anew in each process."""

    location: str

    def check(self) -> None:
        """Raises ShardError when fsspec cannot drive this URL."""
        try:
            self._file_system()
        except (ImportError, ValueError) as error:
            raise ShardError(f"{self.location}: cannot be opened: {error}") from error

    def names(self) -> list[str]:
        file_system, prefix = self._file_system()
        with _storage_errors(self.location):
            try:
                rows = file_system.ls(prefix, detail=True)
            except FileNotFoundError:
                return []
        return sorted(row["name"].rstrip("/").rsplit("/", 1)[-1] for row in rows if row["type"] == "file")

    def exists(self, name: str) -> bool:
        file_system, path = self._at(name)
        with _storage_errors(self._place(name)):
            return bool(file_system.isfile(path))

    def size(self, name: str) -> int:
        file_system, path = self._at(name)
        with _storage_errors(self._place(name)):
            return int(file_system.size(path))

    def write(self, name: str, data: bytes) -> None:
        file_system, path = self._at(name)
        with _storage_errors(self._place(name), "not written: "):
            file_system.pipe_file(path, data)

    def read(self, name: str) -> bytes:
        file_system, path = self._at(name)
        with _storage_errors(self._place(name)):
            return bytes(file_system.cat_file(path))

    def view(self, name: str) -> memoryview:
        return memoryview(self.read(name))

    def remove(self, name: str) -> None:
        file_system, path = self._at(name)
        with _storage_errors(self._place(name)):
            file_system.rm_file(path)

    def remove_stale_temporaries(self) -> list[str]:
        return []  # a put leaves none

    def _file_system(self) -> tuple[Any, str]:
        """fsspec keeps one connection in each process, so asking each time is cheap and survives a fork."""
        file_system, path = fsspec.url_to_fs(self.location, use_listings_cache=False)
        return file_system, str(path)

    def _at(self, name: str) -> tuple[Any, str]:
        file_system, prefix = self._file_system()
        return file_system, f"{prefix.rstrip('/')}/{_plain(name)}"

    def _place(self, name: str) -> str:
        return f"{self.location}/{name}"


def _plain(name: str) -> str:
    if not name or name in {".", ".."} or "/" in name or "\\" in name or "\0" in name:
        raise ShardError(f"{name!r}: not a plain file name")
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


def _is_stale(path: Path) -> bool:
    found = _TEMPORARY.fullmatch(path.name)
    if found is None:
        return False
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
