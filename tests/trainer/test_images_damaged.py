"""What fuzzing found in the reader of boxed photos."""

import io
from pathlib import Path

import pytest
from PIL import Image

from configs.errors import InputError
from trainer.imaging.images import read_image, read_size


def saved(form: str) -> bytearray:
    stream = io.BytesIO()
    Image.new("RGBA" if form == "DDS" else "RGB", (16, 16), (9, 8, 7)).save(stream, form)
    return bytearray(stream.getvalue())


def test_an_unknown_pixel_format_is_refused(tmp_path: Path) -> None:
    content = saved("DDS")
    content[80:84] = (0x410000).to_bytes(4, "little")
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_size, read_image):
        with pytest.raises(InputError, match=r"a.jpg: .*wanted .*image file"):
            read(tmp_path / "a.jpg")


def test_postscript_is_no_photo_since_reading_it_would_run_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(saved("EPS"))
    with pytest.raises(InputError, match=r"a.jpg: not an image"):
        read_image(tmp_path / "a.jpg")
