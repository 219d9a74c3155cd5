"""What a camera and a file do to a whole scene, drawn as plain numbers first, applied to pixels later.

Objects and background go through the same blur, noise and JPEG, so that a detector cannot tell a pasted
object by their absence: Dwibedi et al., Cut, Paste and Learn, ICCV 2017, show that such traces are learnt.
"""

from dataclasses import dataclass
from math import ceil, cos, radians, sin

import cv2
import numpy as np
import simplejpeg

from trainer.compositing.options import ArtefactConfig
from trainer.compositing.photometric import Blur, Noise, apply_noise, draw_noise
from trainer.imaging.images import resize_antialiased
from trainer.sample import FloatArray, UInt8Array


@dataclass(frozen=True, slots=True)
class Rescale:
    """Down by factor, averaged, and up again, bilinear."""

    factor: float


@dataclass(frozen=True, slots=True)
class MotionBlur:
    """Mean along a line, antialiased; the angle is clockwise from the x axis."""

    length_px: float
    angle_deg: float


@dataclass(frozen=True, slots=True)
class Jpeg:
    """Through a JPEG file of that quality, 4:2:0."""

    quality: int


Artefact = Rescale | Blur | MotionBlur | Noise | Jpeg


def draw_artefacts(config: ArtefactConfig, rng: np.random.Generator) -> tuple[Artefact, ...]:
    """The artefacts of one scene, in the order in which they are applied."""
    drawn: list[Artefact] = []
    if rng.random() < config.rescale_prob:
        drawn.append(Rescale(rng.uniform(config.rescale_min, 1.0)))
    if rng.random() < config.blur_prob:
        drawn.append(Blur(rng.uniform(config.blur_sigma_min, config.blur_sigma_max)))
    if rng.random() < config.motion_prob:
        drawn.append(MotionBlur(rng.uniform(1.0, config.motion_px), rng.uniform(0.0, 180.0)))
    drawn += draw_noise(config.noise_prob, config.noise_sigma, config.noise_per_channel_prob, rng)
    if rng.random() < config.jpeg_prob:
        drawn.append(Jpeg(int(rng.integers(config.jpeg_quality_min, config.jpeg_quality_max + 1))))
    return tuple(drawn)


def apply_artefacts(image: UInt8Array, artefacts: tuple[Artefact, ...]) -> UInt8Array:
    """image (H, W, 3) after the artefacts, as large as before; the given one stays."""
    for artefact in artefacts:
        if isinstance(artefact, Rescale):
            image = _rescaled(image, artefact.factor)
        elif isinstance(artefact, Blur):
            image = _blurred(image, artefact.sigma_px)
        elif isinstance(artefact, MotionBlur):
            image = _moved(image, motion_kernel(artefact.length_px, artefact.angle_deg))
        elif isinstance(artefact, Noise):
            image = apply_noise(image, artefact)
        else:
            image = _through_jpeg(image, artefact.quality)
    return image


def motion_kernel(length_px: float, angle_deg: float) -> FloatArray:
    """Weights (N, N), N odd, sum 1, of a line through the centre: bilinear shares of points along it."""
    reach = ceil(length_px / 2)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    along = length_px * ((np.arange(8 * reach) + 0.5) / (8 * reach) - 0.5)
    for x, y in zip(along * cos(radians(angle_deg)), along * sin(radians(angle_deg)), strict=True):
        column, row = int(np.floor(x)), int(np.floor(y))
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            share = (1 - abs(x - column - dx)) * (1 - abs(y - row - dy))
            if share > 0:
                kernel[row + dy + reach, column + dx + reach] += share
    kernel /= kernel.sum()
    return kernel


def _rescaled(image: UInt8Array, factor: float) -> UInt8Array:
    height, width = image.shape[:2]
    small = resize_antialiased(image, max(1, round(factor * width)), max(1, round(factor * height)))
    return resize_antialiased(small, width, height)


def _blurred(image: UInt8Array, sigma_px: float) -> UInt8Array:
    if sigma_px < 1e-3:
        return image
    side = 2 * ceil(2.5 * sigma_px) + 1
    return cv2.GaussianBlur(image, (side, side), sigma_px, borderType=cv2.BORDER_REFLECT_101).view(np.uint8)


def _moved(image: UInt8Array, kernel: FloatArray) -> UInt8Array:
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101).view(np.uint8)


def _through_jpeg(image: UInt8Array, quality: int) -> UInt8Array:
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality, colorspace="RGB", colorsubsampling="420"
    )
    decoded: UInt8Array = simplejpeg.decode_jpeg(data, colorspace="RGB")
    return decoded
