"""A set made of other sets: what it says of its parents, and how it is filled, shard by shard.

Every such set is a function of its parents' bytes and its settings. Its recipe says both, so that the same
command goes on where it stopped, and another one is refused.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from configs.embedded import embedded
from configs.errors import InputError
from configs.home import locate
from factory.ledger import Ledger, index_of
from factory.managing.progress import SetProgress
from factory.output_set import claim_set, describe_drops, drops_of
from shards.lease import hold_lease
from shards.manifest import Kind, Manifest, find_manifest, fingerprint_of, shard_name
from shards.raw import RawRecord, write_raw
from shards.reader import ShardSet
from shards.store import Store, open_store


@dataclass(frozen=True, slots=True)
class Draft:
    """A shard to be. dropped, seen: as in `shards.manifest.ShardEntry`."""

    records: Sequence[RawRecord]
    dropped: Mapping[str, int]
    seen: int


@dataclass(frozen=True, slots=True)
class Step:
    """One shard of the new set; ``make`` is called when it is not there yet."""

    index: int
    make: Callable[[], Draft]


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a new set is. made: the command. settings: plain JSON values, all that the bytes depend on."""

    made: str
    settings: Mapping[str, Any]
    parents: Sequence[ShardSet]
    classes: tuple[str, ...]
    steps: Iterable[Step] = field(repr=False)

    @property
    def kind(self) -> Kind:
        return self.parents[0].manifest.kind

    def recipe(self) -> dict[str, Any]:
        """Parents by what their manifests hold, not by place: ``content`` covers every shard's hash."""
        parents = [_described(parent.manifest) for parent in self.parents]
        return {"made": self.made, "settings": dict(self.settings), "parents": parents}


def open_parent(place: str, home: Path) -> ShardSet:
    """The finished set at a URL, in a folder, in that folder under home, or shipped (``embedded/NAME``).

    Raises InputError, ShardError.
    """
    if place.startswith("embedded/"):
        return ShardSet.open(embedded(place.removeprefix("embedded/")))
    return ShardSet.open(place if "://" in place else locate(Path(place), home))


def content_of(manifest: Manifest) -> str:
    """A hash of all that a set holds: equal sets are equal, wherever they lie."""
    shards = [asdict(entry) for entry in manifest.shards]
    return fingerprint_of({"kind": manifest.kind, "classes": list(manifest.classes), "shards": shards})


def derive(derivation: Derivation, out: str) -> str:
    """Bring the set at ``out`` to what is asked; returns a summary to print.

    Raises InputError when ``out`` holds something else or nothing would be left, ShardError when a parent is
    damaged or another job is writing here.
    """
    store, recipe = open_store(out), derivation.recipe()
    manifest = _claimed(store, derivation, recipe)
    made = 0
    if not manifest.complete:
        with hold_lease(store, say=note) as lease:
            manifest = _claimed(store, derivation, recipe)  # as the last holder left it
            store.remove_stale_temporaries()
            ledger = Ledger(store, manifest, lease)
            made = _fill(store, ledger, derivation)
            manifest = ledger.manifest
    return _summary(store, manifest, derivation, made)


def note(message: str) -> None:
    """Tell the user something in passing."""
    print(f"note: {message}", file=sys.stderr)


def _fill(store: Store, ledger: Ledger, derivation: Derivation) -> int:
    """Write the shards that are missing; returns how many."""
    made = 0
    ledger.commit(complete=False)  # the folder is this set's from now on
    total = sum(len(parent.manifest.shards) for parent in derivation.parents)
    with SetProgress(total) as progress:
        try:
            for step in derivation.steps:
                if step.index in ledger:
                    progress.skip()
                    continue
                draft = step.make()
                name = shard_name(derivation.kind, step.index)
                entry = write_raw(store, name, draft.records, dropped=draft.dropped, seen=draft.seen)
                ledger.enter(step.index, entry)
                progress.add(entry)
                made += 1
        finally:
            ledger.commit(complete=False)
    if not ledger.manifest.records:
        drops = drops_of(ledger.manifest)
        _clear(ledger)
        raise InputError(f"{store.location}: nothing is left ({drops}): wanted at least one record")
    ledger.remove_strays()
    ledger.commit(complete=True)
    return made


def _clear(ledger: Ledger) -> None:
    """Leaves a folder that any other set may go to."""
    for entry in ledger.entries:
        ledger.forget(index_of(entry))
    ledger.commit(complete=False)
    ledger.remove_strays()


def _claimed(store: Store, derivation: Derivation, recipe: Mapping[str, Any]) -> Manifest:
    found = find_manifest(store)
    if found is not None and found.shards and found.fingerprint != fingerprint_of(recipe):
        difference = _difference(found.recipe, recipe)
        raise InputError(f"{store.location}: holds another set ({difference}): wanted a new or empty folder")
    return claim_set(store, derivation.kind, derivation.classes, recipe)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if old.get("made") != new["made"]:
        return f"made by {old.get('made', 'a build')}"
    if old.get("settings") != new["settings"]:
        return f"made with {old.get('settings')}"
    return "made of other sets, or of these before they changed"


def _described(manifest: Manifest) -> dict[str, Any]:
    return {
        "fingerprint": manifest.fingerprint,
        "content": content_of(manifest),
        "records": manifest.records,
        "shards": len(manifest.shards),
        "recipe": manifest.recipe,
    }


def _summary(store: Store, manifest: Manifest, derivation: Derivation, made: int) -> str:
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for parent in derivation.parents:
        for entry in parent.manifest.shards:
            before.update(entry.dropped)
    for entry in manifest.shards:
        after.update(entry.dropped)
    given = sum(len(parent) for parent in derivation.parents)
    done = f"{made} shards made" if made else "up to date"
    return (
        f"{store.location}: {manifest.records:,} of {given:,} {manifest.kind} in {len(manifest.shards):,} "
        f"shards, {manifest.bytes / 1e6:,.1f} MB ({done})\ndropped: {describe_drops(after - before)}"
    )
