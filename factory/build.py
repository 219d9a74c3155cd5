"""Make a class's crop set: ``python -m factory.build --class birds source.root=photos/``."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_home, packaged_names
from configs.load import to_yaml
from factory.job import Fleet, run_job
from factory.ledger import Ledger, index_of
from factory.maker import Job
from factory.output_set import claim_set, drops_of
from factory.pipeline import CropLine, ShardTask
from factory.plan import plan_build
from factory.progress import BuildProgress
from factory.recipe import Recipe, load_recipe
from factory.set_page import write_page
from shards.errors import ShardError
from shards.lease import LEASE_NAME, hold_lease
from shards.manifest import Manifest, ShardEntry
from shards.reader import ShardSet
from shards.stats import stats_of
from shards.store import Store, open_store

_PAGE_SAMPLE = 2000  # records that the set's page measures; factory.set_page --sample for more
DEFAULT_CROPS = 2000  # of an endless source, when neither command nor recipe says

_EXAMPLES = """examples:
  python -m factory.build --class birds source.root=photos/
  python -m factory.build --class birds --crops 500 segmenter.kind=whole --out data/crops/birds-whole
  python -m factory.build --class my-class.yaml --ray off

The same command again goes on where it stopped, and rewrites nothing that is done.
A finite source (photos) is used once; --crops then is an upper limit."""


def main(argv: list[str]) -> int:
    """Parse, build, print what was kept and dropped."""
    args = _parse(argv)
    home = find_home()
    recipe = load_recipe(args.class_name, args.overrides)
    out = args.out or str(home / "data" / "crops" / Path(args.class_name).stem)
    fleet = Fleet(args.ray, args.workers, args.cpus_per_worker, args.gpus_per_worker, args.installed)
    print(
        plan(recipe, args.crops, fleet, home) if args.dry_run else build(recipe, out, args.crops, fleet, home)
    )
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "factory.build", "Turn images of one class into a set of masked crops in tar shards.", _EXAMPLES
    )
    known = ", ".join(packaged_names("classes"))
    parser.add_argument("--class", dest="class_name", required=True, help=f"{known}, or a YAML file")
    parser.add_argument("--out", help="folder or URL of the set [data/crops/CLASS]")
    parser.add_argument("--crops", type=int, help="crops to keep [all of a finite source, else 2000]")
    parser.add_argument("--ray", default="local", help="off, local or a cluster's address [local]")
    parser.add_argument("--workers", type=int, help="processes that make shards, at most [as many as fit]")
    parser.add_argument("--cpus-per-worker", type=int, default=1, help="beyond the first they encode [1]")
    parser.add_argument("--gpus-per-worker", type=float, default=0.0, help="a share is fine: 0.25 [0]")
    parser.add_argument(
        "--dry-run", action="store_true", help="measure a batch, say what the build would take"
    )
    parser.add_argument("--installed", action="store_true", help="the cluster has this program: send no code")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the recipe")
    args = parser.parse_intermixed_args(argv)
    for name in ("crops", "workers", "cpus_per_worker"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')}: found {value}, wanted 1 or more")
    if args.gpus_per_worker < 0:
        raise InputError(f"--gpus-per-worker: found {args.gpus_per_worker}, wanted 0 or more")
    return args


def build(recipe: Recipe, out: str, crops: int | None, fleet: Fleet, home: Path) -> str:
    """Bring the set at ``out`` to what the recipe and ``crops`` ask; returns a summary to print.

    Raises InputError when ``out`` holds a set of another recipe, or something that is no set; ShardError when
    another job is writing it.
    """
    line = CropLine(recipe, home)
    crops = _crops_wanted(crops, recipe, line)
    store = open_store(out)
    identity = line.identity()
    manifest = claim_set(store, "crops", (recipe.label,), identity)
    if _is_done(manifest, crops, line) and not store.exists(LEASE_NAME):
        _refuse_empty(manifest, out)
        return _summary(manifest, out, made=0, crops=crops)
    with hold_lease(store, say=_note) as lease:
        manifest = claim_set(store, "crops", (recipe.label,), identity)  # as the last holder left it
        store.remove_stale_temporaries(alone=True)
        store.write("recipe.yaml", to_yaml(recipe).encode())
        place = out if "://" in out else str(Path(out).absolute())
        job = Job(recipe, home, place, manifest.fingerprint, lease.token)
        ledger = Ledger(store, manifest, lease)
        made = _Build(job, line, store, ledger, crops).run(fleet)
        store.remove_stale_temporaries(alone=True)
    return _summary(ledger.manifest, out, made, crops)


def plan(recipe: Recipe, crops: int | None, fleet: Fleet, home: Path) -> str:
    """What a build from nothing would take, measured on a batch made here; writes nothing."""
    line = CropLine(recipe, home)
    workers = fleet.workers or max(1, len(os.sched_getaffinity(0)) // fleet.cpus)
    wanted = _crops_wanted(crops, recipe, line)
    measured = plan_build(line, wanted, workers=workers, gpus_per_worker=fleet.gpus, encoders=fleet.cpus - 1)
    return measured.describe()


def _crops_wanted(crops: int | None, recipe: Recipe, line: CropLine) -> int | None:
    """As the command or the recipe says; None for all of a finite source."""
    return crops or recipe.crops or (DEFAULT_CROPS if line.source.size is None else None)


def _is_done(manifest: Manifest, crops: int | None, line: CropLine) -> bool:
    """Whether the set already holds all that is asked."""
    if not manifest.complete:
        return False
    if crops is not None and manifest.records >= crops:
        return True
    return line.source.size is not None and sum(entry.seen for entry in manifest.shards) >= line.source.size


class _Build:
    """One run of the driver: says which shards are missing, enters what is made."""

    def __init__(self, job: Job, line: CropLine, store: Store, ledger: Ledger, crops: int | None) -> None:
        self.job, self.line, self.store, self.ledger, self.crops = job, line, store, ledger, crops
        for entry in ledger.entries:
            if not self._is_whole(entry):
                ledger.forget(index_of(entry))

    def run(self, fleet: Fleet) -> int:
        """Make what is missing; returns the number of shards made."""
        made = 0
        self.ledger.commit(complete=False)  # the folder is this recipe's from now on
        finite = self.line.source.size is not None
        expected = (
            self.line.source.size or self.crops or 0
        )  # images of a finite source, crops of an endless one
        with BuildProgress(expected, counts_images=finite, already=self.ledger.entries) as progress:
            results = run_job(self.job, self._tasks(), fleet)
            try:
                with closing(results):  # type: ignore[type-var]
                    for result in results:
                        made += 1
                        self.ledger.enter(result.task.index, result.entry, result.unreadable)
                        progress.add(result.entry)
            finally:
                self.ledger.commit(complete=False)
        made += self._trim()
        self.ledger.remove_strays()
        finished = self.ledger.finished()
        if finished.records:
            made_set = ShardSet(self.store, finished)
            write_page(self.store, made_set, stats_of(made_set, _PAGE_SAMPLE))
        self.ledger.commit(complete=True)
        _refuse_empty(finished, self.job.location)
        return made

    def _tasks(self) -> Iterator[ShardTask]:
        """Missing shards in order; ends when enough is kept."""
        index = 0
        while (limit := self._limit(index)) != 0:
            if index not in self.ledger:
                yield ShardTask(index, limit)
            index += 1

    def _limit(self, index: int) -> int | None:
        """Crops that the shard keeps at most: None for what a finite source's slots give, 0 past the end."""
        slots = self.line.slots_of(index)
        if slots == 0:
            return 0
        if slots is not None:
            return None if self.crops is None else max(0, self.crops - self.ledger.kept_before(index))
        assert self.crops is not None
        size = self.job.recipe.shard_size
        return max(0, min(size, self.crops - index * size))

    def _is_whole(self, entry: ShardEntry) -> bool:
        index = index_of(entry)
        slots = self.line.slots_of(index)
        return entry.seen == slots if slots is not None else entry.records == self._limit(index)

    def _trim(self) -> int:
        """Cut a finite source's crops to ``crops``: remake the shard that goes over, forget those after."""
        if self.crops is None or self.line.source.size is None:
            return 0
        kept, made = 0, 0
        for entry in self.ledger.entries:
            index, room = index_of(entry), self.crops - kept
            if room <= 0:
                self.ledger.forget(index)
                continue
            if entry.records > room:
                (result,) = run_job(self.job, [ShardTask(index, room)], Fleet("off"))
                self.ledger.enter(index, result.entry, result.unreadable)
                made += 1
            kept += min(room, entry.records)
        self.ledger.commit(complete=False)  # before their tars are removed
        return made


def _refuse_empty(manifest: Manifest, place: str) -> None:
    if not manifest.records:
        raise InputError(
            f"{place}: no crop kept ({drops_of(manifest)}): loosen quality.* or choose another segmenter"
        )


def _note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)


def _summary(manifest: Manifest, out: str, made: int, crops: int | None) -> str:
    seen = sum(entry.seen for entry in manifest.shards)
    lines = [
        f"{out}: {manifest.records} crops of {seen} images in {len(manifest.shards)} shards, "
        f"{manifest.bytes / 1e6:.1f} MB ({'up to date' if not made else f'{made} shards made'})",
        f"dropped: {drops_of(manifest)}",
    ]
    if crops is not None and manifest.records < crops:
        lines.append(f"the source ended before {crops} crops: it gave {manifest.records}")
    if crops is not None and manifest.records > crops:
        lines.append(f"the set holds more than the {crops} crops asked: left as it is")
    if any("unreadable" in entry.dropped for entry in manifest.shards):
        lines.append(f"unreadable images are named in {out}/unreadable.txt")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, ShardError)
