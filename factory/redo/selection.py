"""Which checkpoint and which region to trust, without labels: pure functions on soft masks.

Masks are float32 (N, n, S, S) in 0..1 that sum to 1 over the n regions, unless said otherwise; an object mask
is (N, S, S).
"""

from dataclasses import dataclass
from math import exp

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_FRAME_FRAC = 1 / 16  # width of the border frame, share of a side
_FAINT = 0.01  # mean opacity that counts for nothing when regions are compared
_SANE_AREA = (0.04, 0.9)  # of the frame: what an object in a classification photo may take
_CONTENT_GAP = 2.0  # real scores above 1, redrawn ones below -1
_FLOOR = 1e-3  # of a score's factor: one bad figure sinks a checkpoint, yet two sunk ones still differ


def pick_channel(masks: FloatArray) -> int:
    """The object's region among soft masks (n, S, S) of one image.

    It is the one whose mean on the outer frame, a sixteenth of the side wide, is smallest relative to its
    mean inside: a photo of an object shows it whole or nearly, while the background goes on past the border.
    Both means are raised a little, so that a region that is nowhere cannot win with its empty frame; the
    lower index wins a tie. It looks at one image only: a crop never depends on its neighbours in a batch.
    """
    return int(np.argmin(border_contact(masks[None])[0]))


def border_contact(masks: FloatArray) -> FloatArray:  # (N, n, S, S) -> (N, n)
    """Mean opacity on the outer frame over the mean inside it, each raised by 0.01; 1 for an even mask."""
    side = masks.shape[-1]
    frame = np.ones((side, side), bool)
    width = max(1, round(side * _FRAME_FRAC))
    frame[width:-width, width:-width] = False
    border, inside = masks[..., frame].mean(axis=-1), masks[..., ~frame].mean(axis=-1)
    return np.asarray((border + _FAINT) / (inside + _FAINT), np.float32)


def object_channel(masks: FloatArray) -> int:
    """The region that is the object throughout: smallest median border contact, then the lower number."""
    return int(np.argmin(np.median(border_contact(masks), axis=0)))


def region_areas(masks: FloatArray) -> FloatArray:  # (N, n, S, S) -> (n,)
    """Each region's mean soft area, shares of the frame."""
    return np.asarray(masks.mean(axis=(0, 2, 3)), np.float32)


def soft_overlap(one: FloatArray, other: FloatArray) -> float:
    """Mean over the images of sum(min) / sum(max) of two object masks: 1 for equal ones (empty ones too)."""
    shared = np.minimum(one, other).sum(axis=(1, 2)) + _FAINT
    either = np.maximum(one, other).sum(axis=(1, 2)) + _FAINT
    return float((shared / either).mean())


def sane_share(mask: FloatArray) -> float:
    """Share of the images whose object takes 4 to 90 % of the frame, counting pixels of 0.5 or more."""
    areas = (mask >= 0.5).mean(axis=(1, 2))
    return float(((areas >= _SANE_AREA[0]) & (areas <= _SANE_AREA[1])).mean())


def sharpness(mask: FloatArray) -> float:
    """Mean of |2m - 1|: 1 when every pixel is in or out."""
    return float(np.abs(2 * mask - 1).mean())


def individuality(mask: FloatArray) -> float:
    """1 minus the overlap of each image's mask with the next one's: 0 when all images get the same mask."""
    return 1 - soft_overlap(mask, np.roll(mask, 1, axis=0))


@dataclass(frozen=True, slots=True)
class MaskFigures:
    """What is measured of a checkpoint, on images held out. All 0..1 but ``realism_gap``.

    object_channel: the region taken for the object. area_frac: its mean soft area. border: its mean opacity
    on the frame over that inside, at most 1. flip, shift: overlap with the masks of mirrored images, of
    images moved by some pixels. steady: overlap with the checkpoint before; None for the first.
    realism_gap: the discriminator's mean score of real images minus that of redrawn ones; None without one.
    """

    object_channel: int
    area_frac: float
    sane: float
    border: float
    flip: float
    shift: float
    sharpness: float
    individuality: float
    steady: float | None = None
    realism_gap: float | None = None


def measure(
    masks: FloatArray, flipped: FloatArray, shifted: FloatArray, shift_px: int, before: FloatArray | None
) -> MaskFigures:
    """Figures of one checkpoint's masks.

    flipped: the masks of the mirrored images. shifted: those of the images moved ``shift_px`` to the right
    and down. before: the masks of the checkpoint before.
    """
    channel = object_channel(masks)
    mask = masks[:, channel]
    moved = shifted[:, channel, shift_px:, shift_px:]
    return MaskFigures(
        object_channel=channel,
        area_frac=float(mask.mean()),
        sane=sane_share(mask),
        border=min(1.0, float(np.median(border_contact(masks)[:, channel]))),
        flip=soft_overlap(mask, flipped[:, channel, :, ::-1]),
        shift=soft_overlap(mask[:, : mask.shape[1] - shift_px, : mask.shape[2] - shift_px], moved),
        sharpness=sharpness(mask),
        individuality=individuality(mask),
        steady=None if before is None else _steadiness(masks, before),
    )


def _steadiness(masks: FloatArray, before: FloatArray) -> float:
    """Overlap of the object with the region before that it overlaps most: regions may have swapped."""
    mask = masks[:, object_channel(masks)]
    return max(soft_overlap(mask, before[:, k]) for k in range(before.shape[1]))


def score(figures: MaskFigures) -> float:
    """How far to trust the checkpoint, 0..1: the geometric mean of what is known of it.

    Factors: sane areas, an empty border, sharp masks, masks that stay under flips and shifts and from the
    checkpoint before, masks that differ between images, redrawn images that pass for real. The last counts
    1 at a gap of 0 and 0.24 at 2, where the hinge loss is content and which stands in where there is no
    discriminator: a warm start must not win because nobody doubts it.
    """
    gap = _CONTENT_GAP if figures.realism_gap is None else figures.realism_gap
    factors = [
        *(figures.sane, 1 - figures.border, figures.sharpness, figures.flip, figures.shift),
        min(1.0, 2 * figures.individuality),
        2 / (1 + exp(min(50.0, max(0.0, gap)))),
    ]
    if figures.steady is not None:
        factors.append(figures.steady)
    return float(np.exp(np.mean([np.log(max(_FLOOR, factor)) for factor in factors])))
