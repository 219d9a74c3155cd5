"""Changes of an object's colours: drawn as plain numbers first, applied to pixels later."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import cv2
import numpy as np
import numpy.typing as npt

from trainer.compositing.config import PhotometricConfig
from trainer.sample import FloatArray, UInt8Array

NOISE_LENGTH = 1 << 20


@dataclass(frozen=True, slots=True)
class Linear:
    """Pixel value v becomes ``gain[channel] * v + offset[channel]``, rounded and clipped."""

    gain: tuple[float, float, float]
    offset: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Blur:
    """Gaussian blur of the colours inside the object; the opacity stays."""

    sigma_px: float


@dataclass(frozen=True, slots=True)
class Noise:
    """Additive Gaussian noise, sigma in pixel values; the seed fixes every sample."""

    sigma: float
    per_channel: bool
    seed: int


Step = Linear | Blur | Noise


def draw_photometrics(config: PhotometricConfig, rng: np.random.Generator) -> tuple[Step, ...]:
    """The steps for one object, in the order in which they are applied."""
    blur = _draw_blur(config, rng)
    noise = draw_noise(config.noise_prob, config.noise_sigma, config.noise_per_channel_prob, rng)
    contrast = rng.uniform(config.contrast_min, config.contrast_max)
    gain = _draw_gain(config, rng)
    pivot = 127.0 * (1.0 - contrast)
    if contrast == 1.0 and gain == (1.0, 1.0, 1.0):  # nothing is set to change
        return (*blur, *noise)
    if not config.random_order:
        red, green, blue = gain
        factors = (contrast * red, contrast * green, contrast * blue)
        return (*blur, Linear(factors, (pivot * red, pivot * green, pivot * blue)), *noise)
    contrast_step = Linear((contrast, contrast, contrast), (pivot, pivot, pivot))
    steps: tuple[Step, ...] = (*blur, contrast_step, *noise, Linear(gain, (0.0, 0.0, 0.0)))
    return tuple(steps[i] for i in rng.permutation(len(steps)))


def _draw_gain(config: PhotometricConfig, rng: np.random.Generator) -> tuple[float, float, float]:
    if rng.random() < config.gain_per_channel_prob:
        red, green, blue = rng.uniform(config.gain_min, config.gain_max, size=3).tolist()
        return red, green, blue
    gain = rng.uniform(config.gain_min, config.gain_max)
    return gain, gain, gain


def _draw_blur(config: PhotometricConfig, rng: np.random.Generator) -> tuple[Step, ...]:
    if rng.random() >= config.blur_prob:
        return ()
    return (Blur(rng.uniform(0.0, config.blur_sigma_px)),)


def draw_noise(
    prob: float, max_sigma: float, per_channel_prob: float, rng: np.random.Generator
) -> tuple[Noise, ...]:
    """One noise or none."""
    if rng.random() >= prob:
        return ()
    sigma = rng.uniform(0.0, max_sigma)
    return (Noise(sigma, bool(rng.random() < per_channel_prob), int(rng.integers(1 << 31))),)


def apply_photometrics(colour: UInt8Array, opacity: UInt8Array, steps: tuple[Step, ...]) -> UInt8Array:
    """colour (H, W, 3) after the steps; where opacity (H, W) is 0 the result means nothing."""
    for step in steps:
        if isinstance(step, Linear):
            colour = _apply_linear(colour, step)
        elif isinstance(step, Blur):
            colour = _apply_blur(colour, opacity, step)
        else:
            colour = apply_noise(colour, step)
    return colour


def _apply_linear(colour: UInt8Array, step: Linear) -> UInt8Array:
    return _u8(cv2.transform(colour, np.column_stack([np.diag(step.gain), step.offset])))


def _apply_blur(colour: UInt8Array, opacity: UInt8Array, step: Blur) -> UInt8Array:
    """Blur weighted by opacity, so that nothing from outside the object comes in."""
    if step.sigma_px < 1e-3:
        return colour
    side = max(5, 2 * ceil(1.65 * step.sigma_px) + 1)
    weighted = cv2.multiply(colour, cv2.cvtColor(opacity, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    blurred = cv2.GaussianBlur(weighted, (side, side), step.sigma_px)
    weight = cv2.GaussianBlur(opacity, (side, side), step.sigma_px)
    return _u8(cv2.divide(blurred, cv2.cvtColor(weight, cv2.COLOR_GRAY2RGB), scale=255))


def apply_noise(colour: UInt8Array, step: Noise) -> UInt8Array:
    """colour (H, W, 3) with the noise, rounded and clipped."""
    height, width = colour.shape[:2]
    channels = 3 if step.per_channel else 1
    noise = _noise(step.seed, height * width * channels).reshape(height, width, channels)
    if channels == 1:
        noise = cv2.cvtColor(noise, cv2.COLOR_GRAY2RGB)  # type: ignore[assignment]
    return _u8(cv2.addWeighted(colour, 1.0, noise, step.sigma, 0.0, dtype=cv2.CV_8U))


def _noise(seed: int, count: int) -> FloatArray:
    """count standard normal numbers: a slice of one fixed row, 25 times cheaper than drawing them."""
    row = noise_row()
    start = seed % len(row)
    if start + count <= len(row):
        return row[start : start + count]
    return np.take(row, np.arange(start, start + count), mode="wrap")


@lru_cache(maxsize=1)
def noise_row() -> FloatArray:
    return np.random.default_rng(0).standard_normal(NOISE_LENGTH, dtype=np.float32)


def _u8(array: npt.NDArray[np.generic]) -> UInt8Array:
    """What OpenCV returned, which its stubs call an array of anything."""
    return array.view(np.uint8)
