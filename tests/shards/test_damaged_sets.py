"""What fuzzing found in sets: each was another exception, or a message of many lines."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from shards.codec import decode, encode
from shards.entries import canonical_json
from shards.errors import ShardError
from shards.manifest import Manifest, ShardEntry, manifest_from_json, shard_name, write_manifest
from shards.reader import ShardSet
from shards.stats import _described, stats_of
from shards.store import open_store
from shards.writer import pack_tar, write_shard

from .conftest import make_crop

FINGERPRINT = "f"


def manifest(**facts: Any) -> dict[str, Any]:
    """A set of one shard, as plain values."""
    entry = ShardEntry(shard_name("crops", 0), 3, 4096, "0" * 64, {"bird": 3})
    raw: dict[str, Any] = json.loads(Manifest("crops", ("bird",), "f", {}, (entry,), True).to_json())
    raw["shards"][0].update(facts)
    return raw


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": f"crops-{'9' * 5000}.tar"}, "is no shard's name here"),
        (
            {"records": 2**70, "labels": {"bird": 2**70}},
            "records is 1180591620717411303424, wanted less than",
        ),
        ({"dropped": {"small": 2**70}}, "dropped is"),
    ],
)
def test_numbers_that_no_set_can_have_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        manifest_from_json(json.dumps(manifest(**change)), "m")


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "\x1b[31m", "\u2028"])
def test_class_names_that_no_message_can_show_are_refused(name: str) -> None:
    with pytest.raises(ShardError, match=r"classes is .*, wanted different names"):
        manifest_from_json(json.dumps(manifest() | {"classes": [name]}), "m")


def test_half_a_character_in_a_recipe_is_refused_when_written() -> None:
    with pytest.raises(ShardError, match=r"manifest.json: not plain JSON"):
        manifest_from_json(json.dumps(manifest() | {"recipe": {"a": "\ud800"}}), "m").to_json()
    with pytest.raises(ShardError, match="here: not plain JSON"):
        canonical_json("\udfff", "here")


@pytest.mark.parametrize("indent", [None, 0, 1, 2, 4])
def test_a_manifest_laid_out_by_another_program_is_read(indent: int | None) -> None:
    whole = manifest_from_json(json.dumps(manifest(), indent=indent), "m")
    assert whole == manifest_from_json(json.dumps(manifest()), "m")
    assert len(whole.shards) == 1


def members(index: int = 0) -> dict[str, bytes]:
    return {f"{index:03d}.{extension}": data for extension, data in encode(make_crop(index)).items()}


def set_of(folder: Path, files: dict[str, bytes], records: int) -> ShardSet:
    store = open_store(folder)
    packed = pack_tar(files.items())
    store.write("crops-000000.tar", packed)
    digest = sha256(packed).hexdigest()
    entry = ShardEntry("crops-000000.tar", records, len(packed), digest, {"bird": records})
    write_manifest(store, Manifest("crops", ("bird",), FINGERPRINT, {}, (entry,), True))
    return ShardSet.open(folder)


@pytest.mark.parametrize("name", ["000.a\nb", "000.\x1b[31m", "000.a\rb"])
def test_a_member_whose_name_no_message_can_show_is_refused(tmp_path: Path, name: str) -> None:
    found = set_of(tmp_path, {name: b"x", **members()}, 1)
    with pytest.raises(ShardError, match="at byte 0, wanted a member's name that can be printed") as caught:
        list(found.stream())
    assert len(str(caught.value).splitlines()) == 1


def test_a_members_name_ends_at_its_first_zero_byte(tmp_path: Path) -> None:
    parts = members()
    found = set_of(tmp_path, {f"{name}\0left over": data for name, data in parts.items()}, 1)
    assert found[0].key == "000"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1e999"])
def test_an_origin_that_is_not_finite_is_refused(value: str) -> None:
    parts = encode(make_crop(0))
    facts = parts["json"].replace(b'"score":0.5', f'"score":{value}'.encode())
    assert facts != parts["json"]
    with pytest.raises(ShardError, match="wanted a mapping of finite scalars"):
        decode("k", parts | {"json": facts})


def test_a_side_that_is_a_text_makes_no_message_of_two_lines() -> None:
    parts = encode(make_crop(0))
    facts = json.loads(parts["json"]) | {"width": "\n"}
    with pytest.raises(ShardError, match=r"rgb.jpg: is 24x32, its json says '\\n'x32"):
        decode("k", parts | {"json": json.dumps(facts).encode()})


def test_a_jpeg_of_unknown_subsampling_is_refused() -> None:
    parts = encode(make_crop(0))
    jpeg = bytearray(parts["rgb.jpg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 11] = 0x41  # four samples a row of the first component: no subsampling that has a name
    with pytest.raises(ShardError, match=r"k.rgb.jpg: not readable as JPEG"):
        decode("k", parts | {"rgb.jpg": bytes(jpeg)})


@pytest.mark.parametrize("score", [1e300, -1e17, 5e-324])
def test_figures_survive_scores_of_any_size(tmp_path: Path, score: float) -> None:
    store = open_store(tmp_path)
    records = [replace(make_crop(i), origin={"score": score * (i + 1)}) for i in range(3)]
    entry = write_shard(store, "crops-000000.tar", records)
    write_manifest(store, Manifest("crops", ("bird",), FINGERPRINT, {}, (entry,), True))
    found = stats_of(ShardSet.open(tmp_path))
    json.dumps(found, allow_nan=False)
    assert ("score" in found["measures"]) == (abs(score) < 1e15)


@pytest.mark.parametrize("make", [lambda: [0.0, 5e-324], lambda: [1e14, 1e14 + 1], lambda: [-1e14, 0.25]])
def test_a_histogram_holds_every_value(make: Callable[[], list[float]]) -> None:
    import numpy as np

    assert sum(_described(np.array(make()))["histogram"]["counts"]) == 2
