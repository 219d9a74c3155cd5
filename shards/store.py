"""Folders of named objects, local or remote: flat, each object written whole or not at all."""

import re
from pathlib import Path
from typing import Protocol

from shards.errors import ShardError
from shards.local import LocalStore
from shards.remote import RemoteStore

_CREDENTIALS = re.compile(r"[a-z][a-z0-9+.-]*://[^/]*@", re.IGNORECASE)  # would stand in logs and messages
_ONE_SLASH = re.compile(r"(s3a?|gs|gcs):/?[^/]")


class Store(Protocol):
    """A folder. Names are plain file names. Errors of the storage are ShardErrors that name the place.

    Any number of threads may use one at once; it may be pickled and used after a fork.
    """

    @property
    def location(self) -> str:
        """The path or URL, as a message shows it."""
        ...

    def names(self) -> list[str]:
        """Names of the objects, sorted; none when the folder is missing. Temporaries are left out."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes of each object, names sorted, from one listing; otherwise as `names`."""
        ...

    def exists(self, name: str) -> bool: ...

    def size(self, name: str) -> int: ...

    def modified(self, name: str) -> float:
        """When it was last written, Unix seconds by the storage's own clock (whole seconds on S3)."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Puts an object there whole, over an older one; after an error the older one, or none, is there.

        (A remote storage that stops answering may still have put the new one, whole.)
        """
        ...

    def create(self, name: str, data: bytes) -> bool:
        """As `write`, but only if there is no such object: False when there is, whoever put it there.

        Of several callers at once, on any machines, one gets True (in memory: of one thread's calls only).
        """
        ...

    def read(self, name: str) -> bytes: ...

    def view(self, name: str) -> memoryview:
        """The bytes without a copy where the storage can (a local file is mapped)."""
        ...

    def remove(self, name: str, *, missing_ok: bool = False) -> None: ...

    def remove_stale_temporaries(self, *, alone: bool = False) -> list[str]:
        """Removes what killed writers left half written and returns the names. Readers never see it anyway.

        Call it before this process writes. Living writers of this machine are spared, those of other
        machines for a day (on S3 all writers for a day). alone: the caller holds the set, so all goes.
        """
        ...


def open_store(location: str | Path) -> Store:
    """The store at a local path or at any fsspec URL (``s3://``, ``gs://``, ``memory://``). Creates nothing.

    Raises ShardError for a URL of an unknown protocol or one whose driver is not installed.
    """
    text = str(location)
    if text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")))
    if _CREDENTIALS.match(text):
        raise ShardError(
            "a URL with a user or password in it: wanted them where the driver looks (docs/remote.md)"
        )
    if _ONE_SLASH.match(text) and not isinstance(location, Path):
        protocol, _, place = text.partition(":")
        raise ShardError(f"{text}: not a URL, wanted {protocol}://{place.lstrip('/')}")
    if isinstance(location, Path) or "://" not in text:
        return LocalStore(Path(text))
    store = RemoteStore(text.rstrip("/"))
    store.check()
    return store
