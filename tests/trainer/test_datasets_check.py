from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from trainer.boxed_data.annotations import BoxList
from trainer.boxed_data.check import content_of, doubled_photos, odd_boxes, odd_photos, unlisted_photos
from trainer.dataset import BoxedImage
from trainer.datasets.__main__ import main


def boxed(path: Path, *boxes: tuple[float, ...], shade: int = 0, ignore: bool = False) -> BoxedImage:
    """A photo of 40 x 30 px with these boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (shade, 200, 30)).save(path)
    objects = BoxList()
    for box in boxes:
        objects.add(box, 1, ignore)
    return objects.on_photo(path.stem, path, 40, 30)


def table(root: Path, rows: str) -> Path:
    """A folder of three photos and a CSV file."""
    for shade, name in enumerate("abc"):
        boxed(root / "images" / f"{name}.png", shade=90 * shade)
    (root / "boxes.csv").write_text(f"file,x0,y0,x1,y1,label\n{rows}")
    return root


def test_a_split_is_counted_without_its_ignored_objects(tmp_path: Path) -> None:
    images = [
        boxed(tmp_path / "a.png", (0, 0, 10, 10), (0, 0, 20, 20)),
        boxed(tmp_path / "b.png", (1, 1, 9, 9), ignore=True),
        boxed(tmp_path / "c.png"),
    ]
    content = content_of(images)
    assert (content.images, content.empty, content.ignored, content.counts) == (3, 1, 1, {1: 2})
    assert content.box_sides.tolist() == [10, 20]
    assert content.box_shares.tolist() == pytest.approx([100 / 1200, 400 / 1200])
    assert content.objects_per_image.tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("boxes", "what"),
    [
        ([(-3, 1, 9, 9)], "reach out"),
        ([(5, 5, 5.5, 20)], "under 1 px"),
        ([(1, 1, 20, 20), (5, 20, 9, 25), (1, 1, 20, 20.5)], "stand twice"),
        ([(1, 1, 33, 4)], "10 times as long"),
        ([(0, 0, 40, 30)], "as large as their photo"),
    ],
)
def test_an_odd_box_is_found(tmp_path: Path, boxes: list[tuple[float, ...]], what: str) -> None:
    (oddity,) = odd_boxes([boxed(tmp_path / "a.png", *boxes), boxed(tmp_path / "b.png", (3, 3, 9, 9))])
    assert what in oddity.what
    assert oddity.places == ("a",)
    assert not oddity.broken


def test_photos_with_the_same_bytes_are_found_within_and_across_splits(tmp_path: Path) -> None:
    images = {
        name: boxed(tmp_path / f"{name}.png", shade=shade)
        for name, shade in zip("abcd", (5, 5, 5, 6), strict=True)
    }
    found = doubled_photos({"train": [images["a"], images["b"], images["d"]], "test": [images["c"]]})
    assert {each.what: each.places for each in found} == {
        "twice in a split": ("train: a = train: b",),
        "in two splits": ("train: a = test: c",),
    }


def test_photos_that_no_split_lists_are_found(tmp_path: Path) -> None:
    listed = boxed(tmp_path / "a.png")
    boxed(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("no photo")
    assert [each.places for each in unlisted_photos([listed])] == [("b.png",)]


def test_a_truncated_photo_shows_when_photos_are_decoded(tmp_path: Path) -> None:
    image = boxed(tmp_path / "a.png")
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(noise).save(image.path)
    image.path.write_bytes(image.path.read_bytes()[:-900])
    assert odd_photos([image], decode=False) == []
    (oddity,) = odd_photos([image], decode=True)
    assert oddity.broken
    assert "a.png" in oddity.places[0]


def test_check_prints_counts_and_oddities_and_draws_a_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = table(tmp_path, "a.png,1,2,9,8,cat\na.png,1,2,50,8,dog\nb.png,,,,,\n")
    assert main(["check", "csv_boxes", str(root), "--photos", "--sheet", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr().out
    assert "all: boxes that reach out of their photo (clipped): 1: a" in printed
    assert "photos: beside the listed ones, in no split: 1: c.png" in printed
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert ["images", "2"] in rows
    assert ["without objects", "1"] in rows
    assert ["dog", "1"] in rows
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[1] > 2 * 240


def test_check_goes_on_after_a_split_that_cannot_be_read_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = table(tmp_path, "a.png,1,2,9,8,cat\n")
    (root / "broken.csv").write_text("file,x0,y0,x1,y1,label\ngone.png,1,2,9,8,cat\n")
    arguments = ["csv_boxes", str(root), "annotations.test=broken.csv", "annotations.all=boxes.csv"]
    assert main(["check", *arguments, "--classes", "cat"]) == 1
    printed = capsys.readouterr().out
    assert "test: cannot be read: " in printed
    assert "gone.png: no such file" in printed
    assert "images" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vox", "."], "kind vox: wanted one of"),
        (["csv_boxes", ".", "imagse=x"], "did you mean 'images'"),
        (["csv_boxes", "no/where"], "no/where: no such folder"),
    ],
)
def test_check_refuses_what_it_cannot_look_at(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(["check", *arguments])


def test_a_folder_without_any_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder, wanted a data set"):
        main(["check", "voc", str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match="found no split, wanted a data set in the layout of voc"):
        main(["check", "voc", str(tmp_path)])
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("\n")
    with pytest.raises(InputError, match="found no image in train, wanted"):
        main(["check", "voc", str(tmp_path)])
