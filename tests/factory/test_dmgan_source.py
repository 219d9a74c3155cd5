"""DM-GAN as a source: slot i is always the same caption and the same image."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import InputError
from configs.load import load_config
from factory.generators.captions import convert_captions
from factory.generators.dmgan import DmganGenerator, DmganSizes, TextEncoder
from factory.recipe import load_recipe
from factory.sources.dmgan import DmganConfig, DmganSource
from factory.stages import ObjectImage

_SIZES = DmganSizes(num_latent=5, num_condition=3, num_words=6, num_features=4, num_stages=2)
_WORDS = ["<end>", "a", "bird", "red", "with", "wings", "and", "beak"]
_TRAIN = [[1, 3, 2], [1, 2, 4, 5], [1, 2]]
_TEST = [[1, 3, 2, 4, 5, 6, 7], [3, 2], [1, 2, 4, 3, 5]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose data/weights holds tiny networks and captions under the official names."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "data" / "weights"
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = (DmganGenerator(_SIZES), TextEncoder(len(_WORDS), 7, 3))
        torch.nn.init.normal_(networks[1].encoder.weight)
    for network, name in zip(networks, ("bird_DMGAN.pth", "text_encoder200.pth"), strict=True):
        state = {key: value * 3 if "weight" in key else value for key, value in network.state_dict().items()}
        torch.save(state, folder / name)
    ids = {word: number for number, word in enumerate(_WORDS)}
    content = [_TRAIN, _TEST, dict(enumerate(_WORDS)), ids]
    (folder / "captions.pickle").write_bytes(pickle.dumps(content, 2))
    return home


def _open(home: Path, seed: int = 0, **settings: Any) -> DmganSource:
    config = {"image_px": 64, "batch_size": 4, **settings}
    return DmganConfig(**config).open(seed, home)


def _same(one: list[ObjectImage], other: list[ObjectImage]) -> bool:
    return all(
        (a.name, a.origin) == (b.name, b.origin) and np.array_equal(a.image, b.image)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("image_px", [64, 128])
def test_a_slot_does_not_depend_on_the_slice(home: Path, image_px: int) -> None:
    source = _open(home, image_px=image_px)
    whole = list(source.images(0, 9))
    assert [item.name for item in whole] == [str(i) for i in range(9)]
    for start, count in ((0, 1), (3, 2), (4, 4), (5, 4)):
        assert _same(list(source.images(start, count)), whole[start : start + count])
    assert _same(list(_open(home, image_px=image_px).images(2, 3)), whole[2:5])


def test_slots_differ_and_record_their_caption(home: Path) -> None:
    items, others = list(_open(home).images(0, 12)), list(_open(home, seed=1).images(0, 12))
    assert items[0].image.shape == (64, 64, 3) and items[0].image.dtype == np.uint8
    assert not any(np.array_equal(a.image, b.image) for a, b in zip(items, others, strict=True))
    assert len({item.image.tobytes() for item in items}) == 12
    captions = {str(item.origin["caption"]) for item in items}
    assert captions == {" ".join(_WORDS[i] for i in caption) for caption in _TEST}
    wanted = {"source": "dmgan", "latent_seed": 0, "latent_index": 7}
    assert wanted.items() <= dict(items[7].origin).items()


def test_free_texts_are_drawn(home: Path, tmp_path: Path) -> None:
    texts = ("A red bird.", "a bird, with wings")
    items = list(_open(home, captions=texts).images(0, 8))
    assert {item.origin["caption"] for item in items} == {"a red bird", "a bird with wings"}
    path = tmp_path / "captions.txt"
    path.write_text("A red bird.\n\na bird, with wings\n")
    source = _open(home, captions=path)
    assert _same(list(source.images(0, 8)), items)
    assert source.identity() == _open(home, captions=texts).identity() != _open(home).identity()


def test_long_captions_are_shortened_and_recorded_whole(home: Path) -> None:
    whole, short = _open(home, captions="train"), _open(home, captions="train", num_words=2)
    items, others = list(whole.images(0, 8)), list(short.images(0, 8))
    assert [item.origin for item in items] == [item.origin for item in others]
    assert not _same(items, others)


def test_the_mask_is_the_authors_unless_it_is_fixed(home: Path) -> None:
    items, fixed = (list(_open(home, fix_mask=fix, image_px=128).images(0, 4)) for fix in (False, True))
    assert not _same(items, fixed)
    alone = list(_open(home, fix_mask=True, image_px=128, batch_size=1).images(0, 4))
    for one, other in zip(fixed, alone, strict=True):
        assert (np.abs(one.image.astype(int) - other.image) > 1).mean() < 0.01


def test_settings_come_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("kind: dmgan\ncaptions: [a red bird, a bird]\nimage_px: 128\n")
    assert load_config(DmganConfig, path).captions == ("a red bird", "a bird")
    assert load_config(DmganConfig, path, ["captions=train"]).captions == "train"
    assert load_config(DmganConfig, path, ["captions=birds.txt"]).captions == Path("birds.txt")
    with pytest.raises(InputError, match="image_px: found 100"):
        load_config(DmganConfig, path, ["image_px=100"])


def test_the_recipe_of_the_paper_says_what_to_download(tmp_path: Path) -> None:
    recipe = load_recipe("birds-dmgan", [])
    assert recipe.label == "bird" and isinstance(recipe.source, DmganConfig)
    with pytest.raises(InputError, match=r"bird_DMGAN\.pth, wanted .* from .*MinfengZhu/DM-GAN") as error:
        recipe.source.open(0, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"weights": Path("no.pth")}, r"source\.weights: no file .*no\.pth, wanted DM-GAN's generator"),
        ({"text_encoder": Path("no.pth")}, r"source\.text_encoder: no file .*DAMSM"),
        ({"vocabulary": Path("no.pickle")}, r"source\.vocabulary: no file .*metadata"),
        ({"captions": Path("no.txt")}, r"source\.captions: no file .*one caption a line"),
        ({"captions": ("a bird", "a brid")}, r"source\.captions\.1: unknown word 'brid'"),
        ({"captions": ()}, r"source\.captions: found none"),
        ({"image_px": 256}, r"source\.image_px: found 256, wanted one of 64, 128"),
        ({"weights": Path("text_encoder200.pth")}, "holds 9 keys, the first 'encoder.weight'"),
        ({"text_encoder": Path("bird_DMGAN.pth")}, "wanted DAMSM's text encoder"),
    ],
)
def test_what_does_not_fit_is_named(home: Path, settings: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=found) as error:
        _open(home, **settings)
    assert "\n" not in str(error.value)


def test_a_json_vocabulary_has_words_but_no_captions(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    convert_captions(home / "data/weights/captions.pickle", path)
    items = list(_open(home, vocabulary=path, captions=("a bird",)).images(0, 2))
    assert items[0].origin["caption"] == "a bird"
    with pytest.raises(InputError, match=r"found 'test', but .*words\.json holds words only"):
        _open(home, vocabulary=path)


def test_networks_that_do_not_belong_together_are_refused(home: Path, tmp_path: Path) -> None:
    torch.save(TextEncoder(len(_WORDS), 7, 4).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(InputError, match="gives 8 features a word, wanted 6"):
        _open(home, text_encoder=tmp_path / "wide.pth")
    torch.save(TextEncoder(20, 7, 3).state_dict(), tmp_path / "more.pth")
    with pytest.raises(InputError, match="numbers 8 words, wanted 20"):
        _open(home, text_encoder=tmp_path / "more.pth")
