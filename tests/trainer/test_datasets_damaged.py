"""What fuzzing found in readers of boxed data sets: another exception than InputError, or a bad box."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from trainer.boxed_data.annotations import parse_count, parse_number
from trainer.datasets.coco import CocoConfig
from trainer.datasets.csv_boxes import CsvBoxesConfig
from trainer.datasets.fddb import FddbConfig
from trainer.datasets.voc import VocConfig
from trainer.datasets.wider import WiderConfig, read_faces
from trainer.datasets.yolo import YoloConfig

LONG = "x" * 300


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path)


@pytest.mark.parametrize("value", [10**400, "9" * 5000, 1e308, -1e16, "nan", float("inf"), None, [], "1,5"])
def test_a_number_that_no_box_can_have_is_refused_in_a_line(value: object) -> None:
    with pytest.raises(InputError, match=r"^here: .*wanted a finite number") as caught:
        parse_number(value, "here")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "count"), [("12", 12), ("9" * 5000, None), ("-1", None), ("²", None), ("", None)]
)
def test_a_count_has_nine_digits_at_most(text: str, count: int | None) -> None:
    assert parse_count(text) == count


def coco(root: Path, **changes: Any) -> CocoConfig:
    """A photo with one box; changes: ``images_width=0`` sets that field of the first image."""
    photo(root / "images" / "one.jpg")
    content: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "one.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 5, "name": "bird"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 5]}],
    }
    for name, value in changes.items():
        kind, _, key = name.partition("_")
        content[kind][0][key] = value
    write(root / "instances.json", json.dumps(content))
    return CocoConfig(root=root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images_width": 0}, "size is 0x30, wanted sides of 1 px or more"),
        ({"images_height": -(2**63)}, "wanted"),
        ({"images_id": []}, r"images\[0\]: id is \[\], wanted a number or text"),
        ({"images_file_name": 3}, r"images\[0\]: file_name is 3, wanted a text"),
        ({"images_file_name": "a\nb"}, "wanted a text of one line"),
        ({"images_file_name": LONG}, "no such file"),
        ({"annotations_image_id": {}}, r"annotations\[0\]: image_id is \{\}, wanted a number or text"),
        ({"annotations_category_id": None}, "category_id is None, wanted a number or text"),
        ({"annotations_category_id": "\n"}, r"category '\\n' is not among"),
        ({"annotations_bbox": [10**400, 1, 1, 1]}, "bbox: 1000.*wanted a finite number"),
        ({"annotations_bbox": [1e308, 1, 1e308, 1]}, "wanted a finite number"),
        ({"categories_name": 5}, r"categories\[0\]: name is 5, wanted a text"),
        ({"categories_name": []}, r"categories\[0\]: name is \[\], wanted a text"),
    ],
)
def test_a_coco_field_of_another_type_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        coco(tmp_path, **change).read("all", ["bird"], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' + "9" * 5000])
def test_a_coco_file_that_python_cannot_hold_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path / "instances.json", text)
    with pytest.raises(InputError, match="wanted JSON"):
        CocoConfig(root=tmp_path).read("all", ["bird"], tmp_path)


@pytest.mark.parametrize("encoding", ["nope", "utf-32", "utf-16", "big5"])
def test_a_voc_file_that_names_a_false_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg")
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a\n")
    write(tmp_path / "Annotations" / "a.xml", f'<?xml version="1.0" encoding="{encoding}"?><annotation/>')
    with pytest.raises(InputError, match=r"a.xml: .*wanted well-formed XML"):
        VocConfig(root=tmp_path).read("train", ["car"], tmp_path)


def test_class_names_of_any_length_make_a_line(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg")
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a\n")
    sides = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    names = [f"a\n{letter * 5000}" for letter in "xyz"]
    objects = "".join(f"<object><name>{name}</name>{sides}</object>" for name in names)
    write(tmp_path / "Annotations" / "a.xml", f"<annotation>{objects}</annotation>")
    with pytest.raises(InputError, match="no class 'car'") as caught:
        VocConfig(root=tmp_path).read("train", ["car"], tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("names: []\ntrain: images\n", "no 'names'"),
        ("names: {}\ntrain: images\n", "no 'names'"),
        ("a: " + "[" * 3000, "wanted YAML"),
        (f"names: {{{'9' * 50}: bird}}\ntrain: images\n", "wanted numbers of classes"),
        (f"names: [bird]\ntrain: {LONG}\n", "no such folder or list"),
        (f"names: [bird]\ntrain: ../{LONG}\n", "no such folder or list"),
        (f"names: [bird]\npath: {LONG}\ntrain: nowhere\n", "nowhere: no such folder or list"),
        ("names: [bird]\ntrain: list.txt\n", "no such file"),
    ],
)
def test_a_damaged_yolo_table_is_refused(tmp_path: Path, data: str, message: str) -> None:
    write(tmp_path / "data.yaml", data)
    write(tmp_path / "list.txt", LONG)
    with pytest.raises(InputError, match=message):
        YoloConfig(root=tmp_path).read("train", ["bird"], tmp_path)


def test_a_yolo_class_of_too_many_digits_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    write(tmp_path / "data.yaml", "names: [bird]\ntrain: images\n")
    write(tmp_path / "labels" / "a.txt", f"{'9' * 5000} 0.5 0.5 0.1 0.1\n")
    with pytest.raises(InputError, match=r"a.txt:1: 4 values of class 999"):
        YoloConfig(root=tmp_path).read("train", ["bird"], tmp_path)


@pytest.mark.parametrize("file", [LONG, "x" * 140_000, "a\0b"])
def test_a_csv_value_that_is_no_files_name_is_refused(tmp_path: Path, file: str) -> None:
    write(tmp_path / "boxes.csv", f"file,x0,y0,x1,y1\n{file},1,1,9,9\n")
    with pytest.raises(InputError, match=r"boxes.csv"):
        CsvBoxesConfig(root=tmp_path).read("all", ["bird"], tmp_path)


@pytest.mark.parametrize("lines", [f"{LONG}\n0\n", f"a\n{'9' * 5000}\n"])
def test_a_damaged_list_of_faces_is_refused(tmp_path: Path, lines: str) -> None:
    write(tmp_path / "FDDB-folds" / "FDDB-fold-01-ellipseList.txt", lines)
    write(tmp_path / "faces.txt", lines)
    for config in (
        FddbConfig(root=tmp_path, splits={"all": (1,)}),
        WiderConfig(root=tmp_path, annotations="faces.txt", splits=("all",)),
    ):
        with pytest.raises(InputError, match=r"no such file|found 999"):
            config.read("all", ["face"], tmp_path)


def cells(*values: Any) -> Any:
    column = np.empty((len(values), 1), object)
    column[:, 0] = values
    return column


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_list": cells(cells("a", "b"))}, "wanted events and files of one length each"),
        ({"event_list": cells("0", "1")}, "wanted events and files of one length each"),
        ({"event_list": cells("0\r1")}, r"a photo named '0\\r1/a.jpg'"),
        ({"event_list": cells(cells("0", "1"))}, "wanted events and files of one length each"),
        ({"face_bbx_list": cells(cells(np.zeros((1, 3))))}, "3 sides of 1 faces, wanted 4 of each"),
        ({"face_bbx_list": cells(cells(np.array([[1, 2, np.nan, 4]])))}, "wanted a finite number"),
        ({"face_bbx_list": cells(cells("text"))}, "sides of 1 faces|wanted a finite number"),
    ],
)
def test_damaged_tables_of_faces_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    content = {
        "event_list": cells("0"),
        "file_list": cells(cells("a")),
        "face_bbx_list": cells(cells(np.array([[1.0, 2, 3, 4]]))),
        "invalid_label_list": cells(cells(np.array([[0]]))),
    }
    savemat(tmp_path / "faces.mat", content | change)
    with pytest.raises(InputError, match=message):
        read_faces(tmp_path / "faces.mat")
