import errno
import os
from pathlib import Path

import pytest

from configs.errors import InputError
from factory.build import main
from factory.maker import ShardMaker
from shards.errors import ShardError
from shards.manifest import find_manifest
from shards.reader import ShardSet
from shards.store import open_store

_RECIPE = """
label: blob
source: {kind: images}
segmenter: {kind: grabcut}
quality: {duplicate_bits: null}
shard_size: 8
"""


@pytest.fixture
def recipe(tmp_path: Path, photo_folder: Path) -> list[str]:
    """The command line of a small build of 5 shards, less --out."""
    path = tmp_path / "blob.yaml"
    path.write_text(_RECIPE)
    return ["--class", str(path), f"source.root={photo_folder}"]


def read_tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_photos_become_a_verified_set_and_the_unreadable_one_is_named(recipe, tmp_path, capsys) -> None:
    out = tmp_path / "set"
    assert main([*recipe, "--out", str(out), "--ray", "off"]) == 0
    crops = ShardSet.open(out)
    assert len(crops) >= 30
    assert crops.classes == ("blob",)
    assert not [problem for _, problems in crops.verify() for problem in problems]
    assert "017.png" in (out / "unreadable.txt").read_text()
    assert "1 unreadable" in capsys.readouterr().out
    assert sum(entry.seen for entry in crops.manifest.shards) == 40


def test_building_again_rewrites_nothing(recipe, tmp_path, capsys) -> None:
    out = tmp_path / "set"
    main([*recipe, "--out", str(out), "--ray", "off"])
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    main([*recipe, "--out", str(out), "--ray", "off"])
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert "up to date" in capsys.readouterr().out


def test_ray_with_one_and_two_workers_gives_the_bytes_of_no_ray(recipe, tmp_path) -> None:
    main([*recipe, "--out", str(tmp_path / "off"), "--ray", "off"])
    expected = read_tars(tmp_path / "off")
    for workers in ("1", "2"):
        out = tmp_path / f"ray-{workers}"
        main([*recipe, "--out", str(out), "--ray", "local", "--workers", workers])
        assert read_tars(out) == expected
        assert (out / "manifest.json").read_bytes() == (tmp_path / "off" / "manifest.json").read_bytes()


def test_an_interrupted_build_resumes_to_the_same_bytes(recipe, tmp_path, monkeypatch) -> None:
    main([*recipe, "--out", str(tmp_path / "undisturbed"), "--ray", "off"])
    out = tmp_path / "set"
    made = []
    make = ShardMaker.make

    def make_three_then_stop(self, task):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(task.index)
        return make(self, task)

    monkeypatch.setattr(ShardMaker, "make", make_three_then_stop)
    with pytest.raises(KeyboardInterrupt):
        main([*recipe, "--out", str(out), "--ray", "off"])
    interrupted = find_manifest(open_store(out))
    assert interrupted is not None
    assert not interrupted.complete
    assert len(interrupted.shards) == 3
    monkeypatch.setattr(ShardMaker, "make", lambda self, task: made.append(task.index) or make(self, task))
    main([*recipe, "--out", str(out), "--ray", "off"])
    assert made == [0, 1, 2, 3, 4]
    assert "017.png" in (out / "unreadable.txt").read_text()  # seen before the interruption
    assert read_tars(out) == read_tars(tmp_path / "undisturbed")


def test_crops_is_an_upper_limit_of_a_finite_source(recipe, tmp_path, capsys) -> None:
    main([*recipe, "--out", str(tmp_path / "all"), "--ray", "off"])
    out = tmp_path / "some"
    main([*recipe, "--out", str(out), "--ray", "off", "--crops", "12"])
    some, everything = ShardSet.open(out), ShardSet.open(tmp_path / "all")
    assert [some[i].key for i in range(len(some))] == [everything[i].key for i in range(12)]
    main([*recipe, "--out", str(out), "--ray", "off", "--crops", "1000"])
    assert read_tars(out) == read_tars(tmp_path / "all")
    assert "the source ended before 1000 crops" in capsys.readouterr().out


def test_few_crops_of_a_finite_source_take_no_longer_than_they_need(recipe, tmp_path, capsys) -> None:
    main([*recipe, "--out", str(tmp_path / "few"), "--ray", "off", "--crops", "3"])
    manifest = find_manifest(open_store(tmp_path / "few"))
    assert manifest is not None
    (entry,) = manifest.shards
    assert entry.records == 3 and entry.seen < 8
    assert "(1 shards made)" in capsys.readouterr().out


