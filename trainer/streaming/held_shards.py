"""The shards of one set that are in use: opened once each, the next ones ahead of time, the others let go."""

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from shards.reader import ShardSet
from shards.records import CropRecord, Record
from trainer.streaming.window import IntArray

_MAX_OPEN = 256  # a mapped file holds a descriptor, and a process may have as few as 1024


class HeldShards:
    """Records of a set by index. What it holds of the set is bounded by what `keep` is told.

    A shard of a local set is mapped, one of a remote set is fetched whole, at its first use or in the
    background. May be pickled and used after a fork: what was opened stays behind.
    """

    _background: ThreadPoolExecutor | None

    def __init__(self, found: ShardSet) -> None:
        self._set = found
        self._ends = list(accumulate(entry.records for entry in found.manifest.shards))
        self._forget()

    def __getitem__(self, index: int) -> Record:
        """Raises ShardError as `ShardSet` does."""
        shard = bisect_right(self._ends, index)
        return self._opened(shard)[index - self._ends[shard]]  # from the end, as the shard is a set

    def labels(self, shard: int) -> IntArray:
        """Label of each row of a crop shard, as places in the set's classes: (records,)."""
        entry, classes = self._set.manifest.shards[shard], self._set.classes
        if len(entry.labels) == 1:
            return np.full(entry.records, classes.index(next(iter(entry.labels))), np.int64)
        if shard not in self._labels:
            rows = self._opened(shard)
            labels = [
                row.label for row in map(rows.__getitem__, range(len(rows))) if isinstance(row, CropRecord)
            ]
            self._labels[shard] = np.array([classes.index(label) for label in labels], np.int64)
        return self._labels[shard]

    def keep(self, shards: Collection[int]) -> None:
        """Let go of all other shards; these are opened when they are first used."""
        self._forget_after_fork()
        for shard in [shard for shard in self._open if shard not in shards]:
            self._open.pop(shard).cancel()
        for shard in [shard for shard in self._labels if shard not in shards]:
            del self._labels[shard]

    def fetch_ahead(self, shards: Collection[int]) -> None:
        """Open them in the background. What goes wrong with one is raised when it is used."""
        self._forget_after_fork()
        for shard in shards:
            if shard not in self._open:
                self._open[shard] = self._in_background().submit(self._read, shard)

    def _in_background(self) -> ThreadPoolExecutor:
        if self._background is None:
            self._background = ThreadPoolExecutor(1, "fetch-ahead")
        return self._background

    def _opened(self, shard: int) -> ShardSet:
        self._forget_after_fork()
        if shard not in self._open:
            future: Future[ShardSet] = Future()
            future.set_result(self._read(shard))
            self._open[shard] = future
        self._open.move_to_end(shard)
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].cancel()
        return self._open[shard].result()

    def _read(self, shard: int) -> ShardSet:
        """The shard as a set of its own, so that letting go of it frees its memory."""
        manifest = replace(self._set.manifest, shards=(self._set.manifest.shards[shard],))
        alone = ShardSet(self._set.store, manifest)
        alone[0]
        return alone

    def _forget_after_fork(self) -> None:
        if self._process != os.getpid():
            self._forget()  # the thread that fetches did not come along

    def _forget(self) -> None:
        self._background = None
        self._open: OrderedDict[int, Future[ShardSet]] = OrderedDict()  # least recently used first
        self._labels: dict[int, IntArray] = {}
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"_set": self._set, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
