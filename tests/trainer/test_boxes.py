import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.anchoring import boxes as B

sides = st.floats(1, 400, width=32)
places = st.floats(-300, 300, width=32)
cxcywh = st.tuples(places, places, sides, sides)


def test_conversions_give_hand_worked_values() -> None:
    corners = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert B.xyxy_to_cxcywh(corners).tolist() == [[20, 40, 20, 40]]
    assert B.cxcywh_to_xyxy(torch.tensor([[20.0, 40, 20, 40]])).tolist() == corners.tolist()
    assert B.xywh_to_xyxy(torch.tensor([[10.0, 20, 20, 40]])).tolist() == corners.tolist()


def test_iou_gives_hand_worked_values() -> None:
    first = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 5]])
    second = torch.tensor([[5.0, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30]])
    expected = [[1 / 3, 1, 0], [0, 0, 0]]
    torch.testing.assert_close(B.pairwise_iou(first, second), torch.tensor(expected))


def test_iou_of_no_boxes_has_no_rows() -> None:
    assert B.pairwise_iou(torch.zeros(0, 4), torch.ones(3, 4)).shape == (0, 3)


def test_clipped_boxes_lie_in_the_image() -> None:
    clipped = B.clip_boxes(torch.tensor([[-5.0, 2, 50, 60], [70, 10, 90, 20]]), width=40, height=30)
    assert clipped.tolist() == [[0, 2, 40, 30], [40, 10, 40, 20]]


@given(cxcywh, cxcywh)
def test_decoding_inverts_encoding(box: tuple[float, ...], anchor: tuple[float, ...]) -> None:
    wanted, anchors = torch.tensor([box], dtype=torch.float64), torch.tensor([anchor], dtype=torch.float64)
    if max(box[2] / anchor[2], box[3] / anchor[3]) > 60:  # beyond what decode allows
        return
    corners = B.cxcywh_to_xyxy(wanted)
    torch.testing.assert_close(B.decode(B.encode(corners, anchors), anchors), corners, rtol=1e-5, atol=1e-4)


def test_encoding_gives_hand_worked_values() -> None:
    code = B.encode(torch.tensor([[20.0, 20, 40, 60]]), torch.tensor([[25.0, 30, 10, 20]]))
    assert code[0].tolist() == pytest.approx([5, 5, math.log(2) / 0.2, math.log(2) / 0.2])


def test_an_empty_box_is_encoded_finitely_and_a_wild_offset_decoded_finitely() -> None:
    anchor = torch.tensor([[5.0, 5, 10, 10]])
    assert B.encode(torch.tensor([[3.0, 3, 3, 3]]), anchor).isfinite().all()
    decoded = B.decode(torch.tensor([[0.0, 0, 1e4, 1e4]]), anchor)
    torch.testing.assert_close(decoded[0, 2:] - decoded[0, :2], torch.tensor([625.0, 625.0]))
