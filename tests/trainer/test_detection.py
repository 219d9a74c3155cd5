from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from configs.errors import InputError
from trainer.dataset import BoxedImage
from trainer.detector import Detector
from trainer.detectors.retinaface import RetinaFaceConfig
from trainer.detectors.ssd import SsdConfig
from trainer.evaluation.detection import Shown, check_size, detect_all, made_ahead, resized, size_of
from trainer.evaluation.scores import detect_photos
from trainer.sample import Detections, make_target


class CornerFinder(Detector):
    """Boxes the left upper quarter of an image, with all five landmarks on its corner."""

    any_size = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def detect(self, images: Tensor) -> list[Detections]:
        self.seen.append(tuple(images.shape))
        height, width = images.shape[2:]
        box = np.array([[0, 0, width / 2, height / 2]], np.float32)
        points = np.tile(box[:, None, 2:], (1, 5, 1))
        return [
            Detections(box, np.array([image.float().mean() / 255], np.float32), np.ones(1, np.int64), points)
            for image in images
        ]


def grey(level: int, width: int, height: int) -> Shown[int]:
    return Shown(level, np.full((height, width, 3), level, np.uint8), 100, 50)


def test_pictures_of_any_sizes_come_back_in_order_and_in_their_files_pixels() -> None:
    detector = CornerFinder()
    sizes = [(40, 20), (20, 40), (40, 20), (8, 8), (20, 40)]
    shown = [grey(50 * number, *size) for number, size in enumerate(sizes)]
    answers = list(detect_all(detector, shown, 32, torch.device("cpu")))
    assert [level for level, _ in answers] == [0, 50, 100, 150, 200]
    assert [found.scores[0] for _, found in answers] == pytest.approx(
        [0, 50 / 255, 100 / 255, 150 / 255, 200 / 255]
    )
    assert [found.boxes.tolist() for _, found in answers] == [[[0, 0, 50, 25]]] * 5
    assert all((found.landmarks == [50, 25]).all() for _, found in answers)
    assert detector.seen == [(2, 3, 20, 40), (2, 3, 40, 20), (1, 3, 8, 8)]


def test_batches_are_bounded_in_number_in_pixels_and_in_what_waits_with_them() -> None:
    detector = CornerFinder()
    small = [grey(1, 4, 4)] * 17
    large = [grey(1, 2048, 1024)] * 5
    kept = [Shown(1, np.zeros((4, 4, 3), np.uint8), 4, 4, kept_px=60_000_000)] * 3
    for shown in (small, large, kept):
        list(detect_all(detector, shown, 32, torch.device("cpu")))
    assert [shape[0] for shape in detector.seen] == [16, 1, 4, 1, 2, 1]


def test_a_picture_is_shown_as_it_is_or_with_a_longer_side_or_as_a_square() -> None:
    image = np.zeros((30, 90, 3), np.uint8)
    shapes = [resized(image, size, 64).shape[:2] for size in ("native", 180, 45, 1, "square")]
    assert shapes == [(30, 90), (60, 180), (15, 45), (1, 1), (64, 64)]
    assert [size_of(text) for text in ("native", "square", "640")] == ["native", "square", 640]
    for text in ("0", "-3", "large"):
        with pytest.raises(ValueError, match=text):
            size_of(text)


def test_a_detector_of_squares_refuses_other_sizes(tmp_path: Path) -> None:
    ssd, faces = SsdConfig(weights="none", image_size=96), RetinaFaceConfig(weights="none")
    check_size("square", ssd.build(1, tmp_path), ssd)
    check_size(640, faces.build(1, tmp_path), faces)
    with pytest.raises(InputError, match=r"--size: found native, .*'ssd' detects in squares of 96 px alone"):
        check_size("native", ssd.build(1, tmp_path), ssd)


def test_what_is_made_ahead_keeps_its_order_and_its_errors() -> None:
    assert list(made_ahead(lambda number: number**2, range(40))) == [n**2 for n in range(40)]
    made = made_ahead(lambda number: 1 // number, [2, 1, 0, 1])
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_photos_are_detected_in_at_their_own_size_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.zeros((30, 90, 3), np.uint8))
    photo = BoxedImage("photo", path, 90, 30, make_target([]))
    detector = CornerFinder()
    for size in ("square", "native"):
        found = detect_photos(detector, [photo], 64, torch.device("cpu"), size)
        assert found[0].boxes.tolist() == [[0, 0, 45, 15]]
        assert found[0].landmarks[0, 0].tolist() == [45, 15]
    assert detector.seen == [(1, 3, 64, 64), (1, 3, 30, 90)]


def test_a_retinaface_gives_landmarks_where_it_has_the_head_for_them(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 64, 48, dtype=torch.uint8)
    for landmarks in ("trained", "frozen", "none"):
        config = RetinaFaceConfig(weights="none", landmarks=landmarks, score_threshold=0.0, max_detections=7)
        for found in config.build(1, tmp_path).eval().detect(images):
            shape = None if found.landmarks is None else found.landmarks.shape
            assert shape == (None if landmarks == "none" else (len(found), 5, 2))


def test_chosen_detections_keep_their_landmarks() -> None:
    points = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    both = Detections(np.ones((2, 4), np.float32), np.ones(2, np.float32), np.array([1, 2]), points)
    second = both.chosen(both.labels == 2)
    assert (len(second), second.landmarks[0, 0].tolist()) == (1, [10, 11])
