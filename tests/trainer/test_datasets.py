import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.datasets.coco import CocoConfig
from trainer.datasets.cub import CubConfig
from trainer.datasets.scenes import ScenesConfig
from trainer.datasets.voc import VocConfig
from trainer.imaging.images import read_boxed_image, read_image, resize_antialiased

DATA = Path(__file__).parents[3] / "shared" / "data"


def _photo(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (10, 200, 30)).save(path)


def _cub(root: Path) -> CubConfig:
    for name in ("a/x.jpg", "b/y.jpg", "b/z.jpg"):
        _photo(root / "images" / name)
    (root / "images.txt").write_text("1 a/x.jpg\n2 b/y.jpg\n3 b/z.jpg\n")
    (root / "bounding_boxes.txt").write_text("1 2.0 3.0 10.0 20.0\n2 30.0 20.0 15.5 10.0\n3 0 0 40 30\n")
    (root / "train_test_split.txt").write_text("1 1\n2 0\n3 1\n")
    return CubConfig(root=root)


def _object(name: str, box: tuple[object, ...], difficult: int = 0) -> str:
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>"


def _voc(root: Path, *objects: str, size: str = "") -> VocConfig:
    _photo(root / "JPEGImages" / "p 1.jpg")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "p 1.xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("p 1\n\n")
    return VocConfig(root=root)


def _coco(root: Path, *annotations: tuple[int, int, object, int], width: int = 40) -> CocoConfig:
    _photo(root / "images" / "one.jpg")
    _photo(root / "images" / "two.jpg")
    content = {
        "images": [
            {"id": 7, "file_name": "two.jpg", "width": width, "height": 30},
            {"id": 3, "file_name": "one.jpg", "width": 40, "height": 30},
        ],
        "categories": [{"id": 5, "name": "bird"}, {"id": 90, "name": "car"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd}
            for i, (image, category, box, crowd) in enumerate(annotations)
        ],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return CocoConfig(root=root)


def _boxes(image: BoxedImage) -> list[list[float]]:
    return [[float(value) for value in box] for box in image.target.boxes]


def test_cub_gives_xyxy_boxes_of_a_split_clipped_to_the_photo(tmp_path: Path) -> None:
    config = _cub(tmp_path)
    train = config.read("train", ["bird"], tmp_path)
    assert [image.key for image in train] == ["a/x", "b/z"]
    assert _boxes(train[0]) == [[2, 3, 12, 23]]
    assert (train[0].width, train[0].height) == (40, 30)
    assert _boxes(config.read("test", ["bird"], tmp_path)[0]) == [[30, 20, 40, 30]]
    assert [int(label) for image in train for label in image.target.labels] == [1, 1]


def test_cub_reads_another_split_file(tmp_path: Path) -> None:
    root = _cub(tmp_path).root
    (root / "ours.txt").write_text("1 2\n2 2\n3 0\n")
    config = CubConfig(root=root, split_file="ours.txt", splits={"train": 0, "val": 1, "test": 2})
    assert [len(config.read(split, ["bird"], tmp_path)) for split in ("train", "val", "test")] == [1, 0, 2]


def test_cub_wants_one_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 classes, wanted the one name"):
        _cub(tmp_path).read("train", ["gull", "tern"], tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("bounding_boxes.txt", "1 2 3 4\n", r"bounding_boxes.txt:1: '1 2 3 4', wanted lines of an image id"),
        ("bounding_boxes.txt", "1 1 1 9 9\n2 1 1 9 9\n", "no line for image 3"),
        (
            "bounding_boxes.txt",
            "1 1 1 9 9\n2 1 1 9 9\n3 1 nan 9 9\n",
            "image 3: 'nan', wanted a finite number",
        ),
        (
            "bounding_boxes.txt",
            "".join(f"{i} 1 1 9 9\n" for i in (1, 2, 3, 4)),
            "image 4 is not in images.txt",
        ),
        ("train_test_split.txt", "1 1\n1 0\n", "image 1 again"),
        ("images.txt", "1 a/x.jpg\n2 b/y.jpg\n3 b/gone.jpg\n", "gone.jpg: no such file"),
    ],
)
def test_broken_cub_tables_are_refused(tmp_path: Path, file: str, text: str, message: str) -> None:
    config = _cub(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message):
        config.read("train", ["bird"], tmp_path)


def test_voc_keeps_wanted_classes_and_ignores_difficult_ones(tmp_path: Path) -> None:
    config = _voc(
        tmp_path,
        _object("car", (1, 2, 11, 12)),
        _object("dog", (0, 0, 5, 5)),
        _object("bus", (3, 3, 90, 9), 1),
    )
    (image,) = config.read("train", ["bus", "car"], tmp_path)
    assert image.key == "p 1"
    assert _boxes(image) == [[1, 2, 11, 12], [3, 3, 40, 9]]
    assert image.target.labels.tolist() == [2, 1]
    assert image.target.ignore.tolist() == [False, True]


