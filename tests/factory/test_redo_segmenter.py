"""ReDO as a segmenter: each image's own mask, its object region chosen without labels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from configs.errors import InputError
from factory.generators.found import Found, write_found
from factory.redo.mask_network import FAMILY, MaskNetwork
from factory.segmenters.redo import RedoConfig, RedoSegmenter, pick_channel, squash
from factory.stages import ObjectImage


class _Bright(nn.Module):
    """Stands in for the network: region 0 is what is dark, region 1 what is bright. Notes its batches."""

    image_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32 and images.shape[1:] == (3, 32, 32)
        assert images.min() >= -1 and images.max() <= 1
        self.batches.append(len(images))
        bright = (images.mean(dim=1, keepdim=True) + 1) / 2
        return torch.cat([1 - bright, bright], dim=1)


def _ellipse(width: int, height: int, object_value: int = 255) -> np.ndarray:
    photo = np.full((height, width, 3), 255 - object_value, np.uint8)
    cv2.ellipse(
        photo, (width // 2, height // 2), (width // 4, height // 4), 0, 0, 360, (object_value,) * 3, -1
    )
    return photo


def _blob(side: int = 32) -> np.ndarray:
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    return (0.05 + 0.9 * (x**2 + y**2 < 0.4)).astype(np.float32)


def _segmenter(object_channel: int | str = "auto") -> tuple[RedoSegmenter, _Bright]:
    network = _Bright()
    return RedoSegmenter(network, "0" * 64, object_channel), network  # type: ignore[arg-type]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mask.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(MaskNetwork(16, 1, 2).state_dict(), path)
    return path


def test_the_blob_in_the_middle_is_the_object_in_any_place() -> None:
    blob = _blob()
    assert pick_channel(np.stack([blob, 1 - blob])) == 0
    assert pick_channel(np.stack([1 - blob, blob])) == 1
    assert pick_channel(np.stack([(1 - blob) / 2, (1 - blob) / 2, blob])) == 2


def test_an_object_that_leaves_at_one_side_is_still_the_object() -> None:
    half = np.zeros((32, 32), np.float32)
    half[10:, 8:24] = 1
    assert pick_channel(np.stack([1 - half, half])) == 1


def test_a_region_that_is_nowhere_is_not_the_object() -> None:
    blob = _blob()
    assert pick_channel(np.stack([np.zeros_like(blob), 1 - blob, blob])) == 2


def test_the_lower_index_wins_a_tie() -> None:
    assert pick_channel(np.full((2, 32, 32), 0.5, np.float32)) == 0
    assert pick_channel(np.stack([1 - _blob(), _blob(), _blob()])) == 1


@pytest.mark.parametrize("size", [(100, 60), (20, 20), (16, 90)])
@pytest.mark.parametrize("object_value", [255, 0])
def test_masks_have_the_size_of_their_image_and_cover_the_object(
    size: tuple[int, int], object_value: int
) -> None:
    photo = _ellipse(*size, object_value)
    (found,) = _segmenter()[0].segment([ObjectImage("a", photo)])
    assert found.mask.dtype == np.uint8 and found.mask.shape == photo.shape[:2]
    truth, solid = photo[..., 0] == object_value, found.mask >= 128
    assert (truth & solid).sum() / (truth | solid).sum() > 0.8
    assert found.mask.max() > 250 and found.mask.min() < 5


def test_each_image_gets_its_own_region_whatever_its_neighbours() -> None:
    photos = [ObjectImage(str(i), _ellipse(40 + i, 50, 255 * (i % 2))) for i in range(5)]
    segmenter, _ = _segmenter()
    together = segmenter.segment(photos)
    for photo, found in zip(photos, together, strict=True):
        (alone,) = segmenter.segment([photo])
        np.testing.assert_array_equal(alone.mask, found.mask)
        assert found.mask[25, 20] > 250 and found.mask[0, 0] < 5
        assert alone.confidence == found.confidence


def test_a_fixed_channel_is_the_object_whatever_it_looks_like() -> None:
    photo = ObjectImage("a", _ellipse(64, 64))
    dark, bright = (_segmenter(channel)[0].segment([photo])[0] for channel in (0, 1))
    np.testing.assert_array_equal(dark.mask, 255 - bright.mask)


def test_a_forward_takes_at_most_8_images_in_order() -> None:
    segmenter, network = _segmenter(1)
    photos = [ObjectImage(str(i), np.full((8, 8, 3), 3 * i, np.uint8)) for i in range(70)]
    assert [int(found.mask[0, 0]) for found in segmenter.segment(photos)] == [3 * i for i in range(70)]
    assert network.batches == [8, 8, 8, 8, 8, 8, 8, 8, 6]
    assert segmenter.segment([]) == []


def test_confidence_is_how_decided_the_mask_is() -> None:
    segmenter, _ = _segmenter(1)
    grey, clear = (np.full((32, 32, 3), value, np.uint8) for value in (128, 255))
    undecided, decided = segmenter.segment([ObjectImage("a", grey), ObjectImage("b", clear)])
    assert undecided.confidence < 0.01 and decided.confidence == 1


def test_an_image_is_squashed_to_the_square() -> None:
    photo = np.zeros((64, 128, 3), np.uint8)
    photo[:, 64:] = 200
    small = squash(photo, 32)
    assert small.shape == (32, 32, 3) and (small[:, :16] == 0).all() and (small[:, 16:] == 200).all()


def test_a_segmenter_of_real_weights_is_known_by_them(weights: Path) -> None:
    segmenter = RedoConfig(weights=weights).open(weights.parent)
    (found,) = segmenter.segment([ObjectImage("a", _ellipse(90, 70))])
    assert found.mask.shape == (70, 90) and 0 <= found.confidence <= 1 and not found.is_whole
    before = segmenter.identity()
    assert len(str(before["weights_sha256"])) == 64
    torch.save(MaskNetwork(16, 2, 2).state_dict(), weights)
    assert RedoConfig(weights=weights).open(weights.parent).identity() != before


def test_relative_weights_are_found_in_the_home(weights: Path) -> None:
    folder = weights.parent / "data" / "weights"
    folder.mkdir(parents=True)
    weights.rename(folder / "other.pth")
    assert RedoConfig(weights=Path("other.pth")).open(weights.parent).identity()


def test_weights_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"segmenter\.weights is not set"):
        RedoConfig().open(tmp_path)
    with pytest.raises(InputError, match=r"segmenter\.weights: no file .*missing\.pth, wanted ReDO's"):
        RedoConfig(weights=Path("missing.pth")).open(tmp_path)


def test_a_channel_that_the_network_lacks_is_refused(weights: Path) -> None:
    assert RedoConfig(weights=weights, object_channel=1).open(weights.parent)
    with pytest.raises(InputError, match=r"segmenter\.object_channel: found 2, wanted 0 to 1"):
        RedoConfig(weights=weights, object_channel=2).open(weights.parent)


@pytest.mark.parametrize("channel", [-1, True, "1", "object", 0.5])
def test_a_channel_is_an_index_or_auto(channel: object) -> None:
    with pytest.raises(ValidationError, match="object_channel"):
        RedoConfig.model_validate({"kind": "redo", "object_channel": channel})


def test_the_objects_region_is_the_one_that_the_file_names(tmp_path: Path, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    path = tmp_path / "m.safetensors"
    write_found(Found(FAMILY, {"image_size": 128, "object_channel": 1}, state), path)
    photo = ObjectImage("0", _ellipse(128, 128))
    named, first, second = (
        RedoConfig(weights=path, object_channel=channel).open(tmp_path).segment([photo])[0].mask
        for channel in ("auto", 0, 1)
    )
    assert np.array_equal(named, second)
    assert not np.array_equal(named, first)


def test_who_lacks_the_weights_is_told_where_to_get_them(tmp_path: Path) -> None:
    config = RedoConfig(weights=Path("none.pth"), weights_hint="unpack none.tar.gz of the authors' page")
    with pytest.raises(InputError, match=r"no file .*none\.pth, wanted ReDO's .*; unpack none\.tar\.gz of"):
        config.open(tmp_path)
