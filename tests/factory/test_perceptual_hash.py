"""Near-duplicates are near, others are far."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from factory.perceptual_hash import HashIndex, dhash
from factory.stages import UInt8Array

_BITS_64 = st.integers(0, 2**64 - 1)


def _picture(seed: int) -> UInt8Array:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)


def test_a_resized_and_recoded_picture_stays_near() -> None:
    picture = _picture(0)
    small = cv2.resize(picture, (113, 90), interpolation=cv2.INTER_AREA)
    coded = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
    assert (dhash(picture) ^ dhash(np.asarray(coded, np.uint8))).bit_count() <= 4


def test_other_pictures_are_far() -> None:
    hashes = [dhash(_picture(seed)) for seed in range(20)]
    distances = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 10


def test_a_picture_that_brightens_to_the_right_has_all_bits() -> None:
    ramp = np.arange(0, 90, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
    assert dhash(ramp) == 2**64 - 1
    assert dhash(np.ascontiguousarray(ramp[:, ::-1])) == 0


@given(st.lists(_BITS_64, max_size=200), _BITS_64, st.integers(0, 64))
def test_the_index_finds_what_a_plain_search_finds(known: list[int], value: int, max_bits: int) -> None:
    index = HashIndex()
    for item in known:
        index.add(item)
    assert len(index) == len(known)
    assert index.is_near(value, max_bits) == any((value ^ item).bit_count() <= max_bits for item in known)