def test_voc_one_based_boxes_hold_their_first_pixel(tmp_path: Path) -> None:
    _voc(tmp_path, _object("car", (1, 1, 40, 30)))
    (image,) = VocConfig(root=tmp_path, one_based=True).read("train", ["car"], tmp_path)
    assert _boxes(image) == [[0, 0, 40, 30]]


def test_degenerate_boxes_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = _voc(
        tmp_path,
        *(_object("car", box) for box in ((5, 5, 5, 9), (9, 9, 3, 12), (50, 1, 60, 9), (1, 1, 2, 2))),
    )
    with caplog.at_level(logging.WARNING):
        (image,) = config.read("train", ["car"], tmp_path)
    assert _boxes(image) == [[1, 1, 2, 2]]
    assert "dropped 3 boxes" in caplog.text


@pytest.mark.parametrize(
    ("objects", "size", "message"),
    [
        ("<object><name>car</name></object>", "", "object 1: xmin: None, wanted a finite number"),
        ("<object><bndbox/></object>", "", "object 1: no name"),
        (_object("car", ("x", 1, 2, 3)), "", "xmin: 'x', wanted a finite number"),
        ("<object>", "", "mismatched tag.*wanted well-formed XML"),
        ("", "<size><width>30</width><height>40</height></size>", "size is 30x40, wanted 40x30"),
    ],
)
def test_broken_voc_xml_is_refused(tmp_path: Path, objects: str, size: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _voc(tmp_path, objects, size=size).read("train", ["car"], tmp_path)
    assert "p 1.xml" in str(caught.value)


def test_voc_without_any_wanted_class_names_the_ones_it_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no class 'cars' .did you mean 'car'.*wanted one of car"):
        _voc(tmp_path, _object("car", (1, 1, 9, 9))).read("train", ["cars"], tmp_path)


@pytest.mark.parametrize(
    ("remove", "message"), [("JPEGImages", "no photo 'p 1'"), ("Annotations", "p 1.xml: no such file")]
)
def test_a_listed_voc_image_must_be_there(tmp_path: Path, remove: str, message: str) -> None:
    config = _voc(tmp_path, _object("car", (1, 1, 9, 9)))
    for path in (tmp_path / remove).iterdir():
        path.unlink()
    with pytest.raises(InputError, match=message):
        config.read("train", ["car"], tmp_path)


def test_coco_labels_follow_the_classes_and_crowds_are_ignored(tmp_path: Path) -> None:
    config = _coco(tmp_path, (3, 90, [1, 2, 10, 5.5], 0), (3, 5, [0, 0, 99, 4], 1), (3, 90, [1, 1, 0, 5], 0))
    two, one = config.read("all", ["bird", "car"], tmp_path)
    assert (two.key, len(two.target)) == ("two", 0)
    assert _boxes(one) == [[1, 2, 11, 7.5], [0, 0, 40, 4]]
    assert one.target.labels.tolist() == [2, 1]
    assert one.target.ignore.tolist() == [False, True]
    assert [len(image.target) for image in config.read("all", ["bird"], tmp_path)] == [0, 1]


def test_coco_splits_have_their_own_files_and_folders(tmp_path: Path) -> None:
    _coco(tmp_path)
    (tmp_path / "images").rename(tmp_path / "val2017")
    config = CocoConfig(root=tmp_path, annotations={"val": "instances.json"}, images="{split}2017")
    assert [image.path.parent.name for image in config.read("val", ["car"], tmp_path)] == [
        "val2017",
        "val2017",
    ]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ((8, 5, [1, 1, 5, 5], 0), "annotation 0: image 8 is not among the images"),
        ((3, 6, [1, 1, 5, 5], 0), "category 6 is not among the categories"),
        ((3, 5, [1, 1, 5], 0), r"bbox is \[1, 1, 5\], wanted \[x, y, width, height\]"),
        ((3, 5, [1, None, 5, 5], 0), "bbox: None, wanted a finite number"),
    ],
)
def test_broken_coco_annotations_are_refused(
    tmp_path: Path, annotation: tuple[int, int, object, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _coco(tmp_path, annotation).read("all", ["bird"], tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "wanted JSON"),
        ("[]", "no list 'images'"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"images\[0\]: no 'file_name'"),
    ],
)
def test_a_broken_coco_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(InputError, match=message):
        CocoConfig(root=tmp_path).read("all", ["bird"], tmp_path)


def test_coco_names_an_unknown_class_and_a_missing_photo(tmp_path: Path) -> None:
    config = _coco(tmp_path)
    with pytest.raises(InputError, match=r"no class 'birds' .did you mean 'bird'"):
        config.read("all", ["birds"], tmp_path)
    (tmp_path / "images" / "one.jpg").unlink()
    with pytest.raises(InputError, match=r"one.jpg: no such file, wanted the photo of .*image 3"):
        config.read("all", ["bird"], tmp_path)


