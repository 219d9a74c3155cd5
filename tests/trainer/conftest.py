"""Small sets and photos made in code: red discs to find on grey noise."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from shards.manifest import Manifest, fingerprint_of, shard_name, write_manifest
from shards.records import BackgroundRecord, CropRecord
from shards.store import open_store
from shards.writer import write_shard

torch.set_num_threads(1)


def noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.integers(60, 200, (height // 8 + 1, width // 8 + 1, 1), dtype=np.uint8)
    return np.repeat(cv2.resize(coarse, (width, height))[..., None], 3, axis=2)


def disc_crop(number: int) -> CropRecord:
    side = 40 + number % 7
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), side // 2 - 3, 255, -1)
    image = np.full((side, side, 3), (220, 30, 40), np.uint8)
    return CropRecord(f"{number:06d}", "disc", image, mask, {"made": "in code"})


@pytest.fixture(scope="session")
def sets(tmp_path_factory) -> tuple[Path, Path]:
    """A crop set of 30 discs in 3 shards, and a background set of 8 pictures."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(3)
    crops, backgrounds = open_store(root / "crops"), open_store(root / "backgrounds")
    entries = tuple(
        write_shard(crops, shard_name("crops", s), [disc_crop(s * 10 + i) for i in range(10)])
        for s in range(3)
    )
    write_manifest(crops, Manifest("crops", ("disc",), fingerprint_of({}), {}, entries, complete=True))
    pictures = [BackgroundRecord(f"{i:06d}", noise(rng, 90, 120)) for i in range(8)]
    entry = write_shard(backgrounds, shard_name("backgrounds", 0), pictures)
    write_manifest(backgrounds, Manifest("backgrounds", (), fingerprint_of({}), {}, (entry,), complete=True))
    return root / "crops", root / "backgrounds"


@pytest.fixture(scope="session")
def voc_discs(tmp_path_factory) -> Path:
    """A VOC folder: 12 training and 6 test photos of one disc each."""
    root = tmp_path_factory.mktemp("voc")
    rng = np.random.default_rng(5)
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    names = [f"{i:02d}" for i in range(18)]
    for name in names:
        photo = noise(rng, 100, 100)
        radius = int(rng.integers(14, 30))
        x, y = (int(v) for v in rng.integers(radius + 1, 99 - radius, 2))
        cv2.circle(photo, (x, y), radius, (40, 30, 220), -1)
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), photo)
        box = {"xmin": x - radius, "ymin": y - radius, "xmax": x + radius, "ymax": y + radius}
        corners = "".join(f"<{key}>{value}</{key}>" for key, value in box.items())
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>100</width><height>100</height>"
            "<depth>3</depth></size><object><name>disc</name><difficult>0</difficult>"
            f"<bndbox>{corners}</bndbox></object></annotation>"
        )
    for split, part in (("train", names[:12]), ("test", names[12:])):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(part) + "\n")
    return root


@pytest.fixture
def write_run(sets, voc_discs, tmp_path) -> Callable[[str, str], Path]:
    """``write_run("tiny", "seeds: [0]")`` is tiny.yaml: the discs and their photos, with these settings."""
    head = f"crops: [{sets[0]}]\nbackgrounds: {sets[1]}\ndataset: {{kind: voc, root: {voc_discs}}}\n"

    def write(name: str, settings: str) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(head + settings)
        return path

    return write
