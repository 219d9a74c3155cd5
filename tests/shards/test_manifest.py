import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ShardError
from shards.manifest import (
    Manifest,
    ShardEntry,
    find_manifest,
    fingerprint_of,
    manifest_from_json,
    read_manifest,
    shard_name,
    write_manifest,
)
from shards.store import open_store

HASH = "0" * 64
RECIPE = {"class": "bird", "source": {"kind": "images"}}


def entry(index: int) -> ShardEntry:
    return ShardEntry(shard_name("crops", index), 3, 4096, HASH, {"bird": 3}, {"small": 2}, 5)


def manifest() -> Manifest:
    return Manifest("crops", ("bird",), fingerprint_of(RECIPE), RECIPE, (entry(0), entry(1)), True)


def test_a_manifest_comes_back_and_its_text_is_always_the_same() -> None:
    text = manifest().to_json()
    assert manifest_from_json(text, "m") == manifest()
    assert manifest_from_json(text, "m").to_json() == text


def test_totals_are_sums_over_shards() -> None:
    assert (manifest().records, manifest().bytes) == (6, 8192)


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert fingerprint_of({"a": 1, "b": 2}) == fingerprint_of({"b": 2, "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})


def test_a_recipe_that_is_not_json_is_refused() -> None:
    with pytest.raises(ShardError, match="recipe: not plain JSON"):
        fingerprint_of({"a": Path()})


def test_shard_names_are_padded() -> None:
    assert shard_name("crops", 17) == "crops-000017.tar"
    assert shard_name("backgrounds", 1_234_567) == "backgrounds-1234567.tar"


def test_shards_are_ordered_by_number_beyond_the_padding() -> None:
    shards = (entry(999_999), entry(1_000_000))
    text = Manifest("crops", ("bird",), "f", {}, shards, True).to_json()
    assert manifest_from_json(text, "m").shards == shards


@pytest.mark.parametrize("indent", [None, 1, 2])
def test_a_manifest_may_be_laid_out_in_any_way(indent) -> None:
    manifest = Manifest("crops", ("bird",), "f", {"shards": [1, 2]}, (entry(0), entry(1)), True)
    text = json.dumps(json.loads(manifest.to_json()), indent=indent)
    assert manifest_from_json(text, "m") == manifest
    assert manifest_from_json(manifest.to_json(), "m") == manifest


def drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda raw: raw.pop(key)


def put(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda raw: raw.__setitem__(key, value)


def put_first(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda raw: raw["shards"][0].__setitem__(key, value)


BROKEN: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (put("version", 2), r"format 2, this program reads 1: update crop-foundry"),
    (put("version", 0), "version is 0"),
    (put("version", True), "version is True, wanted int"),
    (drop("version"), "no 'version'"),
    (put("kind", "cats"), "kind is 'cats', wanted crops or backgrounds"),
    (put("classes", ["bird", "bird"]), "classes is"),
    (put("classes", [1]), "classes is"),
    (put("classes", ["cat"]), "labels is {'bird': 3}, wanted only classes of the set: cat"),
    (put("fingerprint", ""), "fingerprint is ''"),
    (put("recipe", []), r"recipe is \[\], wanted dict"),
    (put("complete", 1), "complete is 1"),
    (drop("complete"), "no 'complete'"),
    (put("shards", {}), "shards is"),
    (put("shards", [3]), "shards: holds a int, wanted a mapping"),
    (put_first("name", "../crops-000000.tar"), "is no shard's name here"),
    (put_first("name", "/etc/passwd"), "is no shard's name here"),
    (put_first("name", "backgrounds-000000.tar"), "is no shard's name here"),
    (put_first("name", "crops-0000000.tar"), "is no shard's name here"),
    (put_first("name", "crops-000001.tar"), "crops-000001.tar is listed twice"),
    (put_first("name", "crops-000002.tar"), "crops-000001.tar comes after crops-000002.tar"),
    (put_first("records", -1), "records is -1, wanted 0 or more"),
    (put_first("records", 4), "labels is .*, wanted 4 together"),
    (put_first("bytes", 1.5), "bytes is 1.5, wanted int"),
    (put_first("sha256", "0" * 63), "sha256 is"),
    (put_first("sha256", "G" * 64), "sha256 is"),
    (put_first("labels", {"bird": "3"}), "labels is"),
    (put_first("dropped", {"small": -1}), "dropped is"),
    (put_first("seen", None), "seen is None"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_wrong_field_is_refused_by_name(change: Callable[[dict[str, Any]], object], message: str) -> None:
    raw = json.loads(manifest().to_json())
    change(raw)
    with pytest.raises(
        ShardError, match=rf"^m: .*{message}" if not message.startswith("format") else f"^m: {message}$"
    ):
        manifest_from_json(json.dumps(raw), "m")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"version": NaN}', "1" * 5000])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ShardError, match=r"^m: not readable as JSON"):
        manifest_from_json(text, "m")


def test_a_text_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ShardError, match=r"^m: holds a list, wanted a mapping$"):
        manifest_from_json("[]", "m")


def test_dropped_and_seen_may_be_left_out() -> None:
    raw = json.loads(manifest().to_json())
    for key in ("dropped", "seen"):
        del raw["shards"][0][key]
    first = manifest_from_json(json.dumps(raw), "m").shards[0]
    assert (first.dropped, first.seen) == ({}, 0)


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_a_manifest_says_so(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "set"
    if make:
        folder.mkdir()
    store = open_store(folder)
    assert find_manifest(store) is None
    with pytest.raises(ShardError, match=r"set: no manifest\.json: not a crop or background set$"):
        read_manifest(store)
    assert folder.exists() == make


def test_a_manifest_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ShardError, match="not UTF-8"):
        read_manifest(open_store(tmp_path))


def test_a_manifest_that_would_not_read_back_is_not_written(tmp_path: Path) -> None:
    twice = Manifest("crops", ("bird",), "f", {}, (entry(0), entry(0)), False)
    with pytest.raises(ShardError, match="listed twice"):
        write_manifest(open_store(tmp_path), twice)
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_the_older_manifest(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write_manifest(store, Manifest("crops", ("bird",), "f", {}, (), False))
    write_manifest(store, manifest())
    assert read_manifest(store) == manifest()
    assert store.names() == ["manifest.json"]
