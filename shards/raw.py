"""Records as the bytes of their members: picked, renamed and packed again without decoding a pixel."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shards.codec import facts_of, image_and_facts
from shards.errors import ShardError
from shards.local import plain_name
from shards.manifest import ShardEntry
from shards.reader import members_in, walk
from shards.records import UInt8Array
from shards.store import Store
from shards.writer import pack_tar


@dataclass(frozen=True, slots=True, eq=False)
class RawRecord:
    """A tar group. members: extension -> content, in the shard's order; views of the shard's bytes."""

    key: str
    members: Mapping[str, memoryview]

    def facts(self) -> dict[str, Any]:
        """Its JSON: ``width``, ``height``, ``origin``, a crop's ``label``. Raises ShardError without one."""
        return facts_of(self.key, self.members)

    def image(self) -> UInt8Array:
        """The record's pixels alone: (H, W, 3) RGB. Raises ShardError when they cannot be decoded."""
        extension = "jpg" if "jpg" in self.members else "rgb.jpg"
        return image_and_facts(self.key, extension, self.members)[0]


def read_raw(store: Store, entry: ShardEntry) -> list[RawRecord]:
    """The records of a shard. Raises ShardError when its bytes are not those that its manifest entry says."""
    view = read_checked(store, entry)
    place = f"{store.location}/{entry.name}"
    records: list[RawRecord] = []
    members: dict[str, memoryview] = {}
    end = max((after for _, _, after in walk(view, place)), default=0)
    for name, content in members_in(view, 0, end):
        key, _, extension = plain_name(name, place).partition(".")
        if not records or key != records[-1].key:
            members = {}
            records.append(RawRecord(key, members))
        members[extension] = content
    if len(records) != entry.records:
        raise ShardError(f"{place}: {len(records)} records, the manifest says {entry.records}")
    return records


def read_checked(store: Store, entry: ShardEntry) -> memoryview:
    """A shard's bytes. Raises ShardError when their hash is not the one that its manifest entry says."""
    view = store.view(entry.name)
    found = hashlib.sha256(view).hexdigest()
    if found != entry.sha256:
        raise ShardError(
            f"{store.location}/{entry.name}: sha256 is {found}, the manifest says {entry.sha256}: "
            "the shard is damaged or foreign"
        )
    return view


def write_raw(
    store: Store, name: str, records: Iterable[RawRecord], *, dropped: Mapping[str, int], seen: int
) -> ShardEntry:
    """Packs, hashes and commits a shard, as `writer.write_shard` does; equal records give its bytes.

    Raises ShardError when a key does not rise, a crop has no label, or the store refuses; then nothing is
    written.
    """
    labels: Counter[str] = Counter()
    keys: list[str] = []

    def members() -> Iterator[tuple[str, bytes]]:
        for record in records:
            if keys and record.key <= keys[-1]:
                raise ShardError(f"{name}: {record.key}: comes after {keys[-1]}, wanted rising keys")
            keys.append(record.key)
            if name.startswith("crops-"):
                labels[_label(name, record)] += 1
            for extension, data in record.members.items():
                yield f"{record.key}.{extension}", bytes(data)

    packed = pack_tar(members())
    store.write(name, packed)
    sha256 = hashlib.sha256(packed).hexdigest()
    counts = dict(sorted(labels.items())), dict(sorted(dropped.items()))
    return ShardEntry(name, len(keys), len(packed), sha256, *counts, seen)


def _label(name: str, record: RawRecord) -> str:
    label = record.facts().get("label")
    if not isinstance(label, str):
        raise ShardError(f"{name}: {record.key}.json: label is {label!r}, wanted a text")
    return label
