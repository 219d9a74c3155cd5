import numpy as np
import pytest

from shards.errors import ShardError
from shards.records import BackgroundRecord, CropRecord

IMAGE = np.zeros((6, 4, 3), np.uint8)
MASK = np.zeros((6, 4), np.uint8)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "../a", "a b", "ä", "a\n"])
def test_a_key_that_would_not_survive_a_tar_is_refused(key: str) -> None:
    with pytest.raises(ShardError, match="not a record key"):
        BackgroundRecord(key, IMAGE)


@pytest.mark.parametrize("image", [IMAGE[0], IMAGE[:, :, :1], IMAGE[:0], IMAGE.astype(np.float32)])
def test_an_image_of_another_form_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ShardError, match=r"^k: image is .*, wanted uint8 \(H, W, 3\)$"):
        CropRecord("k", "bird", image, MASK)


@pytest.mark.parametrize("mask", [MASK[0], MASK.astype(bool), MASK[:, :, None]])
def test_a_mask_of_another_form_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(ShardError, match=r"^k: mask is .*, wanted uint8 \(H, W\)$"):
        CropRecord("k", "bird", IMAGE, mask)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ShardError, match=r"^k: mask is 3x6, image is 4x6$"):
        CropRecord("k", "bird", IMAGE, MASK[:, :3])
