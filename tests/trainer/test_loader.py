"""The stream is the same wherever it is read: workers, ranks, restarts."""

import os
import signal
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from configs.errors import InputError
from shards.reader import ShardSet
from trainer.compositing.config import CompositorConfig
from trainer.datasets.voc import VocConfig
from trainer.sample import Sample, make_target
from trainer.streaming.augment import AugmentConfig
from trainer.streaming.crop_pool import CropCollection, StreamConfig
from trainer.streaming.loader import Stream, batches, fingerprint, fingerprint_of, load, samples_of
from trainer.streaming.stream import MixedStream, PhotoStream, SyntheticStream

COUNT, BATCH = 120, 12
STEPS = COUNT // BATCH


def open_scenes(sets, seed: int = 4, **changes: int) -> SyntheticStream:
    """Scenes from a pool of 12 of the 30 crops and 4 of the 8 backgrounds that moves on every 7 scenes."""
    crops, backgrounds = CropCollection([ShardSet.open(sets[0])]), ShardSet.open(sets[1])
    settings = {"pool": 12, "background_pool": 4, "block": 7, "stay": 4} | changes
    return SyntheticStream(
        crops, backgrounds, CompositorConfig(size=48), {"disc": 1}, seed, StreamConfig(**settings)
    )


@pytest.fixture
def mixed(sets, voc_discs, tmp_path) -> MixedStream:
    photos = VocConfig(root=voc_discs).read("train", ["disc"], tmp_path)
    return MixedStream(PhotoStream(photos, 48, AugmentConfig(), 1), open_scenes(sets), 0.7)


@pytest.fixture
def wanted(mixed) -> str:
    return fingerprint(mixed, COUNT)


def loaded(stream: Stream, first: int, last: int, workers: int, **options: object) -> Iterator[Sample]:
    for batch in batches(stream, BATCH, first, last, workers, **options):  # type: ignore[arg-type]
        yield from samples_of(batch)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4")  # on a machine of fewer cores
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_the_fingerprint_is_the_same_for_any_number_of_workers(mixed, wanted, workers) -> None:
    assert fingerprint_of(loaded(mixed, 0, STEPS, workers)) == wanted


@pytest.fixture
def opencv_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


def test_workers_start_beside_opencvs_threads(mixed, wanted, opencv_threads) -> None:
    cv2.GaussianBlur(np.zeros((900, 900, 3), np.uint8), (9, 9), 2)  # starts them; a fork would now hang
    assert fingerprint_of(loaded(mixed, 0, STEPS, 1)) == wanted


@pytest.mark.parametrize(("ranks", "workers"), [(2, 0), (2, 1), (3, 0)])
def test_the_ranks_parts_together_are_the_whole_stream(mixed, wanted, ranks, workers) -> None:
    loaders = [batches(mixed, BATCH, 0, STEPS, workers, rank, ranks) for rank in range(ranks)]
    steps = zip(*loaders, strict=True)
    assert (
        fingerprint_of(sample for parts in steps for part in parts for sample in samples_of(part)) == wanted
    )


@pytest.mark.parametrize("stopped", range(STEPS + 1))
def test_the_fingerprint_is_the_same_after_a_resume_at_any_step(mixed, wanted, stopped) -> None:
    before = list(loaded(mixed, 0, stopped, 0))
    assert fingerprint_of([*before, *loaded(mixed, stopped, STEPS, 0)]) == wanted


def test_a_resume_in_a_new_process_with_other_workers_goes_on_the_same(sets, wanted, mixed) -> None:
    before = list(loaded(mixed, 0, 7, 2))
    assert fingerprint_of([*before, *loaded(mixed, 7, STEPS, 1)]) == wanted


def test_the_fingerprint_tells_streams_apart(sets) -> None:
    prints = {
        fingerprint(stream, 40)
        for stream in (
            open_scenes(sets),
            open_scenes(sets, seed=5),
            open_scenes(sets, block=8),
            open_scenes(sets, stay=2),
            open_scenes(sets, pool=16),
            open_scenes(sets, pool=8192),
        )
    }
    assert len(prints) == 6
    assert fingerprint(open_scenes(sets), 40) == fingerprint(open_scenes(sets, decoded_mb=0), 40)


def test_the_fingerprint_covers_every_part_of_a_sample() -> None:
    image, boxes = np.zeros((4, 4, 3), np.uint8), [[0, 0, 2, 2]]
    samples = [
        Sample("a", image, make_target(boxes)),
        Sample("b", image, make_target(boxes)),
        Sample("a", image + 1, make_target(boxes)),
        Sample("a", image, make_target([[0, 0, 2, 3]])),
        Sample("a", image, make_target(boxes, labels=[2])),
        Sample("a", image, make_target(boxes, ignore=[True])),
    ]
    assert len({fingerprint_of([sample]) for sample in samples}) == len(samples)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_each_rank_sees_the_mix_at_its_ratio(mixed, voc_discs, share) -> None:
    stream = MixedStream(mixed._real, mixed._synthetic, share)
    for rank in range(2):
        for batch in batches(stream, 16, 0, 5, 0, rank, 2):
            assert sum(key.startswith("scene") for key in batch.keys) == 8 * share


def test_a_batch_that_ranks_cannot_share_is_refused(mixed) -> None:
    with pytest.raises(InputError, match=r"^batch_size: found 9, wanted a multiple of the 2 ranks$"):
        batches(mixed, 9, 0, 1, 0, ranks=2)


def test_loading_draws_nothing_from_torchs_global_numbers(mixed) -> None:
    before = torch.get_rng_state()
    list(batches(mixed, 4, 0, 2, 1))
    assert torch.equal(torch.get_rng_state(), before)


class Interrupted:
    """A stream in whose workers signals arrive."""

    def __getitem__(self, index: int) -> Sample:
        assert get_worker_info() is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        return Sample(str(index), np.zeros((2, 2, 3), np.uint8), make_target([]))


def test_workers_outlive_signals_to_the_whole_group() -> None:
    keys = [key for batch in batches(Interrupted(), 2, 0, 3, 1) for key in batch.keys]
    assert keys == ["0", "1", "2", "3", "4", "5"]


def test_the_parts_of_scenes_are_loaded_like_their_pictures(sets) -> None:
    scenes = open_scenes(sets)
    (parts,) = load(scenes.parts, list, 6, range(2, 3), 1)
    assert [part.key for part in parts] == [scenes[i].key for i in range(12, 18)]
    assert all(
        np.array_equal(part.background, scenes.parts(12 + i).background) for i, part in enumerate(parts)
    )


def test_batches_travel_as_bytes_of_pixels(mixed) -> None:
    (batch,) = batches(mixed, 4, 0, 1, 1)
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (4, 3, 48, 48)
