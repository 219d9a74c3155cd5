"""The readers of published layouts, each on a small copy of its layout made in code."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from configs.errors import InputError
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.datasets.csv_boxes import CsvBoxesConfig
from trainer.datasets.fddb import FddbConfig
from trainer.datasets.stanford_cars import StanfordCarsConfig
from trainer.datasets.wider import WiderConfig, read_faces
from trainer.datasets.yolo import YoloConfig
from trainer.metrics.fddb import ellipse_boxes

DATA = Path(__file__).parents[3] / "shared" / "data"
SIDES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (10, 200, 30)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def boxes(image: BoxedImage) -> list[list[float]]:
    return image.target.boxes.round(3).tolist()


def fddb(
    root: Path, text: str = "2002/a\n2\n8 5 0 20 15  1\n8 5 1.5707963 20 15  1\n2002/b\n0\n"
) -> FddbConfig:
    for name in ("2002/a", "2002/b"):
        photo(root / "originalPics" / f"{name}.jpg")
    write(root / "FDDB-folds" / "FDDB-fold-08-ellipseList.txt", text)
    return FddbConfig(root=root, splits={"train": (), "test": (8,)})


OFFICIAL = "0--P/a.jpg\n3\n1 2 10 12 0 0 0 0 0 0 \n3 3 5 5 2 0 0 1 2 0 \n4 4 0 9 0 0 0 0 0 0\n"
EMPTY = "0--P/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n"


def wider(root: Path, text: str = OFFICIAL + EMPTY, **changes: Any) -> WiderConfig:
    for name in ("a", "b"):
        photo(root / "WIDER_val" / "images" / "0--P" / f"{name}.jpg")
    write(root / "wider_face_split" / "wider_face_val_bbx_gt.txt", text)
    return WiderConfig(root=root, **changes)


def cells(values: list[Any]) -> np.ndarray:
    """A MATLAB column of cells."""
    column = np.empty((len(values), 1), object)
    for number, value in enumerate(values):
        column[number, 0] = value
    return column


def cars(root: Path, **changes: Any) -> StanfordCarsConfig:
    for part, count in (("train", 3), ("test", 1)):
        fields = [(side, "O") for side in SIDES] + [("fname", "O")]
        rows = np.zeros((1, count), fields)
        for number in range(count):
            name = f"{number + 1:05d}.jpg"
            rows[0, number] = (2 + number, 3, 30, 20, name)
            photo(root / f"cars_{part}" / name)
        (root / "devkit").mkdir(exist_ok=True)
        savemat(root / "devkit" / f"cars_{part}_annos.mat", {"annotations": rows})
    return StanfordCarsConfig(root=root, **changes)


def yolo(root: Path, labels: str = "1 0.5 0.5 0.25 0.2\n", data: str = "train: images/train\n") -> YoloConfig:
    for name in ("a", "b"):
        photo(root / "images" / "train" / f"{name}.jpg")
    write(root / "labels" / "train" / "a.txt", labels)
    write(root / "data.yaml", data + "names: {0: no, 1: car}\n")
    return YoloConfig(root=root)


def table(root: Path, text: str, **changes: Any) -> CsvBoxesConfig:
    for name in ("a.jpg", "b.jpg"):
        photo(root / "images" / name)
    write(root / "boxes.csv", text)
    return CsvBoxesConfig(root=root, **changes)


@pytest.mark.parametrize("angle_deg", [-80, -30, 0, 15, 45, 90])
def test_an_ellipse_s_box_is_that_of_its_pixels(angle_deg: int) -> None:
    (box,) = ellipse_boxes([60.0, 25.0, math.radians(angle_deg), 100.5, 90.5])
    # pixel (100, 90) has its centre at (100.5, 90.5)
    canvas = np.zeros((200, 200), np.uint8)
    cv2.ellipse(canvas, (100, 90), (60, 25), angle_deg, 0, 360, 255, -1)
    ys, xs = np.nonzero(canvas)
    assert np.abs(box - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() < 1.2
    turns = np.linspace(0, 2 * np.pi, 20_000)
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    outline = 100.5 + 60 * np.cos(turns) * cosine - 25 * np.sin(turns) * sine
    assert [box[0], box[2]] == pytest.approx([outline.min(), outline.max()], abs=1e-4)


def test_fddb_gives_tight_boxes_and_keeps_photos_without_faces(tmp_path: Path) -> None:
    first, second = fddb(tmp_path).read("test", ["face"], tmp_path)
    assert (first.key, boxes(first)) == ("2002/a", [[12, 10, 28, 20], [15, 7, 25, 23]])
    assert (second.key, len(second.target)) == ("2002/b", 0)


def test_wider_ignores_invalid_and_small_faces_and_drops_empty_ones(tmp_path: Path) -> None:
    first, second = wider(tmp_path).read("val", ["face"], tmp_path)
    assert (first.key, boxes(first)) == ("0--P/a", [[1, 2, 11, 14], [3, 3, 8, 8]])
    assert first.target.ignore.tolist() == [False, True]
    assert len(second.target) == 0
    small = wider(tmp_path, min_side_px=11).read("val", ["face"], tmp_path)[0]
    assert small.target.ignore.tolist() == [True, True]


def test_wider_reads_label_txt_with_and_without_landmarks(tmp_path: Path) -> None:
    points = "3 4 0 9 4 0 6 7 1 4 10 0 8 10 0"
    absent = " ".join(["-1"] * 15)
    faces = f"1 2 10 12 {points} 0.8\n3 3 5 5 {absent} 0.2\n1 1 4 4 {'0 ' * 15}\n"
    wider(tmp_path, f"# 0--P/a.jpg\n{faces}# 0--P/b.jpg\n2 2 9 9\n")
    path = tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    faces_of = read_faces(path)
    assert [face.landmarks is None for face in faces_of["0--P/a.jpg"]] == [False, True, True]
    assert faces_of["0--P/a.jpg"][0].landmarks == ((3, 4), (9, 4), (6, 7), (4, 10), (8, 10))
    assert [boxes(i) for i in WiderConfig(root=tmp_path).read("val", ["face"], tmp_path)][1] == [
        [2, 2, 11, 11]
    ]


def test_wider_s_mat_says_the_same_as_its_text_and_which_faces_count(tmp_path: Path) -> None:
    as_text = wider(tmp_path).read("val", ["face"], tmp_path)
    one = np.array([[1, 2, 10, 12], [3, 3, 5, 5], [4, 4, 0, 9]], np.int32)
    content = {
        "event_list": cells(["0--P"]),
        "file_list": cells([cells(["a", "b"])]),
        "face_bbx_list": cells([cells([one, np.zeros((0, 4), np.int32)])]),
        "invalid_label_list": cells([cells([np.array([[0], [1], [0]]), np.zeros((0, 1))])]),
        "gt_list": cells([cells([np.array([[2]]), np.zeros((0, 1))])]),
    }
    savemat(tmp_path / "wider.mat", content)
    as_mat = WiderConfig(root=tmp_path, annotations="wider.mat").read("val", ["face"], tmp_path)
    assert [boxes(image) for image in as_mat] == [boxes(image) for image in as_text]
    assert as_mat[0].target.ignore.tolist() == as_text[0].target.ignore.tolist()
    counted = wider(tmp_path, counted="wider.mat").read("val", ["face"], tmp_path)
    assert counted[0].target.ignore.tolist() == [True, False]


def test_stanford_cars_validates_on_the_first_training_rows(tmp_path: Path) -> None:
    config = cars(tmp_path, val=1)
    keys = {
        s: [image.key for image in config.read(s, ["car"], tmp_path)] for s in config.split_names(tmp_path)
    }
    assert keys == {
        "train": ["cars_train/00002", "cars_train/00003"],
        "val": ["cars_train/00001"],
        "test": ["cars_test/00001"],
    }
    assert boxes(config.read("val", ["car"], tmp_path)[0]) == [[2, 3, 30, 20]]
    based = cars(tmp_path, one_based=True).read("test", ["car"], tmp_path)[0]
    assert boxes(based) == [[1, 2, 30, 20]]


def test_stanford_cars_reads_the_table_of_all_photos(tmp_path: Path) -> None:
    rows = np.zeros((1, 2), [("relative_im_path", "O"), *((side, "O") for side in SIDES), ("test", "O")])
    for number in (0, 1):
        rows[0, number] = (f"car_ims/{number}.jpg", 1, 2, 13, 14, number)
        photo(tmp_path / "car_ims" / f"{number}.jpg")
    savemat(tmp_path / "cars_annos.mat", {"annotations": rows})
    config = StanfordCarsConfig(root=tmp_path)
    assert [config.read(s, ["car"], tmp_path)[0].key for s in ("train", "test")] == ["car_ims/0", "car_ims/1"]


def test_yolo_reads_boxes_polygons_and_images_without_labels(tmp_path: Path) -> None:
    config = yolo(tmp_path, "1 0.5 0.5 0.25 0.2\n0 0.1 0.1 0.5 0.2 0.3 0.9\n")
    assert config.class_names(tmp_path) == ["no", "car"]
    first, second = config.read("train", ["car", "no"], tmp_path)
    assert boxes(first) == [[15, 12, 25, 18], [4, 3, 20, 27]]
    assert first.target.labels.tolist() == [1, 2]
    assert (first.key, len(second.target)) == ("images/train/a", 0)


@pytest.mark.parametrize("place", ["../images/train", "list.txt", "[images/train]"])
def test_yolo_finds_its_photos_where_exporters_say_they_are(tmp_path: Path, place: str) -> None:
    write(tmp_path / "list.txt", "./images/train/a.jpg\n./images/train/b.jpg\n")
    config = yolo(tmp_path, data=f"path: /somewhere/else\ntrain: {place}\nval:\n")
    assert [boxes(image) for image in config.read("train", ["car"], tmp_path)] == [[[15, 12, 25, 18]], []]
    assert config.split_names(tmp_path) == ["train"]


def test_a_csv_s_rows_become_objects_of_their_photos(tmp_path: Path) -> None:
    text = "file,x0,y0,x1,y1,label,ignore\na.jpg,1,2,9,8,car,0\na.jpg,1,2,50,8,bus,true\nb.jpg,,,,,,\n"
    first, second = table(tmp_path, text).read("all", ["bus", "car"], tmp_path)
    assert boxes(first) == [[1, 2, 9, 8], [1, 2, 40, 8]]
    assert (first.target.labels.tolist(), first.target.ignore.tolist()) == ([2, 1], [False, True])
    assert (second.key, len(second.target)) == ("b", 0)


def test_a_csv_may_name_its_columns_otherwise_and_have_no_labels(tmp_path: Path) -> None:
    theirs = {"file": "image_id", "x0": "xmin", "y0": "ymin", "x1": "xmax", "y1": "ymax"}
    config = table(
        tmp_path, "image_id,xmin,ymin,xmax,ymax\n'a.jpg',1,2,9,8\n".replace("'", '"'), columns=theirs
    )
    assert boxes(config.read("all", ["face"], tmp_path)[0]) == [[1, 2, 9, 8]]


@pytest.mark.parametrize(
    ("make", "text", "message"),
    [
        (fddb, "2002/a\n3\n8 5 0 20 15 1\n", "txt:2: found 3, wanted how many"),
        (fddb, "2002/a\n1\n8 5 0 20\n", "txt:3: '8 5 0 20', wanted major and minor"),
        (fddb, "2002/a\n0\n2002/c\n0\n2002/d\n0\n", r"c.jpg: no such file \(nor 1 more of 3\)"),
        (wider, "0--P/a.jpg\n2\n1 2 3 4\n", "txt:2: found 2, wanted how many"),
        (wider, "0--P/a.jpg\n1\n1 2 3\n", "txt:3: 3 values, wanted x y w h"),
        (wider, EMPTY + EMPTY, "photo 0--P/b.jpg again"),
        (wider, "# 0--P/a.jpg\n1 2 3 4 5\n", "txt:2: 5 values, wanted x y w h and five"),
        (yolo, "1 20 30 5 5\n", "a.txt:1: 5 to 30, wanted shares"),
        (yolo, "1 0.5 0.5 0.2\n", "a.txt:1: 3 values of class 1"),
        (yolo, "7 0.5 0.5 0.2 0.2\n", "a.txt:1: class 7, wanted one of 0 to 1"),
        (table, "file,x0,y0,x1\n", "boxes.csv:1: no column 'y1'"),
        (table, "file,x0,y0,x1,y1\na.jpg,1,2\n", "boxes.csv:2: 3 values, wanted 5"),
        (table, "file,x0,y0,x1,y1\na.jpg,1,,9,8\n", "boxes.csv:2: '', wanted a finite number"),
        (table, "file,x0,y0,x1,y1,ignore\na.jpg,1,2,9,8,maybe\n", "ignore is 'maybe'"),
    ],
)
def test_broken_annotations_are_refused(
    tmp_path: Path, make: Callable[..., DatasetConfig], text: str, message: str
) -> None:
    config = make(tmp_path, text)
    name = "car" if make is yolo else "face"
    with pytest.raises(InputError, match=message):
        config.read(config.split_names(tmp_path)[-1], [name], tmp_path)


def test_a_mat_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    config = cars(tmp_path)
    path = tmp_path / "devkit" / "cars_train_annos.mat"
    savemat(path, {"other": 1})
    with pytest.raises(InputError, match="no variable 'annotations'"):
        config.read("train", ["car"], tmp_path)
    path.write_text("a text, which is long enough not to be taken for a short binary file " * 4)
    with pytest.raises(InputError, match=r"cars_train_annos.mat: .*wanted a .mat file"):
        config.read("train", ["car"], tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="development data is not here")
def test_the_official_ground_truth_has_its_known_counts(tmp_path: Path) -> None:
    config = FddbConfig(
        root=DATA / "fddb", folds=".", images=str(tmp_path), splits={"all": tuple(range(1, 11))}
    )
    with pytest.raises(InputError, match="nor 2844 more of 2845"):
        config.read("all", ["face"], tmp_path)
    faces = read_faces(DATA / "wider_gt" / "wider_face_val.mat")
    assert (len(faces), sum(map(len, faces.values()))) == (3226, 39708)
