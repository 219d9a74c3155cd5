"""The driver's book of a set: which shards are done, entered in the manifest every now and then."""

import time
from collections.abc import Iterable
from dataclasses import replace

from factory.stages import Unreadable
from shards.entries import ShardTable, entry_of, line_of
from shards.lease import Lease
from shards.manifest import Manifest, ShardEntry, shard_name, write_manifest
from shards.store import Store

UNREADABLE_NAME = "unreadable.txt"
_COMMIT_EVERY_S = (
    2.0  # a driver that dies loses at most the entries of this time; their shards are made again
)
_COMMIT_SHARE = 0.01  # of the driver's time at most: the manifest of a large set is written less often


class Ledger:
    """Entries by shard index. One writer: every commit checks that the lease is still held."""

    def __init__(self, store: Store, manifest: Manifest, lease: Lease) -> None:
        self.manifest = manifest
        self._store, self._lease = store, lease
        self._lines = {index_of(entry): line_of(entry) for entry in manifest.shards}
        self._unreadable: list[str] = []
        self._next_commit = 0.0
        self._front = self._kept_before_front = 0  # every shard before the front is entered

    def __contains__(self, index: int) -> bool:
        return index in self._lines

    @property
    def entries(self) -> ShardTable:
        """In the order of their indexes."""
        return ShardTable.of_lines(self._lines[index] for index in sorted(self._lines))

    def enter(self, index: int, entry: ShardEntry, unreadable: Iterable[Unreadable] = ()) -> None:
        """Note a committed shard; writes the manifest when it is time."""
        self._lines[index] = line_of(entry)
        self._unreadable += [f"{item.name}: {item.why}" for item in unreadable]
        if time.monotonic() >= self._next_commit:
            self.commit(complete=False)

    def forget(self, index: int) -> None:
        """Take an entry back."""
        del self._lines[index]
        self._front = self._kept_before_front = 0

    def kept_before(self, index: int) -> int:
        """Crops of the shards before ``index`` up to the first of them that is not entered; ask in order."""
        while self._front < index and self._front in self._lines:
            self._kept_before_front += entry_of(self._lines[self._front]).records
            self._front += 1
        return self._kept_before_front

    def commit(self, complete: bool) -> None:
        """Write the manifest. Raises ShardError when another writer took the set over."""
        start = time.monotonic()
        self._lease.check()
        self._note_unreadable()  # before the manifest: a shard that is entered is not looked at again
        self.manifest = replace(self.manifest, shards=self.entries, complete=complete)
        write_manifest(self._store, self.manifest)
        end = time.monotonic()
        self._next_commit = end + max(_COMMIT_EVERY_S, (end - start) / _COMMIT_SHARE)

    def finished(self) -> Manifest:
        """The manifest of the set as `commit` would finish it."""
        return replace(self.manifest, shards=self.entries, complete=True)

    def remove_strays(self) -> None:
        """Remove shards that no entry names: left by a larger build, or entered by nobody."""
        kind = self.manifest.kind
        named = {shard_name(kind, index) for index in self._lines}
        strays = [
            name for name in self._store.names() if name.startswith(f"{kind}-") and name.endswith(".tar")
        ]
        for name in strays:
            if name not in named:
                self._store.remove(name)

    def _note_unreadable(self) -> None:
        if not self._unreadable:
            return
        known = self._store.read(UNREADABLE_NAME).decode() if self._store.exists(UNREADABLE_NAME) else ""
        lines = sorted({*known.splitlines(), *self._unreadable})
        self._store.write(UNREADABLE_NAME, "".join(f"{line}\n" for line in lines).encode())
        self._unreadable.clear()


def index_of(entry: ShardEntry) -> int:
    """17 of ``crops-000017.tar``."""
    return int(entry.name.removesuffix(".tar").rsplit("-", 1)[1])
