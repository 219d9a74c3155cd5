import math

import pytest
import torch

from trainer.anchoring.focal_loss import detection_losses, l2_penalty, softmax_focal_loss
from trainer.anchoring.matching import IGNORED


def test_losses_equal_a_loop_over_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 9, 3, generator=generator) * 2
    offsets, targets = torch.randn(2, 2, 9, 4, generator=generator) * 1.5
    labels = torch.randint(IGNORED, 3, (2, 9), generator=generator)
    focal = distance = 0.0
    positives = 0
    for b in range(2):
        for a in range(9):
            label = int(labels[b, a])
            if label == IGNORED:
                continue
            exponentials = [math.exp(z) for z in logits[b, a].tolist()]
            p = exponentials[label] / sum(exponentials)
            focal -= (1 - p) ** 2 * math.log(p + 1e-8)
            if label > 0:
                positives += 1
                for d in (offsets[b, a] - targets[b, a]).abs().tolist():
                    distance += d * d / 2 if d < 1 else d - 0.5
    assert positives > 1
    losses = detection_losses(logits, offsets, labels, targets)
    assert losses["classification"].item() == pytest.approx(focal / positives, rel=1e-5)
    assert losses["localization"].item() == pytest.approx(distance / positives, rel=1e-5)


def test_losses_without_positives_are_divided_by_one() -> None:
    zeros = torch.zeros(1, 5, 4)
    losses = detection_losses(torch.zeros(1, 5, 2), zeros, torch.zeros(1, 5, dtype=torch.int64), zeros)
    assert losses["classification"].item() == pytest.approx(5 * 0.25 * math.log(2))
    assert losses["localization"].item() == 0


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(20) % 4
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(softmax_focal_loss(logits, labels, gamma=0.0), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_extreme_logits_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = softmax_focal_loss(logits, torch.tensor([0, 0]), gamma)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().sum() > 0


def test_half_precision_inputs_give_float32_losses() -> None:
    logits, offsets = torch.zeros(1, 3, 2).bfloat16(), torch.zeros(1, 3, 4).bfloat16()
    losses = detection_losses(logits, offsets, torch.tensor([[1, 0, 0]]), torch.ones(1, 3, 4))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_the_penalty_is_the_sum_of_squares() -> None:
    assert l2_penalty([torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])], 0.5).item() == 7
