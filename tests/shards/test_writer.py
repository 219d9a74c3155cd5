import errno
import gc
import hashlib
import io
import os
import tarfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from shards.errors import ShardError
from shards.manifest import ShardEntry
from shards.records import CropRecord
from shards.store import open_store
from shards.writer import pack_shard, pack_tar, write_shard

from .conftest import MakeSet, make_background, make_crop


def test_tarfile_reads_a_packed_tar() -> None:
    members = {"a.jpg": b"", "a.json": b"x" * 512, "b" * 100: bytes(range(256)) * 5}
    with tarfile.open(fileobj=io.BytesIO(pack_tar(members.items())), mode="r:", errorlevel=2) as tar:
        infos = tar.getmembers()
        contents = [tar.extractfile(info) for info in infos]
        assert {i.name: c.read() for i, c in zip(infos, contents, strict=True) if c is not None} == members
    assert all((i.mtime, i.uid, i.gid, i.mode, i.uname, i.gname) == (0, 0, 0, 0o644, "", "") for i in infos)
    assert all(i.isreg() and not i.pax_headers for i in infos)


def test_the_bytes_of_a_tar_never_change() -> None:
    packed = pack_tar([("a.jpg", b"x" * 513), ("b" * 100, b""), ("c.json", bytes(range(256)) * 2)])
    assert (
        hashlib.sha256(packed).hexdigest()
        == "422cdeb1ec1d59a49654f1b68dd5a80b8203e96def2417f7c0dc926ce32d01b3"
    )


def test_the_end_is_two_zero_blocks() -> None:
    assert pack_tar([]) == bytes(1024)


@pytest.mark.parametrize("name", ["", "a" * 101, "vögel.jpg"])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ShardError, match="wanted 1 to 100 of ASCII"):
        pack_tar([(name, b"")])


def test_the_entry_says_what_was_written(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    records = [make_crop(i, "bird" if i % 3 else "car") for i in range(5)]
    entry = write_shard(store, "crops-000000.tar", records, dropped={"small": 2, "blurred": 1}, seen=8)
    data = store.read("crops-000000.tar")
    wanted = hashlib.sha256(data).hexdigest()
    labels, dropped = {"bird": 3, "car": 2}, {"blurred": 1, "small": 2}
    assert entry == ShardEntry("crops-000000.tar", 5, len(data), wanted, labels, dropped, 8)
    assert store.names() == ["crops-000000.tar"]


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    entries = [
        write_shard(open_store(tmp_path / str(run)), "crops-000000.tar", (make_crop(i) for i in range(4)))
        for run in range(2)
    ]
    assert entries[0] == entries[1]


def test_packing_is_writing_without_the_store(tmp_path: Path) -> None:
    records = [make_crop(i) for i in range(4)]
    entry, packed = pack_shard("crops-000000.tar", records, dropped={"small": 1}, seen=5)
    store = open_store(tmp_path)
    assert write_shard(store, "crops-000000.tar", records, dropped={"small": 1}, seen=5) == entry
    assert store.read("crops-000000.tar") == packed


def test_encoders_change_no_byte() -> None:
    with ThreadPoolExecutor(3) as encoders:
        found = pack_shard("crops-000000.tar", map(make_crop, range(200)), encoders=encoders)
    assert found == pack_shard("crops-000000.tar", map(make_crop, range(200)))


def test_what_the_records_count_on_their_way_is_in_the_entry() -> None:
    dropped: Counter[str] = Counter()
    seen = 0

    def records() -> Iterator[CropRecord]:
        nonlocal seen
        for index in range(6):
            seen += 1
            if index % 2:
                dropped["small"] += 1
            else:
                yield make_crop(index)

    entry, _ = pack_shard("crops-000000.tar", records(), dropped=dropped, seen=lambda: seen)
    assert (entry.records, entry.dropped, entry.seen) == (3, {"small": 3}, 6)


def test_records_run_at_most_64_ahead_of_the_encoders() -> None:
    made = 0
    blocked = threading.Event()

    def records() -> Iterator[CropRecord]:
        nonlocal made
        for made in range(1, 201):
            if made == 65:
                blocked.set()  # an encoder that never starts must not get this far
            yield make_crop(made)

    with ThreadPoolExecutor(1) as encoders, ThreadPoolExecutor(1) as packer:
        gate = threading.Event()
        encoders.submit(gate.wait)
        packing = packer.submit(pack_shard, "crops-000000.tar", records(), encoders=encoders)
        assert not blocked.wait(0.3)
        assert made == 64
        gate.set()
        assert packing.result()[0].records == 200


@pytest.mark.parametrize("threads", [0, 2])
def test_a_record_that_cannot_be_encoded_is_named_and_ends_the_packing(threads: int) -> None:
    good = [make_crop(i) for i in range(100)]
    bad = CropRecord(good[9].key, "bird", good[9].image, good[9].mask, {"score": float("nan")})
    records = iter([*good[:9], bad, *good[10:]])
    with ThreadPoolExecutor(threads or 1) as encoders, pytest.raises(ShardError, match=r"^c00000009: origin"):
        pack_shard("crops-000000.tar", records, encoders=encoders if threads else None)
    assert len(list(records)) >= (90 if threads == 0 else 100 - 9 - 64)


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    entry = write_shard(open_store(tmp_path), "backgrounds-000000.tar", [], seen=9)
    assert (entry.records, entry.bytes, entry.seen) == (0, 1024, 9)


@pytest.mark.parametrize("indexes", [(1, 1), (2, 1)])
def test_keys_that_do_not_rise_are_refused_and_nothing_is_written(
    tmp_path: Path, indexes: tuple[int, int]
) -> None:
    with pytest.raises(
        ShardError, match=r"^crops-000000.tar: c00000001: comes after c0000000[12], wanted rising"
    ):
        write_shard(open_store(tmp_path), "crops-000000.tar", map(make_crop, indexes))
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"b00000001: is a BackgroundRecord, wanted a CropRecord"):
        write_shard(open_store(tmp_path), "crops-000000.tar", [make_background(1)])


