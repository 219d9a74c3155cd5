"""Reading photos of every make, and listing them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from factory.photos import UnreadablePhoto, list_photos, listing_identity, name_of, read_photo


def _striped(width: int = 40, height: int = 20) -> Image.Image:
    """Left half red, right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 200
    pixels[:, width // 2 :, 2] = 200
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "RGBA", "YCbCr"])
def test_any_colour_mode_reads_as_the_same_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "photo.tif"
    _striped().convert(mode).save(path)
    image = read_photo(path, None)
    assert image.shape == (20, 40, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image[10, [5, 35]], [[200, 0, 0], [0, 0, 200]], atol=4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tif"])
def test_common_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    _striped().save(path)
    np.testing.assert_allclose(read_photo(path, None)[10, [5, 35]], [[200, 0, 0], [0, 0, 200]], atol=6)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_show_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "photo.png"
    Image.new(mode, (8, 8), 0).save(path)
    assert (read_photo(path, None) == 255).all()


def test_a_transparent_palette_colour_shows_white(tmp_path: Path) -> None:
    path = tmp_path / "photo.gif"
    Image.new("P", (8, 8), 0).save(path, transparency=0)
    assert (read_photo(path, None) == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_keeps_its_full_range(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(ramp).save(path)
    np.testing.assert_allclose(read_photo(path, None)[0, :, 1], np.arange(256), atol=1)


def test_float_grey_is_stretched_to_its_own_range(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    Image.fromarray(np.array([[-1.0, 0.0, 1.0]], np.float32)).save(path)
    assert read_photo(path, None)[0, :, 0].tolist() == [0, 128, 255]


def test_pixels_that_are_not_numbers_are_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path)
    with pytest.raises(UnreadablePhoto, match="not finite"):
        read_photo(path, None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((20, 40, 3), np.uint8)
    upright[:10, :20] = 255  # white top left corner
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    Image.fromarray(np.ascontiguousarray(turned[orientation])).save(path, exif=exif)
    np.testing.assert_array_equal(read_photo(path, None), upright)


def test_a_damaged_exif_block_leaves_the_photo_as_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    _striped().save(path, exif=b"Exif\0\0not a tiff header at all")
    assert read_photo(path, None).shape == (20, 40, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_large_photos_are_reduced_without_aliasing(tmp_path: Path, suffix: str) -> None:
    checks = (np.indices((600, 1200)).sum(0) % 2 * 255).astype(np.uint8)
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(checks).save(path)
    image = read_photo(path, 100)
    assert image.shape == (50, 100, 3)
    assert np.abs(image.astype(int) - 127).max() < 12


def test_a_drafted_jpeg_looks_like_the_whole_one_reduced(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    ramp = np.linspace(0, 255, 1000).astype(np.uint8)[None].repeat(701, 0)
    Image.fromarray(ramp).save(path, quality=95)
    assert read_photo(path, 99).shape == (69, 99, 3)
    np.testing.assert_allclose(read_photo(path, 99)[30, :, 0], np.linspace(1, 254, 99), atol=3)


def test_small_photos_are_not_enlarged(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    _striped().save(path)
    assert read_photo(path, 400).shape == (20, 40, 3)


def test_a_sliver_keeps_one_pixel(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    _striped(1000, 2).save(path)
    assert read_photo(path, 100).shape == (1, 100, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp"])
def test_a_truncated_photo_is_unreadable(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadablePhoto) as error:
        read_photo(path, 32)
    assert str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_a_file_that_is_no_photo_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadablePhoto, match="not an image"):
        read_photo(path, None)


def test_a_missing_photo_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePhoto, match="No such file"):
        read_photo(tmp_path / "photo.jpg", None)


@pytest.mark.parametrize(
    "limit", [500, 790]
)  # Pillow warns beyond its limit, and raises beyond twice its limit
def test_a_decompression_bomb_is_unreadable(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.png"
    _striped().save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit // 2 if limit == 500 else limit)
    with pytest.raises(UnreadablePhoto, match="bomb"):
        read_photo(path, None)


def test_photos_are_listed_at_any_depth_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a.jpg", "a/b/c.webp", "notes.txt", ".hidden.jpg", ".cache/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [name_of(path, tmp_path) for path in list_photos(tmp_path)]
    assert names == ["a.jpg", "a/b/c.webp", "a/z.png", "b.JPG"]


def test_a_list_file_keeps_its_order(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).touch()
    listing = tmp_path / "list.txt"
    listing.write_text("# mine\nb.jpg\n\n  a.jpg\n")
    assert [name_of(path, listing) for path in list_photos(listing)] == ["b.jpg", "a.jpg"]


def test_a_list_that_names_a_missing_photo_is_refused_with_its_line(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("# mine\nb.jpg\n")
    with pytest.raises(InputError, match=r"list\.txt:2: b\.jpg"):
        list_photos(listing)


def test_a_place_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images found"):
        list_photos(tmp_path)
    with pytest.raises(InputError, match="not found"):
        list_photos(tmp_path / "missing")
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match="one image, wanted a folder"):
        list_photos(tmp_path / "photo.jpg")
    (tmp_path / "list").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        list_photos(tmp_path / "list")


def test_a_name_that_is_not_utf8_becomes_plain_text(tmp_path: Path) -> None:
    assert name_of(tmp_path / "caf\udce9.jpg", tmp_path) == "caf\\xe9.jpg"


def test_a_listing_changes_with_names_and_sizes_but_not_with_the_place(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes(b"12")

    def identity(folder: str) -> object:
        return listing_identity((name_of(p, tmp_path / folder), p) for p in list_photos(tmp_path / folder))

    assert identity("here") == identity("there")
    (tmp_path / "there" / "a.jpg").write_bytes(b"123")
    assert identity("here") != identity("there")
