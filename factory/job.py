"""Hand out shards: to this process, or to a pool of Ray actors. The factory's only Ray import.

The workers write the tars; the caller enters them in the manifest. Workers pull: each has two shards in hand
at most, and gets another for one that is done, so nothing piles up. The shards of one that dies wait again.
"""

import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import configs
import factory
import shards
from configs.errors import InputError
from factory.maker import Job, ShardMaker, ShardResult
from factory.pipeline import ShardTask
from shards.errors import ShardError
from shards.manifest import ShardEntry, shard_name

SHARDS_PER_ACTOR = 2  # one being drawn, one being encoded and written
MAX_LOSSES = 4  # workers that may die over one shard, or on the way up without any success
_CONNECT_S = 10.0
_PATIENCE_S = 15.0  # without a result
_LOG = logging.getLogger("factory")
_LOCAL_OBJECT_STORE_BYTES = 100 * 1024 * 1024  # results are a few hundred bytes


@dataclass(frozen=True, slots=True)
class Fleet:
    """Where shards are made.

    ray: "off" (this process), "local" (a cluster of this machine's cores) or a running cluster's address.
    workers: actors at most; None for one a core, or a GPU's share, of what the cluster has at the start. An
    autoscaling cluster is asked for as many. cpus, gpus: of each; cpus beyond the first encode.
    installed: a running cluster's machines have this program, so no code is sent to them.
    """

    ray: str = "local"
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    installed: bool = False


def run_job(job: Job, tasks: Iterable[ShardTask], fleet: Fleet) -> Iterator[ShardResult]:
    """Results as they get done, in any order. Closing the iterator stops the job.

    Raises InputError, ShardError or OSError as a worker did, once the shards under way are handed in.
    """
    if fleet.ray == "off":
        maker = ShardMaker(job)
        yield from (maker.make(task) for task in tasks)
        return
    import ray

    joined = _connect(fleet)
    pool = _Pool(job, fleet, iter(tasks))
    try:
        yield from pool.results()
    finally:
        pool.close()
        if not joined:
            ray.shutdown()


