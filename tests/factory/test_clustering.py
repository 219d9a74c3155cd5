"""Clustering by a network of its own for every image: labels, losses, and which clusters are the object."""

import cv2
import numpy as np
import pytest
import torch

from factory.segmenters._regions import region_shares, solid_part, to_opacity
from factory.segmenters.clustering import ClusteringConfig, ClusteringSegmenter, cluster, continuity_loss
from factory.stages import ObjectImage, UInt8Array

_SMALL = ClusteringConfig(side_px=48, channels=16, layers=2, max_iters=40)


def _disc(side: int = 48, where: tuple[int, int] = (24, 24)) -> tuple[UInt8Array, UInt8Array]:
    """An orange disc on a bluish wall, both noisy, and where it is, 0 or 1."""
    true = np.zeros((side, side), np.uint8)
    cv2.circle(true, where, side // 4, 1, -1)
    noise = np.random.default_rng(0).integers(0, 40, (side, side, 3), np.uint8)
    wall, orange = np.array([30, 60, 120], np.uint8), np.array([200, 120, 20], np.uint8)
    return noise + np.where(true[..., None] > 0, orange, wall).astype(np.uint8), true


def _iou(mask: UInt8Array, true: UInt8Array) -> float:
    one, other = mask >= 128, true > 0
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("where", [(24, 24), (20, 28)])
def test_the_disc_is_found_and_parted_from_the_wall(where: tuple[int, int]) -> None:
    image, true = _disc(where=where)
    (found,) = ClusteringSegmenter(_SMALL).segment([ObjectImage("disc", image)])
    assert found.mask.shape == (48, 48)
    assert _iou(found.mask, true) > 0.7
    assert found.confidence > 0.5


def test_an_image_always_divides_the_same_way_and_leaves_the_global_generator_alone() -> None:
    image, _ = _disc(32)
    before = torch.get_rng_state()
    first, second = (cluster(image, _SMALL) for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_are_channels_and_few_are_left() -> None:
    labels = cluster(_disc(32)[0], _SMALL)
    assert labels.shape == (32, 32)
    assert labels.min() >= 0 and labels.max() < 16
    assert len(np.unique(labels)) <= 12


def test_training_stops_when_few_enough_labels_are_left() -> None:
    image, _ = _disc(32)
    first = len(np.unique(cluster(image, _SMALL.model_copy(update={"max_iters": 1}))))
    stops = _SMALL.model_copy(update={"min_labels": 16})
    assert len(np.unique(cluster(image, stops))) >= first - 1  # it never began


def test_the_continuity_loss_is_the_mean_step_down_plus_the_mean_step_right() -> None:
    answers = torch.zeros(1, 1, 2, 3)
    answers[0, 0, 1] = torch.tensor([1.0, 1.0, 4.0])
    assert continuity_loss(answers).item() == pytest.approx((1 + 1 + 4) / 3 + 3 / 4)


def test_a_flat_image_has_no_object() -> None:
    grey = np.full((40, 40, 3), 90, np.uint8)
    (found,) = ClusteringSegmenter(_SMALL).segment([ObjectImage("grey", grey)])
    assert not found.mask.any() and found.confidence == 0


def test_shares_of_the_frame_and_of_the_inside_are_each_regions_own() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[5:15, 5:15] = 1
    border, inside = region_shares(labels, 3, 0.1)
    assert border.tolist() == [1, 0, 0]
    assert inside.sum() == pytest.approx(1) and inside[1] > 0.5 and inside[2] == 0


def test_the_solid_part_has_no_holes_and_no_small_islands() -> None:
    found = np.zeros((20, 20), np.uint8)
    found[4:14, 4:14] = 1
    expected = found.copy()
    found[8, 8] = 0
    found[17:19, 17:19] = 1
    assert np.array_equal(solid_part(found, 0.3), expected)
    assert not solid_part(np.zeros((6, 7), np.uint8), 0.3).any()


def test_opacity_has_the_size_asked_and_both_ends_of_the_scale() -> None:
    found = np.zeros((10, 20), np.uint8)
    found[3:7, 5:15] = 1
    mask = to_opacity(found, 61, 33)
    assert mask.shape == (33, 61) and mask.min() == 0 and mask.max() == 255


@pytest.mark.parametrize("wrong", [{"channels": 1}, {"max_iters": 0}, {"frame_frac": 0.5}, {"iters": 3}])
def test_wrong_settings_of_clustering_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClusteringConfig.model_validate(wrong)
