"""Settings of what a scene may have beyond the default; all of it is off until it is named."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.kinds import StrictModel

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
BlendKind = Literal["alpha", "hard", "gaussian", "poisson"]


def check_range(config: StrictModel, low: str, high: str) -> None:
    """Raises ValueError when the field low is over the field high."""
    if getattr(config, low) > getattr(config, high):
        raise ValueError(f"{low} is {getattr(config, low)}, wanted at most {high} {getattr(config, high)}")


class DistractorConfig(StrictModel):
    """Crops of other things, pasted but never labelled: min..max a scene, uniform count.

    A distractor stands anywhere in the order of covering and keeps the scene's other rules. After
    Dwibedi et al., Cut, Paste and Learn, ICCV 2017, section 5.1.
    """

    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(ge=0, le=50)] = 0

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        check_range(self, "min", "max")
        return self


class HarmoniseConfig(StrictModel):
    """Draws an object's colours towards those of the scene around it; see `trainer.compositing.harmonise`.

    prob: of doing it to an object. strength: 0 leaves the colours, 1 takes over the scene's mean and spread.
    """

    prob: Share = 0.0
    strength_min: Share = 0.3
    strength_max: Share = 0.8

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        check_range(self, "strength_min", "strength_max")
        return self


class ArtefactConfig(StrictModel):
    """What a camera and a file do to the whole scene, so that seams carry no signal; in this order.

    rescale: down by a factor uniform in rescale_min..1 and up again. blur: Gaussian, sigma uniform, px.
    motion: a line of uniform length up to motion_px at any angle. noise: as an object's, sigma uniform up to
    noise_sigma. jpeg: quality uniform, colours halved (4:2:0).
    """

    rescale_prob: Share = 0.0
    rescale_min: Annotated[float, Field(gt=0, le=1)] = 0.5
    blur_prob: Share = 0.0
    blur_sigma_min: NonNegative = 0.3
    blur_sigma_max: NonNegative = 1.2
    motion_prob: Share = 0.0
    motion_px: Annotated[float, Field(ge=1, le=10)] = 5.0
    noise_prob: Share = 0.0
    noise_sigma: NonNegative = 8.0
    noise_per_channel_prob: Share = 0.5
    jpeg_prob: Share = 0.0
    jpeg_quality_min: Annotated[int, Field(ge=1, le=100)] = 40
    jpeg_quality_max: Annotated[int, Field(ge=1, le=100)] = 95

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        check_range(self, "blur_sigma_min", "blur_sigma_max")
        check_range(self, "jpeg_quality_min", "jpeg_quality_max")
        return self
