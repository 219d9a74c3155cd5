"""Landmarks from a WIDER label file to RetinaFace's losses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.boxed_data.annotations import BoxList
from trainer.dataset import BoxedImage
from trainer.datasets.wider import WiderConfig
from trainer.detectors.retinaface import RetinaFaceConfig
from trainer.sample import Sample, make_target
from trainer.streaming.augment import NO_CHANGE, AugmentConfig
from trainer.streaming.loader import batches, fingerprint, fingerprint_of
from trainer.streaming.stream import PhotoStream

POINTS = [[20, 20], [40, 20], [30, 30], [22, 40], [38, 40]]
WITH = "10 10 40 40 " + " ".join(f"{x} {y} 0.0" for x, y in POINTS) + " 0.8\n"
WITHOUT = "52 52 10 10 " + "-1 -1 -1 " * 5 + "0.3\n"
FLIP = AugmentConfig.model_validate({**NO_CHANGE.model_dump(), "flip": 1.0})


def faces(root: Path, lines: str) -> list[BoxedImage]:
    """A 64x64 photo with these lines of RetinaFace's label.txt."""
    (root / "train" / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(root / "train" / "images" / "a.png")
    (root / "train" / "label.txt").write_text(f"# a.png\n{lines}")
    config = WiderConfig(root=root, annotations="{split}/label.txt", images="{split}/images")
    return config.read("train", ["face"], root)


def landmark_loss(photos: list[BoxedImage], augment: AugmentConfig = NO_CHANGE) -> float:
    (batch,) = batches(PhotoStream(photos, 64, augment, 0), 2, 0, 1, 0)
    detector = RetinaFaceConfig(weights="none", image_size=64).build(1, Path())
    return float(detector.losses(batch)["landmarks"].detach())


def test_a_label_file_s_landmarks_reach_the_target_and_absent_ones_are_flagged(tmp_path: Path) -> None:
    target = faces(tmp_path, WITHOUT + WITH)[0].target
    assert target.landmarks is not None and target.has_landmarks is not None
    assert target.has_landmarks.tolist() == [False, True]
    assert target.landmarks[1].tolist() == POINTS


def test_a_photo_of_which_no_face_has_landmarks_has_no_field_for_them(tmp_path: Path) -> None:
    assert faces(tmp_path, WITHOUT)[0].target.landmarks is None


def test_landmarks_stay_with_their_face_when_an_empty_box_is_dropped() -> None:
    objects = BoxList()
    objects.add((70, 70, 90, 90), 1)
    objects.add((10, 10, 50, 50), 1, landmarks=POINTS)
    target = objects.clipped(64, 64)
    assert target.landmarks is not None and target.has_landmarks is not None
    assert (target.has_landmarks.tolist(), target.landmarks.tolist()) == ([True], [POINTS])


@pytest.mark.parametrize("augment", [NO_CHANGE, FLIP], ids=["as it is", "mirrored"])
def test_retinaface_has_a_landmark_loss_just_where_a_face_has_landmarks(
    tmp_path: Path, augment: AugmentConfig
) -> None:
    assert landmark_loss(faces(tmp_path, WITH + WITHOUT), augment) > 0
    assert landmark_loss(faces(tmp_path, WITHOUT), augment) == 0


def test_a_mirrored_photo_s_landmarks_are_those_of_the_picture(tmp_path: Path) -> None:
    (batch,) = batches(PhotoStream(faces(tmp_path, WITH), 64, FLIP, 0), 1, 0, 1, 0)
    assert batch.landmarks is not None
    assert batch.landmarks[0].tolist() == [[[24, 20], [44, 20], [34, 30], [26, 40], [42, 40]]]


def test_the_fingerprint_tells_landmarks_apart_and_skips_those_that_mean_nothing(tmp_path: Path) -> None:
    photos = faces(tmp_path, WITH + WITHOUT)
    sample = PhotoStream(photos, 64, NO_CHANGE, 0)[0]
    points, known = sample.target.landmarks, sample.target.has_landmarks
    assert points is not None and known is not None
    moved, unknown = points.copy(), points.copy()
    moved[0, 2] += 1
    unknown[1] += 1
    digests = [
        fingerprint_of([replace(sample, target=replace(sample.target, landmarks=p))])
        for p in (points, unknown, moved)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert fingerprint(PhotoStream(photos, 64, NO_CHANGE, 0), 3) == fingerprint(
        PhotoStream(photos, 64, NO_CHANGE, 0), 3
    )


def test_the_fingerprint_of_targets_without_landmarks_is_that_of_flags_all_off() -> None:
    image, box = np.zeros((8, 8, 3), np.uint8), [[0, 0, 4, 4]]
    flagged = make_target(box, landmarks=np.zeros((1, 5, 2)), has_landmarks=[False])
    assert fingerprint_of([Sample("a", image, make_target(box))]) == fingerprint_of(
        [Sample("a", image, flagged)]
    )
