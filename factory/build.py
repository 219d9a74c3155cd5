"""Make a class's crop set: ``python -m factory.build --class birds source.root=photos/``."""

import argparse
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from configs.entry import run
from configs.errors import InputError
from configs.home import find_home, packaged_names
from configs.load import to_yaml
from factory.job import ShardResult, run_job
from factory.output_set import claim_set, drops_of
from factory.pipeline import CropLine, ShardTask
from factory.progress import BuildProgress
from factory.recipe import Recipe, load_recipe
from shards.errors import ShardError
from shards.manifest import Manifest, ShardEntry, shard_name, write_manifest
from shards.store import Store, open_store

DEFAULT_CROPS = 2000  # of an endless source, when neither command nor recipe says
_COMMIT_EVERY_S = (
    2.0  # a driver that dies loses at most the entries of this time; their shards are made again
)

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
    summary = build(recipe, out, args.crops, args.ray, args.workers, home)
    print(summary)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m factory.build",
        description="Turn images of one class into a set of masked crops in tar shards.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(packaged_names("classes"))
    parser.add_argument("--class", dest="class_name", required=True, help=f"{known}, or a YAML file")
    parser.add_argument("--out", help="folder or URL of the set [data/crops/CLASS]")
    parser.add_argument("--crops", type=int, help="crops to keep [all of a finite source, else 2000]")
    parser.add_argument("--ray", default="local", help="off, local or a cluster's address [local]")
    parser.add_argument("--workers", type=int, help="processes that make shards [one a core]")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the recipe")
    args = parser.parse_intermixed_args(argv)
    for name in ("crops", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name}: found {value}, wanted 1 or more")
    return args


def build(recipe: Recipe, out: str, crops: int | None, ray_mode: str, workers: int | None, home: Path) -> str:
    """Bring the set at ``out`` to what the recipe and ``crops`` ask; returns a summary to print.

    Raises InputError when ``out`` holds a set of another recipe, or something that is no set.
    """
    line = CropLine(recipe, home)
    crops = crops or recipe.crops or (DEFAULT_CROPS if line.source.size is None else None)
    store = open_store(out)
    manifest = claim_set(store, "crops", (recipe.label,), line.identity())
    if _is_done(manifest, crops, line):
        return _summary(manifest, out, made=0, crops=crops)
    store.write("recipe.yaml", to_yaml(recipe).encode())
    job = _Build(store, recipe, line, manifest, crops)
    made = job.run(home, ray_mode, workers)
    return _summary(job.manifest, out, made, crops)


def _is_done(manifest: Manifest, crops: int | None, line: CropLine) -> bool:
    """Whether the set already holds all that is asked."""
    if not manifest.complete:
        return False
    if crops is not None and manifest.records >= crops:
        return True
    return line.source.size is not None and sum(entry.seen for entry in manifest.shards) >= line.source.size


class _Build:
    """One run of the driver: gives out tasks, enters results in the manifest."""

    def __init__(
        self, store: Store, recipe: Recipe, line: CropLine, manifest: Manifest, crops: int | None
    ) -> None:
        self.store, self.recipe, self.line, self.crops = store, recipe, line, crops
        self.manifest = manifest
        self._entries = {_index_of(entry): entry for entry in manifest.shards}
        self._entries = {
            index: entry for index, entry in self._entries.items() if self._is_whole(index, entry)
        }
        self._unreadable: list[str] = []
        self._committed_at = 0.0

    def run(self, home: Path, ray_mode: str, workers: int | None) -> int:
        """Make what is missing; returns the number of shards made."""
        made = 0
        self._commit(complete=False)  # the folder is this recipe's from now on
        finite = self.line.source.size is not None
        with BuildProgress(self._expected(), counts_images=finite) as progress:
            progress.show(self._entries.values())
            tasks = self._tasks()
            results = run_job(self.recipe, home, self.store.location, tasks, ray_mode, workers)
            try:
                with closing(results):  # type: ignore[type-var]
                    for result in results:
                        made += 1
                        self._enter(result)
                        progress.show(self._entries.values())
            finally:
                self._commit(complete=False)
        made += self._trim(home)
        self._commit(complete=True)
        if not self.manifest.records:
            raise InputError(
                f"{self.store.location}: no crop kept ({drops_of(self.manifest)}): loosen quality.*"
            )
        return made

    def _tasks(self) -> Iterator[ShardTask]:
        """Missing shards in order; ends when enough is kept."""
        index = 0
        while (limit := self._limit(index)) != 0:
            if self.line.slots_of(index) is not None and self._kept_before(index) >= (self.crops or 1 << 62):
                return
            if index not in self._entries:
                yield ShardTask(index, limit)
            index += 1

    def _limit(self, index: int) -> int | None:
        """Crops that the shard keeps: None for a finite source's full shard, 0 past the end."""
        slots = self.line.slots_of(index)
        if slots is not None:
            return None if slots else 0
        assert self.crops is not None
        return max(0, min(self.recipe.shard_size, self.crops - index * self.recipe.shard_size))

    def _is_whole(self, index: int, entry: ShardEntry) -> bool:
        slots = self.line.slots_of(index)
        return entry.seen == slots if slots is not None else entry.records == self._limit(index)

    def _kept_before(self, index: int) -> int:
        """Crops of the shards before ``index`` as far as all of those are known, else 0."""
        if any(i not in self._entries for i in range(index)):
            return 0
        return sum(self._entries[i].records for i in range(index))

    def _enter(self, result: ShardResult) -> None:
        self._entries[result.task.index] = result.entry
        self._unreadable += [f"{item.name}: {item.why}" for item in result.unreadable]
        if time.monotonic() - self._committed_at > _COMMIT_EVERY_S:
            self._commit(complete=False)

    def _commit(self, complete: bool) -> None:
        self._note_unreadable()  # before the manifest: a shard that is entered is not looked at again
        entries = tuple(self._entries[index] for index in sorted(self._entries))
        self.manifest = replace(self.manifest, shards=entries, complete=complete)
        write_manifest(self.store, self.manifest)
        self._committed_at = time.monotonic()

    def _trim(self, home: Path) -> int:
        """Cut a finite source's crops to ``crops``: remake the shard that goes over, drop those after."""
        if self.crops is None or self.line.source.size is None:
            return 0
        kept, made = 0, 0
        for index in sorted(self._entries):
            room = self.crops - kept
            if room <= 0:
                del self._entries[index]
                self._commit(complete=False)
                self.store.remove(shard_name("crops", index))
                continue
            if self._entries[index].records > room:
                task = ShardTask(index, room)
                (result,) = run_job(self.recipe, home, self.store.location, [task], "off", None)
                self._enter(result)
                made += 1
            kept += self._entries[index].records
        return made

    def _expected(self) -> int:
        """What the progress bar counts to: crops of an endless source, images of a finite one."""
        return self.line.source.size or self.crops or 0

    def _note_unreadable(self) -> None:
        if not self._unreadable:
            return
        name = "unreadable.txt"
        known = self.store.read(name).decode().splitlines() if self.store.exists(name) else []
        lines = sorted({*known, *self._unreadable})
        self.store.write(name, "".join(f"{line}\n" for line in lines).encode())
        self._unreadable.clear()


def _index_of(entry: ShardEntry) -> int:
    return int(entry.name.removeprefix("crops-").removesuffix(".tar"))


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
