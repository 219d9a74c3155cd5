"""GrabCut without a person: a prior takes the place of the drawn box.

Rother, Kolmogorov and Blake 2004, "GrabCut", as OpenCV does it. The prior assumes a photo of one object: it
is near the centre and its colours differ from those along the frame. A frame of background fixes the colour
models; it is released for a last cut, so that an object which leaves the photo is seen to touch the border.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from factory.stages import ObjectImage, Scalar, Segmentation, SegmenterConfig, UInt8Array

FloatArray = npt.NDArray[np.float32]

_MIN_SIDE_PX = 5  # below this no frame and no centre can be told apart
_NO_BOX = (0, 0, 0, 0)  # OpenCV reads the labels in its place


class GrabCutConfig(SegmenterConfig):
    """Settings of GrabCut. Fractions of a side or of the area are those of the working image."""

    kind: Literal["grabcut"] = "grabcut"
    side_px: int = Field(
        default=160, ge=16, le=1024, description="longest side of the working image; time is its square"
    )
    rounds: int = Field(default=5, ge=1, le=20, description="alternations of colour models and cut")
    margin_frac: float = Field(
        default=0.04, ge=0, le=0.3, description="frame of sure background, share of each side"
    )
    prior_frac: float = Field(
        default=0.7, gt=0, description="sigma of the centre prior, share of half a side"
    )
    seed_frac: float = Field(
        default=0.3, gt=0, lt=1, description="share of the area first taken for the object"
    )
    border_contrast: bool = Field(
        default=True, description="seeds also differ in colour from the frame; off: centre only"
    )
    island_frac: float = Field(
        default=0.2, ge=0, le=1, description="islands smaller than this share of the largest go"
    )
    convex: bool = Field(
        default=False, description="fill the convex hull: a car gets its wheels and windows back"
    )
    reach_px: int = Field(
        default=6,
        ge=0,
        description="length of thin parts that stay (tail, beak, legs; twigs too), working px",
    )

    def open(self, home: Path) -> "GrabCutSegmenter":
        """The segmenter; ``home`` is not used."""
        return GrabCutSegmenter(self)


class GrabCutSegmenter:
    """One cut an image, each on its own.

    Confidence: 1 minus the Bhattacharyya coefficient of the Lab colour histograms inside the mask and in a
    ring around it (a tenth of the longest side wide): 1 when the two share no colour, 0 when they are alike
    or there is no ring.
    """

    def __init__(self, config: GrabCutConfig) -> None:
        self.config = config

    def segment(self, images: Sequence[ObjectImage]) -> list[Segmentation]:
        """Masks in the order of the images; empty, with confidence 0, where nothing is found."""
        return [self._segment(i.image) for i in images]

    def identity(self) -> Mapping[str, Scalar]:
        """Nothing besides the config."""
        return {}

    def _segment(self, image: UInt8Array) -> Segmentation:
        work = _shrink(image, self.config.side_px)
        found = clean(cut_out(work, self.config), self.config.island_frac, self.config.reach_px)
        found = fill_hull(found) if self.config.convex else found
        if not found.any():
            return Segmentation(np.zeros(image.shape[:2], np.uint8), 0.0)
        height, width = image.shape[:2]
        return Segmentation(soften(found, width, height), colour_contrast(work, found))


def cut_out(image: UInt8Array, config: GrabCutConfig) -> UInt8Array:
    """The object, 0 or 1, uint8 (H, W), of an RGB image (H, W, 3); all 0 where the prior finds nothing."""
    if min(image.shape[:2]) < _MIN_SIDE_PX:
        return np.zeros(image.shape[:2], np.uint8)
    lab = _rgb_to_lab(np.asarray(cv2.bilateralFilter(image, 5, 25, 3), np.uint8))
    labels = seed_labels(lab, config)
    if not (labels & 1).any() or (labels & 1).all():  # OpenCV refuses a colour model without pixels
        return np.zeros(image.shape[:2], np.uint8)
    # The colour models start from k-means, which draws from OpenCV's own generator: seeded anew for each
    # image, a mask depends on nothing but its image, whatever this process has cut before.
    cv2.setRNGSeed(0)
    back, fore = np.zeros((1, 65)), np.zeros((1, 65))  # OpenCV's layout of five Gaussians
    cv2.grabCut(lab, labels, _NO_BOX, back, fore, config.rounds, cv2.GC_INIT_WITH_MASK)
    labels[labels == cv2.GC_BGD] = cv2.GC_PR_BGD
    cv2.grabCut(lab, labels, _NO_BOX, back, fore, 1, cv2.GC_EVAL_FREEZE_MODEL)
    return np.asarray(labels & 1, np.uint8)


def seed_labels(lab: UInt8Array, config: GrabCutConfig) -> UInt8Array:
    """GrabCut's first labels, uint8 (H, W): the frame is background, the prior's peak probably the object."""
    height, width = lab.shape[:2]
    score = _centre(height, width, config.prior_frac)
    if config.border_contrast:
        score = score * border_contrast(lab)
    seeds = score >= np.quantile(score, 1 - config.seed_frac)
    labels = np.where(seeds, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    if config.margin_frac > 0:
        rows, columns = (max(1, round(config.margin_frac * side)) for side in (height, width))
        labels[:rows] = labels[-rows:] = cv2.GC_BGD
        labels[:, :columns] = labels[:, -columns:] = cv2.GC_BGD
    return labels


def border_contrast(lab: UInt8Array) -> FloatArray:
    """How far each pixel's colour is from the photo's four sides, float32 (H, W).

    Each side's strip is one Gaussian; the distance is the sum of the two smallest Mahalanobis distances, so
    that an object which leaves the photo at one side, or even at two, still differs from the others.
    """
    strip = max(2, round(0.08 * max(lab.shape[:2])))
    pixels = lab.astype(np.float32)
    sides = (pixels[:strip], pixels[-strip:], pixels[:, :strip], pixels[:, -strip:])
    distances = np.sort([_mahalanobis(pixels, side.reshape(-1, 3)) for side in sides], axis=0)
    total = np.minimum(distances[0] + distances[1], 12).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(total, (0, 0), 1.5), np.float32)


def _mahalanobis(pixels: FloatArray, sample: FloatArray) -> FloatArray:
    centre = sample.mean(axis=0)
    covariance = np.cov(sample.T) + 25 * np.eye(3)  # 5 grey levels of noise: no side is perfectly flat
    whiten = np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)
    return np.asarray(np.linalg.norm((pixels - centre) @ whiten, axis=2), np.float32)


def _centre(height: int, width: int, sigma: float) -> FloatArray:
    y, x = ((np.arange(n, dtype=np.float32) + 0.5) / n * 2 - 1 for n in (height, width))
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * sigma**2))


def clean(found: UInt8Array, island_frac: float, reach_px: int) -> UInt8Array:
    """Small islands and what hangs on by long threads dropped, holes filled. 0 or 1, uint8 (H, W)."""
    cross = np.asarray(cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    opened = np.asarray(cv2.morphologyEx(found, cv2.MORPH_OPEN, cross), np.uint8)
    kept = _drop_islands(opened, island_frac)
    for _ in range(reach_px):
        kept = np.asarray(cv2.dilate(kept, cross), np.uint8) & found
    padded = cv2.copyMakeBorder(1 - kept, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    outside = np.asarray(cv2.connectedComponents(padded, connectivity=4)[1])
    return np.asarray(outside[1:-1, 1:-1] != outside[0, 0], np.uint8)


def _drop_islands(found: UInt8Array, island_frac: float) -> UInt8Array:
    _, islands, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=4)
    areas = np.asarray(stats)[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # the background
    return np.asarray((areas >= max(1, island_frac * areas.max()))[islands], np.uint8)


def fill_hull(mask: UInt8Array) -> UInt8Array:
    """The convex hull of a 0 or 1 mask (H, W)."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return mask
    hull = cv2.convexHull(np.vstack(contours))
    return np.asarray(cv2.fillConvexPoly(np.zeros_like(mask), hull, 1), np.uint8)


