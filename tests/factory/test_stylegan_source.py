"""StyleGAN as an object source: slots, truncation, noise, frames, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import InputError
from configs.home import packaged_names
from factory.generators.found import Found, write_found
from factory.generators.stylegan1 import StyleGan1
from factory.generators.stylegan2 import StyleGan2
from factory.recipe import load_recipe
from factory.sources.stylegan import StyleganConfig, StyleganSource
from factory.stages import ObjectImage

_FACTS = {"stylegan1": {"cutoff": 3, "psi": 0.7}, "stylegan2": {}}


def _network(family: str, image_channels: int = 3) -> StyleGan1 | StyleGan2:
    channels = [6, 6, 5, 4]
    if family == "stylegan1":
        return StyleGan1([4, 6, 6], channels, image_channels, 0.01)
    return StyleGan2([4, 6, 6], channels, image_channels, 0.01, 1e9)


def _weights(folder: Path, family: str = "stylegan2", image_channels: int = 3) -> Path:
    rng = torch.Generator().manual_seed(0)
    shapes = _network(family, image_channels).state_dict()
    tensors = {n: torch.randn(v.shape, generator=rng) * 0.4 for n, v in shapes.items()}
    tensors |= {n: v * 100 for n, v in tensors.items() if n.startswith("mapping.fc")}
    path = folder / f"{family}.safetensors"
    write_found(Found(family, _FACTS[family] | {"image_channels": image_channels}, tensors), path)
    return path


@pytest.fixture(scope="module", params=["stylegan1", "stylegan2"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _weights(tmp_path_factory.mktemp("weights"), request.param)


def _open(weights: Path, seed: int = 0, **settings) -> StyleganSource:
    config = StyleganConfig(weights=weights, **{"batch_size": 4, **settings})
    return config.open(seed, home=Path("nowhere"))


def _images(source: StyleganSource, start: int = 0, count: int = 3) -> np.ndarray:
    return np.stack([item.image for item in source.images(start, count)])


@pytest.mark.parametrize("noise", ["stored", "random"])
def test_a_slot_does_not_depend_on_the_slice(weights: Path, noise: str) -> None:
    source = _open(weights, noise=noise)
    whole = list(source.images(0, 9))
    assert [item.name for item in whole] == [str(i) for i in range(9)]
    for start, count in ((0, 1), (3, 2), (6, 3)):
        part = list(source.images(start, count))
        assert [item.name for item in part] == [str(i) for i in range(start, start + count)]
        for item, again in zip(part, whole[start:], strict=False):
            np.testing.assert_array_equal(item.image, again.image)


def test_bf16_gives_the_same_images_but_for_rounding(weights: Path) -> None:
    exact, rounded = (_images(_open(weights, precision=name)).astype(int) for name in ("fp32", "bf16"))
    assert 0 < abs(exact - rounded).mean() < 3
    np.testing.assert_array_equal(rounded, _images(_open(weights, precision="bf16")))


def test_slots_differ_by_index_and_seed(weights: Path) -> None:
    one, two = _open(weights).images(0, 2)
    (other,) = _open(weights, seed=1).images(0, 1)
    assert isinstance(one, ObjectImage) and one.image.shape == (32, 32, 3) and one.image.dtype == np.uint8
    assert not np.array_equal(one.image, two.image) and not np.array_equal(one.image, other.image)
    assert one.origin == {"source": "stylegan", "latent_seed": 0, "latent_index": 0}


def test_without_truncation_left_all_images_are_the_average_one(weights: Path) -> None:
    same = _images(_open(weights, psi=0.0, cutoff=99))
    assert (same == same[0]).all()
    assert not (_images(_open(weights, psi=0.0, cutoff=2)) == same).all()
    varied = _images(_open(weights, psi=0.0, cutoff=99, noise="random"))
    assert not (varied == varied[0]).all()


def test_the_cutoff_is_the_published_one_unless_set(weights: Path) -> None:
    published = _FACTS[weights.stem].get("cutoff", 99)
    usual = _images(_open(weights, psi=0.3))
    np.testing.assert_array_equal(usual, _images(_open(weights, psi=0.3, cutoff=published)))
    assert not np.array_equal(usual, _images(_open(weights, psi=0.3, cutoff=1)))


def test_frames_are_stopped_early_cut_and_zoomed(weights: Path) -> None:
    assert _images(_open(weights, image_px=8)).shape == (3, 8, 8, 3)
    whole = _images(_open(weights))
    cars = _images(_open(weights, frame_rows_frac=0.75))
    np.testing.assert_array_equal(cars, whole[:, 4:28])
    zoomed = _images(_open(weights, frame_rows_frac=0.75, frame_zoom=2))
    np.testing.assert_array_equal(zoomed, cars[:, 6:18, 8:24])


def test_the_source_is_endless_and_known_by_its_weights(weights: Path) -> None:
    source = _open(weights)
    assert source.size is None and len(str(source.identity()["weights_sha256"])) == 64


@pytest.mark.parametrize("image_px", [5, 64])
def test_a_side_that_the_network_has_not_is_refused(weights: Path, image_px: int) -> None:
    with pytest.raises(
        InputError, match=rf"source\.image_px: found {image_px}, wanted one of 4, 8, 16, 32: "
    ):
        _open(weights, image_px=image_px)


def test_grey_is_repeated_and_other_channels_are_refused(tmp_path: Path) -> None:
    images = _images(_open(_weights(tmp_path, image_channels=1)))
    assert (images[..., 0] == images[..., 2]).all()
    with pytest.raises(InputError, match="makes images of 4 channels, wanted 1 or 3"):
        _open(_weights(tmp_path, image_channels=4))


def test_missing_weights_are_asked_for_with_the_hint() -> None:
    with pytest.raises(
        InputError, match=r"source\.weights is not set: wanted a StyleGAN's weights; buy them"
    ):
        StyleganConfig(weights_hint="buy them").open(0, home=Path())
    with pytest.raises(
        InputError, match=r"no file nowhere/data/weights/a\.pkl, wanted a StyleGAN's weights$"
    ):
        _open(Path("a.pkl"))


def test_a_gpu_that_is_not_there_is_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"source\.device: found cuda"):
        next(_open(weights, device="cuda").images(0, 1))


@pytest.mark.parametrize("name", [n for n in packaged_names("classes") if n.endswith("-stylegan")])
def test_a_recipe_without_its_weights_says_what_to_download_where(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, [])
    with pytest.raises(InputError) as error:
        recipe.source.open(0, tmp_path)
    message = str(error.value)
    assert (
        f"{tmp_path}/data/weights/karras2019stylegan-" in message and "github.com/NVlabs/stylegan" in message
    )
    with pytest.raises(InputError, match=r"mickaelChen|train_redo"):
        recipe.segmenter.open(tmp_path)