def _connect(fleet: Fleet) -> bool:
    """Whether this process was in a cluster already."""
    import ray

    if ray.is_initialized():
        return True
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if fleet.ray == "local":
        cores = len(os.sched_getaffinity(0))
        ray.init(
            address="local",
            num_cpus=max(cores, (fleet.workers or 1) * fleet.cpus),
            include_dashboard=False,
            object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
            **quiet,
        )
        _check_gpus(fleet, ray)
        return False
    _check_address(fleet.ray)
    try:
        ray.init(address=fleet.ray, runtime_env=None if fleet.installed else _code(), **quiet)
    except (ConnectionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--ray {fleet.ray}: {reason}: wanted off, local or a running cluster") from error
    return False


def _check_gpus(fleet: Fleet, ray: Any) -> None:
    """On this machine alone no room comes up later, as it may in a cluster."""
    there = ray.cluster_resources().get("GPU", 0.0)
    if fleet.gpus > there:
        ray.shutdown()
        wanted = f"found {fleet.gpus:g}, Ray sees {there:g} GPUs here"
        raise InputError(f"--gpus-per-worker: {wanted}: leave it unset")


def _check_address(address: str) -> None:
    """Ray itself would wait for minutes for a HOST:PORT where nothing listens."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray {address}: {error}: wanted off, local or a running cluster") from error


def _code() -> dict[str, Any] | None:
    """Our packages for the other machines; a submitted job (``ray job submit``) brings its own."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return None
    return {"py_modules": [str(Path(package.__path__[0])) for package in (configs, factory, shards)]}


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor and the shards it has in hand. is_up: its process runs."""

    actor: Any
    tasks: list[ShardTask] = field(default_factory=list)
    is_up: bool = False


class _Pool:
    """The workers, and the shards that wait for one."""

    def __init__(self, job: Job, fleet: Fleet, tasks: Iterator[ShardTask]) -> None:
        import ray

        self._ray: Any = ray  # whose own types are incomplete
        self._tasks = tasks
        self._waiting: deque[ShardTask] = deque()
        self._workers: list[_Worker] = []
        self._calls: dict[Any, tuple[_Worker, ShardTask | None]] = {}  # None: the call that says it is up
        self._losses: Counter[int | None] = (
            Counter()
        )  # index of a shard -> workers lost over it; None: coming up
        self._failure: BaseException | None = None
        self._size = fleet.workers or _room(self._ray.cluster_resources(), fleet)
        options = {"num_cpus": fleet.cpus, "num_gpus": fleet.gpus, "max_concurrency": SHARDS_PER_ACTOR}
        maker: Any = self._ray.remote(ShardMaker)
        self._new_actor: Callable[[], Any] = partial(
            maker.options(**options).remote, job, encoders=fleet.cpus - 1
        )
        self._wanted = f"{fleet.cpus} CPU" + (f" and {fleet.gpus:g} GPU" if fleet.gpus else "")

    def results(self) -> Iterator[ShardResult]:
        """All shards' results. Raises what a worker raised, after the shards under way are handed in."""
        metrics = _Metrics(self._ray)
        while self._deal():
            ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=_PATIENCE_S)
            if not ready:
                self._check_cluster()
            for call in ready:
                result = self._take(call)
                if result is not None:
                    metrics.count(result.entry)
                    yield result
        if self._failure is not None:
            raise self._failure from None

    def _check_cluster(self) -> None:
        """After a while without a result. Ray tells a driver whose own node died nothing at all."""
        here = self._ray.get_runtime_context().get_node_id()
        if not any(node["NodeID"] == here and node["Alive"] for node in self._ray.nodes()):
            raise ShardError(
                "this driver's node has left the Ray cluster: run the same command on a living one"
            )
        if not any(worker.is_up for worker in self._workers):
            _LOG.warning("waiting for room in the cluster: a worker takes %s", self._wanted)

    def close(self) -> None:
        """End the actors."""
        self._release(self._workers)

    def _deal(self) -> bool:
        """Give shards to workers with a hand free, start workers while shards wait.

        False when nothing is under way nor waits.
        """
        up = [worker for worker in self._workers if worker.is_up]
        for hand in range(SHARDS_PER_ACTOR):
            for worker in up:
                if len(worker.tasks) == hand and self._fill(1):
                    self._call(worker, self._waiting.popleft())
        coming = len(self._workers) - len(up)
        while len(self._workers) < self._size and self._fill(coming + 1):
            self._workers.append(worker := _Worker(self._new_actor()))
            self._calls[worker.actor.__ray_ready__.remote()] = worker, None
            coming += 1
        if not self._fill(1):
            self._release([worker for worker in self._workers if not worker.tasks])
        waits = bool(self._waiting) and self._failure is None
        return waits or any(worker.tasks for worker in self._workers)

    def _fill(self, count: int) -> bool:
        """Whether ``count`` shards wait; asks for more where they are fewer. None do after a failure."""
        while self._failure is None and len(self._waiting) < count:
            task = next(self._tasks, None)
            if task is None:
                return False
            self._waiting.append(task)
        return self._failure is None

    def _call(self, worker: _Worker, task: ShardTask) -> None:
        worker.tasks.append(task)
        self._calls[worker.actor.make.remote(task)] = worker, task

    def _take(self, call: Any) -> ShardResult | None:
        """What a finished call brings: a result, a worker that is up, or a loss."""
        from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

        worker, task = self._calls.pop(call)
        try:
            result: ShardResult | None = self._ray.get(call)
        except RayTaskError as error:
            worker.tasks.remove(task)  # type: ignore[arg-type]
            self._fail(error.cause if isinstance(error.cause, InputError | ShardError | OSError) else error)
            return None
        except (RayActorError, ObjectLostError) as error:
            self._lose(worker, task, str(error))
            return None
        if task is None:
            worker.is_up = True
            self._losses[None] = 0
            return None
        worker.tasks.remove(task)
        return result

    def _lose(self, worker: _Worker, task: ShardTask | None, why: str) -> None:
        """A worker is gone: its shards wait again, at the front."""
        lost = worker.tasks if task is None or task in worker.tasks else [*worker.tasks, task]
        self._waiting.extendleft(reversed(lost))
        self._release([worker])  # it may only be out of reach
        indexes: list[int | None] = [task.index for task in lost]
        for index in indexes or [None]:
            self._losses[index] += 1
            if self._losses[index] >= MAX_LOSSES:
                what = "coming up" if index is None else f"over {shard_name('crops', index)}"
                self._fail(InputError(f"{MAX_LOSSES} workers died {what}: {_reason(why)}"))

    def _release(self, workers: Iterable[_Worker]) -> None:
        """End workers, so that an autoscaling cluster can shrink."""
        gone = set(workers)
        self._workers = [worker for worker in self._workers if worker not in gone]
        self._calls = {call: held for call, held in self._calls.items() if held[0] not in gone}
        for worker in gone:
            self._ray.kill(worker.actor)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._waiting.clear()


class _Metrics:
    """What Ray's dashboard and Prometheus show of a build, counted by the driver."""

    def __init__(self, ray: Any) -> None:
        from ray.util.metrics import Counter as RayCounter

        self._crops = RayCounter("crop_foundry_crops", "Crops kept")
        self._dropped = RayCounter("crop_foundry_dropped", "Images dropped", tag_keys=("reason",))
        self._shards = RayCounter("crop_foundry_shards", "Shards committed")
        self._bytes = RayCounter("crop_foundry_bytes", "Bytes of committed shards")

    def count(self, entry: ShardEntry) -> None:
        """Add a committed shard."""
        self._shards.inc()
        self._bytes.inc(entry.bytes)
        if entry.records:
            self._crops.inc(entry.records)
        for reason, count in entry.dropped.items():
            self._dropped.inc(count, tags={"reason": reason})


def _room(resources: dict[str, float], fleet: Fleet) -> int:
    """Workers that a cluster has room for, at least one."""
    counts = [resources.get("CPU", 0) / fleet.cpus]
    if fleet.gpus:
        counts.append(resources.get("GPU", 0) / fleet.gpus)
    return max(1, int(min(counts)))


def _reason(text: str) -> str:
    """The line of Ray's many that says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [
        line for line in lines if "cause" in line.lower() or "error" in line.lower() or "memory" in line
    ]
    return (telling or lines or ["no reason given"])[-1]
