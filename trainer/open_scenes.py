"""Open what an experiment's scenes and photos are made of, without a run folder and without training."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import InputError
from shards.reader import ShardSet
from trainer.compositing.plan import ScenePlan
from trainer.compositing.render import PaintedScene, paint_scene
from trainer.crop_pool import Collection, CropCollection
from trainer.experiment import ExperimentConfig
from trainer.sets import open_sets
from trainer.stream import PhotoStream, SyntheticStream


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """An experiment's composites of one seed, with all that is known of each.

    stream: as a training sees them. identity: plain JSON values that decide each scene as it is painted, sets
    by the hashes of their shards.
    """

    stream: SyntheticStream
    classes: tuple[str, ...]
    size: int
    identity: dict[str, Any]

    def paint(self, number: int) -> tuple[ScenePlan, PaintedScene]:
        """Scene ``number`` before ``augment_scenes``: its plan, and who is seen where."""
        parts = self.stream.parts(number)
        labels = {name: label for label, name in enumerate(self.classes, start=1)}
        crop_of = parts.crops.__getitem__
        return parts.plan, paint_scene(parts.plan, parts.background, crop_of, labels, parts.key)


def open_scenes(config: ExperimentConfig, home: Path, seed: int) -> Scenes:
    """The composites that a run pretrains on. Raises InputError, ShardError."""
    crops = CropCollection(*open_sets(config.crops, "crops", home))
    backgrounds = Collection(*open_sets(config.backgrounds, "backgrounds", home))
    distractors = None
    if config.distractors:
        distractors = CropCollection(*open_sets(config.distractors, "crops", home))
    classes = config.classes or crops.classes
    foreign = sorted(set(crops.classes) - set(classes))
    if foreign:
        raise InputError(f"crops: hold {', '.join(foreign)}, classes are {', '.join(classes)}")
    size = config.detector.image_size
    compositor = config.compositor.model_copy(update={"size": size})
    stream = SyntheticStream(
        crops,
        backgrounds,
        compositor,
        {name: label for label, name in enumerate(classes, start=1)},
        seed,
        config.stream,
        distractors,
        config.augment_scenes,
    )
    identity = {
        "seed": seed,
        "classes": list(classes),
        "compositor": compositor.model_dump(mode="json"),
        "stream": config.stream.model_dump(mode="json", exclude={"decoded_mb"}),
        "crops": _identity_of(crops),
        "backgrounds": _identity_of(backgrounds),
        "distractors": None if distractors is None else _identity_of(distractors),
    }
    return Scenes(stream, classes, size, identity)


def open_photos(config: ExperimentConfig, classes: tuple[str, ...], home: Path, seed: int) -> PhotoStream:
    """The training split's photos as a detector meets them, augmented. Raises InputError."""
    photos = config.dataset.read(config.train_split, classes, home)
    if not photos:
        raise InputError(f"{config.dataset.root}: {config.train_split}: found no photo, wanted one")
    return PhotoStream(photos, config.detector.image_size, config.augment, seed, config.stream.decoded_mb)


def _identity_of(sets: Collection) -> dict[str, Any]:
    return {"content": [_hash_of(found) for found in sets.sets], "weights": list(sets.weights)}


def _hash_of(found: ShardSet) -> str:
    """Of the set's content: equal however its folder is called."""
    hashes = "".join(entry.sha256 for entry in found.manifest.shards)
    return hashlib.sha256(hashes.encode()).hexdigest()
