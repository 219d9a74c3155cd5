"""A folder as a user may have it: photos, sets, data sets, recipes, and much that is wrong with them."""

import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch

from shards.manifest import Kind, Manifest, fingerprint_of, shard_name, write_manifest
from shards.records import BackgroundRecord, CropRecord, Record
from shards.store import open_store
from shards.writer import write_shard

WEB_PAGE = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n"
RECIPE = """label: disc
source: {kind: images, root: photos}
segmenter: {kind: whole}
"""
RUN = """crops: [crops]
backgrounds: backgrounds
dataset: {kind: voc, root: voc}
detector: {kind: ssd, backbone: mobilenet_v2, image_size: 96, weights: none}
phases: [scratch]
training: {steps: 1, batch_size: 2}
num_real: [2]
seeds: [0]
"""
HALF_WRITTEN = {
    "tab.yaml": "label: disc\n\tseed: 3\n",
    "colon.yaml": "label disc\nsource: {kind: images}\n",
    "twice.yaml": f"{RECIPE}label: cup\n",
    "empty.yaml": "",
    "list.yaml": "- label\n- source\n",
    "misspelt.yaml": RECIPE.replace("source", "sorce"),
    "kind.yaml": RECIPE.replace("whole", "wohle"),
    "no-kind.yaml": RECIPE.replace("{kind: whole}", "whole"),
    "text.yaml": f'{RECIPE}seed: "3"\n',
    "open.yaml": "source: {kind: images\n",
    "object.yaml": 'label: !!python/object/apply:os.system ["touch planted"]\n',
}


class Plants:
    """Unpickled by a careless reader, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


def picture(number: int, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng([11, number])
    noise = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    image = cv2.resize(noise, (side, side))
    cv2.circle(image, (side // 2, side // 2), side // 4, (30, 40, 220), -1)
    return image


def make_set(folder: Path, kind: Kind, label: str = "disc", *, complete: bool = True) -> None:
    """Two shards of four records."""
    store, mask = open_store(folder), np.full((64, 64), 255, np.uint8)
    entries = []
    for shard in range(2):
        records: list[Record] = []
        for i in range(shard * 4, shard * 4 + 4):
            image = picture(i)
            crop = CropRecord(f"{i:06d}", label, image, mask, {"slot": i})
            records.append(crop if kind == "crops" else BackgroundRecord(f"{i:06d}", image))
        entries.append(write_shard(store, shard_name(kind, shard), records))
    classes = (label,) if kind == "crops" else ()
    recipe = {"label": label, "kind": kind}
    write_manifest(store, Manifest(kind, classes, fingerprint_of(recipe), recipe, tuple(entries), complete))


def damaged(folder: Path, name: str) -> Path:
    """A copy of the crop set, to be damaged."""
    return Path(shutil.copytree(folder / "crops", folder / name))


def make_world(root: Path) -> None:
    """All of it, in half a second."""
    for folder, count in (("photos", 6), ("nothing", 0), ("odd names", 2)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(root / folder / f"{i}=.png"), picture(i))
    (root / "nothing" / "readme.txt").write_text("no photo here")
    (root / "class.yaml").write_text(RECIPE)
    (root / "run.yaml").write_text(RUN)
    for name, text in HALF_WRITTEN.items():
        (root / name).write_text(text)
    (root / "bytes.yaml").write_bytes(b"\xff\xfe\x00label")
    make_set(root / "crops", "crops")
    make_set(root / "cats", "crops", "cat")
    make_set(root / "backgrounds", "backgrounds")
    make_set(root / "unfinished", "crops", complete=False)
    _damage_sets(root)
    _make_voc(root / "voc")
    _make_coco(root / "coco")
    _make_weights(root / "weights")


def _damage_sets(root: Path) -> None:
    tar = "crops-000001.tar"
    (damaged(root, "cut") / tar).write_bytes((root / "crops" / tar).read_bytes()[:5000])
    (damaged(root, "lost") / tar).unlink()
    (damaged(root, "renamed") / tar).rename(root / "renamed" / "crops-000007.tar")
    (damaged(root, "swapped") / tar).write_bytes((root / "crops" / "crops-000000.tar").read_bytes())
    for name, key, value in (
        ("future", "version", 9),
        ("edited", "classes", ["cat"]),
        ("bad", "kind", "cat"),
    ):
        path = damaged(root, name) / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    (damaged(root, "half") / "manifest.json").write_bytes(b'{"version": 1, "kind": "cro')


def _make_voc(root: Path) -> None:
    names = [f"{i}" for i in range(6)]
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), picture(i, 100))
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>100</width><height>100</height></size>"
            "<object><name>disc</name><bndbox><xmin>25</xmin><ymin>25</ymin><xmax>75</xmax><ymax>75</ymax>"
            "</bndbox></object></annotation>"
        )
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names[:4]))
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names[4:]))


def _make_coco(root: Path) -> None:
    root.mkdir()
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in range(3)]
    for i in range(3):
        cv2.imwrite(str(root / f"{i}.jpg"), picture(i, 100))
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [25, 25, 50, 50]} for i in range(3)]
    content = {"images": images, "categories": [{"id": 1, "name": "disc"}], "annotations": boxes}
    (root / "instances.json").write_text(json.dumps(content))


def _make_weights(root: Path) -> None:
    root.mkdir()
    (root / "page.pth").write_bytes(WEB_PAGE)
    (root / "pointer.safetensors").write_bytes(LFS_POINTER)
    (root / "empty.pth").write_bytes(b"")
    torch.save({"layer.weight": torch.zeros(3, 3)}, root / "other.pth")
    whole = (root / "other.pth").read_bytes()
    (root / "cut.pth").write_bytes(whole[: len(whole) // 2])
    torch.save({"model": Plants(root / "planted")}, root / "code.pth")
    (root / "code.pkl").write_bytes(pickle.dumps(Plants(root / "planted")))
