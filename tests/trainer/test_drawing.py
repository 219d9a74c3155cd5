from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.imaging.drawing import (
    GREEN,
    GREY,
    ORANGE,
    RED,
    contact_sheet,
    draw_detections,
    draw_named,
    encode_image,
    mark_boxes,
    write_png,
)
from trainer.sample import Detections, make_target


def _has(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(image.astype(int) - colour).max(axis=2) <= 2).any())


def test_objects_ignored_ones_and_detections_have_their_colours() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    target = make_target([[10, 10, 60, 60], [100, 100, 150, 150]], ignore=[False, True])
    found = Detections(
        np.array([[20, 90, 70, 140]], np.float32), np.array([0.75], np.float32), np.ones(1, np.int64)
    )
    drawn = draw_detections(image, found, target)
    assert all(_has(drawn, colour) for colour in (GREEN, GREY, ORANGE))
    assert not image.any()
    assert not _has(draw_detections(image, None, target), ORANGE)
    assert np.array_equal(draw_detections(image), image)


def test_a_box_is_drawn_on_its_own_first_and_last_pixels() -> None:
    drawn = draw_detections(np.zeros((50, 50, 3), np.uint8), None, make_target([[10, 20, 30, 40]]))
    ys, xs = np.nonzero(drawn[:, :, 1] > 150)
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (10, 20, 29, 39)


@pytest.mark.parametrize("box", [[0, 0, 50, 50], [49.2, 49.5, 50, 50], [0, 0, 0.5, 0.5]])
def test_boxes_at_the_edge_are_drawn(box: list[float]) -> None:
    found = Detections(np.array([box], np.float32), np.ones(1, np.float32), np.ones(1, np.int64))
    assert _has(draw_detections(np.zeros((50, 50, 3), np.uint8), found), ORANGE)


def test_a_sheet_holds_images_of_any_size_with_captions(tmp_path: Path) -> None:
    images = [np.full((h, w, 3), 200, np.uint8) for h, w in ((30, 90), (90, 30), (8, 8))]
    sheet = contact_sheet(images, 2, 64, ["one", "zwölf", "a very long caption that does not fit"])
    assert sheet.shape == (2 * (64 + 18 + 6) + 6, 2 * (64 + 6) + 6, 3)
    assert (sheet < 60).any()
    assert contact_sheet([], 3, 32).dtype == np.uint8


def test_a_written_picture_reads_back_equal(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_png(tmp_path / "new" / "folder" / "p.png", image)
    with Image.open(tmp_path / "new" / "folder" / "p.png") as written:
        assert np.array_equal(np.asarray(written), image)


def test_named_detections_have_a_colour_a_class_and_their_landmarks() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    boxes = np.array([[10, 30, 110, 130], [150, 30, 290, 190]], np.float32)
    points = np.zeros((2, 5, 2), np.float32)
    points[:] = (60, 80)
    found = Detections(boxes, np.array([0.9, 0.5], np.float32), np.array([1, 2]), points)
    drawn = draw_named(image, found, ["bird", "ufo"])
    assert not np.array_equal(drawn[30, 60], drawn[30, 220])  # the boxes' colours
    assert np.array_equal(drawn[80, 60], (255, 60, 200))
    without = draw_named(image, Detections(boxes, found.scores, found.labels), ["bird", "ufo"])
    assert np.array_equal(without[80, 60], image[80, 60])
    assert np.array_equal(draw_named(image, found.chosen([]), []), image)


def test_marked_boxes_are_red() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    assert _has(mark_boxes(image, np.array([[10, 10, 40, 40]], np.float32)), RED)
    assert not image.any()


@pytest.mark.parametrize(
    ("suffix", "most"), [(".png", 0), (".bmp", 0), (".tif", 0), (".jpg", 12), (".webp", 12)]
)
def test_a_picture_is_encoded_by_its_suffix(suffix: str, most: int, tmp_path: Path) -> None:
    image = np.full((20, 30, 3), (200, 40, 90), np.uint8)
    (tmp_path / f"p{suffix}").write_bytes(encode_image(image, suffix))
    with Image.open(tmp_path / f"p{suffix}") as written:
        assert np.abs(np.asarray(written.convert("RGB")).astype(int) - image).max() <= most
