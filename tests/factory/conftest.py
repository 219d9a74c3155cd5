"""Photos made in code."""

from pathlib import Path

import cv2
import numpy as np
import pytest


def make_photo(number: int, size: int = 96) -> np.ndarray:
    """A bright ellipse on dark noise, different for every number."""
    rng = np.random.default_rng([7, number])
    photo = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
    centre = tuple(int(v) for v in rng.integers(40, 56, 2))
    axes = tuple(int(v) for v in rng.integers(14, 30, 2))
    colour = tuple(int(v) for v in rng.integers(120, 255, 3))
    cv2.ellipse(photo, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    cv2.ellipse(photo, centre, (axes[0] // 2, axes[1] // 3), 0, 0, 360, (255, 255, 255), -1)
    return photo


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    """40 photos, one of them truncated."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        cv2.imwrite(str(folder / f"{number:03d}.png"), make_photo(number))
    whole = (folder / "017.png").read_bytes()
    (folder / "017.png").write_bytes(whole[: len(whole) // 2])
    return folder
