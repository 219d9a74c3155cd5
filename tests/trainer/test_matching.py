from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from trainer.anchoring.matching import IGNORED, match_anchors, pair_greedily


def strips(*lengths: float) -> Tensor:
    """Boxes of height 10 from the origin: the IoU of two is the ratio of their lengths."""
    return torch.tensor([[0.0, 0, length, 10] for length in lengths]).reshape(-1, 4)


def match(anchors: Tensor, boxes: Tensor, ignore: list[bool] | None = None, **options: Any) -> list[int]:
    labels = torch.arange(1, len(boxes) + 1)
    flags = torch.tensor(ignore or [False] * len(boxes))
    return match_anchors(anchors, boxes, labels, flags, **options)[0].tolist()


def test_anchors_are_positive_ignored_or_background_by_their_overlap() -> None:
    assert match(strips(100, 60, 50, 49, 31, 29), strips(100)) == [1, 1, 1, IGNORED, IGNORED, 0]


def test_an_object_gets_its_best_anchor_at_the_forcing_overlap_and_not_below() -> None:
    assert match(strips(40, 35, 20), strips(100)) == [1, IGNORED, 0]
    assert match(strips(29, 20), strips(100)) == [0, 0]
    assert match(strips(29, 20), strips(100), force_iou=0.0) == [1, 0]


def test_an_object_that_no_anchor_touches_gets_none() -> None:
    anchors = torch.tensor([[200.0, 200, 210, 210]])
    assert match(anchors, strips(100), force_iou=0.0) == [0]


def test_the_larger_overlap_chooses_first_and_the_other_takes_what_is_left() -> None:
    assert match(strips(100, 60), strips(90, 100)) == [2, 1]
    assert match(strips(100, 35), strips(90, 100)) == [2, 1]


def test_a_forced_anchor_stays_with_its_object_though_another_overlaps_it_more() -> None:
    labels, index = match_anchors(
        strips(100, 80), strips(100, 40), torch.tensor([7, 8]), torch.zeros(2, dtype=torch.bool)
    )
    assert labels.tolist() == [7, 8]
    assert index.tolist() == [0, 1]


def test_with_the_last_claim_an_object_can_lose_its_only_anchor() -> None:
    assert match(strips(100, 35), strips(99, 100), positive_iou=1.0) == [2, 1]
    assert match(strips(100, 35), strips(99, 100), positive_iou=1.0, claims="last") == [2, IGNORED]
    assert match(strips(100, 35), strips(100, 99), positive_iou=1.0, claims="last") == [2, IGNORED]
    assert match(strips(29), strips(100), claims="last") == [0]


@given(data=st.data())
def test_the_last_claims_are_torchvisions(data: st.DataObject) -> None:
    corners = st.tuples(*[st.integers(0, 20)] * 4).map(
        lambda b: (b[0], b[1], b[0] + b[2] + 1, b[1] + b[3] + 1)
    )
    anchors, boxes = (
        torch.tensor(data.draw(st.lists(corners, min_size=1, max_size=8)), dtype=torch.float32) for _ in "ab"
    )
    iou = box_iou(boxes, anchors)
    assume((iou.amax(1) > 0).all())
    expected = (SSDMatcher(0.5)(iou) + 1).clamp(min=0)
    labels = torch.arange(1, len(boxes) + 1)
    options: Any = {"positive_iou": 0.5, "negative_iou": 0.5, "force_iou": 0.0, "claims": "last"}
    found, _ = match_anchors(anchors, boxes, labels, torch.zeros(len(boxes), dtype=torch.bool), **options)
    assert torch.equal(found, expected)


def test_an_ignored_object_is_neither_found_nor_background() -> None:
    assert match(strips(100, 40, 20), strips(100), ignore=[True]) == [IGNORED, IGNORED, 0]
    assert match(strips(100, 40, 20), strips(100, 95), ignore=[True, False]) == [2, IGNORED, 0]


def test_an_image_without_objects_is_background() -> None:
    assert match(strips(100, 40), strips()) == [0, 0]


@pytest.mark.parametrize("least", [0.0, 0.3])
@given(data=st.data())
def test_greedy_pairs_are_those_of_taking_the_largest_entry_again_and_again(
    least: float, data: st.DataObject
) -> None:
    rows, columns = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    tenths = data.draw(st.lists(st.integers(-1, 10), min_size=rows * columns, max_size=rows * columns))
    iou = torch.tensor(tenths).view(rows, columns) / 10
    left, expected = iou.clone(), set()
    while left.max() > 0 and left.max() >= least:
        row, column = divmod(int(left.argmax()), columns)
        expected.add((row, column))
        left[row], left[:, column] = -1, -1
    found = pair_greedily(iou, least)
    assert set(zip(*(side.tolist() for side in found), strict=True)) == expected