def test_no_shard_is_begun_once_those_handed_in_hold_enough(recipe, tmp_path, monkeypatch) -> None:
    later: list[int] = []

    def two_in_hand(job, tasks, fleet):
        """The second is handed in last."""
        maker, tasks = ShardMaker(job), iter(tasks)
        first, second = next(tasks), next(tasks)
        yield maker.make(first)
        for task in tasks:
            later.append(task.index)
            yield maker.make(task)
        yield maker.make(second)

    monkeypatch.setattr("factory.build.run_job", two_in_hand)
    main([*recipe, "--out", str(tmp_path / "few"), "--crops", "7"])
    assert later == []
    assert len(ShardSet.open(tmp_path / "few")) == 7


def test_another_recipe_is_refused_with_what_differs(recipe, tmp_path) -> None:
    out = tmp_path / "set"
    main([*recipe, "--out", str(out), "--ray", "off"])
    before = read_tars(out)
    with pytest.raises(InputError, match=r"settings\.segmenter\.kind is grabcut there, whole here"):
        main([*recipe, "--out", str(out), "--ray", "off", "segmenter.kind=whole"])
    assert read_tars(out) == before


def test_other_photos_in_the_folder_are_another_recipe(recipe, tmp_path, photo_folder) -> None:
    out = tmp_path / "set"
    main([*recipe, "--out", str(out), "--ray", "off"])
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    (fewer / "000.png").write_bytes((photo_folder / "000.png").read_bytes())
    with pytest.raises(InputError, match="made by another recipe"):
        main([*recipe, "--out", str(out), "--ray", "off", f"source.root={fewer}"])


def test_a_folder_with_something_else_in_it_is_refused(recipe, tmp_path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("keep me")
    with pytest.raises(InputError, match=r"holds thesis\.txt"):
        main([*recipe, "--out", str(out), "--ray", "off"])


def test_an_unknown_class_gets_a_did_you_mean() -> None:
    with pytest.raises(InputError, match="no class 'brids', did you mean 'birds'"):
        main(["--class", "brids"])


def test_an_empty_photo_folder_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="no images"):
        main(["--class", "birds-photos", f"source.root={tmp_path}", "--out", str(tmp_path / "set")])
    assert not (tmp_path / "set").exists()


def test_a_full_disk_loses_nothing_that_is_finished(recipe, tmp_path, monkeypatch) -> None:
    out = tmp_path / "set"
    main([*recipe, "--out", str(out), "--ray", "off", "--crops", "14"])
    before = read_tars(out)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ShardError, match="No space left"):
        main([*recipe, "--out", str(out), "--ray", "off"])
    monkeypatch.undo()
    assert read_tars(out) == before
    assert not list(out.glob(".*tmp*"))
    main([*recipe, "--out", str(out), "--ray", "off"])
    assert not [problem for _, problems in ShardSet.open(out).verify() for problem in problems]


def test_numbers_below_one_are_refused(recipe) -> None:
    with pytest.raises(InputError, match="--crops: found 0, wanted 1 or more"):
        main([*recipe, "--crops", "0"])


def test_the_resolved_recipe_is_written_into_the_set(recipe, tmp_path) -> None:
    out = tmp_path / "set"
    main([*recipe, "--out", str(out), "--ray", "off"])
    assert "kind: grabcut" in (out / "recipe.yaml").read_text()


def test_naive_pasting_keeps_whole_photos(recipe, tmp_path) -> None:
    out = tmp_path / "whole"
    main([*recipe, "--out", str(out), "--ray", "off", "segmenter.kind=whole"])
    crop = ShardSet.open(out)[0]
    assert crop.image.shape == (96, 96, 3)
    assert crop.mask.min() == 255


def test_a_gate_that_keeps_nothing_is_an_error_with_the_reasons(recipe, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no crop kept \(39 too_large, 1 unreadable\): loosen quality"):
        main(
            [
                *recipe,
                "--out",
                str(tmp_path / "none"),
                "--ray",
                "off",
                "quality.max_area_frac=0.001",
                "quality.min_area_frac=0",
            ]
        )


def test_a_lost_shard_is_made_again(recipe, tmp_path) -> None:
    out = tmp_path / "set"
    main([*recipe, "--out", str(out), "--ray", "off"])
    before = read_tars(out)
    (out / "crops-000002.tar").unlink()
    main([*recipe, "--out", str(out), "--ray", "off"])
    assert read_tars(out) == before
