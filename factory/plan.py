"""What a build will take, before it starts: a short batch is made and measured, the rest is arithmetic."""

import copy
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import cv2
from rich.filesize import decimal

from configs.errors import InputError
from factory.output_set import describe_drops
from factory.pipeline import BATCH, CropLine, ShardTally, ShardTask
from factory.progress import describe_duration
from factory.stages import ObjectImage, ObjectSource, Scalar, Unreadable
from shards.manifest import Manifest, ShardEntry, shard_name
from shards.writer import pack_shard

CALIBRATION_CROPS = 256
CALIBRATION_S = 20.0
PART_BYTES = 16 << 20  # what a remote store sends in one request; a shard of two parts goes up in parts


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a stretch of real work took. images: looked at in ``seconds``, without the first ``BATCH`` where
    there were more (it loads weights and claims memory). cpu_s: processor time of these seconds; far less
    means that a GPU worked, or that others keep the machine busy. entry: as of one shard that holds it all.
    """

    images: int
    seconds: float
    cpu_s: float
    entry: ShardEntry

    @property
    def keep_rate(self) -> float:
        return self.entry.records / self.entry.seen

    @property
    def keep_rate_error(self) -> float:
        """Two standard deviations of what chance does to `keep_rate`."""
        return 2 * math.sqrt(self.keep_rate * (1 - self.keep_rate) / self.entry.seen)

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds

    @property
    def crop_bytes(self) -> float:
        return self.entry.bytes / self.entry.records


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build is expected to take. hours: with all workers; writing to the store is not in it.

    put_requests: for the shards; the driver's manifest and lease add one every other second or so.
    """

    calibration: Calibration
    crops: int
    images: int
    shards: int
    bytes: int
    manifest_bytes: int
    put_requests: int
    workers: int
    hours: float
    gpu_hours: float

    def describe(self) -> str:
        """Aligned lines to print."""
        measured = self.calibration
        rate = measured.images_per_s * measured.keep_rate
        kept = f"{measured.keep_rate:.0%} ± {measured.keep_rate_error:.0%} kept"
        each = f", {decimal(round(self.bytes / self.shards))} each" if self.shards else ""
        rows = {
            "measured": f"{measured.images:,} images in {measured.seconds:.1f} s "
            f"({measured.cpu_s:.1f} s of the processor), one worker: {rate:,.1f} crops/s, "
            f"{decimal(round(measured.crop_bytes))} a crop",
            "dropped": f"{describe_drops(measured.entry.dropped)} of {measured.entry.seen:,}",
            "crops": f"{self.crops:,} of {self.images:,} images ({kept})",
            "shards": f"{self.shards:,}{each}",
            "store": f"{decimal(self.bytes)}, {self.put_requests:,} PUT requests for the shards",
            "manifest": decimal(self.manifest_bytes),
            "time": f"{describe_duration(3600 * self.hours)} with {self.workers:,} "
            f"worker{'' if self.workers == 1 else 's'}, writing not included",
            "GPU-hours": f"{self.gpu_hours:,.2f}" if self.gpu_hours else "",
        }
        return "\n".join(f"{name:<12} {value}" for name, value in rows.items() if value)


