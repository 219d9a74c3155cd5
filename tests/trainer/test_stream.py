from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pytest

from configs.errors import InputError
from shards.manifest import Manifest, fingerprint_of, shard_name, write_manifest
from shards.reader import ShardSet
from shards.records import CropRecord
from shards.store import open_store
from shards.writer import write_shard
from trainer.compositing.config import CompositorConfig
from trainer.dataset import nested_subset
from trainer.datasets.voc import VocConfig
from trainer.sample import Sample, make_target
from trainer.streaming.augment import NO_CHANGE, AugmentConfig
from trainer.streaming.crop_pool import CropCollection
from trainer.streaming.loader import batches
from trainer.streaming.stream import MixedStream, PhotoStream, SyntheticStream


@pytest.fixture
def scenes(sets) -> SyntheticStream:
    crops = CropCollection([ShardSet.open(sets[0])])
    return SyntheticStream(crops, ShardSet.open(sets[1]), CompositorConfig(size=64), {"disc": 1}, seed=4)


def test_a_scene_depends_on_seed_and_index_alone(scenes, sets) -> None:
    again = SyntheticStream(
        CropCollection([ShardSet.open(sets[0])]),
        ShardSet.open(sets[1]),
        CompositorConfig(size=64),
        {"disc": 1},
        4,
    )
    scenes[9], scenes[2]
    assert np.array_equal(scenes[5].image, again[5].image)
    assert np.array_equal(scenes[5].target.boxes, again[5].target.boxes)
    assert not np.array_equal(scenes[5].image, scenes[6].image)


