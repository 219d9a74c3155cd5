"""What ships with the package: whole, credited, small enough."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import mobilenet_v2

from configs.embedded import embedded
from configs.errors import InputError
from shards.reader import ShardSet

ROOT = embedded("weights").parent


@pytest.mark.parametrize(("name", "least"), [("backgrounds", 100), ("backgrounds-held-out", 20)])
def test_background_sets_verify(name: str, least: int) -> None:
    found = ShardSet.open(embedded(name))
    assert [problem for _, problems in found.verify() for problem in problems] == []
    assert len(found) >= least
    assert found.manifest.kind == "backgrounds"


def test_every_background_photo_is_credited_and_none_is_in_both_sets() -> None:
    credits = embedded("backgrounds/CREDITS.md").read_text()
    photos = []
    for name in ("backgrounds", "backgrounds-held-out"):
        found = ShardSet.open(embedded(name))
        files = [str(found[i].origin["file"]) for i in range(len(found))]
        photos.append({file.rsplit("-", 1)[0] for file in files})
        assert [photo for photo in photos[-1] if photo not in credits] == []
    assert not photos[0] & photos[1]


def test_every_cut_out_is_credited_and_the_licences_that_ask_for_their_text_have_it() -> None:
    credits = embedded("cutouts/CREDITS.md").read_text()
    named = set(re.findall(r"[\w-]+", credits))
    assert [file.name for file in embedded("cutouts").glob("*.png") if file.stem not in named] == []
    for text in (credits, embedded("backgrounds/CREDITS.md").read_text()):
        for file in re.findall(r"`\.\./(licences/[^`]+)`", text):
            assert embedded(file).stat().st_size > 5000


def test_cut_outs_have_an_opacity_that_parts_object_from_background() -> None:
    files = sorted(embedded("cutouts").glob("*.png"))
    assert len(files) >= 12
    for file in files:
        picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert picture.shape[2] == 4
        assert max(picture.shape) <= 256
        opaque = (picture[..., 3] >= 128).mean()
        assert 0.05 < opaque < 0.9


def test_mobilenet_loads_strictly_and_is_finite() -> None:
    state = load_file(embedded("weights/mobilenet_v2.safetensors"))
    mobilenet_v2(weights=None).load_state_dict(state, strict=True)
    assert all(torch.isfinite(value).all() for value in state.values())


def test_every_file_is_under_ten_megabytes_and_every_weight_file_has_a_card() -> None:
    files = [path for path in ROOT.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 10e6
    for path in embedded("weights").glob("*.safetensors"):
        assert path.with_suffix(".md").is_file(), path.name


def test_an_unknown_name_is_answered_with_a_near_one() -> None:
    with pytest.raises(InputError, match=r"did you mean 'weights/mobilenet_v2\.safetensors'"):
        embedded("weights/mobilenet_v3.safetensors")


def test_backgrounds_are_photos_of_some_contrast() -> None:
    found = ShardSet.open(embedded("backgrounds"))
    spreads = [float(np.asarray(found[i].image).std()) for i in range(0, len(found), 10)]
    assert min(spreads) > 5


def test_an_embedded_weight_file_is_found_by_name_alone(tmp_path: Path) -> None:
    from factory.weights import find_weights

    found = find_weights("source.weights", Path("mobilenet_v2.safetensors"), tmp_path, "weights")
    assert found == embedded("weights/mobilenet_v2.safetensors")
