"""Background sets: what is left out and counted, and running the same command again."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from factory.backgrounds import main
from factory.stages import UInt8Array
from shards.manifest import Manifest, read_manifest, write_manifest
from shards.store import open_store


def _picture(seed: int, width: int = 240, height: int = 200) -> UInt8Array:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _save(path: Path, seed: int, width: int = 240, height: int = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_picture(seed, width, height)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven photos: four good ones, one near-duplicate, one small, one broken."""
    root = tmp_path / "photos"
    for i in range(4):
        _save(root / f"{i}.png", i)
    _save(root / "1-again.jpg", 1, 300, 250)
    _save(root / "small.png", 9, 240, 100)
    (root / "x-broken.png").write_bytes(b"broken")
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Three photos: with a bird, with a cat, with nothing; and one that the JSON does not list."""
    root = tmp_path / "coco"
    for i in range(4):
        _save(root / "images" / f"{i}.jpg", i)
    content = {
        "categories": [{"id": 16, "name": "bird"}, {"id": 17, "name": "cat"}],
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)],
        "annotations": [{"image_id": 0, "category_id": 16}, {"image_id": 1, "category_id": 17}],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three photos: with a bird and a cat, with a person whose part is called head, without annotation."""
    root = tmp_path / "voc"
    for i in range(3):
        _save(root / "JPEGImages" / f"{i}.jpg", i)
    (root / "Annotations").mkdir()
    bird_and_cat = "<object><name>bird</name></object><object><name>cat</name></object>"
    person = "<object><name>person</name><part><name>head</name></part></object>"
    for i, objects in enumerate((bird_and_cat, person)):
        (root / "Annotations" / f"{i}.xml").write_text(f"<annotation>{objects}</annotation>")
    return root


def _make(kind: str, root: Path, out: Path, *options: str) -> Manifest:
    assert main(["--kind", kind, "--root", str(root), "--out", str(out), *options]) == 0
    return read_manifest(open_store(out))


def _dropped(manifest: Manifest) -> dict[str, int]:
    return {name: count for entry in manifest.shards for name, count in entry.dropped.items()}


def test_what_is_left_out_is_counted_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = _make("folder", folder, tmp_path / "out")
    assert manifest.complete and manifest.kind == "backgrounds" and manifest.records == 4
    assert _dropped(manifest) == {"near_duplicate": 1, "too_small": 1, "unreadable": 1}
    assert sum(entry.seen for entry in manifest.shards) == 7
    output = capsys.readouterr()
    assert "4 backgrounds of 7 photos" in output.out and "1 near_duplicate" in output.out
    assert "x-broken.png: not an image" in output.err


def test_coco_photos_with_an_excluded_class_are_left_out(coco: Path, tmp_path: Path) -> None:
    manifest = _make("coco", coco, tmp_path / "out", "--exclude", "bird")
    assert manifest.records == 2 and manifest.classes == ("bird",)
    assert _dropped(manifest) == {"excluded_class": 1}
    assert _make("coco", coco, tmp_path / "both", "--exclude", "cat, bird").records == 1


def test_coco_photos_that_are_not_there_are_counted(coco: Path, tmp_path: Path) -> None:
    (coco / "images" / "2.jpg").unlink()
    assert _dropped(_make("coco", coco, tmp_path / "out")) == {"unreadable": 1}


def test_an_excluded_class_that_coco_lacks_is_refused(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'brid', did you mean 'bird'"):
        _make("coco", coco, tmp_path / "out", "--exclude", "brid")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"categories": [], "images": 3, "annotations": []}'])
def test_annotations_of_another_form_are_refused(coco: Path, tmp_path: Path, content: str) -> None:
    (coco / "instances.json").write_text(content)
    with pytest.raises(InputError, match="wanted COCO's instances JSON"):
        _make("coco", coco, tmp_path / "out")


def test_coco_without_annotations_or_photos_is_refused(coco: Path, tmp_path: Path) -> None:
    annotations = str(coco / "instances.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="none of the 3 photos"):
        _make("coco", tmp_path / "empty", tmp_path / "out", "--annotations", annotations)
    with pytest.raises(InputError, match=r"0 files instances\*\.json"):
        _make("coco", tmp_path / "empty", tmp_path / "out")


def test_voc_photos_are_judged_by_all_their_objects(voc: Path, tmp_path: Path) -> None:
    manifest = _make("voc", voc, tmp_path / "out", "--exclude", "cat")
    assert manifest.records == 1
    assert _dropped(manifest) == {"excluded_class": 1, "not_annotated": 1}
    assert _make("voc", voc, tmp_path / "all").records == 3


def test_a_class_that_no_voc_annotation_names_is_noted(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _make("voc", voc, tmp_path / "out", "--exclude", "head").records == 2
    assert "no annotation names 'head'" in capsys.readouterr().err


def test_a_broken_voc_annotation_is_refused(voc: Path, tmp_path: Path) -> None:
    (voc / "Annotations" / "1.xml").write_text("<annotation>")
    with pytest.raises(InputError, match=r"1\.xml: not XML"):
        _make("voc", voc, tmp_path / "out")


def test_a_folder_cannot_exclude_classes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no annotations to know by"):
        _make("folder", folder, tmp_path / "out", "--exclude", "bird")


def test_sizes_out_of_range_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--shard-size: found 0"):
        _make("folder", folder, tmp_path / "out", "--shard-size", "0")
    with pytest.raises(InputError, match="--min-side: found 500"):
        _make("folder", folder, tmp_path / "out", "--min-side", "500")


def test_no_photo_left_is_refused_and_claims_nothing(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no photo of 3 is left"):
        _make("coco", coco, tmp_path / "out", "--min-side", "300")
    assert _make("coco", coco, tmp_path / "out").records == 3


def test_the_same_command_rewrites_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    manifest = _make("folder", folder, out, "--shard-size", "2")
    assert [entry.records for entry in manifest.shards] == [2, 2]
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert _make("folder", folder.rename(tmp_path / "moved"), out, "--shard-size", "2") == manifest
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == stamps
    assert "up to date" in capsys.readouterr().out


def test_an_interrupted_set_is_finished_and_its_shards_are_kept(folder: Path, tmp_path: Path) -> None:
    out, store = tmp_path / "out", open_store(tmp_path / "out")
    manifest = _make("folder", folder, out, "--shard-size", "1")
    bytes_before = {name: store.read(name) for name in store.names()}
    partial = Manifest(
        "backgrounds", (), manifest.fingerprint, manifest.recipe, manifest.shards[:2], complete=False
    )
    write_manifest(store, partial)
    store.remove(manifest.shards[3].name)
    kept_stamp = (out / manifest.shards[0].name).stat().st_mtime_ns
    assert _make("folder", folder, out, "--shard-size", "1") == manifest
    assert {name: store.read(name) for name in store.names()} == bytes_before
    assert (out / manifest.shards[0].name).stat().st_mtime_ns == kept_stamp


def test_a_set_made_otherwise_is_refused_with_what_differs(folder: Path, tmp_path: Path) -> None:
    _make("folder", folder, tmp_path / "out")
    with pytest.raises(InputError, match=r"made by another recipe .*max_side_px"):
        _make("folder", folder, tmp_path / "out", "--max-side", "200")


def test_a_folder_of_other_things_is_left_alone(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted a new or empty folder"):
        _make("folder", folder, folder)
