"""One worker of a build: an opened recipe that makes any shard and commits its tar. Knows nothing of Ray.

A shard is the same bytes wherever it is made: it depends on its index alone, and every process computes with
one thread (the others only encode).
"""

import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import cv2

from configs.errors import InputError
from factory.pipeline import CropLine, ShardTally, ShardTask
from factory.recipe import Recipe
from factory.stages import Unreadable
from shards.lease import check_token
from shards.manifest import ShardEntry, fingerprint_of, shard_name
from shards.store import open_store
from shards.writer import pack_shard


@dataclass(frozen=True, slots=True)
class Job:
    """What all workers of one build share. fingerprint: of the recipe as its driver opened it.

    lease: token of the driver's lease on the set at ``location``.
    """

    recipe: Recipe
    home: Path
    location: str
    fingerprint: str
    lease: str


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A committed shard, not yet in the manifest."""

    task: ShardTask
    entry: ShardEntry
    unreadable: tuple[Unreadable, ...]


class ShardMaker:
    """Makes shards. Two threads may call `make`: while one writes its shard, the other draws and segments."""

    def __init__(self, job: Job, encoders: int = 0) -> None:
        """encoders: threads that compress crops; 0 does it in the caller's. Opens nothing yet."""
        cv2.setNumThreads(1)
        self._job = job
        self._drawing = Lock()
        self._encoders: Executor | None = ThreadPoolExecutor(encoders) if encoders else None

    def make(self, task: ShardTask) -> ShardResult:
        """Make one shard and commit its tar.

        Raises InputError when this machine sees other photos or weights than the driver, ShardError when the
        driver no longer holds the set.
        """
        tally = ShardTally()
        name = shard_name("crops", task.index)
        with self._drawing:
            crops = self._line.crops(task, tally)
            entry, packed = pack_shard(
                name, crops, dropped=tally.dropped, seen=lambda: tally.seen, encoders=self._encoders
            )
        store = open_store(self._job.location)
        check_token(store, self._job.lease)
        store.write(name, packed)
        return ShardResult(task, entry, tuple(tally.unreadable))

    @cached_property
    def _line(self) -> CropLine:
        line = CropLine(self._job.recipe, self._job.home)
        if torch := sys.modules.get(
            "torch"
        ):  # only where a source or segmenter needs it: it is slow to import
            torch.set_num_threads(1)
        if fingerprint_of(line.identity()) != self._job.fingerprint:
            raise InputError(
                f"{self._job.location}: this worker's photos or weights differ from the driver's: "
                "wanted the same files at the same places on every machine"
            )
        return line
