"""A recipe: everything that decides what the crops of a class look like, and its fingerprint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny

from configs.home import find_config
from configs.kinds import StrictModel, one_of
from configs.load import apply_overrides, read_yaml, validated
from factory.crops import CropConfig
from factory.quality import QualityConfig
from factory.stages import ObjectSource, Segmenter, SegmenterConfig, SourceConfig


class Recipe(StrictModel):
    """label: the class's name in the manifest. shard_size: crops a shard of an endless source,
    source images a shard of a finite one. crops: how many to keep when the command does not say.
    """

    label: str = Field(min_length=1)
    source: Annotated[SourceConfig, SerializeAsAny(), one_of("factory.sources", SourceConfig)]
    segmenter: Annotated[SegmenterConfig, SerializeAsAny(), one_of("factory.segmenters", SegmenterConfig)]
    quality: QualityConfig = QualityConfig()
    crop: CropConfig = CropConfig()
    seed: int = Field(default=0, ge=0)
    shard_size: int = Field(default=256, ge=1, le=10_000)
    crops: int | None = Field(default=None, ge=1)


def load_recipe(name: str, overrides: Sequence[str]) -> Recipe:
    """The packaged recipe of a class, or a YAML file's, with overrides. Raises InputError."""
    path = find_config("classes", name, "class")
    return validated(Recipe, apply_overrides(read_yaml(path), overrides), f"class {name}")


def recipe_identity(recipe: Recipe, source: ObjectSource, segmenter: Segmenter) -> dict[str, Any]:
    """What fixes the crops' bytes: the settings without places and amounts, and the hashes of the inputs.

    The same photos in another folder are the same recipe; other weights under the same name are not.
    """
    settings = _without_paths(recipe.model_dump(exclude={"crops"}))
    return {
        "settings": settings,
        "source": dict(source.identity()),
        "segmenter": dict(segmenter.identity()),
    }


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: item for key, item in value.items() if item is not None and not isinstance(item, Path)}
        return {key: _without_paths(item) for key, item in kept.items()}
    return list(value) if isinstance(value, tuple) else value
