"""Build a set onto S3 over a line that fails at random, kill the builder now and then, go on, compare.

``python tests/faults/s3_faults.py --runs 100``: each run draws its own schedule of faults (see s3_proxy.py)
and, in half of the runs, a request at which the builder gets SIGKILL; shards go up in parts. The same command
is then run until it ends well. Every set must hold the undisturbed local one's files, byte for byte. Same
seed, same schedules.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from s3_proxy import BUCKET, FAULTS, FaultyProxy, faulty_proxy, s3_server, s3_settings

_RECIPE = """
label: noise
source: {kind: images}
segmenter: {kind: whole}
quality: {duplicate_bits: null}
shard_size: 4
"""
_PHOTOS = 16
_PART_BYTES = 6 << 10
_REQUESTS = 400  # of a run, beyond which the line is sound
_KILL_BEFORE = 60  # requests of an undisturbed build, about
_MOST_STARTS = 12
_START_LIMIT_S = 120.0
_PATIENCE = {"TRIES": "4", "WAIT_S": "0.01", "SILENCE_S": "0.25"}


@dataclass(slots=True)
class Schedule:
    """What happens to a run: a fault or none for each request, and the request that kills the builder."""

    faults: list[str | None]
    kill_at: int | None
    builder: int | None = None
    happened: Counter[str] = field(default_factory=Counter)

    def plan(self, number: int, method: str, path: str) -> str | None:
        if number == self.kill_at and self.builder is not None:
            os.kill(self.builder, signal.SIGKILL)
            self.happened["killed"] += 1
            return "drop request"
        fault = self.faults[number] if number < len(self.faults) else None
        if fault:
            self.happened[fault] += 1
        return fault


def draw_schedule(seed: int, run: int) -> Schedule:
    rng = np.random.default_rng([seed, run])
    share = rng.choice([0.05, 0.15, 0.3])
    drawn = [str(rng.choice(FAULTS)) if rng.random() < share else None for _ in range(_REQUESTS)]
    return Schedule(drawn, int(rng.integers(_KILL_BEFORE)) if rng.random() < 0.5 else None)


def build(arguments: list[str], settings: dict[str, object], log: str) -> None:
    """In a process of its own: the command, its words in the log, its exit status."""
    import fsspec

    import shards.remote
    from configs.errors import InputError
    from factory.build import main
    from shards.errors import ShardError

    fsspec.config.conf["s3"] = settings
    shards.remote._PART_BYTES = shards.remote._PART_STEP = _PART_BYTES
    os.environ.update({f"CROP_FOUNDRY_REMOTE_{name}": value for name, value in _PATIENCE.items()})
    with Path(log).open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            main(arguments)
        except (InputError, ShardError) as error:
            file.write(f"error: {error}\n")
            sys.exit(2)


def run_once(
    number: int, seed: int, recipe: list[str], folder: Path, proxy: FaultyProxy
) -> tuple[Schedule, int]:
    """Starts the builder until it ends well; how often that took."""
    schedule = draw_schedule(seed, number)
    proxy.mend()
    proxy.plan = schedule.plan
    context = multiprocessing.get_context("forkserver")
    for start in range(1, _MOST_STARTS + 1):
        arguments = [*recipe, "--out", f"s3://{BUCKET}/{seed}-{number}"]
        process = context.Process(target=build, args=(arguments, s3_settings(proxy), str(folder / "log.txt")))
        process.start()
        schedule.builder = process.pid
        process.join(_START_LIMIT_S)
        schedule.builder = None
        if process.exitcode is None:
            process.kill()
            raise RuntimeError(f"run {number}: start {start} did not end in {_START_LIMIT_S:.0f} s")
        if process.exitcode == 0:
            return schedule, start
        schedule.happened[f"ended by {-process.exitcode}" if process.exitcode < 0 else "gave up"] += 1
    raise RuntimeError(f"run {number}: not done after {_MOST_STARTS} starts, see {folder / 'log.txt'}")


def files_at(place: str | Path) -> Mapping[str, bytes]:
    from shards.store import open_store

    store = open_store(place)
    return {name: store.read(name) for name in store.names() if name != "lease.json"}


def unfinished_uploads(place: str) -> list[str]:
    from shards.store import open_store

    return open_store(place).remove_stale_temporaries(alone=True)


def write_photos(folder: Path) -> None:
    folder.mkdir()
    for number in range(_PHOTOS):
        noise = np.random.default_rng([7, number]).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.png"), noise)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    multiprocessing.set_forkserver_preload(["factory.build", "shards.remote"])
    with tempfile.TemporaryDirectory() as made, s3_server() as port, faulty_proxy(port) as proxy:
        folder = Path(made)
        write_photos(folder / "photos")
        (folder / "noise.yaml").write_text(_RECIPE)
        recipe = ["--class", str(folder / "noise.yaml"), f"source.root={folder / 'photos'}", "--ray", "off"]
        return stress(args.runs, args.seed, recipe, folder, proxy)


def stress(runs: int, seed: int, recipe: list[str], folder: Path, proxy: FaultyProxy) -> int:
    import fsspec

    from factory.build import main as build_here

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        build_here([*recipe, "--out", str(folder / "set")])
    wanted = files_at(folder / "set")
    fsspec.config.conf["s3"] = s3_settings(proxy)
    happened: Counter[str] = Counter()
    requests, equal, began = 0, 0, time.monotonic()
    for number in range(runs):
        schedule, starts = run_once(number, seed, recipe, folder, proxy)
        requests += len(proxy.seen)
        proxy.mend()
        place = f"s3://{BUCKET}/{seed}-{number}"
        found = files_at(place)
        left = unfinished_uploads(place)
        same = found == wanted
        equal += same
        happened += schedule.happened + Counter({"unfinished uploads, removed": len(left)})
        row = {"run": number, "starts": starts, "equal": same, **schedule.happened}
        print(json.dumps(row), flush=True)
        if not same:
            names = sorted({*found, *wanted})
            print("  differs:", [name for name in names if found.get(name) != wanted.get(name)])
    took = time.monotonic() - began
    print(f"{equal} of {runs} runs byte-identical; {requests} requests in {took:.0f} s; {dict(happened)}")
    return 0 if equal == runs else 1


if __name__ == "__main__":
    sys.exit(main())
