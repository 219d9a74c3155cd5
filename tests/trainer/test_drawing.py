from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.drawing import GREEN, GREY, ORANGE, contact_sheet, draw_detections, write_png
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
