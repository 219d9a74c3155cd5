"""A set somewhere else, byte for byte: between folders, to an object store, or back."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from configs.errors import InputError
from factory.ledger import Ledger, index_of
from factory.managing.derived import note
from factory.managing.progress import SetProgress
from shards.lease import LEASE_NAME, hold_lease
from shards.manifest import MANIFEST_NAME, Manifest, ShardEntry, find_manifest
from shards.raw import read_checked
from shards.reader import ShardSet
from shards.store import Store, open_store


def copy_set(source: ShardSet, to: str, *, verify: bool) -> str:
    """Bring the set to another place; returns a summary to print.

    Each shard's hash is checked before it is written. Shards that are there with the right size are left
    alone: those that the manifest there names (with ``verify`` only after hashing them), and others that
    hash right. What lies beside the shards (recipe, credits) goes along; the manifest is complete last.
    verify: also reads back every shard, and copies again what is damaged.
    Raises InputError when another set, or anything else, is there; ShardError when a shard is damaged at the
    source, or comes back otherwise than it was written.
    """
    target = open_store(to)
    _refuse_others(source, target)
    there = _right_shards(source, target, verify)
    if len(there) == len(source.manifest.shards) and _is_finished(source, target):
        return _summary(source, target, copied=0, verify=verify)
    with hold_lease(target, say=note) as lease:
        _refuse_others(source, target)
        target.remove_stale_temporaries()
        ledger = Ledger(target, replace(source.manifest, shards=there, complete=False), lease)
        copied = _fill(source, target, ledger, verify)
    return _summary(source, target, copied, verify)


def _fill(source: ShardSet, target: Store, ledger: Ledger, verify: bool) -> int:
    copied = 0
    ledger.commit(complete=False)
    with SetProgress(len(source.manifest.shards), "copied") as progress:
        try:
            for entry in source.manifest.shards:
                if index_of(entry) in ledger:
                    progress.skip()
                    continue
                target.write(entry.name, bytes(read_checked(source.store, entry)))
                if verify:
                    read_checked(target, entry)
                ledger.enter(index_of(entry), entry)
                progress.add(entry)
                copied += 1
        finally:
            ledger.commit(complete=False)
    for name in _beside(source.store):
        if not _is_same(source.store, target, name):
            target.write(name, source.store.read(name))
    ledger.remove_strays()
    ledger.commit(complete=True)
    return copied


def _refuse_others(source: ShardSet, target: Store) -> None:
    if _absolute(target) == _absolute(source.store):
        raise InputError(f"{target.location}: is copied from, wanted another place to copy to")
    found = find_manifest(target)
    if found is None:
        foreign = [name for name in target.names() if name != LEASE_NAME]
        if foreign:
            raise InputError(f"{target.location}: holds {foreign[0]}: wanted a new or empty folder")
        return
    wanted = source.manifest
    if (found.kind, found.fingerprint) != (wanted.kind, wanted.fingerprint):
        raise InputError(f"{target.location}: holds another set: wanted a new or empty folder")
    sizes = {entry.name: entry.records for entry in wanted.shards}
    for entry in found.shards:
        if entry.records > sizes.get(entry.name, -1):
            raise InputError(
                f"{target.location}: holds more of {entry.name} than {source.store.location}: "
                "wanted a new or empty folder"
            )


def _absolute(store: Store) -> str:
    return store.location if "://" in store.location else str(Path(store.location).resolve())


def _is_finished(source: ShardSet, target: Store) -> bool:
    """Whether manifest and what lies beside the shards are there."""
    beside = _beside(source.store)
    return find_manifest(target) == source.manifest and all(_is_same(source.store, target, n) for n in beside)


def _right_shards(source: ShardSet, target: Store, verify: bool) -> tuple[ShardEntry, ...]:
    """Entries of the source whose shard is at the target already."""
    found: Manifest | None = find_manifest(target)
    named = set() if found is None or verify else {(e.name, e.sha256) for e in found.shards}
    sizes = target.sizes()
    alike = [entry for entry in source.manifest.shards if sizes.get(entry.name) == entry.bytes]
    with SetProgress(len(alike), "checked") as progress:
        right: list[ShardEntry] = []
        for entry in alike:
            if (entry.name, entry.sha256) in named or _hash_of(target, entry.name) == entry.sha256:
                right.append(entry)
            progress.add(entry)
    return tuple(right)


def _hash_of(store: Store, name: str) -> str:
    return hashlib.sha256(store.view(name)).hexdigest()


def _beside(store: Store) -> Sequence[str]:
    """What lies beside the shards and belongs to the set."""
    return [n for n in store.names() if n not in (MANIFEST_NAME, LEASE_NAME) and not n.endswith(".tar")]


def _is_same(source: Store, target: Store, name: str) -> bool:
    return (
        target.exists(name)
        and target.size(name) == source.size(name)
        and target.read(name) == source.read(name)
    )


def _summary(source: ShardSet, target: Store, copied: int, verify: bool) -> str:
    manifest = source.manifest
    done = f"{copied} shards copied" if copied else "up to date"
    checked = ", every hash checked" if verify else ""
    return (
        f"{target.location}: {manifest.records:,} {manifest.kind} in {len(manifest.shards):,} shards, "
        f"{manifest.bytes / 1e6:,.1f} MB ({done}{checked})"
    )