def test_scenes_are_changed_as_photos_are_when_asked(scenes, sets) -> None:
    crops, backgrounds = CropCollection([ShardSet.open(sets[0])]), ShardSet.open(sets[1])
    flipped = AugmentConfig.model_validate({**NO_CHANGE.model_dump(), "flip": 1.0})
    changed = SyntheticStream(
        crops, backgrounds, CompositorConfig(size=64), {"disc": 1}, seed=4, augment=flipped
    )
    assert np.array_equal(changed[3].image, scenes[3].image[:, ::-1])
    assert np.allclose(
        changed[3].target.boxes[:, [2, 1, 0, 3]], [64, 0, 64, 0] + scenes[3].target.boxes * [-1, 1, -1, 1]
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_same_for_any_number_of_workers(scenes, workers) -> None:
    found = list(batches(scenes, batch_size=3, first_step=2, last_step=4, workers=workers))
    expected = [scenes[i] for i in range(6, 12)]
    assert [key for batch in found for key in batch.keys] == [sample.key for sample in expected]
    images = np.concatenate([batch.images.permute(0, 2, 3, 1).numpy() for batch in found])
    assert np.array_equal(images, np.stack([sample.image for sample in expected]))


def test_several_crop_sets_stand_behind_one_index(sets) -> None:
    one = ShardSet.open(sets[0])
    both = CropCollection([one, one])
    assert len(both) == 60
    assert both.classes == ("disc",)
    assert [both[i].key for i in (0, 29, 30, 59)] == ["000000", "000029", "000000", "000029"]


def test_every_photo_is_seen_once_an_epoch_in_a_new_order(voc_discs, tmp_path) -> None:
    photos = VocConfig(root=voc_discs).read("train", ["disc"], tmp_path)
    stream = PhotoStream(photos, 64, AugmentConfig(), seed=1)
    epochs = [[stream[e * 12 + i].key.split("#")[0] for i in range(12)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(photo.key for photo in photos)
    assert epochs[0] != epochs[1]


class Numbered:
    """A stream whose samples say who they are."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getitem__(self, index: int) -> Sample:
        return Sample(f"{self.name} {index}", np.zeros((1, 1, 3), np.uint8), make_target([]))


SHARES = [0.01, 0.1, 0.25, 0.29, 1 / 3, 0.5, 0.57, 2 / 3, 0.8, 0.99, *np.random.default_rng(0).random(10)]


@pytest.mark.parametrize("start", [0, 10**9 + 7])
@pytest.mark.parametrize("share", SHARES)
def test_the_synthetic_share_holds_in_every_window(share, start) -> None:
    mixed = MixedStream(Numbered("real"), Numbered("synthetic"), float(share))
    is_synthetic = [mixed[start + i].key.startswith("synthetic") for i in range(300)]
    before = np.concatenate([[0], np.cumsum(is_synthetic)])
    counts = before[None, :] - before[:, None]  # of the window from row to column
    lengths = np.arange(301)[None, :] - np.arange(301)[:, None]
    assert np.abs(counts - share * lengths).max() < 1 + 1e-5


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_mix_shows_both_streams_whole_and_in_order(scenes, voc_discs, tmp_path, share) -> None:
    photos = VocConfig(root=voc_discs).read("train", ["disc"], tmp_path)
    real = PhotoStream(photos, 64, AugmentConfig(), 1)
    keys = [MixedStream(real, scenes, share)[i].key for i in range(40)]
    num_scenes = round(40 * share)
    assert [key for key in keys if key.startswith("scene")] == [scenes[i].key for i in range(num_scenes)]
    assert [key for key in keys if not key.startswith("scene")] == [
        real[i].key for i in range(40 - num_scenes)
    ]


def test_kept_photos_give_the_same_samples(voc_discs, tmp_path, monkeypatch) -> None:
    photos = VocConfig(root=voc_discs).read("train", ["disc"], tmp_path)
    kept, read = PhotoStream(photos, 100, NO_CHANGE, 1), PhotoStream(photos, 100, NO_CHANGE, 1, decoded_mb=0)
    for i in range(30):
        assert np.array_equal(kept[i].image, read[i].image)
    monkeypatch.setattr("trainer.streaming.stream.read_boxed_image", lambda photo: 1 / 0)
    kept[31]
    with pytest.raises(ZeroDivisionError):
        read[31]
    with pytest.raises(ValueError, match="read-only"):
        kept[31].image[0] = 0  # it may be the photo that is kept


@pytest.fixture
def with_cats(sets, tmp_path) -> Callable[..., SyntheticStream]:
    """with_cats(cats): scenes of discs, with other crops as distractors."""
    store = open_store(tmp_path / "cats")
    image, mask = np.full((20, 20, 3), 90, np.uint8), np.full((20, 20), 255, np.uint8)
    entry = write_shard(
        store, shard_name("crops", 0), [CropRecord(f"{i}", "cat", image, mask) for i in range(4)]
    )
    write_manifest(store, Manifest("crops", ("cat",), fingerprint_of({}), {}, (entry,), complete=True))

    def make(
        cats: bool = True, label_ids: Mapping[str, int] = MappingProxyType({"disc": 1})
    ) -> SyntheticStream:
        config = CompositorConfig.model_validate({"size": 96, "distractors": {"min": 1, "max": 2}})
        crops, backgrounds = CropCollection([ShardSet.open(sets[0])]), ShardSet.open(sets[1])
        distractors = CropCollection([ShardSet.open(tmp_path / "cats")]) if cats else None
        return SyntheticStream(crops, backgrounds, config, label_ids, 4, distractors=distractors)

    return make


def test_distractors_are_shown_and_never_labelled(with_cats) -> None:
    stream = with_cats()
    for index in range(30):
        parts, sample = stream.parts(index), stream[index]
        shown = [(place.is_distractor, parts.crops[place.crop].label) for place in parts.plan.placements]
        assert set(shown) <= {(False, "disc"), (True, "cat")}
        assert 1 <= sum(is_distractor for is_distractor, _ in shown) <= 2
        assert len(sample.target) <= sum(label == "disc" for _, label in shown)


def test_distractors_must_be_given_and_be_of_other_classes(with_cats) -> None:
    with pytest.raises(InputError, match=r"^distractors: found no set, the compositor wants up to 2$"):
        with_cats(cats=False)
    with pytest.raises(InputError, match=r"^distractors: hold cat, wanted no class that is to be detected$"):
        with_cats(label_ids={"disc": 1, "cat": 2})


def test_subsets_are_nested_and_are_numpys_legacy_permutation() -> None:
    large, small = nested_subset(317, 50, 2020), nested_subset(317, 10, 2020)
    assert large[:10] == small
    assert large == list(np.random.RandomState(2020).permutation(317)[:50])
