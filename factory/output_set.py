"""The set that a build writes to: whose it is, what of it is there already, what was dropped on the way."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from configs.errors import InputError
from shards.lease import LEASE_NAME
from shards.local import LocalStore
from shards.manifest import Kind, Manifest, find_manifest, fingerprint_of
from shards.store import Store

_BESIDE_SHARDS = ("recipe.yaml", "unreadable.txt", "stats.json", "index.html", LEASE_NAME)


def claim_set(store: Store, kind: Kind, classes: tuple[str, ...], recipe: Mapping[str, Any]) -> Manifest:
    """The manifest to go on from: the one at the store when this recipe made it, else a new and empty one.

    Entries whose tar is gone, or of another size, are left out, so that it is made again. Writes nothing.
    Raises InputError when another recipe made the set, or the folder holds other things.
    """
    new = Manifest(kind, classes, fingerprint_of(recipe), recipe, (), complete=False)
    found = find_manifest(store)
    sizes = store.sizes()
    if found is None:
        foreign = sorted(n for n in sizes if not n.startswith(f"{kind}-") and n not in _BESIDE_SHARDS)
        if foreign := [*foreign, *_folders_in(store)]:
            raise InputError(f"{store.location}: holds {foreign[0]}: wanted a new or empty folder")
    elif found.kind != kind:
        raise InputError(f"{store.location}: holds {found.kind}: wanted another --out for {kind}")
    elif found.records and found.fingerprint != new.fingerprint:
        differences = _differences(found.recipe, recipe)
        raise InputError(f"{store.location}: made by another recipe ({differences}): wanted another --out")
    if found is None or not found.shards or found.fingerprint != new.fingerprint:
        return new  # what another recipe kept nothing of is in nobody's way
    there = tuple(entry for entry in found.shards if sizes.get(entry.name) == entry.bytes)
    return replace(found, shards=there, complete=found.complete and len(there) == len(found.shards))


def _folders_in(store: Store) -> list[str]:
    """Folders where a set's shards are to go: a data set's, or one that holds sets. InputError for a file."""
    if not isinstance(store, LocalStore) or not store.folder.exists():
        return []
    if not store.folder.is_dir():
        raise InputError(f"{store.location}: is a file, wanted a folder")
    return sorted(path.name for path in store.folder.iterdir() if path.is_dir())


def drops_of(manifest: Manifest) -> str:
    """What all its shards dropped, see `describe_drops`."""
    dropped: Counter[str] = Counter()
    for entry in manifest.shards:
        dropped.update(entry.dropped)
    return describe_drops(dropped)


def describe_drops(dropped: Mapping[str, int]) -> str:
    """``345 unsure, 40 empty``, most first; ``none``."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(dropped).most_common()) or "none"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """``quality.min_area_frac is 0.05 there, 0.1 here; …`` for every dotted key that differs."""
    before, after = _flat(old, ""), _flat(new, "")
    return "; ".join(
        f"{key} is {before.get(key, 'unset')} there, {after.get(key, 'unset')} here"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, "unset") != after.get(key, "unset")
    )


def _flat(value: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat
