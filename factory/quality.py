"""The gate: which crops are good enough to train on, judged without labels, each refusal with a reason."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from pydantic import Field

from configs.kinds import StrictModel
from factory.perceptual_hash import HashIndex, dhash
from factory.stages import Segmentation, UInt8Array

SOLID = 128  # opacity from which a pixel belongs to the object: for boxes, areas and the gate


class QualityConfig(StrictModel):
    """Limits of the gate. All but ``min_confidence`` look at the pixels whose opacity is 128 or more."""

    min_area_frac: float = Field(default=0.04, ge=0, le=1, description="object's area, share of the frame")
    max_area_frac: float = Field(default=0.75, ge=0, le=1, description="object's area, share of the frame")
    min_side_px: int = Field(default=16, ge=1, description="shorter side of the object's box")
    min_main_share: float = Field(
        default=0.9, ge=0, le=1, description="largest connected part, share of the object's area"
    )
    max_border_frac: float = Field(
        default=0.1, ge=0, le=1, description="share of the object's outline on the photo's border"
    )
    min_confidence: float = Field(default=0.5, ge=0, le=1, description="the segmenter's own confidence")
    duplicate_bits: int | None = Field(
        default=4,
        ge=0,
        le=64,
        description="crops whose hashes differ in at most so many of 64 bits are one; null: off",
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """keep: whether the crop goes into the set. reason: a short stable name when not. scores: as measured."""

    keep: bool
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limit:
    """One of the gate's limits. refuses(score, limit): whether such a crop is refused, for this reason."""

    name: str
    score: str
    refuses: Callable[[float, float], bool]
    reason: str


LIMITS = (  # the first that refuses gives the reason
    Limit("min_area_frac", "area_frac", operator.lt, "too_small"),
    Limit("min_side_px", "side_px", operator.lt, "too_small"),
    Limit("max_area_frac", "area_frac", operator.gt, "too_large"),
    Limit("min_main_share", "main_share", operator.lt, "fragmented"),
    Limit("max_border_frac", "border_frac", operator.gt, "touches_border"),
    Limit("min_confidence", "confidence", operator.lt, "unsure"),
)


def judge(segmentation: Segmentation, config: QualityConfig) -> Verdict:
    """Keep the crop, or the first of these reasons that holds:

    ``empty``, ``too_small``, ``too_large``, ``fragmented``, ``touches_border``, ``unsure``.
    The scores are ``area_frac``, ``main_share``, ``border_frac`` and ``confidence``, all 0..1, and
    ``side_px``, the box's shorter side. A mask that is the whole frame by choice is kept.
    """
    box = solid_box(segmentation.mask)
    if box is None:
        return Verdict(False, "empty", {"confidence": segmentation.confidence})
    scores = _measure(segmentation, box)
    if segmentation.is_whole:
        return Verdict(True, scores=scores)
    limits = ((limit, getattr(config, limit.name)) for limit in LIMITS)
    reasons = (limit.reason for limit, value in limits if limit.refuses(scores[limit.score], value))
    reason = next(reasons, "")
    return Verdict(not reason, reason, scores)


def solid_box(mask: UInt8Array) -> tuple[int, int, int, int] | None:
    """Tight xyxy box, px, right and bottom exclusive, of the opacities of 128 or more; None without any."""
    rows, columns = (np.flatnonzero((mask >= SOLID).any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _measure(segmentation: Segmentation, box: tuple[int, int, int, int]) -> dict[str, float]:
    solid = (segmentation.mask >= SOLID).astype(np.uint8)
    area = int(solid.sum())
    stats = np.asarray(cv2.connectedComponentsWithStats(solid, connectivity=8)[2])
    return {
        "area_frac": area / solid.size,
        "main_share": float(stats[1:, cv2.CC_STAT_AREA].max() / area),
        "border_frac": _border_frac(solid),
        "confidence": segmentation.confidence,
        "side_px": min(box[2] - box[0], box[3] - box[1]),
    }


def _border_frac(solid: UInt8Array) -> float:
    """Outline pixels: those of the object with a neighbour outside it or outside the photo."""
    framed = cv2.copyMakeBorder(solid, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    core = cv2.erode(framed, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    outline = solid - core
    inner = int(outline[1:-1, 1:-1].sum())
    total = int(outline.sum())
    return (total - inner) / total


class DuplicateGate:
    """Remembers the crops that it has let through and refuses those that look the same (``near_duplicate``).

    What it refuses depends on the order, so it must see the crops in theirs.
    """

    def __init__(self, bits: int) -> None:
        """bits: of the 64 of `dhash`, that two crops taken for one differ in at most."""
        self.bits = bits
        self._seen = HashIndex()

    def is_duplicate(self, crop: UInt8Array) -> bool:
        """Whether an RGB crop (H, W, 3) is near one let through before; if not, it is remembered."""
        code = dhash(crop)
        if self._seen.is_near(code, self.bits):
            return True
        self._seen.add(code)
        return False
