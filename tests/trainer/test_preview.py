"""The preview sheet: what it shows, what it says when something is missing."""

import re
from pathlib import Path

import numpy as np
import pytest

from configs.errors import InputError
from trainer.imaging.images import read_image
from trainer.preview import main
from trainer.runs.config import load_run
from trainer.runs.open_scenes import open_scenes


@pytest.fixture
def config(write_run) -> Path:
    return write_run("discs", "detector: {kind: ssd, backbone: mobilenet_v2, weights: none, image_size: 96}")


def sheet(config: Path, *arguments: str) -> np.ndarray:
    out = config.parent / "sheet.png"
    assert main([str(config), "--out", str(out), "--count", "2", *arguments]) == 0
    return read_image(out)


def test_a_sheet_has_a_section_for_scenes_photos_and_anchors(config, capsys) -> None:
    both, three = sheet(config), sheet(config, "--anchors")
    assert "2 composites, 2 photos" in capsys.readouterr().out
    assert three.shape[0] == both.shape[0] * 3 // 2
    assert np.array_equal(three[: len(both)], both)


def test_the_same_seed_gives_the_same_sheet_and_another_another(config) -> None:
    first = sheet(config, "--seed", "3")
    assert np.array_equal(first, sheet(config, "--seed", "3"))
    assert not np.array_equal(first, sheet(config, "--seed", "4"))


def test_missing_photos_are_said_to_be_left_out(config, capsys) -> None:
    alone = sheet(config, "dataset.root=nowhere")
    said = capsys.readouterr().out
    assert re.search(r"photos are left out: .*nowhere: no such folder", said) and "0 photos" in said
    assert np.array_equal(alone, sheet(config)[: len(alone)])


def test_every_object_that_counts_has_anchors_and_an_ignored_one_none(config) -> None:
    from trainer.preview import _anchors_of

    settings = load_run(str(config), ["compositor.min_visible=0.8", "compositor.truncation=0.6"])
    stream = open_scenes(settings, config.parent, 0).stream
    anchors = _anchors_of(settings, 1, config.parent)
    ignored = []
    for number in range(12):
        target = stream[number].target
        counts = [len(own) for own in anchors.matched(target)]
        assert [count == 0 for count in counts] == target.ignore.tolist()
        ignored += target.ignore.tolist()
    assert set(ignored) == {True, False}


@pytest.mark.parametrize("kind", ["retinaface", "ssdlite320"])
def test_any_kinds_anchors_can_be_looked_at(config, kind) -> None:
    settings = [f"detector.kind={kind}", "detector.weights=none", "detector.image_size=96"]
    both, three = sheet(config, *settings), sheet(config, "--anchors", *settings)
    assert three.shape[0] == both.shape[0] * 3 // 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count: found 0, wanted at least 1"),
        (["more"], "wanted one"),
        (["compositor.blend=soft"], "compositor.blend"),
    ],
)
def test_wrong_arguments_are_one_line(config, arguments, message) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        main([str(config), *arguments])