def soften(found: UInt8Array, width: int, height: int) -> UInt8Array:
    """Opacity 0..255, uint8 (height, width), of a mask of 0 and 1, with an edge about one pixel soft."""
    smooth = cv2.GaussianBlur(found.astype(np.float32), (3, 3), 0.7)
    large = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)
    steep = max(1.0, max(width, height) / max(found.shape))  # enlarging widened the edge by as much
    return np.asarray(np.clip((large - 0.5) * steep + 0.5, 0, 1) * 255 + 0.5, np.uint8)


def colour_contrast(image: UInt8Array, found: UInt8Array) -> float:
    """Confidence 0..1 of a mask of 0 and 1 on an RGB image, see `GrabCutSegmenter`."""
    reach = max(1, max(found.shape) // 10)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    ring = np.asarray(cv2.dilate(found, disc), np.uint8) - found
    if not ring.any():
        return 0.0
    lab = _rgb_to_lab(image)
    inside, outside = (_histogram(lab, where) for where in (found, ring))
    return float(np.clip(1 - np.sqrt(inside * outside).sum(), 0, 1))


def _histogram(lab: UInt8Array, where: UInt8Array) -> FloatArray:
    counts = cv2.calcHist([lab], [0, 1, 2], where, [8, 12, 12], [0, 256, 64, 192, 64, 192])
    return np.asarray(counts / max(1.0, float(counts.sum())), np.float32)


def _rgb_to_lab(image: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), np.uint8)


def _shrink(image: UInt8Array, side_px: int) -> UInt8Array:
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
