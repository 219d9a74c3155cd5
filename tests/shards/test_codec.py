import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.codec import decode, encode
from shards.errors import ShardError
from shards.records import BackgroundRecord, CropRecord

from .conftest import disc, make_background, make_crop, smooth_image

sides = st.integers(1, 70)
scalars = (
    st.text(max_size=8) | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
)


@settings(max_examples=60, deadline=None)
@given(width=sides, height=sides, origin=st.dictionaries(st.text(max_size=8), scalars, max_size=3))
def test_a_crop_of_any_shape_comes_back(
    width: int, height: int, origin: dict[str, str | int | float]
) -> None:
    crop = CropRecord("k", "bird", smooth_image(width, height), disc(width, height), origin)
    back = decode("k", encode(crop))
    assert isinstance(back, CropRecord)
    assert (back.key, back.label, back.origin) == ("k", "bird", origin)
    assert back.image.shape == crop.image.shape
    assert back.mask.shape == crop.mask.shape
    assert np.abs(back.image.astype(int) - crop.image).mean() < 6


@settings(max_examples=30, deadline=None)
@given(width=sides, height=sides)
def test_a_background_of_any_shape_comes_back(width: int, height: int) -> None:
    photo = BackgroundRecord("k", smooth_image(width, height), {"file": "a.jpg"})
    back = decode("k", {name: memoryview(data) for name, data in encode(photo).items()})
    assert isinstance(back, BackgroundRecord)
    assert back.origin == photo.origin
    assert back.image.shape == photo.image.shape


def test_members_are_named_as_webdataset_wants_them() -> None:
    assert list(encode(make_crop(1))) == ["rgb.jpg", "alpha.jpg", "json"]
    assert list(encode(make_background(1))) == ["jpg", "json"]


def test_the_json_is_canonical() -> None:
    facts = encode(make_crop(7))["json"].decode()
    assert facts == json.dumps(json.loads(facts), sort_keys=True, separators=(",", ":"))
    assert set(json.loads(facts)) == {"height", "label", "origin", "width"}


@pytest.mark.parametrize("opacity", [0, 255])
def test_plain_opacity_stays_exact(opacity: int) -> None:
    crop = CropRecord("k", "bird", smooth_image(33, 21), np.full((21, 33), opacity, np.uint8))
    back = decode("k", encode(crop))
    assert isinstance(back, CropRecord)
    assert (back.mask == opacity).all()


def test_opacity_off_a_hard_edge_stays_exact() -> None:
    crop = CropRecord("k", "bird", smooth_image(150, 120), disc(150, 120))
    back = decode("k", encode(crop))
    assert isinstance(back, CropRecord)
    assert (back.mask != crop.mask).mean() < 0.001


def test_half_opacity_survives() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    back = decode("k", encode(CropRecord("k", "bird", smooth_image(256, 64), ramp)))
    assert isinstance(back, CropRecord)
    assert np.abs(back.mask.astype(int) - ramp).max() <= 12


@pytest.mark.parametrize("member", ["rgb.jpg", "alpha.jpg", "json"])
def test_a_missing_member_is_named(member: str) -> None:
    members = encode(make_crop(1))
    del members[member]
    with pytest.raises(ShardError, match=rf"^k\.{member}: missing"):
        decode("k", members)


@pytest.mark.parametrize("member", ["rgb.jpg", "alpha.jpg", "json"])
@pytest.mark.parametrize("keep", [0, 20, 0.5])
def test_an_unreadable_member_is_named(member: str, keep: float) -> None:
    members = encode(make_crop(1))
    length = int(keep * len(members[member])) if keep < 1 else int(keep)
    members[member] = members[member][:length]
    with pytest.raises(ShardError, match=rf"^k\.{member}: not readable as"):
        decode("k", members)


def test_another_size_than_the_json_says_is_refused() -> None:
    members = encode(make_crop(1)) | {"alpha.jpg": encode(make_crop(2))["alpha.jpg"]}
    with pytest.raises(ShardError, match=r"^k\.alpha\.jpg: is 26x34, its json says 25x33$"):
        decode("k", members)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"origin":{"a":[]}}', '{"origin":{},"height":33,"width":25}', "[" * 100000]
)
def test_a_json_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ShardError, match=r"^k\.json: "):
        decode("k", encode(make_crop(1)) | {"json": text.encode()})


def test_a_group_of_neither_kind_is_refused() -> None:
    with pytest.raises(ShardError, match=r"^k: has txt, wanted rgb.jpg"):
        decode("k", {"txt": b"hello"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, np.float32(1), [1]])
def test_an_origin_that_is_not_finite_scalars_is_refused(value: object) -> None:
    crop = CropRecord("k", "bird", smooth_image(4, 4), disc(4, 4), {"a": value})  # type: ignore[dict-item]
    with pytest.raises(ShardError, match=r"^k: origin"):
        encode(crop)


def test_an_image_beyond_jpeg_is_refused() -> None:
    with pytest.raises(ShardError, match="image is 65501x1, wanted sides of at most 65500 px"):
        encode(BackgroundRecord("k", np.zeros((1, 65501, 3), np.uint8)))
