"""A set built onto S3 over a line that fails, and read from there."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from factory.build import main as build
from shards.reader import ShardSet
from shards.store import open_store
from tests.faults.s3_proxy import FAULTS

_RECIPE = """
label: noise
source: {kind: images}
segmenter: {kind: whole}
quality: {duplicate_bits: null}
shard_size: 4
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        noise = np.random.default_rng([7, number]).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.png"), noise)
    return folder


def test_a_build_over_a_bad_line_gives_the_bytes_of_a_local_build(proxy, place, tmp_path, photos) -> None:
    (tmp_path / "noise.yaml").write_text(_RECIPE)
    recipe = ["--class", str(tmp_path / "noise.yaml"), f"source.root={photos}", "--ray", "off"]
    assert build([*recipe, "--out", str(tmp_path / "set")]) == 0
    quick = [fault for fault in FAULTS if fault not in ("slow", "late")]
    proxy.plan = lambda number, verb, path: quick[number // 3 % len(quick)] if number % 3 == 1 else None
    assert build([*recipe, "--out", place]) == 0
    local, remote = open_store(tmp_path / "set"), open_store(place)
    assert {n: remote.read(n) for n in remote.names()} == {n: local.read(n) for n in local.names()}
    crops = ShardSet.open(place)
    assert len(crops) == 12
    assert not [problem for _, problems in crops.verify() for problem in problems]
    assert [record.key for record in crops.stream()] == [crops[i].key for i in range(12)]
    assert sum(fault is not None for _, _, fault in proxy.seen) >= 8
