"""Endless rows of training samples: sample ``j`` is a function of (data, config, seed, j) alone.

So any number of loader workers and ranks gives the same row, and a resumed training goes on at any ``j``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import numpy as np

from configs.errors import InputError
from shards.reader import ShardSet
from shards.records import CropRecord
from trainer.compositing.config import CompositorConfig
from trainer.compositing.placement import ScenePlan, plan_scene, shape_of_record
from trainer.compositing.render import render_scene
from trainer.dataset import BoxedImage
from trainer.imaging.images import read_boxed_image
from trainer.sample import Sample, UInt8Array
from trainer.streaming.augment import NO_CHANGE, AugmentConfig, augment_sample, fit_sample
from trainer.streaming.crop_pool import Collection, RecordPool, StreamConfig
from trainer.streaming.decoded import DecodedCache
from trainer.streaming.loader import Stream

# Each draw has numbers of its own, so that equal indices of two streams or pools are not alike.
_ENDLESS = 1 << 62
_SCENE, _PHOTO, _ORDER, _CROPS, _BACKGROUNDS, _DISTRACTORS, _CHANGES = 1, 2, 3, 4, 5, 6, 7


@dataclass(frozen=True, slots=True, eq=False)
class SceneParts:
    """All that a scene is painted from, for painters on any device. crops: by the plan's numbers."""

    key: str
    plan: ScenePlan
    background: UInt8Array  # (H, W, 3), shared: not to be changed
    crops: Mapping[int, CropRecord]


class SyntheticStream:
    """Scenes composited on the fly from crop sets and background sets.

    Crops of ``distractors`` have the numbers after those of ``crops``.
    """

    def __init__(
        self,
        crops: Collection,
        backgrounds: Collection | ShardSet,
        config: CompositorConfig,
        label_ids: Mapping[str, int],
        seed: int,
        stream: StreamConfig | None = None,
        distractors: Collection | None = None,
        augment: AugmentConfig = NO_CHANGE,
    ) -> None:
        """augment: changes to the painted scene, as photos have them.

        Raises InputError when the stream's balance does not name the crops' classes, or distractors are
        wanted and not given, or are of the classes to detect.
        """
        stream = stream or StreamConfig()
        _check_distractors(config, distractors, label_ids)
        if isinstance(backgrounds, ShardSet):
            backgrounds = Collection([backgrounds])
        self._config, self._label_ids, self._seed = config, dict(label_ids), seed
        self.augment = augment
        self._block, self._num_scenes = stream.block, stream.num_scenes or _ENDLESS
        self._crops = RecordPool(crops, stream.pool, stream, [seed, _CROPS], stream.balance)
        self._backgrounds = RecordPool(backgrounds, stream.background_pool, stream, [seed, _BACKGROUNDS])
        self._distractors = (
            RecordPool(distractors, stream.pool, stream, [seed, _DISTRACTORS])
            if distractors is not None
            else None
        )

    def parts(self, index: int) -> SceneParts:
        """Scene ``index`` before it is painted; each crop it shows is read once."""
        index %= self._num_scenes
        self._enter(index // self._block)
        rng = np.random.default_rng([self._seed, _SCENE, index])
        read: dict[int, CropRecord] = {}

        def crop_of(number: int) -> CropRecord:
            if number not in read:
                read[number] = self._crop(number)
            return read[number]

        plan = plan_scene(
            self._config,
            rng,
            len(self._crops),
            len(self._backgrounds),
            lambda number: shape_of_record(crop_of(number)),
            num_distractors=0 if self._distractors is None else len(self._distractors),
        )
        shown = {place.crop: crop_of(place.crop) for place in plan.placements}
        return SceneParts(f"scene-{index}", plan, self._backgrounds[plan.background.index].image, shown)

    def __getitem__(self, index: int) -> Sample:
        """Scene ``index``, painted on the CPU."""
        parts = self.parts(index)
        crop_of = parts.crops.__getitem__
        scene = render_scene(parts.plan, parts.background, crop_of, self._label_ids, parts.key)
        if self.augment == NO_CHANGE:
            return scene
        return augment_sample(scene, self.augment, np.random.default_rng([self._seed, _CHANGES, index]))

    def _enter(self, block: int) -> None:
        for pool in (self._crops, self._backgrounds, self._distractors):
            if pool is not None:
                pool.enter(block)

    def _crop(self, number: int) -> CropRecord:
        distractors, beyond = self._distractors, number - len(self._crops)
        record = self._crops[number] if distractors is None or beyond < 0 else distractors[beyond]
        assert isinstance(record, CropRecord)
        return record


def _check_distractors(
    config: CompositorConfig, distractors: Collection | None, label_ids: Mapping[str, int]
) -> None:
    if config.distractors.max and distractors is None:
        raise InputError(f"distractors: found no set, the compositor wants up to {config.distractors.max}")
    wanted = sorted(set(distractors.classes if distractors else ()) & set(label_ids))
    if wanted:
        raise InputError(f"distractors: hold {', '.join(wanted)}, wanted no class that is to be detected")


class PhotoStream:
    """Real boxed photos, all of them in a new order every epoch, augmented."""

    def __init__(
        self,
        photos: Sequence[BoxedImage],
        size: int,
        augment: AugmentConfig,
        seed: int,
        decoded_mb: int = StreamConfig().decoded_mb,
    ) -> None:
        """decoded_mb: decoded photos kept in each process that loads: the first so many."""
        self._photos, self._size, self._augment, self._seed = list(photos), size, augment, seed
        self._decoded = DecodedCache[UInt8Array](decoded_mb << 20, attrgetter("nbytes"), keep_first=True)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __getitem__(self, index: int) -> Sample:
        epoch, place = divmod(index, len(self._photos))
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, _ORDER, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self._photos))
        number = int(self._order[place])
        photo = self._photos[number]
        image = self._decoded.get(number, partial(_read_only, photo))
        rng = np.random.default_rng([self._seed, _PHOTO, index])
        return fit_sample(image, photo.target, self._size, self._augment, rng, f"{photo.key}#{index}")


def _read_only(photo: BoxedImage) -> UInt8Array:
    """The photo, guarded against changes, for it is shown again."""
    image = read_boxed_image(photo)
    image.flags.writeable = False
    return image


class MixedStream:
    """Real and synthetic in turn: of any k samples in a row, k * ``synthetic_share`` are synthetic, ±1."""

    def __init__(self, real: Stream, synthetic: Stream, synthetic_share: float) -> None:
        self._real, self._synthetic, self._share = real, synthetic, synthetic_share

    def __getitem__(self, index: int) -> Sample:
        before, through = int(index * self._share), int((index + 1) * self._share)
        return self._synthetic[before] if through > before else self._real[index - before]
