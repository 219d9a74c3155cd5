"""Sets are copied, merged and thinned out as a user does it, and nothing that was read is changed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import InputError
from factory.managing import copying, derived
from factory.sets import main
from shards.errors import ShardError
from shards.manifest import (
    Kind,
    Manifest,
    ShardEntry,
    fingerprint_of,
    read_manifest,
    shard_name,
    write_manifest,
)
from shards.reader import ShardSet
from shards.records import BackgroundRecord, CropRecord, Record
from shards.store import open_store
from shards.writer import write_shard

MakeSet = Callable[..., Path]


def _record(kind: Kind, seed: int, index: int, label: str) -> Record:
    rng = np.random.default_rng([seed, index])
    image = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((6, 4 + index % 3, 1))).astype(np.uint8)
    key = f"{index // 4:06d}-{index % 4:05d}"
    if kind == "backgrounds":
        return BackgroundRecord(key, image, {"file": f"{index}.jpg"})
    origin = {"source": "test", "slot": index, "confidence": round(index / 20, 4)}
    return CropRecord(key, label, image, np.full(image.shape[:2], 255, np.uint8), origin)


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """make_set(name, label, seed, records, kind, classes) -> a folder of 4 records a shard."""

    def make(
        name: str = "birds",
        label: str = "bird",
        seed: int = 0,
        records: int = 12,
        kind: Kind = "crops",
        classes: tuple[str, ...] | None = None,
    ) -> Path:
        store = open_store(tmp_path / name)
        entries: list[ShardEntry] = []
        for start in range(0, records, 4):
            made = [_record(kind, seed, index, label) for index in range(start, min(records, start + 4))]
            dropped = {"unsure": 1}
            entries.append(write_shard(store, shard_name(kind, start // 4), made, dropped=dropped, seen=5))
        recipe = {"settings": {"label": label, "seed": seed}}
        classes = (label,) if classes is None else classes
        write_manifest(store, Manifest(kind, classes, fingerprint_of(recipe), recipe, tuple(entries), True))
        store.write("recipe.yaml", b"label: bird\n")
        return tmp_path / name

    return make


def _files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: data for name, (data, _) in _files(folder).items()}


def _is_sound(place: str | Path) -> bool:
    return not [problem for _, problems in ShardSet.open(place).verify() for problem in problems]


def _commands(birds: Path, cats: Path, out: str) -> dict[str, list[str]]:
    return {
        "copy": ["copy", str(birds), out],
        "merge": ["merge", out, str(birds), str(cats)],
        "drop": ["drop", str(birds), "--out", out, "confidence<0.3"],
        "dedupe": ["dedupe", "--out", out, str(birds)],
        "regate": ["regate", str(birds), "quality.min_confidence=0.25", "--out", out],
    }


@pytest.fixture(params=["copy", "merge", "drop", "dedupe", "regate"])
def command(request, make_set: MakeSet, tmp_path: Path) -> list[str]:
    """A command line that fills ``tmp_path / "out"``."""
    return _commands(make_set(), make_set("cats", "cat", seed=1), str(tmp_path / "out"))[request.param]


def test_a_command_leaves_a_sound_set_and_its_inputs_as_they_were(command, tmp_path) -> None:
    before = _files(tmp_path / "birds"), _files(tmp_path / "cats")
    assert main(command) == 0
    assert _is_sound(tmp_path / "out")
    assert (_files(tmp_path / "birds"), _files(tmp_path / "cats")) == before


def test_the_same_command_again_changes_nothing(command, tmp_path, capsys) -> None:
    main(command)
    before = _files(tmp_path / "out")
    main(command)
    assert _files(tmp_path / "out") == before
    assert "up to date" in capsys.readouterr().out


def test_an_interrupted_command_goes_on_and_keeps_what_is_done(command, tmp_path, monkeypatch) -> None:
    main(command)
    undisturbed = _contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "undisturbed")

    def stop_at_the_third(function):
        def stopping(store, shard, *args, **kwargs):
            if getattr(shard, "name", shard) == "crops-000002.tar":
                raise KeyboardInterrupt
            return function(store, shard, *args, **kwargs)

        return stopping

    monkeypatch.setattr(derived, "write_raw", stop_at_the_third(derived.write_raw))
    monkeypatch.setattr(copying, "read_checked", stop_at_the_third(copying.read_checked))
    with pytest.raises(KeyboardInterrupt):
        main(command)
    monkeypatch.undo()
    halfway = _files(tmp_path / "out")
    assert not read_manifest(open_store(tmp_path / "out")).complete
    assert "crops-000001.tar" in halfway
    main(command)
    assert _contents(tmp_path / "out") == undisturbed
    assert _files(tmp_path / "out")["crops-000001.tar"] == halfway["crops-000001.tar"]


def test_a_folder_with_another_set_is_refused(command, tmp_path, make_set) -> None:
    before = _files(make_set("out", "dog", seed=7))
    with pytest.raises(InputError, match=r"out: holds another set.*wanted a new or empty folder"):
        main(command)
    assert _files(tmp_path / "out") == before


def test_a_folder_with_something_else_is_refused(command, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("keep me")
    with pytest.raises(InputError, match=r"holds thesis\.txt"):
        main(command)


def test_a_damaged_parent_is_refused(command, tmp_path) -> None:
    path = tmp_path / "birds" / "crops-000001.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ShardError, match=r"crops-000001\.tar: sha256"):
        main(command)
    assert not read_manifest(open_store(tmp_path / "out")).complete


def test_a_lost_shard_is_made_again(command, tmp_path) -> None:
    main(command)
    before = _contents(tmp_path / "out")
    (tmp_path / "out" / "crops-000001.tar").unlink()
    main(command)
    assert _contents(tmp_path / "out") == before


def test_a_copy_is_the_set_byte_for_byte_there_and_back(make_set, tmp_path) -> None:
    birds = make_set()
    main(["copy", str(birds), "memory://sets/birds"])
    assert _is_sound("memory://sets/birds")
    main(["copy", "memory://sets/birds", str(tmp_path / "back"), "--verify"])
    assert _contents(tmp_path / "back") == _contents(birds)


def test_verify_mends_a_damaged_copy(make_set, tmp_path, capsys) -> None:
    birds, out = make_set(), tmp_path / "out"
    main(["copy", str(birds), str(out)])
    data = bytearray((out / "crops-000001.tar").read_bytes())
    data[700] ^= 255
    (out / "crops-000001.tar").write_bytes(bytes(data))
    main(["copy", str(birds), str(out)])
    assert not _is_sound(out)  # of the right size: not looked into
    main(["copy", str(birds), str(out), "--verify"])
    assert "1 shards copied, every hash checked" in capsys.readouterr().out
    assert _contents(out) == _contents(birds)


def test_a_copy_follows_the_set_that_grew(make_set, tmp_path) -> None:
    out = tmp_path / "out"
    main(["copy", str(make_set(records=8)), str(out)])
    before = _files(out)
    birds = make_set(records=16)
    main(["copy", str(birds), str(out)])
    assert _contents(out) == _contents(birds)
    assert _files(out)["crops-000001.tar"] == before["crops-000001.tar"]


def test_a_copy_that_holds_more_is_refused(make_set, tmp_path) -> None:
    main(["copy", str(make_set(records=16)), str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"holds more of crops-000002\.tar"):
        main(["copy", str(make_set(records=8)), str(tmp_path / "out")])


def test_a_set_is_not_copied_onto_itself(make_set, tmp_path) -> None:
    birds = make_set()
    (birds / "crops-000000.tar").unlink()
    with pytest.raises(InputError, match="wanted another place"):
        main(["copy", str(birds), f"{birds}/../birds"])
    assert read_manifest(open_store(birds)).complete


def test_merged_records_are_those_of_the_sets_in_order_under_new_keys(make_set, tmp_path) -> None:
    birds, cats = make_set(records=6), make_set("cats", "cat", seed=1)
    main(["merge", str(tmp_path / "out"), str(birds), str(cats)])
    merged = ShardSet.open(tmp_path / "out")
    parents = [record for place in (birds, cats) for record in ShardSet.open(place).stream()]
    assert merged.classes == ("bird", "cat")
    assert [record.label for record in merged.stream()] == [record.label for record in parents]
    for ours, theirs in zip(merged.stream(), parents, strict=True):
        assert ours.origin == theirs.origin
        assert np.array_equal(ours.image, theirs.image)
    keys = [record.key for record in merged.stream()]
    assert keys[3:6] == ["000000-00003", "000001-00000", "000001-00001"]
    assert len(set(keys)) == len(keys) == 18
    fingerprints = [ShardSet.open(place).manifest.fingerprint for place in (birds, cats)]
    assert [parent["fingerprint"] for parent in merged.manifest.recipe["parents"]] == fingerprints


def test_the_order_of_a_merge_counts(make_set, tmp_path) -> None:
    birds, cats = str(make_set()), str(make_set("cats", "cat", seed=1))
    main(["merge", str(tmp_path / "out"), birds, cats])
    with pytest.raises(InputError, match="made of other sets"):
        main(["merge", str(tmp_path / "out"), cats, birds])


def test_a_set_made_of_one_that_grew_since_is_refused(make_set, tmp_path) -> None:
    again = ["dedupe", str(make_set()), "--out", str(tmp_path / "out")]
    main(again)
    make_set(records=16)
    with pytest.raises(InputError, match="before they changed"):
        main(again)


def test_sets_of_two_kinds_or_one_set_twice_are_not_merged(make_set, tmp_path) -> None:
    birds, photos = make_set(), make_set("photos", kind="backgrounds", classes=())
    with pytest.raises(InputError, match="photos: holds backgrounds, wanted crops as in"):
        main(["merge", str(tmp_path / "out"), str(birds), str(photos)])
    main(["copy", str(birds), str(tmp_path / "copy")])
    with pytest.raises(InputError, match="copy: holds the same as"):
        main(["merge", str(tmp_path / "out"), str(birds), str(tmp_path / "copy")])


def test_merged_backgrounds_leave_out_the_classes_that_all_of_them_do(make_set, tmp_path) -> None:
    first = make_set("first", kind="backgrounds", classes=("bird", "cat"))
    second = make_set("second", seed=1, kind="backgrounds", classes=("cat", "dog"))
    main(["merge", str(tmp_path / "out"), str(first), str(second)])
    assert ShardSet.open(tmp_path / "out").classes == ("cat",)
    assert _is_sound(tmp_path / "out")


@pytest.mark.parametrize(
    ("rules", "slots"),
    [
        (["confidence<0.3"], range(6, 12)),
        (["confidence >= 0.5", "slot=3"], [0, 1, 2, 4, 5, 6, 7, 8, 9]),
        (["slot>2 and slot<9"], [0, 1, 2, 9, 10, 11]),
        (["shard=crops-000001.tar"], [0, 1, 2, 3, 8, 9, 10, 11]),
        (["key!=000001-*"], [4, 5, 6, 7]),
        (["width=24", "height<37 and width>30"], [1, 4, 7, 10]),
    ],
    ids=["score", "two", "and", "shard", "key", "size"],
)
def test_rules_drop_what_they_hold_for(make_set, tmp_path, rules, slots) -> None:
    main(["drop", str(make_set()), *rules, "--out", str(tmp_path / "out")])
    kept = ShardSet.open(tmp_path / "out")
    assert [record.origin["slot"] for record in kept.stream()] == list(slots)
    dropped = sum(sum(entry.dropped.values()) for entry in kept.manifest.shards)
    assert dropped == 3 + 12 - len(list(slots))  # three by the build


def test_each_drop_is_counted_by_the_first_rule_that_holds(make_set, tmp_path) -> None:
    main(["drop", str(make_set()), "slot<2", "confidence<0.2", "--out", str(tmp_path / "out")])
    first = ShardSet.open(tmp_path / "out").manifest.shards[0]
    assert first.dropped == {"unsure": 1, "slot<2": 2, "confidence<0.2": 2}
    assert first.seen == 5


def test_a_dropped_class_is_none_of_the_new_sets(make_set, tmp_path) -> None:
    birds, cats = make_set(), make_set("cats", "cat", seed=1)
    main(["merge", str(tmp_path / "all"), str(birds), str(cats)])
    main(["drop", str(tmp_path / "all"), "label=bird", "--out", str(tmp_path / "out")])
    assert ShardSet.open(tmp_path / "out").classes == ("cat",)


def test_a_damaged_shard_can_be_left_out(make_set, tmp_path) -> None:
    birds = make_set()
    (birds / "crops-000001.tar").write_bytes(b"torn")
    main(["drop", str(birds), "shard=crops-000001.tar", "--out", str(tmp_path / "out")])
    assert _is_sound(tmp_path / "out")
    assert len(ShardSet.open(tmp_path / "out")) == 8


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("confidence", "rule 'confidence': wanted NAME<NUMBER"),
        ("confidence<low", "found 'low', wanted a number after <"),
        ("confidnce<1", r"crops-000000\.tar: 000000-00000: no 'confidnce', did you mean 'confidence'"),
        ("source<1", "source is 'test', wanted a number for <"),
        ("label=brid", "no class 'brid', did you mean 'bird'"),
        ("shard=crops-000009.tar", "no shard 'crops-000009.tar', did you mean"),
    ],
)
def test_a_rule_that_is_none_is_refused(make_set, tmp_path, rule, message) -> None:
    with pytest.raises(InputError, match=message):
        main(["drop", str(make_set()), rule, "--out", str(tmp_path / "out")])


def test_dropping_everything_is_an_error_and_leaves_the_place_free(make_set, tmp_path) -> None:
    birds, out = str(make_set()), str(tmp_path / "out")
    with pytest.raises(InputError, match=r"nothing is left \(12 slot<99, 3 unsure\)"):
        main(["drop", birds, "slot<99", "--out", out])
    assert not list((tmp_path / "out").glob("*.tar"))
    assert main(["drop", birds, "slot<9", "--out", out]) == 0


def test_of_crops_that_look_alike_in_different_shards_the_first_stays(make_set, tmp_path) -> None:
    main(["merge", str(tmp_path / "all"), str(make_set()), str(make_set("again", "cat", records=8))])
    main(["dedupe", str(tmp_path / "all"), "--out", str(tmp_path / "out")])
    kept = ShardSet.open(tmp_path / "out")
    assert [record.label for record in kept.stream()] == ["bird"] * 12
    assert [entry.dropped.get("near_duplicate", 0) for entry in kept.manifest.shards] == [0, 0, 0, 4, 4]


def test_backgrounds_are_deduplicated_too(make_set, tmp_path) -> None:
    first = make_set("first", kind="backgrounds", classes=())
    second = make_set("second", records=16, kind="backgrounds", classes=())
    main(["merge", str(tmp_path / "all"), str(first), str(second)])
    main(["dedupe", str(tmp_path / "all"), "--out", str(tmp_path / "out"), "--bits", "0"])
    assert len(ShardSet.open(tmp_path / "out")) == 16


def test_bits_out_of_reach_are_refused(make_set, tmp_path) -> None:
    with pytest.raises(InputError, match="--bits: found 9, wanted 0 to 8"):
        main(["dedupe", str(make_set()), "--bits", "9", "--out", str(tmp_path / "out")])


def test_an_unfinished_set_is_refused(make_set, tmp_path) -> None:
    birds = make_set()
    manifest = read_manifest(open_store(birds))
    unfinished = Manifest("crops", ("bird",), manifest.fingerprint, manifest.recipe, manifest.shards, False)
    write_manifest(open_store(birds), unfinished)
    with pytest.raises(ShardError, match="the set is incomplete"):
        main(["copy", str(birds), str(tmp_path / "out")])
