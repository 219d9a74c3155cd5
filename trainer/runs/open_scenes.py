"""Open what a run's scenes and photos are made of, without a run folder and without training."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import InputError
from shards.reader import ShardSet
from trainer.compositing.plan import ScenePlan
from trainer.compositing.render import PaintedScene, paint_scene
from trainer.runs.config import RunConfig
from trainer.runs.data import RunData
from trainer.streaming.crop_pool import Collection
from trainer.streaming.stream import PhotoStream, SyntheticStream


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """A run's composites of one seed, with all that is known of each.

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


def open_scenes(config: RunConfig, home: Path, seed: int) -> Scenes:
    """The composites that a run pretrains on. Raises InputError, ShardError."""
    data = RunData(config, home)
    identity = {
        "seed": seed,
        "classes": list(data.classes),
        "compositor": data.compositor.model_dump(mode="json"),
        "stream": config.stream.model_dump(mode="json", exclude={"decoded_mb"}),
        "crops": _identity_of(data.crops),
        "backgrounds": _identity_of(data.backgrounds),
        "distractors": None if data.distractors is None else _identity_of(data.distractors),
    }
    return Scenes(data.scenes(seed), data.classes, config.detector.image_size, identity)


def open_photos(config: RunConfig, home: Path, seed: int) -> PhotoStream:
    """The training split's photos as a detector meets them, augmented. Raises InputError."""
    data = RunData(config, home)
    if not data.photos:
        raise InputError(f"{config.dataset.root}: {config.train_split}: found no photo, wanted one")
    return data.photo_stream(data.photos, seed)


def _identity_of(sets: Collection) -> dict[str, Any]:
    return {"content": [_hash_of(found) for found in sets.sets], "weights": list(sets.weights)}


def _hash_of(found: ShardSet) -> str:
    """Of the set's content: equal however its folder is called."""
    hashes = "".join(entry.sha256 for entry in found.manifest.shards)
    return hashlib.sha256(hashes.encode()).hexdigest()
