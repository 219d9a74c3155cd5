"""Make shards here or with a pool of Ray actors, one task a shard. The factory's only Ray import.

Either way a shard is the same bytes, since every process computes with one thread and a shard depends on its
index alone. The workers write the tars; the caller enters them in the manifest.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch

from configs.errors import InputError
from factory.pipeline import CropLine, ShardTask
from factory.recipe import Recipe
from factory.stages import Unreadable
from shards.errors import ShardError
from shards.manifest import ShardEntry, shard_name
from shards.store import open_store
from shards.writer import write_shard

_QUEUED_PER_ACTOR = 2  # tasks sent ahead, so that an actor never waits for the driver


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A committed shard, not yet in the manifest."""

    task: ShardTask
    entry: ShardEntry
    unreadable: tuple[Unreadable, ...]


class ShardMaker:
    """Holds an opened recipe and writes any of its shards to a store."""

    def __init__(self, recipe: Recipe, home: Path, location: str) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self._line = CropLine(recipe, home)
        self._store = open_store(location)

    def make(self, task: ShardTask) -> ShardResult:
        """Make one shard and commit its tar."""
        made = self._line.make_crops(task)
        name = shard_name("crops", task.index)
        dropped = dict(sorted(made.dropped.items()))
        entry = write_shard(self._store, name, made.records, dropped=dropped, seen=made.seen)
        return ShardResult(task, entry, tuple(made.unreadable))


def run_job(
    recipe: Recipe, home: Path, location: str, tasks: Iterable[ShardTask], ray_mode: str, workers: int | None
) -> Iterator[ShardResult]:
    """Results as they get done, in any order. Closing the iterator stops the job.

    ray_mode: "off", "local" (a cluster of this machine's cores, or ``workers`` of them) or the address of a
    running cluster. Raises InputError or OSError as the worker did.
    """
    if ray_mode == "off":
        maker = ShardMaker(recipe, home, location)
        yield from (maker.make(task) for task in tasks)
    else:
        yield from _run_on_ray(recipe, home, location, tasks, ray_mode, workers)


def _run_on_ray(
    recipe: Recipe, home: Path, location: str, tasks: Iterable[ShardTask], address: str, workers: int | None
) -> Iterator[ShardResult]:
    import ray
    from ray.exceptions import RayTaskError

    _connect(address, workers)
    running: dict[Any, Any] = {}
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        count = workers or max(1, int(resources.get("CPU", 1)))
        maker: Any = ray.remote(ShardMaker).options(num_cpus=1, max_restarts=3, max_task_retries=3)
        queue = iter(tasks)
        first = list(islice(queue, count * _QUEUED_PER_ACTOR))
        actors = [maker.remote(recipe, home, location) for _ in range(min(count, len(first)))]
        for place, task in enumerate(first):
            actor = actors[place % len(actors)]
            running[actor.make.remote(task)] = actor
        while running:
            ready, _ = ray.wait(list(running), num_returns=1)
            actor = running.pop(ready[0])
            result: ShardResult = ray.get(ready[0])
            for task in islice(queue, 1):
                running[actor.make.remote(task)] = actor
            yield result
    except RayTaskError as error:
        if running:  # let the others end what they write
            ray.wait(list(running), num_returns=len(running), timeout=60)
        if isinstance(error.cause, (InputError, ShardError, OSError)):
            raise error.cause from None
        raise
    finally:
        ray.shutdown()


def _connect(address: str, workers: int | None) -> None:
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == "local":
        cores = workers or len(os.sched_getaffinity(0))
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        return
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--ray {address}: {reason}: wanted off, local or a running cluster") from error
