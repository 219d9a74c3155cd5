"""A set without the records that look like an earlier one, wherever in the set that lies."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from configs.errors import InputError
from factory.managing.derived import Derivation, Draft, Step
from factory.managing.near_hashes import MAX_BITS, Flags, NearHashes
from factory.perceptual_hash import dhash
from shards.manifest import ShardEntry
from shards.raw import RawRecord, read_raw
from shards.reader import ShardSet

REASON = "near_duplicate"  # as the gate of a build says, which looks within a shard


def dedupe(parent: ShardSet, bits: int) -> Derivation:
    """Of records whose hashes (`perceptual_hash.dhash`) differ in at most ``bits`` of 64, the first stays.

    As in a build, "looks like an earlier one" means one that stays itself. All shards are read, and their
    pixels decoded, also when some of the result is there already; 120 bytes a record are held for 4 bits.
    Raises InputError when bits is not 0 to 8.
    """
    if not 0 <= bits <= MAX_BITS:
        raise InputError(f"--bits: found {bits}, wanted 0 to {MAX_BITS}")
    return Derivation("dedupe", {"bits": bits}, [parent], parent.classes, _steps(parent, bits))


def _steps(parent: ShardSet, bits: int) -> Iterator[Step]:
    seen = NearHashes(bits)
    for index, entry in enumerate(parent.manifest.shards):
        records = read_raw(parent.store, entry)
        hashes = np.array([dhash(record.image()) for record in records], np.uint64)
        yield Step(index, partial(_passed, records, entry, seen.let_through(hashes)))


def _passed(records: Sequence[RawRecord], entry: ShardEntry, passed: Flags) -> Draft:
    kept = [record for record, passes in zip(records, passed, strict=True) if passes]
    dropped = dict(entry.dropped)
    if len(kept) < len(records):
        dropped[REASON] = dropped.get(REASON, 0) + len(records) - len(kept)
    return Draft(kept, dropped, entry.seen)