def test_out_of_disk_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_disk(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", out_of_disk)
    with pytest.raises(ShardError, match="No space left on device"):
        write_shard(open_store(tmp_path), "crops-000000.tar", [make_crop(0)])
    assert list(tmp_path.iterdir()) == []


def samples(path: str, decoder: str) -> list[dict[str, object]]:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # webdataset leaves its file to the garbage collector
        found = list(webdataset.WebDataset(path, shardshuffle=False).decode(decoder))
        gc.collect()
    return found


def test_webdataset_decodes_crops_with_its_stock_handlers(make_set: MakeSet) -> None:
    found = samples(f"{make_set('crops', 1, 3)}/crops-000000.tar", "rgb8")
    for index, sample in enumerate(found):
        crop = make_crop(index)
        rgb, alpha, facts = sample["rgb.jpg"], sample["alpha.jpg"], sample["json"]
        assert isinstance(rgb, np.ndarray)
        assert isinstance(alpha, np.ndarray)
        assert isinstance(facts, dict)
        assert (sample["__key__"], facts["label"], facts["origin"]) == (crop.key, crop.label, crop.origin)
        assert np.abs(rgb.astype(int) - crop.image).mean() < 6
        assert alpha.shape[:2] == crop.mask.shape
    assert len(found) == 3


def test_webdataset_decodes_backgrounds_with_its_stock_handlers(make_set: MakeSet) -> None:
    found = samples(f"{make_set('backgrounds', 1, 3)}/backgrounds-000000.tar", "rgb8")
    shapes = [(s["__key__"], np.asarray(s["jpg"]).shape) for s in found]
    assert shapes == [(make_background(i).key, (30, 40, 3)) for i in range(3)]


@pytest.mark.parametrize(
    ("kind", "member"), [("crops", "rgb.jpg"), ("crops", "alpha.jpg"), ("backgrounds", "jpg")]
)
def test_webdataset_gives_pillow_images(make_set: MakeSet, kind: str, member: str) -> None:
    found = samples(f"{make_set(kind, 1, 2)}/{kind}-000000.tar", "pil")
    size = (24, 32) if kind == "crops" else (40, 30)
    assert len(found) == 2
    image = found[0][member]
    assert isinstance(image, Image.Image)
    assert image.size == size
