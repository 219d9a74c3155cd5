from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from configs.errors import InputError
from trainer.detector import Detector
from trainer.detectors.ssd import SsdConfig
from trainer.runs.self_training import (
    PseudoLabel,
    UnlabelledConfig,
    boxed_photos,
    label_photos,
    read_labels,
    write_labels,
)
from trainer.runs.trained import Trained
from trainer.sample import Detections


class BlobFinder(Detector):
    """Boxes white blobs; the largest first."""

    def __init__(self, score: float = 0.9, is_stuck: bool = False) -> None:
        super().__init__()
        self.score, self.is_stuck = score, is_stuck

    def detect(self, images: Tensor) -> list[Detections]:
        return [self._find(image.permute(1, 2, 0).numpy()) for image in images]

    def _find(self, image: np.ndarray) -> Detections:
        _, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 200).astype(np.uint8))
        boxes = [(x, y, x + w, y + h) for x, y, w, h, _ in sorted(stats[1:], key=lambda row: -row[4])]
        if self.is_stuck:
            boxes = [(5, 5, 20, 20)]
        scores = np.full(len(boxes), self.score, np.float32)
        return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, np.ones(len(boxes), np.int64))


def label(root: Path, finder: Detector, **settings) -> tuple[list[PseudoLabel], int]:
    trained = Trained(finder, SsdConfig(image_size=64), ("blob",), root)
    config = UnlabelledConfig(**{"root": root, "min_iou": 0.7, **settings})
    return label_photos(trained, 1, config, root, 0, torch.device("cpu"))


@pytest.fixture
def photos(tmp_path) -> Path:
    """one.png: 40x80 px with a blob; two.png: two of them; none.png."""
    (tmp_path / "sub").mkdir()
    for name, places in (("sub/one", [(4, 20, 12)]), ("two", [(4, 20, 12), (26, 60, 8)]), ("none", [])):
        image = np.zeros((80, 40, 3), np.uint8)
        for x, y, width in places:
            image[y : y + 2 * width, x : x + width] = 255
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    return tmp_path


def test_a_photo_on_which_all_views_agree_gets_their_box_in_pixels_of_the_file(photos) -> None:
    (found,), looked_at = label(photos, BlobFinder())
    assert looked_at == 3
    assert (found.file, found.width, found.height) == ("sub/one.png", 40, 80)
    np.testing.assert_allclose(found.box, (4, 20, 16, 44), atol=2)
    assert found.score == pytest.approx(0.9)


def test_photos_of_several_objects_are_taken_when_asked_for(photos) -> None:
    found, _ = label(photos, BlobFinder(), single=False)
    assert [item.file for item in found] == ["sub/one.png", "two.png"]


@pytest.mark.parametrize("finder", [BlobFinder(score=0.4), BlobFinder(is_stuck=True)])
def test_a_detector_that_is_unsure_or_contradicts_itself_labels_nothing(photos, finder) -> None:
    assert label(photos, finder) == ([], 3)


def test_a_limit_looks_at_so_many(photos) -> None:
    assert label(photos, BlobFinder(), limit=2)[1] == 2


def test_labels_are_kept_as_written_and_become_photos(tmp_path) -> None:
    labels = [PseudoLabel("a/ü.jpg", 40, 80, (4.25, 20.0, 16.0, 44.5), 0.75)]
    write_labels(tmp_path / "labels.json", labels, 7)
    assert read_labels(tmp_path / "labels.json") == labels
    (photo,) = boxed_photos(labels, tmp_path, 2)
    assert photo.path == tmp_path / "a" / "ü.jpg"
    assert photo.target.boxes.tolist() == [[4.25, 20.0, 16.0, 44.5]]
    assert photo.target.labels.tolist() == [2]


def test_what_cannot_be_labelled_is_named(photos, tmp_path) -> None:
    with pytest.raises(InputError, match=r"unlabelled\.root: nowhere: no such folder"):
        label(Path("nowhere"), BlobFinder())
    (tmp_path / "sub" / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png: not an image"):
        label(photos, BlobFinder())
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(InputError, match=r"labels\.json: KeyError\('labels'\): wanted the labels"):
        read_labels(tmp_path / "labels.json")
