"""Endless rows of training samples: sample ``j`` is a function of (data, config, seed, j) alone.

So any number of loader workers gives the same row, and a resumed training goes on at any ``j``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from shards.reader import ShardSet
from shards.records import BackgroundRecord, CropRecord
from trainer.augment import AugmentConfig, fit_sample
from trainer.compositing.config import CompositorConfig
from trainer.compositing.placement import CropShape, plan_scene, shape_of_record
from trainer.compositing.render import render_scene
from trainer.dataset import BoxedImage
from trainer.images import read_boxed_image
from trainer.sample import Batch, Sample, collate

# Each stream draws from numbers of its own, so that equal indices of two streams are not alike.
_SCENE, _PHOTO, _ORDER = 1, 2, 3


class Stream(Protocol):
    """``stream[j]`` for any j >= 0, always the same."""

    def __getitem__(self, index: int) -> Sample: ...


class CropCollection:
    """Several crop sets behind one index, and the classes they hold."""

    def __init__(self, sets: Sequence[ShardSet]) -> None:
        self._sets = list(sets)
        self._ends = np.cumsum([len(s) for s in sets])
        self.classes = tuple(dict.fromkeys(name for s in sets for name in s.classes))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> CropRecord:
        which = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[which - 1]) if which else 0
        record = self._sets[which][index - before]
        assert isinstance(record, CropRecord)
        return record


class SyntheticStream:
    """Scenes composited on the fly from crop sets and a background set."""

    def __init__(
        self,
        crops: CropCollection,
        backgrounds: ShardSet,
        config: CompositorConfig,
        label_ids: Mapping[str, int],
        seed: int,
    ) -> None:
        self._crops, self._backgrounds, self._config = crops, backgrounds, config
        self._label_ids, self._seed = dict(label_ids), seed

    def __getitem__(self, index: int) -> Sample:
        """Scene ``index``: its plan, then its pixels; each crop it shows is read once."""
        rng = np.random.default_rng([self._seed, _SCENE, index])
        read: dict[int, CropRecord] = {}

        def crop_of(crop: int) -> CropRecord:
            if crop not in read:
                read[crop] = self._crops[crop]
            return read[crop]

        def shape_of(crop: int) -> CropShape:
            return shape_of_record(crop_of(crop))

        plan = plan_scene(self._config, rng, len(self._crops), len(self._backgrounds), shape_of)
        background = self._backgrounds[plan.background.index]
        assert isinstance(background, BackgroundRecord)
        return render_scene(plan, background.image, crop_of, self._label_ids, f"scene-{index}")


class PhotoStream:
    """Real boxed photos, all of them in a new order every epoch, augmented."""

    def __init__(self, photos: Sequence[BoxedImage], size: int, augment: AugmentConfig, seed: int) -> None:
        self._photos, self._size, self._augment, self._seed = list(photos), size, augment, seed

    def __getitem__(self, index: int) -> Sample:
        epoch, place = divmod(index, len(self._photos))
        order = np.random.default_rng([self._seed, _ORDER, epoch]).permutation(len(self._photos))
        photo = self._photos[int(order[place])]
        rng = np.random.default_rng([self._seed, _PHOTO, index])
        return fit_sample(
            read_boxed_image(photo), photo.target, self._size, self._augment, rng, f"{photo.key}#{index}"
        )


class MixedStream:
    """Real and synthetic in turn: of any k samples in a row, k * ``synthetic_share`` are synthetic, ±1."""

    def __init__(self, real: Stream, synthetic: Stream, synthetic_share: float) -> None:
        self._real, self._synthetic, self._share = real, synthetic, synthetic_share

    def __getitem__(self, index: int) -> Sample:
        before, through = int(index * self._share), int((index + 1) * self._share)
        return self._synthetic[before] if through > before else self._real[index - before]


class _Window(Dataset[Sample]):
    """A stream's samples from ``start`` on, as torch's loader wants them."""

    def __init__(self, stream: Stream, start: int, stop: int) -> None:
        self._stream, self._start, self._stop = stream, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Sample:
        return self._stream[self._start + index]


def batches(
    stream: Stream, batch_size: int, first_step: int, last_step: int, workers: int
) -> Iterator[Batch]:
    """The batches of steps ``first_step`` to ``last_step - 1``; the same for any number of workers."""
    window = _Window(stream, first_step * batch_size, last_step * batch_size)
    loader = DataLoader(
        window,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_one_thread if workers else None,
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
