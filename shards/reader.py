"""Reads a set: opens its manifest, checks each shard against it, gives records by index or in a stream."""

import hashlib
import struct
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shards.codec import decode
from shards.errors import ShardError
from shards.manifest import Manifest, ShardEntry, read_manifest
from shards.records import CropRecord, Record
from shards.store import Store, open_store
from shards.writer import BLOCK

_MAX_OPEN_SHARDS = 32

Offsets = npt.NDArray[np.int64]


class ShardSet:
    """A set of crops or backgrounds: ``len(s)``, ``s[i]``, ``s.stream()``, ``s.verify()``.

    Opening reads the manifest alone. A shard is opened at its first use; its size and number of records are
    then checked against the manifest, for a tar cut at a member boundary reads as valid. Safe to share among
    threads, and to pickle to worker processes (what was opened stays behind).
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest
        self._ends = list(accumulate(entry.records for entry in manifest.shards))
        self._forget()

    @classmethod
    def open(cls, location: str | Path, *, allow_incomplete: bool = False) -> Self:
        """The set in a local folder or at an fsspec URL.

        Raises ShardError when there is no good manifest, or the set is unfinished and that is not allowed.
        """
        store = open_store(location)
        manifest = read_manifest(store)
        if not manifest.complete and not allow_incomplete:
            raise ShardError(
                f"{store.location}: the set is incomplete ({len(manifest.shards)} shards so far): "
                "run the command that made it again to finish it"
            )
        return cls(store, manifest)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Record:
        """The record at a place, negative from the end. Raises IndexError outside, ShardError as `stream`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.store.location}: record {index}, the set has {len(self)}")
        index %= len(self)
        shard = bisect_right(self._ends, index)
        entry, view, starts = self._opened(shard)
        row = index - (self._ends[shard] - entry.records)
        return self._record(entry, view, int(starts[row]), int(starts[row + 1]))

    def stream(self, shards: Sequence[int] | None = None) -> Iterator[Record]:
        """All records, or those of the shards at these places in the manifest, in order.

        Raises ShardError that names shard and key when a shard is missing, has another size or number of
        records than the manifest says, or a record cannot be decoded or is not of the set's kind and classes.
        """
        for shard in range(len(self.manifest.shards)) if shards is None else shards:
            entry = self.manifest.shards[shard]
            view = self._view(entry)
            starts = self._starts(entry, view)
            for start, end in pairwise(starts.tolist()):
                yield self._record(entry, view, start, end)

    def verify(self) -> Iterator[tuple[ShardEntry, list[str]]]:
        """Each shard with its problems: lines that start with the shard's place; none when it is sound.

        Hashes and decodes everything.
        """
        for entry in self.manifest.shards:
            yield entry, self._problems(entry)

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "manifest": self.manifest, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._views: OrderedDict[int, tuple[ShardEntry, memoryview]] = OrderedDict()  # oldest use first
        self._indexes: dict[int, Offsets] = {}  # eight bytes a record, so kept for good
        self._lock = threading.Lock()

    def _opened(self, shard: int) -> tuple[ShardEntry, memoryview, Offsets]:
        with self._lock:
            if shard not in self._views:
                entry = self.manifest.shards[shard]
                self._views[shard] = entry, self._view(entry)
                if len(self._views) > _MAX_OPEN_SHARDS:
                    self._views.popitem(last=False)
            self._views.move_to_end(shard)
            entry, view = self._views[shard]
            if shard not in self._indexes:
                self._indexes[shard] = self._starts(entry, view)
            return entry, view, self._indexes[shard]

    def _view(self, entry: ShardEntry) -> memoryview:
        view = self.store.view(entry.name)
        if len(view) != entry.bytes:
            raise ShardError(
                f"{self._place(entry)}: {len(view)} bytes, the manifest says {entry.bytes}: "
                "the shard is truncated or foreign"
            )
        return view

    def _starts(self, entry: ShardEntry, view: memoryview) -> Offsets:
        """Where each record's first header lies, and where the last record ends: (records + 1,)."""
        starts: list[int] = []
        last_key, end = "", 0
        for name, header, after in walk(view, self._place(entry)):
            key = name.partition(".")[0]
            if key != last_key:
                if key < last_key:
                    raise ShardError(
                        f"{self._place(entry)}: {key}: comes after {last_key}, wanted rising keys"
                    )
                starts.append(header)
            last_key, end = key, after
        if len(starts) != entry.records:
            raise ShardError(
                f"{self._place(entry)}: {len(starts)} records, the manifest says {entry.records}"
            )
        return np.array([*starts, end], np.int64)

    def _record(self, entry: ShardEntry, view: memoryview, start: int, end: int) -> Record:
        place = self._place(entry)
        members: dict[str, memoryview] = {}
        key = ""
        try:
            for name, data in members_in(view, start, end):
                key, _, extension = name.partition(".")
                members[extension] = data
            record = decode(key, members)
        except ShardError as error:
            raise ShardError(f"{place}: {error}") from error
        if isinstance(record, CropRecord) != (self.manifest.kind == "crops"):
            raise ShardError(
                f"{place}: {key}: is a {type(record).__name__}, the manifest says {self.manifest.kind}"
            )
        if isinstance(record, CropRecord) and record.label not in self.classes:
            raise ShardError(f"{place}: {key}: label {record.label!r}, the set has {', '.join(self.classes)}")
        return record

    def _problems(self, entry: ShardEntry) -> list[str]:
        problems: list[str] = []
        try:
            view = self._view(entry)
            found = hashlib.sha256(view).hexdigest()
            if found != entry.sha256:
                problems.append(f"{self._place(entry)}: sha256 is {found}, the manifest says {entry.sha256}")
            starts = self._starts(entry, view).tolist()
        except ShardError as error:
            return [*problems, str(error)]
        labels: Counter[str] = Counter()
        for start, end in pairwise(starts):
            try:
                record = self._record(entry, view, start, end)
            except ShardError as error:
                problems.append(str(error))
                continue
            if isinstance(record, CropRecord):
                labels[record.label] += 1
        if not problems and labels != Counter(entry.labels):
            wanted = dict(entry.labels)
            problems.append(f"{self._place(entry)}: labels are {dict(labels)}, the manifest says {wanted}")
        return problems

    def _place(self, entry: ShardEntry) -> str:
        return f"{self.store.location}/{entry.name}"


