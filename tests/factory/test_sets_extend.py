"""A set that grows keeps what it has: only the new shards are made."""

from pathlib import Path

import pytest
import torch

from factory.build import main
from factory.generators.dcgan import DcganGenerator, DcganSizes
from shards.reader import ShardSet

_RECIPE = """
label: blob
source: {kind: dcgan, weights: dcgan.pth, batch_size: 8}
segmenter: {kind: whole}
quality: {duplicate_bits: null}
shard_size: 6
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch) -> list[str]:
    """The command line of an endless build, less --out and --crops."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = DcganGenerator(DcganSizes(nz=6, ngf=4, nc=3, image_px=16))
    torch.save(generator.state_dict(), tmp_path / "dcgan.pth")
    (tmp_path / "blob.yaml").write_text(_RECIPE)
    monkeypatch.chdir(tmp_path)
    return ["--class", "blob.yaml", "--ray", "off"]


def _tars(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.glob("*.tar"))}


def test_more_crops_of_a_generator_make_only_the_new_shards(recipe, tmp_path) -> None:
    out, whole = tmp_path / "set", tmp_path / "whole"
    main([*recipe, "--out", str(out), "--crops", "12"])
    before = _tars(out)
    main([*recipe, "--out", str(out), "--crops", "24"])
    after = _tars(out)
    assert len(before) == 2
    assert {name: after[name] for name in before} == before
    assert len(ShardSet.open(out)) == 24
    main([*recipe, "--out", str(whole), "--crops", "24"])
    assert [data for data, _ in _tars(whole).values()] == [data for data, _ in after.values()]
    assert (whole / "manifest.json").read_bytes() == (out / "manifest.json").read_bytes()
