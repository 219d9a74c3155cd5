import numpy as np
import pytest

from shards.reader import ShardSet
from trainer.augment import AugmentConfig
from trainer.compositing.config import CompositorConfig
from trainer.dataset import nested_subset
from trainer.datasets.voc import VocConfig
from trainer.stream import CropCollection, MixedStream, PhotoStream, SyntheticStream, batches


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


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_the_synthetic_share_holds_in_every_window(scenes, voc_discs, tmp_path, share) -> None:
    photos = VocConfig(root=voc_discs).read("train", ["disc"], tmp_path)
    mixed = MixedStream(PhotoStream(photos, 64, AugmentConfig(), 1), scenes, share)
    is_scene = np.array([mixed[i].key.startswith("scene") for i in range(80)])
    for start in range(40):
        assert abs(is_scene[start : start + 40].sum() - 40 * share) <= 1
    scenes_used = [mixed[i].key for i in range(80) if is_scene[i]]
    assert len(set(scenes_used)) == len(scenes_used)


def test_subsets_are_nested_and_are_numpys_legacy_permutation() -> None:
    large, small = nested_subset(317, 50, 2020), nested_subset(317, 10, 2020)
    assert large[:10] == small
    assert large == list(np.random.RandomState(2020).permutation(317)[:50])
