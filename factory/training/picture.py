"""Grids of small pictures, so that a training can be looked at."""

from pathlib import Path

import cv2
import numpy as np

from factory.stages import UInt8Array
from factory.training.checkpoint import write_whole


def grid(images: UInt8Array, columns: int) -> UInt8Array:  # (N, H, W, 3) -> (rows * H, columns * W, 3)
    """Row by row; the last row is filled up with black."""
    count, height, width = images.shape[:3]
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[:count] = images
    return (
        sheet.reshape(rows, columns, height, width, 3)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, 3)
    )


def write_picture(path: Path, image: UInt8Array) -> None:
    """A PNG, whole or not at all."""
    coded, content = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    if not coded:
        raise OSError(f"{path}: could not be coded as PNG")
    write_whole(path, content.tobytes())
