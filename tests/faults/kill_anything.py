"""Kill a worker, a node or the driver of a Ray job at a random moment, run it again, compare.

``python tests/faults/kill_anything.py --runs 200``: a cluster of three nodes, all on this machine; every run
is hit once by SIGKILL while it builds, then the same command is run again. Each resumed set must hold the
undisturbed one's files, byte for byte. One JSON line a run goes to --log; the same command again goes on
after the last one.
"""

import argparse
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from crash_points import files_of, write_photos
from ray.cluster_utils import Cluster

VICTIMS = ("actor", "worker", "raylet", "driver")
_TIME_LIMIT_S = 180.0
_RECIPE = """
label: blob
source: {kind: images}
segmenter: {kind: grabcut, side_px: 320, rounds: 12}
quality: {min_area_frac: 0, max_area_frac: 1, max_border_frac: 1, min_confidence: 0, duplicate_bits: null}
shard_size: 4
"""


class LoopbackCluster:
    """A head and two more nodes, all processes of this machine, each with room for one worker."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args=self._room())
        self.nodes = [self.cluster.head_node, *(self.cluster.add_node(**self._room()) for _ in range(2))]

    @staticmethod
    def _room() -> dict[str, Any]:
        return {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024, "include_dashboard": False}

    def raylets(self) -> list[subprocess.Popen[bytes]]:
        """Of the nodes, the head's first."""
        return [node.all_processes["raylet"][0].process for node in self.nodes]

    def mend(self) -> None:
        """New nodes for those whose raylet is dead; a new cluster when it is the head's."""
        dead = [raylet.poll() is not None for raylet in self.raylets()]
        if dead[0]:
            self.cluster.shutdown()
            self._start()
            return
        for place, node in enumerate(self.nodes):
            if dead[place]:
                self.cluster.remove_node(node, allow_graceful=False)
                self.nodes[place] = self.cluster.add_node(**self._room())


@dataclass(frozen=True, slots=True)
class Command:
    """A build on the cluster, less its place."""

    arguments: tuple[str, ...]
    cluster: LoopbackCluster

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        with out.with_suffix(".log").open("ab") as log:
            place = ["--ray", self.cluster.cluster.address, "--out", str(out)]
            return subprocess.Popen([*self.arguments, *place], stdout=log, stderr=log)


def processes(cluster: LoopbackCluster, start: str) -> list[psutil.Process]:
    """Ray's processes of this cluster whose title starts so: ``ray::ShardMaker``, ``ray::IDLE``."""
    children = [child for raylet in cluster.raylets() for child in _children(raylet.pid)]
    return [child for child in children if _title(child).startswith(start)]


def _children(pid: int) -> Iterable[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def hit(victim: str, cluster: LoopbackCluster, driver: subprocess.Popen[bytes], rng: random.Random) -> str:
    """SIGKILL to a victim of that kind; what it was, empty when there is none just now."""
    if victim == "driver":
        driver.kill()
        return "driver"
    if victim == "raylet":
        which = rng.randrange(len(cluster.nodes))
        cluster.raylets()[which].kill()
        return f"raylet of node {which}"
    found = processes(cluster, "ray::ShardMaker" if victim == "actor" else "ray::")
    if not found:
        return ""
    chosen = rng.choice(found)
    title = _title(chosen)
    chosen.kill()
    return title


def run_once(number: int, seed: int, command: Command, out: Path, span_s: float) -> dict[str, Any]:
    """One run: when it was hit, how it ended, whether the second command was needed."""
    rng = random.Random(f"{seed}-{number}")
    victim, delay = VICTIMS[number % len(VICTIMS)], rng.uniform(0.0, span_s)
    driver = command.start(out)
    start = time.monotonic()
    time.sleep(delay)
    while not (was_hit := driver.poll() is None and hit(victim, command.cluster, driver, rng)):
        if driver.poll() is not None:
            break
        time.sleep(0.02)
    hit_at = time.monotonic() - start
    first = driver.wait(_TIME_LIMIT_S)
    first_s = time.monotonic() - start
    command.cluster.mend()
    second = command.start(out).wait(_TIME_LIMIT_S)
    row = {"run": number, "victim": victim, "hit": was_hit or "", "at_s": round(hit_at, 2)}
    return row | {"first": first, "first_s": round(first_s, 1), "again": second}


def checked(row: dict[str, Any], out: Path, expected: dict[str, bytes]) -> dict[str, Any]:
    """The row with what differs from the undisturbed set."""
    found = files_of(out) if out.is_dir() else {}
    differing = sorted(name for name in found | expected if found.get(name) != expected.get(name))
    return row | {"equal": not differing, "differing": differing}


def rows_of(log: Path) -> list[dict[str, Any]]:
    """The runs done so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def runs(args: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """The rows of the runs that the log lacks."""
    write_photos(scratch / "photos", args.photos)
    (scratch / "blob.yaml").write_text(_RECIPE)
    cluster = LoopbackCluster()
    words = ["--class", str(scratch / "blob.yaml"), f"source.root={scratch / 'photos'}", "--installed"]
    command = Command((sys.executable, "-m", "factory.build", *words), cluster)
    try:
        start = time.monotonic()
        assert command.start(scratch / "undisturbed").wait(_TIME_LIMIT_S) == 0
        span_s = time.monotonic() - start
        expected = files_of(scratch / "undisturbed")
        for number in range(len(rows_of(args.log)), args.runs):
            out = scratch / f"run-{number}"
            yield checked(run_once(number, args.seed, command, out, span_s), out, expected)
    finally:
        cluster.cluster.shutdown()


def main(argv: Sequence[str]) -> int:
    """Run, log, sum up; 1 when a set differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=8, help="at most 1000")
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("kill_anything.jsonl"))
    args = parser.parse_args(argv)
    args.runs = min(args.runs, 1000)
    logging.getLogger("ray").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        for row in runs(args, Path(name)):
            with args.log.open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    rows = rows_of(args.log)
    for victim in VICTIMS:
        mine = [row for row in rows if row["victim"] == victim]
        print(
            f"{victim}: {len(mine)} runs, {sum(bool(row['hit']) for row in mine)} hit, "
            f"{sum(row['first'] != 0 for row in mine)} stopped, {sum(row['equal'] for row in mine)} equal"
        )
    return int(not all(row["equal"] and row["again"] == 0 for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
