"""Small sets made in code; an S3 server behind a line that may fail."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from shards.manifest import Kind, Manifest, ShardEntry, fingerprint_of, shard_name, write_manifest
from shards.records import BackgroundRecord, CropRecord, Record
from shards.store import open_store
from shards.writer import write_shard
from tests.faults.s3_proxy import BUCKET, FaultyProxy, faulty_proxy, s3_server, s3_settings

MakeSet = Callable[..., str]


def smooth_image(width: int, height: int, shift: int = 0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    channels = [x * 200 // width + 20, y * 200 // height + 20, np.full_like(x, 40 + shift % 160)]
    return np.stack(channels, axis=2).astype(np.uint8)


def disc(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) / width) ** 2 + ((y - height / 2) / height) ** 2 < 0.16
    return np.where(inside, 255, 0).astype(np.uint8)


def make_crop(index: int, label: str = "bird") -> CropRecord:
    width, height = 24 + index % 5, 32 + index % 3
    image, mask = smooth_image(width, height, index), disc(width, height)
    return CropRecord(f"c{index:08d}", label, image, mask, {"source": "test", "slot": index, "score": 0.5})


def make_background(index: int) -> BackgroundRecord:
    return BackgroundRecord(f"b{index:08d}", smooth_image(40, 30, index), {"file": f"{index}.jpg"})


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """make_set(kind, shards, records a shard, complete, location) -> its location."""

    def make(
        kind: Kind = "crops",
        shards: int = 3,
        each: int = 4,
        complete: bool = True,
        location: str | None = None,
    ) -> str:
        place = location or str(tmp_path / kind)
        store = open_store(place)
        entries: list[ShardEntry] = []
        for shard in range(shards):
            slots = range(shard * each, (shard + 1) * each)
            records: list[Record] = [make_crop(i) if kind == "crops" else make_background(i) for i in slots]
            entries.append(
                write_shard(store, shard_name(kind, shard), records, dropped={"small": 1}, seen=each + 1)
            )
        recipe = {"class": "bird", "seed": 0}
        classes = ("bird",) if kind == "crops" else ()
        write_manifest(
            store, Manifest(kind, classes, fingerprint_of(recipe), recipe, tuple(entries), complete)
        )
        return place

    return make


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """A real S3-compatible server on loopback."""
    for package in ("s3fs", "moto", "flask", "flask_cors"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'crop-foundry[test]'")
    with s3_server() as port:
        yield port


@pytest.fixture(scope="session")
def line(s3_port: int) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3_port) as proxy:
        yield proxy


@pytest.fixture
def proxy(line: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """What lies between ``s3://`` and the server; its `plan` spoils requests. Tests have little patience."""
    line.mend()
    monkeypatch.setitem(fsspec.config.conf, "s3", s3_settings(line))
    for name, value in {"TRIES": "4", "WAIT_S": "0.01", "SILENCE_S": "0.25"}.items():
        monkeypatch.setenv(f"CROP_FOUNDRY_REMOTE_{name}", value)
    return line


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own."""
    return f"s3://{BUCKET}/{re.sub('[^a-z0-9]+', '-', request.node.name)}"