def plan_build(
    line: CropLine,
    crops: int | None,
    *,
    workers: int,
    gpus_per_worker: float = 0.0,
    encoders: int = 0,
    calibrate_crops: int = CALIBRATION_CROPS,
    calibrate_s: float = CALIBRATION_S,
) -> Plan:
    """Measure and predict a build from nothing; nothing is written.

    crops: as of the build, None for all of a finite source. encoders: threads of a worker that encode.
    A worker is taken to be as fast beside the others as alone, and the whole to be like what was measured:
    the start of an endless source, the middle of a finite one. Raises InputError when no crop of it was kept.
    """
    measured = calibrate(line, encoders=encoders, crops=calibrate_crops, seconds=calibrate_s)
    size, source_size = line.recipe.shard_size, line.source.size
    if source_size is None:
        if crops is None:
            raise ValueError("crops: None, wanted a number for an endless source")
        images, shards = round(crops / measured.keep_rate), -(-crops // size)
        paid = images + shards * BATCH // 2  # a shard's last batch is made whole
    else:
        kept = round(source_size * measured.keep_rate)
        crops = kept if crops is None else min(crops, kept)
        images = paid = min(source_size, round(crops / measured.keep_rate))
        shards = -(-images // size)
    size_bytes = round(crops * measured.crop_bytes)
    hours = paid / measured.images_per_s / workers / 3600
    return Plan(
        measured,
        crops,
        images,
        shards,
        size_bytes,
        _manifest_bytes(line, _typical(measured, crops, shards), shards),
        shards * _requests(size_bytes / max(1, shards)),
        workers,
        hours,
        hours * workers * gpus_per_worker,
    )


def calibrate(
    line: CropLine, *, encoders: int = 0, crops: int = CALIBRATION_CROPS, seconds: float = CALIBRATION_S
) -> Calibration:
    """Do a worker's work, all but the writing, until ``crops`` more than in the first batch are kept.

    Stops after ``seconds``, too, at the end of a batch. Computes with one thread, as a worker does. Raises
    InputError when nothing was kept.
    """
    cv2.setNumThreads(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    slots = line.slots_of(0)
    index = 0 if slots is None else (line.source.size or 0) // line.recipe.shard_size // 2
    tally, meter = ShardTally(), _Meter(crops, seconds)
    metered = copy.copy(line)
    metered.source = _MeteredSource(line.source, lambda place: meter.is_enough(place, tally.kept))
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(encoders)) if encoders else None
        entry, _ = pack_shard(
            shard_name("crops", index),
            metered.crops(ShardTask(index, None), tally),
            dropped=tally.dropped,
            seen=lambda: tally.seen,
            encoders=pool,
        )
    meter.mark(tally.seen, tally.kept)
    if not entry.records:
        raise InputError(
            f"class {line.recipe.label}: none of {tally.seen} images kept "
            f"({describe_drops(tally.dropped)}): loosen quality.* or choose another segmenter"
        )
    return Calibration(*meter.steady(), entry)


class _Mark(NamedTuple):
    """How far a calibration was, when."""

    seconds: float
    cpu_s: float
    images: int
    kept: int


class _Meter:
    """The time at the start of every batch."""

    def __init__(self, crops: int, seconds: float) -> None:
        self._crops, self._seconds = crops, seconds
        self._marks: list[_Mark] = []

    def mark(self, images: int, kept: int) -> None:
        if not self._marks or images > self._marks[-1].images:
            self._marks.append(_Mark(time.perf_counter(), time.process_time(), images, kept))

    def is_enough(self, images: int, kept: int) -> bool:
        """Whether to stop before the batch that begins here."""
        self.mark(images, kept)
        warm = self._marks[min(1, len(self._marks) - 1)]
        late = self._marks[-1].seconds - self._marks[0].seconds >= self._seconds
        return images > 0 and (late or kept - warm.kept >= self._crops)

    def steady(self) -> tuple[int, float, float]:
        """(images, seconds, processor seconds), from the second batch on where there is one."""
        first, last = self._marks[1 if len(self._marks) > 2 else 0], self._marks[-1]
        return last.images - first.images, last.seconds - first.seconds, last.cpu_s - first.cpu_s


class _MeteredSource:
    """A source that says where it is at the start of every batch, and ends when told that it is enough."""

    def __init__(self, source: ObjectSource, is_enough: Callable[[int], bool]) -> None:
        self._source, self._is_enough = source, is_enough

    @property
    def size(self) -> int | None:
        return self._source.size

    def images(self, start: int, count: int) -> Iterator[ObjectImage | Unreadable]:
        items = self._source.images(start, count)
        for place in range(count):
            if place % BATCH == 0 and self._is_enough(place):
                return
            item = next(items, None)
            if item is None:
                return
            yield item

    def identity(self) -> Mapping[str, Scalar]:
        return self._source.identity()


def _typical(measured: Calibration, crops: int, shards: int) -> ShardEntry:
    """The entry of an average shard."""
    records = round(crops / max(1, shards))
    scale = records / measured.entry.records
    dropped = {reason: round(count * scale) for reason, count in measured.entry.dropped.items()}
    seen = round(measured.entry.seen * scale)
    labels = dict.fromkeys(measured.entry.labels, records)
    size = round(records * measured.crop_bytes)
    return ShardEntry(shard_name("crops", max(0, shards - 1)), records, size, "0" * 64, labels, dropped, seen)


def _manifest_bytes(line: CropLine, entry: ShardEntry, shards: int) -> int:
    one, two = (
        len(
            Manifest(
                "crops", (line.recipe.label,), "0" * 64, line.identity(), (entry,) * count, True
            ).to_json()
        )
        for count in (1, 2)
    )
    return one + (shards - 1) * (two - one)


def _requests(size_bytes: float) -> int:
    """To write one object: one, or for a large one each part's, and two that begin and end it."""
    if size_bytes < 2 * PART_BYTES:
        return 1
    return 2 + -(-round(size_bytes) // PART_BYTES)
