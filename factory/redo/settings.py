"""The settings of a ReDO training: a preset, the class's recipe and the command line in one model."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from configs.home import find_config
from configs.kinds import StrictModel, one_of
from configs.load import apply_overrides, read_yaml, validated
from factory.quality import QualityConfig
from factory.redo.region_generator import num_halvings
from factory.stages import SegmenterConfig, SourceConfig
from factory.training.image_pool import Fit
from factory.training.loop import LoopConfig

_TEACHER = {"kind": "grabcut"}


class NetworksConfig(StrictModel):
    """Channels are those at the widest map of each network. The defaults are METHOD §4.3's.

    temperature: divides the mask network's logits.
    """

    num_regions: int = Field(default=2, ge=2, le=16)
    latent_size: int = Field(default=32, gt=0)
    mask_features: int = Field(default=64, ge=4)
    mask_res_blocks: int = Field(default=3, ge=0)
    generator_features: int = Field(default=64, gt=0)
    discriminator_features: int = Field(default=64, gt=0)
    recovery_features: int = Field(default=64, gt=0)
    generator_attention: bool = False
    discriminator_attention: bool = False
    temperature: float = Field(default=1.0, gt=0)


class OptimiserConfig(StrictModel):
    """Adam with betas 0 and 0.9, METHOD §4.4. recovery_weight: of the latents' error beside realism."""

    mask_lr: float = Field(default=1e-5, gt=0)
    mask_weight_decay: float = Field(default=1e-4, ge=0)
    generator_lr: float = Field(default=1e-4, gt=0)
    discriminator_lr: float = Field(default=1e-4, gt=0)
    recovery_lr: float = Field(default=1e-4, gt=0)
    recovery_weight: float = Field(default=5.0, ge=0)
    mask_frozen_steps: int = Field(
        default=0, ge=0, description="first steps that leave the masks alone: after a warm start"
    )


class CollapseConfig(StrictModel):
    """When one region takes the whole image. attempts: trainings at most, the first included."""

    min_region_frac: float = Field(
        default=0.1, ge=0, lt=0.5, description="smallest region's mean soft area below which it has collapsed"
    )
    within_steps: int = Field(default=7000, ge=0, description="a later collapse ends the training")
    attempts: int = Field(default=5, ge=1)


class DistillConfig(StrictModel):
    """The warm start: the mask network learns a teacher's masks. max_images: photos the teacher sees."""

    steps: int = Field(default=2000, gt=0)
    lr: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=16, gt=0)
    max_images: int = Field(default=4000, gt=0)
    min_crop_frac: float = Field(default=0.85, gt=0, le=1, description="side of the smallest random crop")


class RedoLoopConfig(LoopConfig):
    """steps may be 0 after a warm start: the distilled network is the result."""

    steps: int = Field(default=20_000, ge=0)


class RedoTraining(StrictModel):
    """One training. name: of the weight file, data/weights/redo-NAME.safetensors. label: of the class.

    source: where the images come from. teacher: the segmenter whose masks the warm start learns, where
    quality lets them pass.
    """

    name: str = Field(min_length=1, pattern=r"^[\w.+-]+$")
    label: str = Field(min_length=1)
    source: Annotated[SourceConfig, SerializeAsAny(), one_of("factory.sources", SourceConfig)]
    teacher: Annotated[SegmenterConfig, SerializeAsAny(), one_of("factory.segmenters", SegmenterConfig)]
    quality: QualityConfig = QualityConfig()
    image_size: int = Field(default=128, ge=32, le=512)
    fit: Fit = "crop"
    flip: bool = False
    batch_size: int = Field(default=20, gt=0)
    seed: int = Field(default=0, ge=0)
    networks: NetworksConfig = NetworksConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    collapse: CollapseConfig = CollapseConfig()
    warm_start: Literal["none", "distill"] = "none"
    distill: DistillConfig = DistillConfig()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    loop: RedoLoopConfig = RedoLoopConfig()

    @field_validator("image_size")
    @classmethod
    def _halves_to_four(cls, size: int) -> int:
        num_halvings(size)
        return size

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if self.loop.steps == 0 and self.warm_start == "none":
            raise ValueError("loop.steps is 0: wanted 1 or more, or warm_start=distill")
        return self


def load_training(class_name: str, preset: str, overrides: list[str]) -> RedoTraining:
    """A packaged preset on the images of a class's recipe, with overrides. Raises InputError.

    The teacher is the recipe's own segmenter, unless that is ReDO: then GrabCut.
    """
    settings = read_yaml(find_config("redo", preset, "preset"))
    recipe = read_yaml(find_config("classes", class_name, "class"))
    taken: dict[str, Any] = {key: recipe[key] for key in ("label", "source", "quality") if key in recipe}
    segmenter = recipe.get("segmenter")
    is_taught = isinstance(segmenter, dict) and segmenter.get("kind") != "redo"
    taken |= {"name": Path(class_name).stem, "teacher": segmenter if is_taught else _TEACHER}
    place = f"class {class_name}, preset {preset}"
    return validated(RedoTraining, apply_overrides({**settings, **taken}, overrides), place)
