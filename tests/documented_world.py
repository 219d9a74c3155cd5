"""What the documentation takes for granted in a user's folder: photos, sets, data sets, in little."""

import json
from pathlib import Path

import cv2
import numpy as np

from shards.manifest import Manifest, fingerprint_of, shard_name, write_manifest
from shards.records import CropRecord
from shards.store import open_store
from shards.writer import write_shard
from tests.factory.conftest import make_photo
from tests.mistakes_world import make_set, picture

_NUM_CUB = 56  # 54 to train on: the run of birds wants 50
_RUN = """crops: [data/crops/my-class]
backgrounds: data/backgrounds/own
dataset: {kind: yolo, root: boxes}
detector: {kind: ssd, backbone: mobilenet_v2, image_size: 224}
"""
_RECIPE = "label: mug\nsource: {kind: images, root: photos/mugs}\nsegmenter: {kind: whole}\n"


def make_home(folder: Path, *, with_sets: bool) -> None:
    """In a third of a second."""
    for name in ("photos/birds", "photos/cars", "photos/faces", "photos/mugs", "photos/new"):
        _make_photos(folder / name, 12)
    for number, name in enumerate("ab"):
        cv2.imwrite(str(folder / "photos" / f"{name}.jpg"), picture(number, 96))
    for label in ("bird", "cat") if with_sets else ():
        _make_crops(folder / "data" / "crops" / f"{label}s", label)
        _make_crops(folder / "data" / "crops" / f"{label}s-photos", label)
    for name in ("coco", "coco-without-people", "own") if with_sets else ():
        make_set(folder / "data" / "backgrounds" / name, "backgrounds")
    _make_coco(folder / "coco")
    _make_cub(folder / "data" / "cub")
    _make_yolo(folder / "boxes")
    (folder / "my-class.yaml").write_text(_RECIPE)
    (folder / "my-run.yaml").write_text(_RUN)


def _make_crops(place: Path, label: str) -> None:
    """Eight, with the scores that a build gives; half of them are sure."""
    mask, store = np.full((64, 64), 255, np.uint8), open_store(place)
    records = []
    for i in range(8):
        scores = {"area_frac": 0.3, "main_share": 1.0, "border_frac": 0.0, "side_px": 64.0}
        scores["confidence"] = 0.5 + 0.2 * (i % 2)
        records.append(CropRecord(f"{i:06d}", label, picture(i), mask, {"slot": i, **scores}))
    recipe, entries = {"label": label}, (write_shard(store, shard_name("crops", 0), records),)
    write_manifest(store, Manifest("crops", (label,), fingerprint_of(recipe), recipe, entries, complete=True))


def _make_photos(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), make_photo(number))


def _make_coco(root: Path) -> None:
    """Photos 0 and 1 hold nothing, photo 2 a bird; of people and cars none is seen."""
    root.mkdir()
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 96, "height": 96} for i in range(3)]
    for i in range(3):
        cv2.imwrite(str(root / f"{i}.jpg"), picture(i, 96))
    boxes = [{"id": 1, "image_id": 2, "category_id": 16, "bbox": [25, 25, 50, 50]}]
    categories = [{"id": number, "name": name} for number, name in ((1, "person"), (3, "car"), (16, "bird"))]
    content = {"images": images, "categories": categories, "annotations": boxes}
    (root / "instances.json").write_text(json.dumps(content))


def _make_yolo(root: Path) -> None:
    for split in ("train", "test"):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for number in range(12):
            cv2.imwrite(str(root / "images" / split / f"{number}.jpg"), picture(number))
            (root / "labels" / split / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("train: images/train\ntest: images/test\nnames: {0: mug}\n")


def _make_cub(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    numbers = range(1, _NUM_CUB + 1)
    for number in numbers:
        cv2.imwrite(str(root / "images" / f"{number}.jpg"), picture(number))
    tables = {"images.txt": "{0} {0}.jpg", "bounding_boxes.txt": "{0} 16.0 16.0 32.0 32.0"}
    tables["train_test_split.txt"] = "{0} {1}"
    for name, line in tables.items():
        lines = [line.format(number, int(number > 2)) for number in numbers]
        (root / name).write_text("\n".join(lines) + "\n")
