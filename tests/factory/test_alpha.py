"""Images that come with their own opacity: read from the file, carried to the segmenter, used as the mask."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from factory.build import build
from factory.job import Fleet
from factory.photos import read_cut_out, read_photo
from factory.quality import QualityConfig, judge
from factory.recipe import Recipe
from factory.segmenters.alpha import AlphaConfig
from factory.sources.images import ImagesConfig
from factory.stages import ObjectImage


def _cut_out(side: int = 40) -> np.ndarray:
    """RGBA: an orange square, half transparent along its edge, over black that is wholly transparent."""
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[8:-8, 8:-8] = (220, 120, 20, 128)
    pixels[10:-10, 10:-10, 3] = 255
    return pixels


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_a_cut_out_keeps_its_opacity_and_the_colour_of_its_edge(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(_cut_out()).save(tmp_path / f"a.{suffix}", lossless=True)
    image, alpha = read_cut_out(tmp_path / f"a.{suffix}", None)
    assert alpha is not None and np.array_equal(alpha, _cut_out()[..., 3])
    assert image[9, 20].tolist() == [220, 120, 20]  # half transparent: its own colour, no white in it
    assert image[0, 0].tolist() == [255, 255, 255]  # transparent: white, as ever
    assert read_photo(tmp_path / f"a.{suffix}", None)[9, 20].tolist() == [237, 187, 137]


def test_transparency_of_palettes_and_greys_is_opacity(tmp_path: Path) -> None:
    grey = Image.fromarray(_cut_out()[..., 3]).convert("L")
    Image.merge("LA", (grey, grey)).save(tmp_path / "grey.png")
    palette = Image.fromarray((_cut_out()[..., 3] > 0).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 220, 120, 20])
    palette.save(tmp_path / "palette.png", transparency=0)
    for name in ("grey.png", "palette.png"):
        alpha = read_cut_out(tmp_path / name, None)[1]
        assert alpha is not None and alpha[0, 0] == 0 and alpha[20, 20] == 255


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_an_opaque_photo_has_no_opacity_and_the_same_pixels_as_ever(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 50), np.uint8)
    if mode == "I;16":
        photo = Image.fromarray(noise.astype(np.uint16) * 256)
    else:
        photo = Image.fromarray(noise).convert(mode)
    photo.save(tmp_path / "a.png")
    image, alpha = read_cut_out(tmp_path / "a.png", 20)
    assert alpha is None
    assert np.array_equal(image, read_photo(tmp_path / "a.png", 20))


def test_opacity_shrinks_turns_and_is_cropped_with_its_photo(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80, 4), np.uint8)
    pixels[:, :40] = (220, 120, 20, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    source = ImagesConfig(root=tmp_path, max_side_px=40, centre_crop_frac=0.5).open(0, tmp_path)
    (item,) = source.images(0, 1)
    assert isinstance(item, ObjectImage) and item.alpha is not None
    assert item.image.shape == (40, 30, 3) and item.alpha.shape == (40, 30)
    assert (item.alpha[:19] == 255).all() and (item.alpha[21:] == 0).all()
    assert np.abs(item.image[:19].astype(int) - [220, 120, 20]).max() <= 1  # no white bleeds in
    assert (item.image[22:] == 255).all()


def test_the_mask_is_the_opacity_itself() -> None:
    alpha = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    item = ObjectImage("a", np.zeros((9, 7, 3), np.uint8), alpha=alpha)
    (found,) = AlphaConfig().open(Path()).segment([item])
    assert np.array_equal(found.mask, alpha) and found.confidence == 1 and not found.is_whole


def test_an_image_without_opacity_is_dropped_as_empty_beside_one_that_has_it(tmp_path: Path) -> None:
    Image.fromarray(_cut_out(64)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    recipe = Recipe.model_validate(
        {"label": "x", "source": {"kind": "images", "root": tmp_path}, "segmenter": {"kind": "alpha"}}
    )
    summary = build(recipe, str(tmp_path / "out"), None, Fleet("off"), tmp_path)
    assert "1 crops of 2 images" in summary and "1 empty" in summary


def test_a_folder_without_any_opacity_is_an_error_of_the_input(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    recipe = Recipe.model_validate(
        {"label": "x", "source": {"kind": "images", "root": tmp_path}, "segmenter": {"kind": "alpha"}}
    )
    with pytest.raises(InputError, match="1 empty"):
        build(recipe, str(tmp_path / "out"), None, Fleet("off"), tmp_path)
    none = AlphaConfig().open(Path()).segment([ObjectImage("b", np.zeros((5, 5, 3), np.uint8))])[0]
    assert judge(none, QualityConfig()).reason == "empty"