def walk(view: memoryview, place: str) -> Iterator[tuple[str, int, int]]:
    """(name, header offset, offset after the padding) of each tar member.

    Raises ShardError at anything that is not a plain ustar member.
    """
    offset = 0
    while offset + BLOCK <= len(view) and (head := bytes(view[offset : offset + BLOCK])) != _ZERO_BLOCK:
        name, digits, checksum_digits, magic = _HEADER.unpack_from(head)
        try:
            size = int(digits, 8)
            checksum = int(checksum_digits, 8)
        except ValueError:
            raise ShardError(f"{place}: no tar header at byte {offset}") from None
        found = _sum(head) - _sum(head[_CHECKSUM]) + 8 * ord(" ")
        if magic != b"ustar" or checksum != found or size < 0:
            raise ShardError(f"{place}: damaged tar header at byte {offset}")
        after = offset + BLOCK + size + -size % BLOCK
        if after > len(view):
            raise ShardError(f"{place}: the member at byte {offset} is cut off")
        text = _text(name)
        if not text.isprintable():
            raise ShardError(
                f"{place}: {text!r} at byte {offset}, wanted a member's name that can be printed"
            )
        yield text, offset, after
        offset = after


def members_in(view: memoryview, start: int, end: int) -> Iterator[tuple[str, memoryview]]:
    """(name, content) of each tar member in a stretch that `walk` has found sound.

    Raises ShardError when the file was changed since.
    """
    while start < end:
        name, digits, _, magic = _HEADER.unpack_from(view, start)
        try:
            size = int(digits, 8)
        except ValueError:
            size = -1
        if magic != b"ustar" or size < 0:
            raise ShardError(f"no tar header at byte {start}: the shard was changed while it was read")
        data = start + BLOCK
        yield _text(name), view[data : data + size]
        start = data + size + -size % BLOCK


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode("ascii", "replace")


def _sum(head: bytes) -> int:
    """Sum of the bytes; zeros, most of a header, are first taken out, for that is quicker."""
    return sum(head.translate(None, b"\0"))


_HEADER = struct.Struct("100s 24x 11s 13x 6s 103x 5s")  # name, size, checksum, magic
_CHECKSUM = slice(148, 156)
_ZERO_BLOCK = bytes(BLOCK)
