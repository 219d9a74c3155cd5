import io
import pickle
import tarfile
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from shards import reader
from shards.errors import ShardError
from shards.manifest import Manifest, ShardEntry, read_manifest, shard_name, write_manifest
from shards.reader import ShardSet
from shards.records import CropRecord, Record
from shards.store import LocalStore, open_store
from shards.writer import pack_tar, write_shard

from .conftest import MakeSet, make_background, make_crop


def same(one: Record, other: Record) -> bool:
    return (one.key, one.origin) == (other.key, other.origin) and np.array_equal(one.image, other.image)


def forge(location: str, data: bytes, shard: int = 1, **facts: object) -> None:
    """Puts other bytes in a shard's place and makes the manifest agree with their size and hash."""
    store = open_store(location)
    manifest = read_manifest(store)
    entries = list(manifest.shards)
    changes = {"bytes": len(data), "sha256": sha256(data).hexdigest(), **facts}
    entries[shard] = replace(entries[shard], **changes)  # type: ignore[arg-type]
    store.write(entries[shard].name, data)
    write_manifest(store, replace(manifest, shards=tuple(entries)))


def problems(location: str) -> list[str]:
    return [line for _, lines in ShardSet.open(location).verify() for line in lines]


@pytest.mark.parametrize("kind", ["crops", "backgrounds"])
def test_indexing_and_streaming_give_the_same_records(make_set: MakeSet, kind: str) -> None:
    found = ShardSet.open(make_set(kind))
    streamed = list(found.stream())
    assert len(found) == len(streamed) == 12
    assert [r.key for r in streamed] == sorted(r.key for r in streamed)
    assert all(same(found[i], record) for i, record in enumerate(streamed))
    assert all(same(found[i - 12], record) for i, record in enumerate(streamed))
    assert found.classes == (("bird",) if kind == "crops" else ())


def test_an_index_outside_is_an_index_error(make_set: MakeSet) -> None:
    found = ShardSet.open(make_set())
    for index in (12, -13):
        with pytest.raises(IndexError, match=f"record {index}, the set has 12"):
            found[index]


def test_shards_are_streamed_in_the_order_asked(make_set: MakeSet) -> None:
    keys = [record.key for record in ShardSet.open(make_set()).stream([2, 0])]
    assert keys == [make_crop(i).key for i in (8, 9, 10, 11, 0, 1, 2, 3)]


def test_a_set_in_memory_comes_back() -> None:
    place = f"memory://{uuid.uuid4()}/birds"
    store = open_store(place)
    entry = write_shard(store, "crops-000000.tar", map(make_crop, range(3)))
    write_manifest(store, Manifest("crops", ("bird",), "f", {}, (entry,), True))
    found = pickle.loads(pickle.dumps(ShardSet.open(place)))
    assert [record.key for record in found.stream()] == [found[i].key for i in range(3)]
    assert problems(place) == []


