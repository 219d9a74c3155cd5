"""Several sets as one: their shards in order under new names, their records under new keys."""

from collections.abc import Iterator, Sequence
from functools import partial

from configs.errors import InputError
from factory.managing.derived import Derivation, Draft, Step, content_of
from shards.manifest import ShardEntry
from shards.raw import RawRecord, read_raw
from shards.reader import ShardSet


def merge(sets: Sequence[ShardSet]) -> Derivation:
    """Shard ``k`` of the result is the ``k``-th of all the sets' shards; record ``i`` of it is ``k-i``.

    Classes are those of any crop set; of background sets those that all leave out. No pixel is coded again.
    Raises InputError when the sets are not of one kind, or one of them stands there twice.
    """
    _check_compatible(sets)
    parts = [(parent, entry) for parent in sets for entry in parent.manifest.shards]
    steps = (
        Step(index, partial(_renamed, index, parent, entry)) for index, (parent, entry) in enumerate(parts)
    )
    return Derivation("merge", {}, sets, _classes(sets), steps)


def _renamed(index: int, parent: ShardSet, entry: ShardEntry) -> Draft:
    records = read_raw(parent.store, entry)
    return Draft(list(_with_new_keys(index, records)), entry.dropped, entry.seen)


def _with_new_keys(index: int, records: Sequence[RawRecord]) -> Iterator[RawRecord]:
    digits = max(5, len(str(len(records))))  # so that they rise as text
    for row, record in enumerate(records):
        yield RawRecord(f"{index:06d}-{row:0{digits}d}", record.members)


def _classes(sets: Sequence[ShardSet]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for parent in sets for name in parent.classes))
    if sets[0].manifest.kind == "crops":
        return names
    return tuple(name for name in names if all(name in parent.classes for parent in sets))


def _check_compatible(sets: Sequence[ShardSet]) -> None:
    seen: dict[str, str] = {}
    for parent in sets:
        place, kind = parent.store.location, sets[0].manifest.kind
        if parent.manifest.kind != kind:
            first = sets[0].store.location
            raise InputError(f"{place}: holds {parent.manifest.kind}, wanted {kind} as in {first}")
        content = content_of(parent.manifest)
        if content in seen:
            raise InputError(f"{place}: holds the same as {seen[content]}, wanted each set once")
        seen[content] = place
