"""What the job costs beside the work: ``python tests/benchmarks/bench_job.py``.

1. Scaling: shards/s of a CPU-bound recipe (GrabCut) with 2 workers over 1, on two cores.
2. The driver: its processor time and memory for 10,000 shards of workers that do nothing, Ray, ledger,
   progress and manifest included, as a share of what the embedded bird recipe costs its workers for as many.
"""

import argparse
import math
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from factory import build as build_module
from factory import job as job_module
from factory.build import build
from factory.job import Fleet
from factory.maker import Job, ShardMaker, ShardResult
from factory.pipeline import ShardTask
from factory.recipe import Recipe, load_recipe
from shards.manifest import ShardEntry, shard_name

_SHARD_SIZE = 256


class IdleMaker:
    """Hands every shard in at once, unmade."""

    def __init__(self, job: Job, encoders: int = 0) -> None:
        pass

    def make(self, task: ShardTask) -> ShardResult:
        """A result as a worker would send it, of random content."""
        name = shard_name("crops", task.index)
        limit = task.limit or 0
        drops = {"touches_border": 20, "too_small": 3, "unsure": 31}
        entry = ShardEntry(name, limit, 1_234_567, f"{task.index:064x}", {"bird": limit}, drops, limit + 54)
        return ShardResult(task, entry, ())


def main(argv: Sequence[str]) -> int:
    """Both parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3, help="of the scaling, 0 leaves it out")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        print_driver(scratch, args.shards)
        if args.repeats:
            print_scaling(scratch, args.repeats)
    return 0


def print_scaling(scratch: Path, repeats: int) -> None:
    """Shards a second in the steady state: from the first result to the last."""
    photos = scratch / "photos"
    photos.mkdir()
    for index in range(96):
        pixels = cv2.resize(np.random.default_rng(index).integers(0, 120, (24, 24, 3), np.uint8), (240, 240))
        cv2.circle(pixels, (120, 120), 40 + index % 40, (90, 160, 250), -1)
        cv2.imwrite(str(photos / f"{index:03d}.jpg"), pixels)
    (scratch / "blob.yaml").write_text(
        "label: blob\nsource: {kind: images}\nsegmenter: {kind: grabcut}\nshard_size: 4\n"
        "quality: {min_area_frac: 0, max_area_frac: 1, max_border_frac: 1, min_confidence: 0}\n"
    )
    recipe = load_recipe(str(scratch / "blob.yaml"), [f"source.root={photos}"])
    rates: dict[int, float] = {1: 0.0, 2: 0.0}
    for repeat in range(repeats):
        for workers in rates:
            out = scratch / f"scaling-{workers}-{repeat}"
            rates[workers] = max(rates[workers], shards_per_s(recipe, out, workers, scratch))
    print(f"scaling: 1 worker {rates[1]:.2f} shards/s, 2 workers {rates[2]:.2f}: {rates[2] / rates[1]:.2f}x")


def shards_per_s(recipe: Recipe, out: Path, workers: int, home: Path) -> float:
    """Of a build with warm workers: the first results of each are left out."""
    times: list[float] = []
    make = job_module._Pool._take

    def timed(self, call):  # type: ignore[no-untyped-def]
        result = make(self, call)
        if result is not None:
            times.append(time.perf_counter())
        return result

    job_module._Pool._take = timed  # type: ignore[method-assign]
    try:
        build(recipe, str(out), None, Fleet("local", workers), home)
    finally:
        job_module._Pool._take = make  # type: ignore[method-assign]
    warm = 2 * workers
    return (len(times) - 1 - warm) / (times[-1] - times[warm])


def print_driver(scratch: Path, shards: int) -> None:
    """Processor time and memory of the driver, beside the workers' for the same shards."""
    recipe = load_recipe("birds", [f"shard_size={_SHARD_SIZE}"])
    per_shard = worker_seconds(recipe, scratch)
    job_module.ShardMaker = IdleMaker  # type: ignore[misc,assignment]
    build_module.stats_of = build_module.write_page = lambda *_: None  # there are no shards to look at
    try:
        build(recipe, str(scratch / "few"), 10 * _SHARD_SIZE, Fleet("local", 2), scratch)
        before, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        build(recipe, str(scratch / "many"), shards * _SHARD_SIZE, Fleet("local", 2), scratch)
    finally:
        job_module.ShardMaker = ShardMaker  # type: ignore[misc]
    cost = time.process_time() - before
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    share, worker = cost / (shards * per_shard), memory / 1024  # the driver has a worker's modules, too
    few = math.ceil(100 * grown / worker)
    print(
        f"driver: {shards} shards in {cost:.1f} s of processor time, {1000 * cost / shards:.2f} ms each: "
        f"{share:.3%} of the workers' {per_shard:.1f} s each; {grown:.0f} MB grown, "
        f"{grown / (2 * worker):.2%} of two workers' memory, under 1 % of {few} workers'"
    )


def worker_seconds(recipe: Recipe, scratch: Path) -> float:
    """Processor time of one shard of the recipe."""
    build(recipe, str(scratch / "one"), 32, Fleet("off"), scratch)
    before = time.process_time()
    build(recipe, str(scratch / "more"), _SHARD_SIZE, Fleet("off"), scratch)
    return time.process_time() - before


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