def test_empty_shards_are_stepped_over(make_set: MakeSet) -> None:
    place = make_set()
    forge(place, bytes(1024), records=0, labels={})
    found = ShardSet.open(place)
    assert [found[i].key for i in range(8)] == [make_crop(i).key for i in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert len(list(found.stream())) == 8


def test_a_set_without_records_is_empty(make_set: MakeSet) -> None:
    found = ShardSet.open(make_set(shards=0))
    assert (len(found), list(found.stream()), list(found.verify())) == (0, [], [])


def test_pickling_leaves_what_was_opened_behind(make_set: MakeSet) -> None:
    found = ShardSet.open(make_set())
    before = pickle.dumps(found)
    found[5]
    assert pickle.dumps(found) == before
    assert same(pickle.loads(before)[5], found[5])


def test_few_shards_are_kept_open(make_set: MakeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MAX_OPEN_SHARDS", 2)
    found = ShardSet.open(make_set(shards=5, each=1))
    assert [found[i].key for i in (0, 1, 2, 3, 4, 0)] == [make_crop(i).key for i in (0, 1, 2, 3, 4, 0)]
    assert list(found._views) == [4, 0]


def test_threads_may_share_a_set(make_set: MakeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MAX_OPEN_SHARDS", 1)
    found = ShardSet.open(make_set())
    keys: list[str] = []

    def read_all() -> None:
        keys.extend(found[i % 12].key for i in range(0, 60, 5))

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(keys) == sorted([make_crop(i).key for i in range(12)] * 4)


def test_a_million_records_open_without_touching_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tuple(
        ShardEntry(shard_name("crops", i), 1000, 10**7, "0" * 64, {"bird": 1000}) for i in range(1000)
    )
    write_manifest(open_store(tmp_path), Manifest("crops", ("bird",), "f", {}, entries, True))
    asked: list[str] = []
    for act in ("read", "view", "size", "exists"):
        real: Callable[[LocalStore, str], object] = getattr(LocalStore, act)
        monkeypatch.setattr(
            LocalStore, act, lambda s, name, real=real: (asked.append(name), real(s, name))[1]
        )
    found = ShardSet.open(tmp_path)
    assert (len(found), found.manifest.bytes) == (1_000_000, 10**10)
    assert set(asked) == {"manifest.json"}
    with pytest.raises(ShardError, match=r"crops-000999\.tar: not found"):
        found[999_999]


def test_an_incomplete_set_opens_only_when_allowed(make_set: MakeSet) -> None:
    place = make_set(complete=False)
    wanted = r"the set is incomplete \(3 shards so far\): run the command that made it again to finish it$"
    with pytest.raises(ShardError, match=wanted):
        ShardSet.open(place)
    assert len(ShardSet.open(place, allow_incomplete=True)) == 12


@pytest.mark.parametrize("place", ["missing", ""])
def test_a_folder_that_is_no_set_says_so(tmp_path: Path, place: str) -> None:
    with pytest.raises(ShardError, match=r"no manifest\.json: not a crop or background set$"):
        ShardSet.open(tmp_path / place)


def test_a_shard_cut_at_a_member_boundary_is_refused(make_set: MakeSet) -> None:
    place = make_set()
    path = Path(place) / "crops-000001.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        cut = tar.getmembers()[6].offset
    path.write_bytes(whole[:cut] + bytes(1024))
    with tarfile.open(path) as tar:
        assert len(tar.getmembers()) == 6  # a valid tar of two records
    wanted = f"{place}/crops-000001.tar: {cut + 1024} bytes, the manifest says {len(whole)}: "
    found = ShardSet.open(place)
    for read in (lambda: found[4], lambda: list(found.stream())):
        with pytest.raises(ShardError) as caught:
            read()
        assert str(caught.value) == wanted + "the shard is truncated or foreign"
    assert problems(place) == [str(caught.value)]
    assert found[0].key == make_crop(0).key


def test_a_missing_shard_is_named(make_set: MakeSet) -> None:
    place = make_set()
    (Path(place) / "crops-000001.tar").unlink()
    assert problems(place) == [f"{place}/crops-000001.tar: not found"]
    with pytest.raises(ShardError, match=r"crops-000001\.tar: not found"):
        ShardSet.open(place)[4]


def test_a_changed_byte_is_found_by_its_hash(make_set: MakeSet) -> None:
    place = make_set()
    path = Path(place) / "crops-000001.tar"
    data = bytearray(path.read_bytes())
    data[data.index(b'"slot":4') + 7] = ord("9")
    path.write_bytes(data)
    (line,) = problems(place)
    assert line.startswith(f"{place}/crops-000001.tar: sha256 is ")


def members_of(place: str, shard: int = 1) -> list[tuple[str, bytes]]:
    with tarfile.open(Path(place) / f"crops-{shard:06d}.tar") as tar:
        return [(i.name, f.read()) for i in tar.getmembers() if (f := tar.extractfile(i)) is not None]


def test_another_number_of_records_is_refused(make_set: MakeSet) -> None:
    place = make_set()
    forge(place, pack_tar(members_of(place)[:9]))
    assert problems(place) == [f"{place}/crops-000001.tar: 3 records, the manifest says 4"]
    with pytest.raises(ShardError, match="3 records, the manifest says 4"):
        ShardSet.open(place)[4]


def test_a_record_without_a_member_is_named(make_set: MakeSet) -> None:
    place = make_set()
    members = members_of(place)
    forge(place, pack_tar(members[:1] + members[2:]))
    key = make_crop(4).key
    missing = f"{place}/crops-000001.tar: {key}.alpha.jpg: missing, the group has rgb.jpg, json"
    assert problems(place) == [missing]
    found = ShardSet.open(place)
    assert found[5].key == make_crop(5).key
    with pytest.raises(ShardError) as caught:
        found[4]
    assert str(caught.value) == missing


def test_every_undecodable_record_is_named(make_set: MakeSet) -> None:
    place = make_set()
    members = [(name, b"junk" if name.endswith("rgb.jpg") else data) for name, data in members_of(place)]
    forge(place, pack_tar(members))
    assert [line.split(": ")[1] for line in problems(place)] == [
        f"{make_crop(i).key}.rgb.jpg" for i in range(4, 8)
    ]


def test_keys_out_of_order_are_refused(make_set: MakeSet) -> None:
    place = make_set()
    members = members_of(place)
    forge(place, pack_tar(members[3:6] + members[:3] + members[6:]))
    assert "wanted rising keys" in problems(place)[0]


def test_other_labels_than_the_manifest_counts_are_found(make_set: MakeSet, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    entry = write_shard(store, "crops-000000.tar", [make_crop(0, "bird"), make_crop(1, "car")])
    swapped = replace(entry, labels={"bird": 2})
    write_manifest(store, Manifest("crops", ("bird", "car"), "f", {}, (swapped,), True))
    (line,) = problems(str(tmp_path))
    assert line.endswith("labels are {'bird': 1, 'car': 1}, the manifest says {'bird': 2}")


def test_a_label_outside_the_classes_is_refused(make_set: MakeSet) -> None:
    place = make_set()
    store = open_store(f"{place}/other")
    write_shard(store, "crops-000001.tar", [make_crop(i, "car") for i in range(4, 8)])
    forge(place, store.read("crops-000001.tar"))
    with pytest.raises(ShardError, match="c00000004: label 'car', the set has bird"):
        ShardSet.open(place)[4]


def test_records_of_the_other_kind_are_refused(make_set: MakeSet) -> None:
    place = make_set()
    store = open_store(f"{place}/other")
    write_shard(store, "backgrounds-000000.tar", map(make_background, range(4)))
    forge(place, store.read("backgrounds-000000.tar"))
    with pytest.raises(ShardError, match="b00000000: is a BackgroundRecord, the manifest says crops"):
        ShardSet.open(place)[4]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"junk" * 512, "no tar header at byte 0"),
        (lambda data: b"x" + data[1:], "damaged tar header at byte 0"),
        (lambda data: data[:600], "the member at byte 0 is cut off"),
        (lambda data: data[:100], "0 records, the manifest says 4"),
    ],
)
def test_what_is_no_tar_is_refused(make_set: MakeSet, damage: Callable[[bytes], bytes], message: str) -> None:
    place = make_set()
    forge(place, damage((Path(place) / "crops-000001.tar").read_bytes()))
    assert problems(place) == [f"{place}/crops-000001.tar: {message}"]


def with_size(tar: bytes, digits: bytes) -> bytes:
    """The tar with another size in its first header, whose checksum then fits."""
    head = tar[:124] + digits + tar[135:148] + b" " * 8 + tar[156:512]
    return head[:148] + b"%06o\0 " % sum(head) + head[156:] + tar[512:]


def test_a_negative_size_is_refused(make_set: MakeSet) -> None:
    place = make_set()
    forge(place, with_size((Path(place) / "crops-000001.tar").read_bytes(), b"-0000001000"))
    assert problems(place) == [f"{place}/crops-000001.tar: damaged tar header at byte 0"]


@pytest.mark.parametrize("digits", [b"junk", b"-0000001000"])
def test_a_shard_that_changes_under_the_reader_is_noticed(make_set: MakeSet, digits: bytes) -> None:
    place = make_set()
    path = Path(place) / "crops-000001.tar"
    found = ShardSet.open(place)
    assert found[4].key == make_crop(4).key
    with path.open("r+b") as file:
        file.write(with_size(path.read_bytes(), digits.ljust(11, b"\0")))
    with pytest.raises(
        ShardError, match=r"crops-000001\.tar: no tar header at byte 0: the shard was changed"
    ):
        found[4]


def test_a_tar_of_other_makers_is_read(make_set: MakeSet) -> None:
    place = make_set()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members_of(place):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    forge(place, packed.getvalue())
    record = ShardSet.open(place)[4]
    assert isinstance(record, CropRecord)
    assert record.key == make_crop(4).key
    assert problems(place) == []
