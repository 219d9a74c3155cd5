"""ReDO's losses against values worked by hand."""

from math import log

import pytest
import torch

from factory.redo.losses import (
    dice_loss,
    discriminator_loss,
    opacity_loss,
    realism_loss,
    recovery_loss,
    redraw,
)


def test_each_redrawn_image_keeps_what_is_outside_its_region() -> None:
    images = torch.full((1, 3, 1, 2), 0.5)
    masks = torch.tensor([[[[1.0, 0.25]], [[0.0, 0.75]]]])
    regions = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1, 1) * masks.unsqueeze(2).expand(1, 2, 3, 1, 2)
    redrawn = redraw(images, masks, regions)
    assert redrawn.shape == (2, 3, 1, 2)
    assert redrawn[0, 0].tolist() == [[-1.0, -0.25 + 0.75 * 0.5]]
    assert redrawn[1, 2].tolist() == [[0.5, 0.75 + 0.25 * 0.5]]


def test_the_redrawn_images_of_one_image_lie_together() -> None:
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    redrawn = redraw(images, torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 3, 1, 1))
    assert redrawn[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_realism_is_minus_the_mean_score() -> None:
    assert realism_loss(torch.tensor([[1.0], [-4.0]])).item() == 1.5


def test_recovery_is_the_mean_square_over_all_latents() -> None:
    latents = torch.tensor([1.0, 2.0, 0.0, 0.0]).view(1, 2, 2, 1, 1)
    assert recovery_loss(latents, torch.zeros_like(latents)).item() == 1.25


def test_the_discriminator_is_content_past_the_hinges() -> None:
    real, redrawn = torch.tensor([[2.0], [0.5]]), torch.tensor([[-3.0], [0.0], [1.0], [-1.0]])
    assert discriminator_loss(real, redrawn).item() == pytest.approx(0.25 + 0.75)
    assert discriminator_loss(torch.tensor([[1.0]]), torch.tensor([[-1.0]])).item() == 0


def test_opacity_loss_takes_soft_targets_and_survives_hard_masks() -> None:
    half = torch.full((1, 2, 2), 0.5)
    assert opacity_loss(half, half).item() == pytest.approx(log(2))
    assert opacity_loss(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)).isfinite()


def test_dice_is_0_for_equal_masks_and_1_for_disjoint_ones() -> None:
    left, right = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    left[:, :, 0] = right[:, :, 1] = 1
    assert dice_loss(left, left).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(left, right).item() == pytest.approx(1, abs=1e-5)
    assert dice_loss(left, torch.ones(2, 2, 2)).item() == pytest.approx(1 - 4 / 6, abs=1e-5)
    assert dice_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).item() == pytest.approx(0)
