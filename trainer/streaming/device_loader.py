"""Batches of scenes that loader workers plan, read and pack, and the training's device paints."""

from collections.abc import Iterator
from dataclasses import dataclass

from configs.errors import InputError
from trainer.compositing.render_gpu import BatchComposer
from trainer.sample import Batch
from trainer.streaming.augment import NO_CHANGE
from trainer.streaming.loader import LoaderConfig, Stream, load
from trainer.streaming.stream import SyntheticStream


@dataclass(frozen=True, slots=True, eq=False)
class DeviceBatches:
    """`trainer.streaming.loader.batches` with its promises, for scenes that a device composes.

    Images are on the composer's device; boxes, labels and ignore flags on the CPU.
    """

    composer: BatchComposer
    loader: LoaderConfig | None = None

    def __call__(
        self,
        stream: Stream,
        batch_size: int,
        first_step: int,
        last_step: int,
        workers: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> Iterator[Batch]:
        """Raises InputError for a stream of anything but scenes as they are painted."""
        if not isinstance(stream, SyntheticStream) or stream.augment != NO_CHANGE:
            found = "augmented scenes" if isinstance(stream, SyntheticStream) else type(stream).__name__
            raise InputError(f"composing on a device: found {found}, wanted a SyntheticStream, not augmented")
        steps = range(first_step, last_step)
        packed = load(stream.parts, self.composer.pack, batch_size, steps, workers, rank, ranks, self.loader)
        return self.composer.composed(packed)
