"""Near-duplicates are found however they were changed, and other pictures are not."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs.errors import InputError
from trainer.auditing import near_duplicates as auditing
from trainer.auditing.command import add_arguments, audit
from trainer.auditing.near_duplicates import (
    Comparison,
    Gallery,
    compare,
    crop_print,
    masked_correlation,
    photo_print,
)
from trainer.datasets.cub import CubConfig

BOX = (60.0, 40.0, 130.0, 110.0)
Change = Callable[[np.ndarray], np.ndarray]


def scene(seed: int, height: int = 150, width: int = 200) -> np.ndarray:
    """Blotches of several sizes, as a photo has."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cells in (3, 6, 12, 24):
        blotches = rng.normal(0, 30, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def coded_anew(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)


CHANGES: dict[str, Change] = {
    "same": lambda image: image,
    "coded anew": coded_anew,
    "smaller": lambda image: cv2.resize(image, (90, 70), interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, (400, 300)),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "cropped": lambda image: np.ascontiguousarray(image[5:, 9:-3]),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
}


def found_in(photos: list[np.ndarray], pictures: list[auditing.Print | None]) -> Comparison:
    gallery = Gallery((photo, np.array([BOX], np.float32)) for photo in photos)
    return compare(pictures, gallery, photos.__getitem__)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_photo_is_found_again_and_no_other(change: Change) -> None:
    photos = [scene(seed) for seed in range(8)]
    (copy,) = found_in(photos, [photo_print(scene(99)), photo_print(change(photos[3]))]).copies
    assert (copy.query, copy.photo) == (1, 3)
    assert copy.mirrored == (change is CHANGES["mirrored"])


def cut_out(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """An ellipse in the box, on a flat ground, as the factory cuts."""
    mask = np.zeros((78, 78), np.uint8)
    cv2.ellipse(mask, (39, 39), (34, 30), 20, 0, 360, 255, -1)
    image = np.where(mask[..., None] > 0, photo[36:114, 56:134], 90).astype(np.uint8)
    return image, mask, (photo.shape[1], photo.shape[0], 56, 36)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_an_object_that_was_cut_out_is_found_in_its_photo(is_mirrored: bool) -> None:
    photos = [scene(seed) for seed in range(8)]
    image, mask, (width, height, x, y) = cut_out(photos[5])
    if is_mirrored:
        image, mask = (np.ascontiguousarray(each[:, ::-1]) for each in (image, mask))
        x = width - x - image.shape[1]
    (copy,) = found_in(photos, [crop_print(image, mask, (width, height, x, y))]).copies
    assert (copy.photo, copy.mirrored) == (5, is_mirrored)


def test_an_object_without_a_known_frame_is_found_by_its_photos_box() -> None:
    photos = [scene(seed) for seed in range(8)]
    image, mask, _ = cut_out(photos[5])
    (copy,) = found_in(photos, [crop_print(image, mask, None)]).copies
    assert copy.photo == 5
    assert np.abs(np.subtract(copy.rect, BOX)).max() <= 12


@pytest.mark.parametrize(
    "picture",
    [
        np.full((80, 80, 3), 70, np.uint8),
        np.repeat(np.tile(np.linspace(20, 230, 80).astype(np.uint8), (80, 1))[..., None], 3, axis=2),
    ],
    ids=["flat", "shaded"],
)
def test_a_picture_without_details_is_not_compared(picture: np.ndarray) -> None:
    assert photo_print(picture) is None
    assert crop_print(picture, np.full((80, 80), 255, np.uint8), None) is None
    found = found_in([scene(1)], [photo_print(picture)])
    assert (found.pictures, found.unclear, found.copies) == (1, 1, [])


def test_an_object_of_a_dark_and_a_bright_part_is_not_found_wherever_it_is_dark_and_bright() -> None:
    """What they have inside differs; their contrast alone would correlate."""
    mask = np.zeros((100, 100), np.uint8)
    mask[5:45, 5:95] = mask[55:95, 5:95] = 255
    tones = np.repeat(np.array([-60, 60]), 50)[:, None, None]
    first, second = (np.clip(tones + scene(s, 100, 100) * 0.3 + 90, 0, 255).astype(np.uint8) for s in (1, 2))
    assert len(found_in([first], [crop_print(first, mask, None)]).copies) == 1
    assert found_in([second], [crop_print(first, mask, None)]).copies == []


def test_an_empty_mask_has_no_print() -> None:
    assert crop_print(scene(1), np.zeros((150, 200), np.uint8), None) is None


def test_masked_correlation_is_pearsons_over_the_cells_that_count() -> None:
    rng = np.random.default_rng(0)
    values, views = (rng.normal(0, 40, (n, 576)).astype(np.float32) for n in (3, 4))
    weights = (rng.random((3, 576)) < 0.4).astype(np.float32)
    rows = zip(values, weights, strict=True)
    wanted = [[np.corrcoef(v[w > 0], view[w > 0])[0, 1] for view in views] for v, w in rows]
    assert masked_correlation(values, weights, views) == pytest.approx(np.array(wanted), abs=1e-4)


def test_what_is_found_does_not_depend_on_how_much_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [scene(seed) for seed in range(6)]
    prints = [photo_print(photos[n]) for n in (4, 0, 2, 4)]
    at_once = found_in(photos, prints)
    monkeypatch.setattr(auditing, "_CHUNK", 2)
    monkeypatch.setattr(auditing, "_BLOCK", 1)
    assert found_in(photos, prints) == at_once
    assert sorted((copy.query, copy.photo) for copy in at_once.copies) == [(0, 4), (1, 0), (2, 2), (3, 4)]


def test_nothing_is_found_where_there_is_nothing() -> None:
    assert found_in([], [photo_print(scene(1))]).copies == []
    assert found_in([scene(1)], []) == Comparison()


@pytest.fixture
def voc(tmp_path: Path, sets: tuple[Path, Path]) -> Path:
    """A run's file: four training photos, three test photos, of which ``t2`` is ``0`` mirrored."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / "voc" / part).mkdir(parents=True)
    photos = {str(n): scene(n) for n in range(4)} | {
        "t0": scene(10),
        "t1": scene(11),
        "t2": scene(0)[:, ::-1],
    }
    for name, photo in photos.items():
        cv2.imwrite(str(tmp_path / "voc" / "JPEGImages" / f"{name}.jpg"), photo)
        box = "<xmin>60</xmin><ymin>40</ymin><xmax>130</xmax><ymax>110</ymax>"
        (tmp_path / "voc" / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><object><name>disc</name><bndbox>{box}</bndbox></object></annotation>"
        )
    for split, names in (("train", "0 1 2 3"), ("test", "t0 t1 t2")):
        (tmp_path / "voc" / "ImageSets" / "Main" / f"{split}.txt").write_text(names.replace(" ", "\n") + "\n")
    crops, backgrounds = sets
    (tmp_path / "mine.yaml").write_text(
        f"crops: [{crops}]\nbackgrounds: {backgrounds}\ndataset: {{kind: voc, root: {tmp_path / 'voc'}}}\n"
        "detector: {kind: ssd, backbone: mobilenet_v2}\n"
    )
    return tmp_path / "mine.yaml"


def run_audit(*arguments: object, home: Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return audit(parser.parse_intermixed_args([str(each) for each in arguments]), home)


def test_a_leak_is_said_written_drawn_and_left_out_of_the_new_split(
    voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = voc.parent / "voc" / "ImageSets" / "Main"
    assert run_audit(voc, "--write-split", lists / "clean.txt", home=voc.parent) == 1
    said = capsys.readouterr().out
    assert "train ~ test: 4 x 3: 1 near-duplicates, of 1 test photos" in said
    assert "crops ~ test: 30 (30 show too little) x 3: 0 near-duplicates" in said
    assert said.splitlines()[-1] == "LEAKS into 1 of 3 test photos: t2"
    facts = json.loads((voc.parent / "audits" / "mine" / "leaks.json").read_text())
    assert facts["leaking"] == ["t2"]
    (pair,) = facts["comparisons"][0]["pairs"]
    assert (pair["first"], pair["second"], pair["mirrored"]) == ("0", "t2", True)
    assert cv2.imread(str(voc.parent / "audits" / "mine" / "leaks.png")) is not None
    assert (lists / "clean.txt").read_text() == "t0\nt1\n"
    assert run_audit(voc, "test_split=clean", home=voc.parent) == 0
    assert "nothing leaks into the 2 photos of the test split" in capsys.readouterr().out


def test_photos_that_a_generator_learnt_from_are_compared_too(
    voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(voc.parent / "learnt.png"), scene(11))
    code = run_audit(voc, "test_split=train", "--seen", voc.parent / "learnt.png", home=voc.parent)
    assert "seen ~ test: 1 x 4: 0 near-duplicates" in capsys.readouterr().out
    assert code == 1  # every photo is in both splits
    assert run_audit(voc, "--seen", voc.parent / "learnt.png", home=voc.parent) == 1
    assert "LEAKS into 2 of 3 test photos: t1, t2" in capsys.readouterr().out


def test_a_new_split_of_cub_is_a_file_that_its_reader_takes(voc: Path, tmp_path: Path) -> None:
    root = tmp_path / "cub"
    (root / "images" / "a").mkdir(parents=True)
    for number, seed in enumerate((1, 2, 3, 1), start=1):
        cv2.imwrite(str(root / "images" / "a" / f"{number}.jpg"), scene(seed))
    (root / "images.txt").write_text("".join(f"{n} a/{n}.jpg\n" for n in range(1, 5)))
    (root / "bounding_boxes.txt").write_text("".join(f"{n} 60 40 70 70\n" for n in range(1, 5)))
    (root / "train_test_split.txt").write_text("1 1\n2 1\n3 0\n4 0\n")
    data = f"dataset={{kind: cub, root: {root}}}"
    assert run_audit(voc, data, "--write-split", root / "clean.txt", home=tmp_path) == 1
    config = CubConfig(root=root, split_file="clean.txt")
    assert [image.key for image in config.read("test", ["bird"], tmp_path)] == ["a/3"]
    assert [image.key for image in config.read("train", ["bird"], tmp_path)] == ["a/1", "a/2"]


def test_the_new_splits_folder_is_made(voc: Path) -> None:
    clean = voc.parent / "new" / "clean.txt"
    assert run_audit(voc, "--write-split", clean, home=voc.parent) == 1
    assert clean.read_text() == "t0\nt1\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["birds", "cars"], "found birds cars: wanted the name or YAML file of one run"),
        (["birds", "--threshold", "1.5"], "--threshold: found 1.5, wanted more than 0 and less than 1"),
    ],
)
def test_a_mistaken_argument_is_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run_audit(*arguments, home=tmp_path)
