"""Anchors and matching against loops written from biubug6/Pytorch_Retinaface's rules.

Boxes have whole corners, so IoUs of equal boxes are equal in any arithmetic and ties fall alike.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.anchoring.boxes import cxcywh_to_xyxy
from trainer.anchoring.matching import IGNORED
from trainer.retinaface.targets import decode_landmarks, encode_landmarks, make_square_anchors, match_faces

SIZES = ((16.0, 32.0), (64.0, 128.0), (256.0, 512.0))
STRIDES = (8, 16, 32)


def anchors_of(height: int, width: int) -> Tensor:
    return make_square_anchors(SIZES, STRIDES, (height, width), torch.device("cpu"))


def reference_anchors(height: int, width: int) -> list[tuple[float, float, float, float]]:
    anchors = []
    for sizes, stride in zip(SIZES, STRIDES, strict=True):
        for i in range(math.ceil(height / stride)):
            for j in range(math.ceil(width / stride)):
                anchors += [((j + 0.5) * stride, (i + 0.5) * stride, size, size) for size in sizes]
    return anchors


def reference_iou(a: np.ndarray, b: np.ndarray) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(w, 0.0) * max(h, 0.0)
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def reference_match(
    anchors: np.ndarray, boxes: np.ndarray, labels: list[int]
) -> tuple[list[int], dict[int, int]]:
    """Labels of the anchors, and the face of each positive one."""
    iou = [[reference_iou(box, anchor) for anchor in anchors] for box in boxes]
    best_anchor = [max(range(len(anchors)), key=lambda a, row=row: row[a]) for row in iou]
    best = [max(row[a] for row in iou) for a in range(len(anchors))]
    owner = [max(range(len(boxes)), key=lambda n, a=a: iou[n][a]) for a in range(len(anchors))]
    claims = [n for n in range(len(boxes)) if iou[n][best_anchor[n]] >= 0.2]
    for n in claims:
        best[best_anchor[n]] = 2.0
    for n in range(len(boxes)):
        owner[best_anchor[n]] = n
    taught = [labels[owner[a]] if claims and best[a] >= 0.35 else 0 for a in range(len(anchors))]
    return taught, {a: owner[a] for a, label in enumerate(taught) if label}


def match(boxes: list[list[int]] | np.ndarray, height: int, width: int, **settings: object):
    corners = cxcywh_to_xyxy(anchors_of(height, width))
    count = len(boxes)
    settings = {
        "ignore": torch.zeros(count, dtype=torch.bool),
        "labels": torch.arange(1, count + 1),
        **settings,
    }
    return corners, match_faces(corners, torch.as_tensor(boxes, dtype=torch.float32), **settings)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 97), (1, 33)])
def test_anchors_are_those_of_the_authors_loops_at_any_size(height: int, width: int) -> None:
    expected = torch.tensor(reference_anchors(height, width))
    torch.testing.assert_close(anchors_of(height, width), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("side", "count"), [(320, 4200), (640, 16800), (840, 29126)])
def test_training_sizes_have_the_known_numbers_of_anchors(side: int, count: int) -> None:
    assert len(anchors_of(side, side)) == count


@pytest.mark.parametrize("seed", range(6))
def test_matching_is_that_of_the_authors_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 60, (9, 2))
    boxes = np.concatenate([low, low + rng.integers(1, [4, 60][seed % 2] + 1, (9, 2))], 1)
    boxes[4] = boxes[3]  # two faces that want the same anchor
    corners, (labels, index) = match(boxes, 80, 72)
    expected, owner = reference_match(corners.double().numpy(), boxes.astype(float), list(range(1, 10)))
    assert labels.tolist() == expected
    assert {a: int(index[a]) for a in owner} == owner


def test_an_image_of_faces_that_no_anchor_fits_has_no_positive() -> None:
    _, (labels, _) = match([[10, 10, 14, 14], [30, 30, 31, 31]], 64, 64)
    assert not labels.any()


def test_of_two_faces_with_one_best_anchor_the_last_gets_it_and_greedy_serves_both() -> None:
    twins = [[24, 24, 34, 34], [25, 24, 35, 34]]
    assert set(match(twins, 64, 64)[1][0].tolist()) == {0, 2}
    assert set(match(twins, 64, 64, claims="greedy")[1][0].tolist()) == {0, 1, 2}


def test_an_ignored_face_is_neither_found_nor_background() -> None:
    boxes, ignored = [[8, 8, 24, 24], [40, 40, 72, 72]], torch.tensor([False, True])
    corners, (labels, _) = match(boxes, 96, 96, ignore=ignored)
    iou = torch.tensor([reference_iou(np.array(boxes[1]), box) for box in corners.numpy()])
    assert (labels[iou >= 0.35] == IGNORED).all()
    assert (labels == IGNORED).sum() == (iou >= 0.35).sum()
    assert 2 not in labels


def test_without_faces_all_is_background() -> None:
    _, (labels, _) = match(np.zeros((0, 4)), 64, 64)
    assert not labels.any()


def test_decoded_landmarks_are_those_encoded_and_the_coding_is_by_anchor_size() -> None:
    anchors = anchors_of(64, 64)[:50]
    points = torch.rand(50, 5, 2, generator=torch.Generator().manual_seed(0)) * 64
    torch.testing.assert_close(decode_landmarks(encode_landmarks(points, anchors), anchors), points)
    step = torch.tensor([[0.0, 1.0]])  # one variance down: a tenth of the anchor
    assert decode_landmarks(step, torch.tensor([10.0, 20.0, 32.0, 32.0])).tolist() == [
        pytest.approx([10.0, 23.2])
    ]
