"""Coverage, fitted anchors, and the command that shows both."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from configs.errors import InputError
from configs.kinds import config_class, kinds_in
from trainer.anchoring.anchor_fit import best_ious, boxes_of, coverage, fit_anchors, sides_of
from trainer.anchoring.anchor_maps import AnchorMap, lay_out
from trainer.anchoring.anchor_picture import draw_anchors, size_bins
from trainer.anchoring.boxes import cxcywh_to_xyxy, pairwise_iou
from trainer.anchors import main
from trainer.detector import Detector, DetectorConfig
from trainer.imaging.images import read_image
from trainer.sample import Target, make_target

KINDS = kinds_in("trainer.detectors")
SIZES = {"ssd300_vgg16": 300, "ssd300_resnet50": 300}


def settings_of(kind: str, **settings: Any) -> DetectorConfig:
    given = {"kind": kind, "weights": "none", "image_size": SIZES.get(kind, 128), **settings}
    config = config_class("trainer.detectors", kind, DetectorConfig).model_validate(given)
    assert isinstance(config, DetectorConfig)
    return config


@cache
def build(config: DetectorConfig) -> Detector:
    return config.build(1, Path())


def scattered(count: int, size: int, side: float, ratio: float = 1.0, seed: int = 0) -> list[Target]:
    """Images of one box each, of about that side and width over height."""
    rng = np.random.default_rng(seed)
    sides = side * np.exp(rng.normal(0, 0.15, count))
    extent = np.stack([sides * ratio**0.5, sides / ratio**0.5], 1)
    low = rng.uniform(0, 1, (count, 2)) * (size - extent)
    return [make_target([box]) for box in np.concatenate([low, low + extent], 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_its_anchors_in_the_order_of_its_outputs(kind: str) -> None:
    config = settings_of(kind)
    detector = build(config)
    maps, images = detector.anchor_maps(), torch.zeros(1, 3, config.image_size, config.image_size)
    anchors = lay_out(maps)
    own = detector.anchors_of(images) if hasattr(detector, "anchors_of") else detector.anchors
    torch.testing.assert_close(anchors, own)
    assert len(anchors) == sum(map(len, maps))
    if config.image_size <= 128:
        assert detector.eval()(images.to(torch.uint8))[0].shape[1] == len(anchors)
    for each, shapes in zip(maps, config.anchor_shapes(), strict=True):
        assert np.array_equal(each.shapes, shapes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_overlap_of_a_cell_is_that_of_all_anchors(kind: str) -> None:
    detector = build(settings_of(kind))
    rng = np.random.default_rng(0)
    low = rng.uniform(-10, 140, (60, 2))
    boxes = np.concatenate([low, low + np.exp(rng.uniform(0, 5, (60, 2)))], 1)
    corners = cxcywh_to_xyxy(lay_out(detector.anchor_maps()))
    expected = pairwise_iou(torch.from_numpy(boxes).float(), corners).amax(1)
    np.testing.assert_allclose(best_ious(detector.anchor_maps(), boxes), expected.numpy(), atol=1e-5)


def test_coverage_counts_the_anchors_that_answer_and_leaves_the_ignored_out() -> None:
    config = settings_of("retinaface", anchor_sizes_px=[[16, 32], [64], [100]])
    boxes = [[4, 4, 20, 20], [60, 60, 61, 61], [30, 30, 62, 62]]
    cover = coverage(build(config), [make_target(boxes, ignore=[False, False, True]), make_target([])])
    assert cover.sides.tolist() == [16, 1]
    assert cover.best_iou[0] == 1 and cover.best_iou[1] < 0.02
    assert cover.answering[0] >= 1 and cover.answering[1] == 0
    assert [(name, members.tolist()) for name, members in size_bins(cover.sides)] == [
        ("under 8 px", [False, True]),
        ("16 to 32 px", [True, False]),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_covers_its_boxes_better_and_is_a_setting_of_the_kind(kind: str) -> None:
    config = settings_of(kind)
    targets = scattered(80, config.image_size, 0.3 * config.image_size, ratio=1.4)
    maps, boxes = build(config).anchor_maps(), boxes_of(targets)
    fitted = fit_anchors(config, maps, boxes)
    assert type(config).model_validate(fitted.model_dump(mode="json")) == fitted
    now, then = (
        best_ious(
            [AnchorMap(m.x, m.y, own) for m, own in zip(maps, each.anchor_shapes(), strict=True)], boxes
        )
        for each in (config, fitted)
    )
    assert then.clip(max=0.7).mean() > now.clip(max=0.7).mean()
    assert (then >= 0.5).mean() >= (now >= 0.5).mean()
    changed = {name for name in type(config).model_fields if getattr(fitted, name) != getattr(config, name)}
    assert changed and changed <= set(config.anchor_settings)


def test_a_fit_finds_the_sizes_that_boxes_have() -> None:
    config = settings_of("retinaface", anchor_sizes_px=[[10, 11], [40], [100]])
    targets = [t for side in (14, 33, 80) for t in scattered(60, 128, side, seed=int(side))]
    fitted = fit_anchors(config, build(config).anchor_maps(), boxes_of(targets), num_sizes=3)
    sizes = [size for own in fitted.anchor_sizes_px for size in own]
    assert [len(own) for own in fitted.anchor_sizes_px] == [1, 1, 1]
    np.testing.assert_allclose(sizes, [14, 33, 80], rtol=0.15)


def test_sizes_keep_their_order_and_near_their_maps_strides() -> None:
    config = settings_of("retinaface")
    boxes = boxes_of(scattered(60, 128, 110))
    fitted = fit_anchors(config, build(config).anchor_maps(), boxes)
    sizes = [size for own in fitted.anchor_sizes_px for size in own]
    assert sizes == sorted(sizes) and sizes[0] <= 8 * 8 * 1.05


@pytest.mark.parametrize(
    ("kind", "count", "message"),
    [
        ("ssdlite320", 5, "--fit: found 5 sizes of ssdlite320, wanted no number, its own is fixed"),
        ("retinaface", 2, "--fit: found 2 sizes of retinaface, wanted one for each of 3 maps or more"),
    ],
)
def test_a_number_of_sizes_that_a_kind_cannot_have_is_refused(kind: str, count: int, message: str) -> None:
    config = settings_of(kind)
    with pytest.raises(InputError, match=re.escape(message)):
        fit_anchors(config, build(config).anchor_maps(), boxes_of(scattered(5, 128, 30)), count)


def test_a_picture_shows_a_dot_for_each_box_and_a_frame_for_each_anchor() -> None:
    detector = build(settings_of("retinaface", anchor_sizes_px=[[16], [40], [100]]))
    targets = scattered(30, 128, 50)
    boxes, cover = boxes_of(targets), coverage(detector, targets)
    full = draw_anchors("both", detector.anchor_maps(), boxes, cover, 128)
    assert full.shape[2] == 3 and full.dtype == np.uint8
    fewer = draw_anchors("both", detector.anchor_maps()[:2], boxes, cover, 128)
    assert full.shape == fewer.shape and (full != fewer).any()


@pytest.fixture
def config(write_run: Callable[[str, str], Path]) -> Path:
    return write_run("discs", "detector: {kind: ssd, backbone: mobilenet_v2, weights: none, image_size: 96}")


def test_the_command_reports_fits_and_draws(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = config.parent / "anchors.png"
    assert main([str(config), "--fit", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "12 photos of train" in said and said.count("without an anchor") == 2
    pasted = yaml.safe_load(said[said.index("detector:") : said.index(str(out))])["detector"]
    assert set(pasted) == {"scales", "ratios"} and len(pasted["scales"]) == 3
    both = read_image(out)
    assert main([str(config), "--out", str(out), f"detector.scales={pasted['scales']}"]) == 0
    assert both.shape[0] == 2 * read_image(out).shape[0]


def test_composites_and_other_splits_are_looked_at_too(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(config.parent / "a.png")]
    assert main([str(config), "--scenes", "3", *out]) == 0
    assert (
        main([str(config), "--split", "test", "detector.kind=retinaface", "detector.weights=none", *out]) == 0
    )
    said = capsys.readouterr().out
    assert "3 composites" in said and "6 photos of test" in said and "retinaface on mobilenet0.25" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fit", "-1"], "--fit: found -1, wanted 1 or more"),
        (["more"], "wanted one"),
        (["--split", "nope"], "no split 'nope'"),
        (["classes=[disc, other]", "dataset.root=nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_one_line(config: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        main([str(config), *arguments])


def test_boxes_sides_are_roots_of_areas() -> None:
    assert sides_of(np.array([[0.0, 0, 4, 9]])).tolist() == [6]
