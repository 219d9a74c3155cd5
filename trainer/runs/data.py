"""What a run is made of: its sets and its photos, and each training's endless row of samples."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from configs.errors import InputError
from trainer.compositing.config import CompositorConfig
from trainer.dataset import BoxedImage, nested_subset
from trainer.runs.config import Cell, RunConfig
from trainer.streaming.augment import NO_CHANGE, AugmentConfig
from trainer.streaming.crop_pool import Collection, CropCollection
from trainer.streaming.loader import Stream
from trainer.streaming.sets import open_set, open_sets
from trainer.streaming.stream import MixedStream, PhotoStream, SyntheticStream


class RunData:
    """The sets are opened at once, the photos' annotations read when they are asked for.

    Raises InputError or ShardError when data is missing or holds other classes than are asked for.
    """

    def __init__(self, config: RunConfig, home: Path) -> None:
        self._config, self._home = config, home
        self.crops = CropCollection(*open_sets(config.crops, "crops", home))
        self.backgrounds = Collection(*open_sets(config.backgrounds, "backgrounds", home))
        self.distractors: CropCollection | None = None
        if config.distractors:
            self.distractors = CropCollection(*open_sets(config.distractors, "crops", home))
        self.classes = config.classes or self.crops.classes
        foreign = sorted(set(self.crops.classes) - set(self.classes))
        if foreign:
            raise InputError(f"crops: hold {', '.join(foreign)}, classes are {', '.join(self.classes)}")
        self.label_ids = {name: number for number, name in enumerate(self.classes, start=1)}

    @cached_property
    def photos(self) -> list[BoxedImage]:
        """The training split."""
        return self._config.dataset.read(self._config.train_split, self.classes, self._home)

    @cached_property
    def test(self) -> list[BoxedImage]:
        """The test split."""
        return self._config.dataset.read(self._config.test_split, self.classes, self._home)

    @property
    def compositor(self) -> CompositorConfig:
        """The run's, at the detector's size."""
        return self._config.compositor.model_copy(update={"size": self._config.detector.image_size})

    def stream(self, cell: Cell, self_labelled: Sequence[BoxedImage] = ()) -> Stream:
        """What a training sees. self_labelled: photos for ``self_training``."""
        if cell.phase == "pretrain":
            return self.scenes(cell.seed)
        photos = self.photo_stream(self.training_photos(cell), cell.seed)
        if cell.phase == "mixed":
            return MixedStream(photos, self.scenes(cell.seed), self._config.synthetic_share)
        if self_labelled and self._config.unlabelled is not None:
            return MixedStream(
                photos, self.photo_stream(self_labelled, cell.seed), self._config.unlabelled.share
            )
        return photos

    def photo_stream(self, photos: Sequence[BoxedImage], seed: int) -> PhotoStream:
        """Photos as a detector meets them, augmented."""
        size, kept_mb = self._config.detector.image_size, self._config.stream.decoded_mb
        return PhotoStream(photos, size, self._config.augment, seed, kept_mb)

    def scenes(self, seed: int) -> SyntheticStream:
        """Composites as a detector meets them."""
        return self._scenes(self.crops, self.backgrounds, seed, self._config.augment_scenes)

    def validation_scenes(self) -> SyntheticStream:
        """Composites that no training sees, for scores without a label."""
        settings = self._config.validation_scenes
        crops, backgrounds = self.crops, self.backgrounds
        if settings.crops:
            crops = CropCollection([open_set(place, "crops", self._home) for place in settings.crops])
        if settings.backgrounds:
            backgrounds = Collection([open_set(settings.backgrounds, "backgrounds", self._home)])
        return self._scenes(crops, backgrounds, settings.seed, NO_CHANGE)

    def training_photos(self, cell: Cell) -> list[BoxedImage]:
        """The first of one seeded order, so that larger subsets hold the smaller ones."""
        return self._order(cell)[: cell.num_real]

    def validation_photos(self, cell: Cell) -> list[BoxedImage]:
        """The last of the same order."""
        held_out = self._config.validation_images
        return self._order(cell)[len(self.photos) - held_out :] if held_out else []

    def _order(self, cell: Cell) -> list[BoxedImage]:
        seed = cell.seed if self._config.subset_seed is None else self._config.subset_seed
        return [self.photos[i] for i in nested_subset(len(self.photos), len(self.photos), seed)]

    def _scenes(
        self, crops: Collection, backgrounds: Collection, seed: int, augment: AugmentConfig
    ) -> SyntheticStream:
        return SyntheticStream(
            crops,
            backgrounds,
            self.compositor,
            self.label_ids,
            seed,
            self._config.stream,
            self.distractors,
            augment,
        )
