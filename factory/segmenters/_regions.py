"""Which regions of one photo are its object, told without labels from where they lie."""

import cv2
import numpy as np
import numpy.typing as npt

from factory.stages import UInt8Array

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]

_CENTRE_SIGMA = 0.35  # of half a side


def region_shares(labels: IntArray, num_labels: int, frame_frac: float) -> tuple[FloatArray, FloatArray]:
    """Each region's share of the frame and of the inside, float32 (num_labels,) twice.

    labels: (H, W), 0 to ``num_labels - 1``. frame_frac: width of the frame, share of each side. Pixels of the
    inside count by a Gaussian around the centre, its sigma 0.35 of half a side: a photo of an object has it
    there.
    """
    height, width = labels.shape
    rows, columns = (max(1, round(frame_frac * side)) for side in (height, width))
    frame = np.ones((height, width), bool)
    frame[rows:-rows, columns:-columns] = False
    y, x = ((np.arange(side) + 0.5) / side * 2 - 1 for side in (height, width))
    weight = np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * _CENTRE_SIGMA**2))
    border = np.bincount(labels[frame], minlength=num_labels) / frame.sum()
    inside = np.bincount(labels[~frame], weights=weight[~frame], minlength=num_labels) / weight[~frame].sum()
    return border.astype(np.float32), inside.astype(np.float32)


def solid_part(found: UInt8Array, island_frac: float) -> UInt8Array:
    """Islands below ``island_frac`` of the largest dropped, holes filled. 0 or 1, uint8 (H, W)."""
    _, islands, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=4)
    areas = np.asarray(stats)[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # what is not found
    kept = (areas >= max(1, island_frac * areas.max()))[islands].astype(np.uint8)
    around = cv2.copyMakeBorder(1 - kept, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    outside = np.asarray(cv2.connectedComponents(around, connectivity=4)[1])
    return np.asarray(outside[1:-1, 1:-1] != outside[0, 0], np.uint8)


def to_opacity(found: UInt8Array, width: int, height: int) -> UInt8Array:
    """Opacity 0..255, uint8 (height, width), of a mask of 0 and 1; its edge stays about a pixel soft."""
    smooth = cv2.GaussianBlur(found.astype(np.float32), (3, 3), 0.7)
    large = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)
    steep = max(1.0, max(width, height) / max(found.shape))
    return np.asarray(np.clip((large - 0.5) * steep + 0.5, 0, 1) * 255 + 0.5, np.uint8)
