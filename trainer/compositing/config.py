"""Settings of the compositor, and the presets that rebuild the paper's scenes.

``{preset: paper-birds, size: 224, paper: {frame_zoom: 1}}`` starts from a preset and overrides it; a resolved
config names every field and no preset.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from configs.kinds import StrictModel
from trainer.compositing.options import (
    ArtefactConfig,
    BlendKind,
    DistractorConfig,
    HarmoniseConfig,
    NonNegative,
    Positive,
    Share,
    check_range,
)
from trainer.compositing.scales import ScaleRule


class PhotometricConfig(StrictModel):
    """What may happen to an object's colours, pixel values 0..255.

    contrast: factor around 127. gain: factor, one draw an object or, with ``gain_per_channel_prob``, one a
    channel. blur: Gaussian, sigma uniform up to ``blur_sigma_px``. noise: additive Gaussian, sigma uniform
    up to ``noise_sigma``. random_order: the steps in any order, each clipped to 0..255;
    else blur, colour, noise.
    """

    contrast_min: Positive = 0.75
    contrast_max: Positive = 1.3
    gain_min: Positive = 0.8
    gain_max: Positive = 1.2
    gain_per_channel_prob: Share = 0.2
    blur_prob: Share = 0.3
    blur_sigma_px: NonNegative = 0.8
    noise_prob: Share = 0.3
    noise_sigma: NonNegative = 10.0
    noise_per_channel_prob: Share = 0.5
    random_order: bool = False

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        check_range(self, "contrast_min", "contrast_max")
        check_range(self, "gain_min", "gain_max")
        return self


class BackgroundConfig(StrictModel):
    """Which part of a photo becomes the scene.

    side_min, side_max: side of the square window as a share of the photo's shorter side.
    squash: the whole photo instead, its aspect ignored.
    """

    side_min: Annotated[float, Field(gt=0, le=1)] = 0.5
    side_max: Annotated[float, Field(gt=0, le=1)] = 1.0
    flip_prob: Share = 0.5
    squash: bool = False

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        check_range(self, "side_min", "side_max")
        return self


class PaperConfig(StrictModel):
    """Numbers of ``layout: paper`` only; defaults are what its three classes share.

    canvas_px: the scene is laid out and painted at this side, then resized to ``size``.
    frame_px: side of the square to which an object's source frame is brought, aspect ignored.
    frame_zoom: centre zoom of the source frame on the way there.
    aspect_min, aspect_max: cell width / height, uniform. tries: whole layouts drawn for one count.
    crop_frac: largest cut from each side of the frame. zoom, translate, shear: ranges of the affine warp.
    mask: ``hard`` is the opacity over ``threshold``, made 1 before the cell is stretched.
    box_from: ``mask``, the pixels over ``threshold``; ``frame``, the whole warped source frame.
    threshold: opacity 0..1 above which a pixel counts as the object.
    """

    canvas_px: Annotated[int, Field(ge=16)] = 320
    frame_px: Annotated[int, Field(ge=8)] = 128
    frame_zoom: Annotated[float, Field(ge=1)] = 1.0
    aspect_min: Positive = 0.5
    aspect_max: Positive = 2.0
    tries: Annotated[int, Field(ge=1)] = 10
    crop_frac: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    zoom_min: Positive = 0.8
    zoom_max: Positive = 1.2
    translate_frac: Share = 0.2
    shear_deg: Annotated[float, Field(ge=0, lt=90)] = 8.0
    mask: Literal["soft", "hard"] = "soft"
    box_from: Literal["mask", "frame"] = "mask"
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        check_range(self, "aspect_min", "aspect_max")
        check_range(self, "zoom_min", "zoom_max")
        return self


class CompositorConfig(StrictModel):
    """How scenes are composed; lengths are shares of the scene's side unless the name says px or deg.

    size: side of the square scene, px. min_objects..max_objects: uniform count.
    scale_min..scale_max: sqrt(area of the crop's rectangle) / side, log-uniform (``paper``: uniform).
    scale: another rule in their place, `ScaleRule`; scale_of_label: rules of single classes, before both.
    aspect: factor on every width / height: 0.5625 suits a detector whose real frames are 16:9, squashed to
    its square. aspect_jitter: width / height also changes by a factor in 1/(1+j)..1+j. rotation_deg: in +-.
    perspective: an object's two tilts bring its corners up to this share nearer or farther.
    max_overlap: share of the smaller of two rectangles (bounds after rotation) that the other may cover.
    truncation: share of an object's width and height that may lie off the scene.
    tries: positions drawn for an object, every fifth with a new scale and rotation, before the scene is begun
    anew.
    min_visible: an object of which less is seen is marked ignore; drop_visible: of which less is seen gets no
    box at all. What lies off the scene counts as unseen. min_box_px: smaller boxes are not labelled.
    blend: ``alpha`` keeps the opacity, ``hard`` cuts it at 0.5, ``gaussian`` feathers its edge inwards with
    sigma ``feather`` times the object's sqrt(area), ``poisson`` clones gradients (Perez et al. 2003), 50
    times slower: for scenes that are stored. A mapping of blends to weights draws one for each object.
    distractors, harmonise, artefacts: see their classes; all off.
    resampling: ``fast`` lets Intel's IPP resize where OpenCV has it: half the time, within one level of
    ``exact``, and not for certain the same bits on another processor. For painters on the CPU.
    ``layout: paper`` has its own rules in `PaperConfig` and ignores aspect, aspect_jitter, perspective,
    scale, scale_of_label, max_overlap, truncation, tries, blend, feather, distractors and harmonise.
    """

    layout: Literal["sequential", "paper"] = "sequential"
    size: Annotated[int, Field(ge=16)] = 300
    min_objects: Annotated[int, Field(ge=0)] = 1
    max_objects: Annotated[int, Field(ge=1, le=200)] = 3
    scale_min: Annotated[float, Field(gt=0, le=1)] = 0.15
    scale_max: Annotated[float, Field(gt=0, le=1)] = 0.8
    scale: ScaleRule | None = None
    scale_of_label: Mapping[str, ScaleRule] = {}
    aspect: Positive = 1.0
    aspect_jitter: NonNegative = 0.1
    flip_prob: Share = 0.5
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 15.0
    perspective: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_overlap: Share = 0.3
    truncation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tries: Annotated[int, Field(ge=1)] = 15
    min_visible: Share = 0.3
    drop_visible: Share = 0.0
    min_box_px: Positive = 4.0
    blend: BlendKind | Annotated[Mapping[BlendKind, Positive], Field(min_length=1)] = "alpha"
    feather: NonNegative = 0.01
    resampling: Literal["exact", "fast"] = "exact"
    distractors: DistractorConfig = DistractorConfig()
    harmonise: HarmoniseConfig = HarmoniseConfig()
    artefacts: ArtefactConfig = ArtefactConfig()
    photometric: PhotometricConfig = PhotometricConfig()
    background: BackgroundConfig = BackgroundConfig()
    paper: PaperConfig = PaperConfig()

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "preset" not in value:
            return value
        overrides = {key: entry for key, entry in value.items() if key != "preset"}
        return _merged(_preset_values(value["preset"]), overrides)

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        check_range(self, "min_objects", "max_objects")
        check_range(self, "scale_min", "scale_max")
        return self


def preset(name: str) -> CompositorConfig:
    """The config of that name, one of `PRESETS`. Raises ValueError for another name."""
    return CompositorConfig.model_validate({"preset": name})


_PAPER: dict[str, Any] = {  # METHOD 1.3 and 1.6: what all classes of the paper's code share
    "layout": "paper",
    "rotation_deg": 45.0,
    "min_visible": 0.0,
    "min_box_px": 1.0,
    "photometric": {
        "contrast_min": 0.75,
        "contrast_max": 1.5,
        "gain_min": 0.8,
        "gain_max": 1.2,
        "gain_per_channel_prob": 0.2,
        "blur_prob": 0.5,
        "blur_sigma_px": 0.5,
        "noise_prob": 1.0,
        "noise_sigma": 12.75,
        "noise_per_channel_prob": 0.5,
        "random_order": True,
    },
    "background": {"squash": True, "flip_prob": 0.0},
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "paper-faces": _PAPER
    | {"max_objects": 10, "scale_min": 0.05, "scale_max": 0.8, "paper": {"box_from": "frame"}},
    "paper-birds": _PAPER | {"max_objects": 3, "scale_min": 0.5, "scale_max": 0.9, "paper": {"mask": "hard"}},
    "paper-cars": _PAPER
    | {
        "max_objects": 5,
        "scale_min": 0.5,
        "scale_max": 1.0,
        "paper": {"aspect_min": 0.333, "aspect_max": 3.0, "frame_zoom": 2.0},
    },
}


def _preset_values(name: Any) -> Mapping[str, Any]:
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    hint = "".join(f"; did you mean '{m}'?" for m in difflib.get_close_matches(str(name), PRESETS, 1))
    raise ValueError(f"preset '{name}' is not one of {', '.join(PRESETS)}{hint}")


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """base with overrides, mappings merged key by key."""
    result = dict(base)
    for key, value in overrides.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return result
