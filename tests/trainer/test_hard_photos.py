"""Trainings on photos that are odd but allowed, from a table of boxes to the last step."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.errors import InputError
from trainer.dataset import BoxedImage
from trainer.datasets.csv_boxes import CsvBoxesConfig
from trainer.detector import DetectorConfig
from trainer.detectors.retinaface import RetinaFaceConfig
from trainer.detectors.ssd import SsdConfig
from trainer.streaming.augment import NO_CHANGE, AugmentConfig
from trainer.streaming.stream import PhotoStream
from trainer.training.config import TrainingConfig
from trainer.training.loop import train

SIDE = 96
CROWD = [(4 + 6 * (i % 15), 4 + 6 * (i // 15), 9 + 6 * (i % 15), 9 + 6 * (i // 15)) for i in range(200)]
BOXES = {
    "empty": [],
    "pixel": [(40, 40, 41, 41)],
    "outside": [(-30, 20, 30, 140), (95.5, 10, 300, 20), (120, 120, 150, 150)],
    "crowd": CROWD,
}
DETECTORS = [
    SsdConfig(weights="none", image_size=SIDE),
    RetinaFaceConfig(weights="none", image_size=SIDE),
]


def read(root: Path, boxes: dict[str, list[tuple[float, ...]]]) -> list[BoxedImage]:
    (root / "images").mkdir()
    rng = np.random.default_rng(1)
    lines = ["file,x0,y0,x1,y1"]
    for name, found in boxes.items():
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
        lines += [f"{name}.png,{','.join(map(str, box))}" for box in found] or [f"{name}.png,,,,"]
    (root / "boxes.csv").write_text("\n".join(lines))
    return CsvBoxesConfig(root=root).read("all", ["face"], root)


def losses_of(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [value for row in rows for name, value in row.items() if isinstance(value, float)]


def test_of_hard_photos_the_boxes_are_counted_and_clipped(tmp_path: Path) -> None:
    photos = {photo.key: photo.target for photo in read(tmp_path, BOXES)}
    counts = {key: len(target) for key, target in photos.items()}
    assert counts == {"empty": 0, "pixel": 1, "outside": 1, "crowd": 200}
    assert photos["outside"].boxes.tolist() == [[0, 20, 30, 96]]


@pytest.mark.parametrize("augment", [NO_CHANGE, AugmentConfig(iou_crop=0.25)], ids=["as they are", "changed"])
@pytest.mark.parametrize("config", DETECTORS, ids=lambda config: config.kind)
def test_a_training_on_hard_photos_has_finite_losses_and_weights(
    tmp_path: Path, config: DetectorConfig, augment: AugmentConfig
) -> None:
    torch.manual_seed(0)
    stream = PhotoStream(read(tmp_path, BOXES), SIDE, augment, 3)
    settings = TrainingConfig(steps=4, batch_size=4, log_every=1, lr=1e-3)
    detector = train(config.build(1, tmp_path), stream, settings, tmp_path / "run", torch.device("cpu"))
    values = losses_of(tmp_path / "run")
    assert values and all(map(math.isfinite, values))
    assert all(bool(weights.isfinite().all()) for weights in detector.state_dict().values())


@pytest.mark.parametrize("config", DETECTORS, ids=lambda config: config.kind)
@pytest.mark.parametrize("name", ["empty", "pixel", "crowd"])
def test_a_batch_of_one_sort_of_hard_photo_alone_can_be_learnt_from(
    tmp_path: Path, config: DetectorConfig, name: str
) -> None:
    torch.manual_seed(0)
    stream = PhotoStream(read(tmp_path, {name: BOXES[name]}), SIDE, NO_CHANGE, 3)
    settings = TrainingConfig(steps=1, batch_size=2, log_every=1)
    train(config.build(1, tmp_path), stream, settings, tmp_path / "run", torch.device("cpu"))
    assert all(map(math.isfinite, losses_of(tmp_path / "run")))


@pytest.mark.parametrize("number", ["nan", "inf", "wide"])
def test_a_box_that_is_no_number_is_refused_at_its_line(tmp_path: Path, number: str) -> None:
    with pytest.raises(InputError, match=rf"boxes\.csv:2: '{number}', wanted a finite number"):
        read(tmp_path, {"a": [(1, 2, number, 4)]})  # type: ignore[list-item]
