"""Object sources: slot i is always the same image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.errors import InputError
from factory.generators.dcgan import DcganGenerator, DcganSizes
from factory.sources.dcgan import DcganConfig, DcganSource
from factory.sources.images import ImagesConfig, PhotoSource
from factory.stages import ObjectImage, Unreadable

_SIZES = DcganSizes(nz=6, ngf=4, nc=3, image_px=16)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photos, the third of them broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (40 + i, 30), (i * 20, 0, 0)).save(folder / f"{i}.png")
    (folder / "2.png").write_bytes(b"broken")
    return folder


def _open_photos(root: Path, max_side_px: int = 320, centre_crop_frac: float = 1.0) -> PhotoSource:
    config = ImagesConfig(root=root, max_side_px=max_side_px, centre_crop_frac=centre_crop_frac)
    return config.open(seed=0, home=Path("nowhere"))


def test_a_slice_of_photos_is_in_order_and_ends_with_them(photos: Path) -> None:
    source = _open_photos(photos)
    assert source.size == 5
    assert [item.name for item in source.images(1, 3)] == ["1.png", "2.png", "3.png"]
    assert [item.name for item in source.images(3, 9)] == ["3.png", "4.png"]
    assert not list(source.images(5, 2))


def test_a_broken_photo_keeps_its_slot(photos: Path) -> None:
    before, broken, after = _open_photos(photos).images(1, 3)
    assert isinstance(before, ObjectImage) and isinstance(after, ObjectImage)
    assert before.origin == {"source": "images", "file": "1.png"}
    assert isinstance(broken, Unreadable) and "not an image" in broken.why


def test_the_centre_crop_keeps_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((80, 160, 3), np.uint8)
    pixels[20:60, 40:120] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (item,) = _open_photos(tmp_path, centre_crop_frac=0.5).images(0, 1)
    assert isinstance(item, ObjectImage)
    assert item.image.shape == (40, 80, 3) and (item.image == 255).all()
    (item,) = _open_photos(tmp_path, max_side_px=40, centre_crop_frac=0.5).images(0, 1)
    assert isinstance(item, ObjectImage) and item.image.shape == (20, 40, 3)


def test_photos_are_known_by_what_they_are_not_where(photos: Path) -> None:
    before = _open_photos(photos).identity()
    moved = photos.rename(photos.parent / "moved")
    assert _open_photos(moved).identity() == before
    (moved / "4.png").unlink()
    assert _open_photos(moved).identity() != before


def test_a_relative_root_is_found_from_the_home(photos: Path) -> None:
    assert ImagesConfig(root=Path("photos")).open(seed=0, home=photos.parent).size == 5


def test_photos_without_a_root_are_refused() -> None:
    with pytest.raises(InputError, match=r"source\.root is not set"):
        ImagesConfig().open(seed=0, home=Path())


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "generator.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = DcganGenerator(_SIZES).state_dict()
    torch.save({"netG_state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    return path


def _open_dcgan(weights: Path, seed: int = 0) -> DcganSource:
    return DcganConfig(weights=weights, batch_size=4).open(seed, home=Path("nowhere"))


def test_sizes_are_inferred_from_the_weights(weights: Path) -> None:
    state = torch.load(weights, weights_only=True)["netG_state_dict"]
    state = {name.removeprefix("module."): value for name, value in state.items()}
    assert DcganGenerator.from_state_dict(state).sizes == _SIZES


def test_a_generated_slot_does_not_depend_on_the_slice(weights: Path) -> None:
    source = _open_dcgan(weights)
    whole = list(source.images(0, 11))
    assert [item.name for item in whole] == [str(i) for i in range(11)]
    for start, count in ((0, 1), (3, 2), (4, 4), (6, 5)):
        part = list(source.images(start, count))
        assert [item.name for item in part] == [str(i) for i in range(start, start + count)]
        for item, again in zip(part, whole[start:], strict=False):
            np.testing.assert_array_equal(item.image, again.image)


def test_generated_slots_differ_by_index_and_seed(weights: Path) -> None:
    one, two = _open_dcgan(weights).images(0, 2)
    (other,) = _open_dcgan(weights, seed=1).images(0, 1)
    assert one.image.shape == (16, 16, 3) and one.image.dtype == np.uint8
    assert not np.array_equal(one.image, two.image)
    assert not np.array_equal(one.image, other.image)
    assert one.origin == {"source": "dcgan", "latent_seed": 0, "latent_index": 0}


def test_a_generator_is_endless_and_known_by_its_weights(weights: Path) -> None:
    source = _open_dcgan(weights)
    assert source.size is None
    assert len(str(source.identity()["weights_sha256"])) == 64


def test_relative_weights_are_found_in_the_home(weights: Path) -> None:
    folder = weights.parent / "data" / "weights"
    folder.mkdir(parents=True)
    weights.rename(folder / "other.pt")
    assert DcganConfig(weights=Path("other.pt")).open(0, home=weights.parent).size is None


def test_grey_generators_give_three_equal_channels(tmp_path: Path) -> None:
    path = tmp_path / "grey.pt"
    torch.save(DcganGenerator(_SIZES._replace(nc=1)).state_dict(), path)
    (item,) = _open_dcgan(path).images(7, 1)
    assert item.image.shape == (16, 16, 3) and (item.image[..., 0] == item.image[..., 2]).all()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"state_dict": {"conv.weight": torch.zeros(3, 3, 1, 1)}}, "conv.weight"),
        ({"main.0.weight": torch.zeros(6, 8, 4, 4), "main.3.weight": torch.zeros(8, 3, 4, 4)}, "Missing key"),
        ({"epoch": 3}, "'epoch' is not a tensor"),
        ([1, 2], "holds a list"),
    ],
)
def test_foreign_weights_are_refused_with_what_they_hold(tmp_path: Path, content: object, found: str) -> None:
    path = tmp_path / "foreign.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=found) as error:
        _open_dcgan(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_weight_file_is_refused(tmp_path: Path) -> None:
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_bytes(b"this is text")
        with pytest.raises(InputError, match="not a weight file"):
            _open_dcgan(tmp_path / name)
    for content in (b"", b"\x80\x02}q\x00", b"PK\x03\x04 cut", b"(lp0\n."):
        (tmp_path / "b.pt").write_bytes(content)
        with pytest.raises(InputError, match="wanted a DCGAN's state dict"):
            _open_dcgan(tmp_path / "b.pt")
    with pytest.raises(InputError, match="no file"):
        _open_dcgan(tmp_path / "missing.pt")


def test_without_weights_or_package_the_setting_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory.sources.dcgan.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"source\.weights is not set"):
        DcganConfig().open(0, home=Path())
