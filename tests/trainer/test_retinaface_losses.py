import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.anchoring.boxes import cxcywh_to_xyxy, encode
from trainer.anchoring.matching import IGNORED
from trainer.anchoring.multibox_loss import mined_cross_entropy, smooth_l1_per_anchor
from trainer.retinaface.targets import encode_landmarks, match_faces


def reference_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The authors' classification loss in loops: 7 hardest negatives for each positive of the image."""
    total = 0.0
    for image, taught in zip(logits.astype(float), labels, strict=True):
        losses = [math.log(np.exp(row).sum()) - row[label] for row, label in zip(image, taught, strict=True)]
        negatives = sorted(
            (loss for loss, label in zip(losses, taught, strict=True) if label == 0), reverse=True
        )
        num_positive = int((taught > 0).sum())
        total += sum(loss for loss, label in zip(losses, taught, strict=True) if label > 0)
        total += sum(negatives[: 7 * num_positive])
    return total / max(int((labels > 0).sum()), 1)


def draw(num_positive: list[int], anchors: int = 60, classes: int = 2) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(len(num_positive) + sum(num_positive))
    labels = np.zeros((len(num_positive), anchors), np.int64)
    for row, count in zip(labels, num_positive, strict=True):
        row[rng.choice(anchors, count, replace=False)] = rng.integers(1, classes, count)
    logits = rng.normal(0, 3, (*labels.shape, classes)).astype(np.float32)
    return torch.from_numpy(logits), torch.from_numpy(labels)


@pytest.mark.parametrize("num_positive", [[3, 5], [1, 0, 20], [0, 0], [9, 60]])
@pytest.mark.parametrize("classes", [2, 4])
def test_without_min_negatives_the_loss_is_that_of_the_authors_loops(
    num_positive: list[int], classes: int
) -> None:
    logits, labels = draw(num_positive, classes=classes)
    expected = reference_loss(logits.numpy(), labels.numpy())
    assert mined_cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_an_image_without_objects_gives_its_hardest_anchors_a_gradient_and_no_others() -> None:
    logits, labels = draw([0])
    logits.requires_grad_()
    mined_cross_entropy(logits, labels, min_negatives=5).backward()
    pushed = logits.grad.abs().sum(-1)[0].nonzero()[:, 0].tolist()
    hardest = (logits[0, :, 1] - logits[0, :, 0]).argsort(descending=True)[:5].tolist()
    assert sorted(pushed) == sorted(hardest)


def test_a_batch_without_objects_weighs_its_negatives_as_those_of_a_batch_with_some() -> None:
    logits, labels = draw([0, 0])
    entropy = torch.logsumexp(logits, -1) - logits[..., 0]
    hardest = entropy.sort(1, descending=True).values[:, :14]
    loss = mined_cross_entropy(logits, labels, min_negatives=14)
    assert loss.item() == pytest.approx(
        hardest.sum().item() / 4, rel=1e-5
    )  # 28 negatives: those of 4 positives


def test_min_negatives_changes_nothing_where_positives_bring_more() -> None:
    logits, labels = draw([3, 5])
    assert torch.equal(
        mined_cross_entropy(logits, labels, min_negatives=21), mined_cross_entropy(logits, labels)
    )


def test_ignored_anchors_are_never_mined() -> None:
    logits, labels = draw([2])
    before = mined_cross_entropy(logits[:, labels[0] >= 0], labels[:, labels[0] >= 0], min_negatives=60)
    wild = torch.cat((logits, torch.tensor([[[-50.0, 50.0]]])), 1)
    marked = torch.cat((labels, torch.tensor([[IGNORED]])), 1)
    torch.testing.assert_close(mined_cross_entropy(wild, marked, min_negatives=60), before)


def test_no_anchor_at_all_is_a_loss_of_zero_with_a_gradient() -> None:
    values = torch.ones(4, 5, 2, requires_grad=True)
    loss = smooth_l1_per_anchor(values[torch.zeros(4, dtype=torch.bool)], torch.zeros(0, 5, 2))
    loss.backward()
    assert loss.item() == 0
    assert values.grad is not None
    assert not values.grad.any()


def test_smooth_l1_is_summed_over_the_values_and_averaged_over_the_anchors() -> None:
    values, targets = torch.tensor([[0.5, 3.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert smooth_l1_per_anchor(values, targets).item() == pytest.approx((0.125 + 2.5) / 2)


@pytest.mark.parametrize("with_landmarks", [True, False])
def test_the_golden_losses_of_the_authors_code_come_out(shared_data: Path, with_landmarks: bool) -> None:
    path = shared_data.parent / "facts" / "retinaface_multibox_golden.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    golden = {name: torch.from_numpy(value) for name, value in np.load(path).items()}
    anchors, rows = golden["priors"] * 320, [golden[f"t{b}"] for b in range(3)]
    boxes, points = [row[:, :4] * 320 for row in rows], [row[:, 4:14].view(-1, 5, 2) * 320 for row in rows]
    known = [(row[:, 14] > 0) & with_landmarks for row in rows]
    labels, offsets, landmarks, seen = [], [], [], []
    for b in range(3):
        ones, none = (
            torch.ones(len(boxes[b]), dtype=torch.int64),
            torch.zeros(len(boxes[b]), dtype=torch.bool),
        )
        assigned, index = match_faces(cxcywh_to_xyxy(anchors), boxes[b], ones, none)
        face, own = index[assigned > 0], anchors[assigned > 0]
        labels.append(assigned)
        offsets.append(encode(boxes[b][face], own))
        landmarks.append(encode_landmarks(points[b][face], own)[known[b][face]])
        seen.append(known[b][face])
    taught = torch.stack(labels)
    assert torch.equal(taught, (golden["conf_t"] != 0).long())
    of_positives = golden["landm"].unflatten(-1, (5, 2))[taught > 0]
    found = [
        smooth_l1_per_anchor(golden["loc"][taught > 0], torch.cat(offsets)),
        mined_cross_entropy(golden["conf"], taught),
        smooth_l1_per_anchor(of_positives[torch.cat(seen)], torch.cat(landmarks)),
    ]
    expected = golden["expected" if with_landmarks else "expected_no_landmarks"]
    torch.testing.assert_close(torch.stack(found).double(), expected, rtol=0, atol=1e-5)
