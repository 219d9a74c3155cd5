"""A shard taken apart and packed again, without decoding."""

import numpy as np
import pytest

from shards.errors import ShardError
from shards.raw import RawRecord, read_raw, write_raw
from shards.reader import ShardSet
from shards.store import open_store


@pytest.mark.parametrize("kind", ["crops", "backgrounds"])
def test_unchanged_records_are_packed_to_the_same_bytes(make_set, tmp_path, kind) -> None:
    found = ShardSet.open(make_set(kind))
    entry = found.manifest.shards[1]
    copy = open_store(tmp_path / "copy")
    records = read_raw(found.store, entry)
    assert write_raw(copy, entry.name, records, dropped=entry.dropped, seen=entry.seen) == entry
    assert copy.read(entry.name) == found.store.read(entry.name)


def test_facts_and_pixels_are_those_of_the_decoded_record(make_set) -> None:
    found = ShardSet.open(make_set())
    raw, decoded = read_raw(found.store, found.manifest.shards[0])[2], found[2]
    assert raw.key == decoded.key
    assert raw.facts()["origin"] == decoded.origin
    assert np.array_equal(raw.image(), decoded.image)


def test_bytes_of_another_hash_are_refused(make_set) -> None:
    found = ShardSet.open(make_set())
    entry = found.manifest.shards[0]
    data = bytearray(found.store.read(entry.name))
    data[600] ^= 1
    found.store.write(entry.name, bytes(data))
    with pytest.raises(ShardError, match=r"crops-000000\.tar: sha256 is .* damaged or foreign"):
        read_raw(found.store, entry)


def test_keys_must_rise(make_set, tmp_path) -> None:
    found = ShardSet.open(make_set())
    records = read_raw(found.store, found.manifest.shards[0])
    store = open_store(tmp_path / "copy")
    with pytest.raises(ShardError, match="comes after c00000003, wanted rising keys"):
        write_raw(store, "crops-000000.tar", records[::-1], dropped={}, seen=0)
    assert store.names() == []


def test_a_crop_without_a_label_is_refused(tmp_path) -> None:
    record = RawRecord("a", {"json": memoryview(b'{"origin":{}}')})
    with pytest.raises(ShardError, match=r"a\.json: label is None, wanted a text"):
        write_raw(open_store(tmp_path), "crops-000000.tar", [record], dropped={}, seen=0)