@pytest.mark.parametrize("make", [_cub, _voc, _coco])
def test_an_unknown_split_names_the_splits(tmp_path: Path, make: Callable[[Path], DatasetConfig]) -> None:
    with pytest.raises(InputError, match=r"no split 'vall'.* wanted one of (test, train|train|all)"):
        make(tmp_path).read("vall", ["bird"], tmp_path)


@pytest.mark.parametrize("kind", [CubConfig, VocConfig, CocoConfig])
def test_a_missing_root_is_refused(tmp_path: Path, kind: type[DatasetConfig]) -> None:
    with pytest.raises(InputError, match="no/where: no such folder"):
        kind(root=Path("no/where")).read("train", ["bird"], tmp_path)


def test_a_relative_root_is_found_in_home(tmp_path: Path) -> None:
    _cub(tmp_path / "sets")
    assert CubConfig(root=Path("sets")).read("train", ["bird"], tmp_path)


def test_photos_are_read_as_stored_whatever_their_mode_and_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("L", (40, 30), 77).save(tmp_path / "grey.jpg", exif=exif)
    image = read_image(tmp_path / "grey.jpg")
    assert (image.shape, image.dtype) == ((30, 40, 3), np.uint8)
    assert np.abs(image.astype(int) - 77).max() <= 1


def test_a_photo_of_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    two, one = _coco(tmp_path, width=41).read("all", ["bird"], tmp_path)
    assert read_boxed_image(one).shape == (30, 40, 3)
    with pytest.raises(InputError, match=r"two.jpg: image is 40x30, its annotation wanted 41x30"):
        read_boxed_image(two)


def test_truncated_foreign_and_missing_photos_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-700])
    (tmp_path / "text.jpg").write_text("not a photo")
    for name, message in (("cut", "truncated"), ("text", "not an image"), ("gone", "no such file")):
        with pytest.raises(InputError, match=f"{name}.jpg: .*{message}"):
            read_image(tmp_path / f"{name}.jpg")


@pytest.mark.parametrize("size", [(20, 15), (80, 60), (20, 60), (80, 15), (40, 30)])
def test_resizing_keeps_the_mean_and_does_not_alias(size: tuple[int, int]) -> None:
    stripes = np.zeros((30, 40, 3), np.uint8)
    stripes[:, ::2] = 200
    resized = resize_antialiased(stripes, *size)
    assert resized.shape == (size[1], size[0], 3)
    assert abs(resized.mean() - 100) < 2
    if size[0] == 20:
        assert resized.min() == resized.max() == 100


@pytest.mark.skipif(not DATA.is_dir(), reason="development data is not here")
def test_the_development_sets_have_their_known_counts() -> None:
    def counts(config: DatasetConfig, split: str, name: str) -> tuple[int, int]:
        images = config.read(split, [name], DATA)
        return len(images), sum(len(image.target) for image in images)

    assert counts(CubConfig(root=DATA / "cub"), "train", "birds") == (317, 317)
    assert counts(VocConfig(root=DATA / "cars_voc"), "test", "car") == (71, 93)
    assert counts(CocoConfig(root=DATA / "coco128"), "all", "bird") == (128, 16)


def scenes(root: Path, **changes: Any) -> ScenesConfig:
    sets = {"crops": "embedded/birds-held-out", "backgrounds": "embedded/backgrounds-held-out"}
    return ScenesConfig.model_validate({"root": root, "count": 3, **sets, **changes})


def test_scenes_are_the_same_every_time_and_differ_between_splits(tmp_path: Path) -> None:
    first = scenes(tmp_path).read("test", ["bird"], tmp_path)
    before = [image.path.read_bytes() for image in first]
    again = scenes(tmp_path).read("test", ["bird"], tmp_path)
    assert [image.path.read_bytes() for image in again] == before
    assert all(np.array_equal(a.target.boxes, b.target.boxes) for a, b in zip(first, again, strict=True))
    train = scenes(tmp_path).read("train", ["bird"], tmp_path)
    assert not set(before) & {image.path.read_bytes() for image in train}
    assert read_boxed_image(first[0]).shape == (first[0].height, first[0].width, 3)


def test_scenes_know_their_classes_and_splits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no class 'car'"):
        scenes(tmp_path).read("test", ["car"], tmp_path)
    with pytest.raises(InputError, match="no split 'val'"):
        scenes(tmp_path).read("val", ["bird"], tmp_path)
    with pytest.raises(InputError, match="no embedded 'birds-heldout', did you mean 'birds-held-out'"):
        scenes(tmp_path, crops="embedded/birds-heldout").read("test", ["bird"], tmp_path)
