"""What a scene is before it has a pixel: plain numbers that every renderer paints alike.

Coordinates are continuous: pixel (column i, row j) covers [i, i + 1) x [j, j + 1). Affines are
2x3, row by row.
"""

from dataclasses import dataclass

from shards.records import CropRecord
from trainer.compositing.config import CompositorConfig
from trainer.compositing.options import BlendKind
from trainer.compositing.photometric import Step
from trainer.compositing.scene_artefacts import Artefact

Affine = tuple[float, float, float, float, float, float]
Box = tuple[float, float, float, float]

IDENTITY: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class CropShape:
    """A crop's size and its place in the frame it was cut from, px, and its class."""

    width: int
    height: int
    frame_w: int
    frame_h: int
    frame_x: int
    frame_y: int
    label: str = ""


def shape_of_record(record: CropRecord) -> CropShape:
    """The shape of a crop; without frame entries in its origin the crop is its own frame."""
    height, width = record.mask.shape
    frame = {"frame_w": width, "frame_h": height, "frame_x": 0, "frame_y": 0}
    found = {name: int(record.origin.get(name, default)) for name, default in frame.items()}
    return CropShape(width=width, height=height, label=record.label, **found)


@dataclass(frozen=True, slots=True)
class FramePlan:
    """The paper's detour: crop -> square frame -> warped frame -> cell of the canvas.

    to_frame: crop pixels to frame pixels. window: the part of the frame that survives (x0, y0, x1, y1), frame
    px. warp: frame pixels to warped frame pixels; what leaves the frame is lost.
    cell: (x, y, width, height), canvas px, over which the warped frame is stretched.
    """

    frame_px: int
    to_frame: Affine
    window: tuple[int, int, int, int]
    warp: Affine
    cell: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Placement:
    """One object as it will be painted.

    crop: index. matrix: crop pixels to canvas pixels, flip and rotation within. bounds: xyxy canvas px of the
    crop's warped rectangle (paper: of the cell). frame: the paper's route, else None.
    tilt: (g, h), the perspective: crop pixel (u, v) goes to the matrix's (x, y) divided by g u + h v + 1.
    harmonise: strength of the colours' change towards the scene's, 0 for none. is_distractor: never labelled.
    """

    crop: int
    matrix: Affine
    bounds: Box
    flipped: bool
    rotation_deg: float
    photometrics: tuple[Step, ...] = ()
    frame: FramePlan | None = None
    tilt: tuple[float, float] = (0.0, 0.0)
    blend: BlendKind = "alpha"
    harmonise: float = 0.0
    is_distractor: bool = False


@dataclass(frozen=True, slots=True)
class BackgroundPlan:
    """Which part of which photo.

    side_frac: side of the square window as a share of the photo's shorter side, None for the whole photo
    squashed. x_frac, y_frac: its place, 0 left or top, 1 right or bottom.
    """

    index: int
    side_frac: float | None = 1.0
    x_frac: float = 0.5
    y_frac: float = 0.5
    flipped: bool = False


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """A whole scene; later placements cover earlier ones. canvas_px: side of the canvas that placements use;
    the painted canvas is resized to ``config.size``, then the artefacts are applied in order.
    """

    config: CompositorConfig
    canvas_px: int
    background: BackgroundPlan
    placements: tuple[Placement, ...]
    artefacts: tuple[Artefact, ...] = ()

    @property
    def size(self) -> int:
        """Side of the finished scene, px."""
        return self.config.size


def compose(outer: Affine, inner: Affine) -> Affine:
    """The affine that applies inner, then outer."""
    a, b, c, d, e, f = outer
    p, q, r, s, t, u = inner
    return (a * p + b * s, a * q + b * t, a * r + b * u + c, d * p + e * s, d * q + e * t, d * r + e * u + f)


def point_moved(matrix: Affine, tilt: tuple[float, float], x: float, y: float) -> tuple[float, float]:
    """Where a crop's point comes to lie."""
    a, b, c, d, e, f = matrix
    depth = tilt[0] * x + tilt[1] * y + 1.0
    return (a * x + b * y + c) / depth, (d * x + e * y + f) / depth


def shifted(matrix: Affine, tilt: tuple[float, float], dx: float, dy: float) -> Affine:
    """The matrix that, with the same tilt, moves everything dx and dy farther."""
    a, b, c, d, e, f = matrix
    g, h = tilt
    return (a + dx * g, b + dx * h, c + dx, d + dy * g, e + dy * h, f + dy)


def area_scale(matrix: Affine, tilt: tuple[float, float], x: float, y: float) -> float:
    """By how much areas grow at a crop's point; negative where it is mirrored."""
    a, b, c, d, e, f = matrix
    g, h = tilt
    whole = a * (e - f * h) - b * (d - f * g) + c * (d * h - e * g)
    return whole / (g * x + h * y + 1.0) ** 3


def warped_bounds(matrix: Affine, tilt: tuple[float, float], width: float, height: float) -> Box:
    """Bounds of where a crop's rectangle comes to lie."""
    if tilt == (0.0, 0.0):
        a, b, c, d, e, f = matrix
        right, right_y, below_x, below = a * width, d * width, b * height, e * height
        low = c + min(right, 0.0) + min(below_x, 0.0), f + min(right_y, 0.0) + min(below, 0.0)
        return *low, c + max(right, 0.0) + max(below_x, 0.0), f + max(right_y, 0.0) + max(below, 0.0)
    corners = [point_moved(matrix, tilt, x, y) for x in (0.0, width) for y in (0.0, height)]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
