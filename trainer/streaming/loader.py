"""Reads a stream into batches, in worker processes and for several ranks; tells streams apart."""

import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal, Protocol, TypeVar

import cv2
import numpy as np
import torch
from pydantic import Field
from torch.utils.data import DataLoader, Dataset

from configs.errors import InputError
from configs.kinds import StrictModel
from trainer.sample import Batch, Sample, Target, collate

Item = TypeVar("Item")
Collated = TypeVar("Collated")


class Stream(Protocol):
    """``stream[j]`` for any j >= 0, always the same."""

    def __getitem__(self, index: int) -> Sample: ...


class LoaderConfig(StrictModel):
    """How batches reach the training; never what is in them.

    start: of a worker's process, both by importing the main module anew. ``fork`` is not among them: a child
    of a process whose OpenCV has used its threads waits for them forever.
    prefetch: batches that each worker has ready. pin_memory: page-locked batches where there is CUDA, so that
    copies to the device overlap with its work.
    """

    start: Literal["forkserver", "spawn"] = "forkserver"
    prefetch: int = Field(default=4, ge=1)
    pin_memory: bool = True


class _Window(Dataset[Item]):
    """A rank's items of some steps, as torch's loader wants them."""

    def __init__(
        self, item_of: Callable[[int], Item], steps: range, batch_size: int, rank: int, ranks: int
    ) -> None:
        self._item_of, self._steps, self._batch_size = item_of, steps, batch_size
        self._part = range(batch_size * rank // ranks, batch_size * (rank + 1) // ranks)

    def __len__(self) -> int:
        return len(self._steps) * len(self._part)

    def __getitem__(self, index: int) -> Item:
        step, place = divmod(index, len(self._part))
        return self._item_of(self._steps[step] * self._batch_size + self._part[place])


def batches(
    stream: Stream,
    batch_size: int,
    first_step: int,
    last_step: int,
    workers: int,
    rank: int = 0,
    ranks: int = 1,
    loader: LoaderConfig | None = None,
) -> Iterator[Batch]:
    """The batches of steps ``first_step`` to ``last_step - 1``; the same for any number of workers.

    batch_size: of all ranks together. Each rank gets one stretch of every batch, in the ranks' order: so
    what holds in every window of the stream, as a mix's ratio does, holds in each rank's part.
    Raises InputError when the batch cannot be shared equally.
    """
    steps = range(first_step, last_step)
    return load(stream.__getitem__, collate, batch_size, steps, workers, rank, ranks, loader)


def load(
    item_of: Callable[[int], Item],
    collate_items: Callable[[list[Item]], Collated],
    batch_size: int,
    steps: range,
    workers: int,
    rank: int = 0,
    ranks: int = 1,
    loader: LoaderConfig | None = None,
) -> Iterator[Collated]:
    """As `batches`, of anything that is a function of its number, such as `SyntheticStream.parts`.

    item_of and collate_items go to the workers by pickle.
    """
    if batch_size % ranks:
        raise InputError(f"batch_size: found {batch_size}, wanted a multiple of the {ranks} ranks")
    loader = loader or LoaderConfig()
    context = multiprocessing.get_context(loader.start) if workers else None
    if context is not None:
        context.set_forkserver_preload(["trainer.streaming.stream"])  # imported once, not by each worker
    torch_loader = DataLoader(
        _Window(item_of, steps, batch_size, rank, ranks),
        batch_size=batch_size // ranks,
        collate_fn=collate_items,
        num_workers=workers,
        pin_memory=loader.pin_memory and torch.cuda.is_available(),
        generator=torch.Generator(),  # else each start would draw from torch's global numbers
        worker_init_fn=_settle if workers else None,
        multiprocessing_context=context,
        prefetch_factor=loader.prefetch if workers else None,
    )
    return iter(torch_loader)


def _settle(_: int) -> None:
    """A worker uses one core, and leaves signals to the training, which ends it (Ctrl-C reaches it too)."""
    cv2.setNumThreads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def samples_of(batch: Batch) -> Iterator[Sample]:
    """The samples that were stacked."""
    images = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
    for i, key in enumerate(batch.keys):
        points = None if batch.landmarks is None else batch.landmarks[i].numpy()
        known = None if batch.has_landmarks is None else batch.has_landmarks[i].numpy()
        labels, ignore = batch.labels[i].numpy(), batch.ignore[i].numpy()
        target = Target(batch.boxes[i].numpy(), labels, ignore, points, known)
        yield Sample(key, images[i], target)


def fingerprint(stream: Stream, count: int = 500) -> str:
    """sha256 of the first samples: equal for equal data, config and seed, wherever it is computed."""
    return fingerprint_of(stream[index] for index in range(count))


def fingerprint_of(samples: Iterable[Sample], count: int = 500) -> str:
    """sha256 of the keys, pixels, boxes, labels and ignore flags of the first ``count`` samples.

    Landmarks count, too, where an object has them: without any the sum is that of a target without the field.
    """
    digest = hashlib.sha256()
    for sample in islice(samples, count):
        target = sample.target
        arrays: list[np.ndarray] = [sample.image, target.boxes, target.labels, target.ignore]
        known = target.has_landmarks
        if target.landmarks is not None and known is not None and known.any():
            arrays += [known, target.landmarks[known]]
        for array in arrays:
            digest.update(f"{sample.key} {array.dtype} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
