"""Objects drawn with their numbers and classes, for the preview's sheet."""

import numpy as np
import pytest

from trainer.imaging.drawing import draw_objects, stacked, titled
from trainer.sample import make_target

BLACK = np.zeros((60, 60, 3), np.uint8)
YELLOW = (240, 228, 66)


def _share_on(drawn: np.ndarray, rows: slice, columns: slice) -> float:
    return float((drawn[rows, columns] == YELLOW).all(-1).mean())


def test_a_box_is_drawn_on_its_own_pixels_of_the_larger_picture() -> None:
    drawn = draw_objects(BLACK, make_target([[20, 30, 40, 50]]), ["bird"], scale=4)
    assert drawn.shape == (240, 240, 3) and not BLACK.any()
    assert _share_on(drawn, slice(120, 122), slice(80, 160)) == 1  # the upper edge, two pixels
    assert _share_on(drawn, slice(198, 200), slice(80, 160)) == 1
    assert _share_on(drawn, slice(200, 240), slice(0, 240)) == 0


def test_an_ignored_objects_box_is_dashed() -> None:
    drawn = draw_objects(BLACK, make_target([[5, 20, 55, 58]], ignore=[True]), ["bird"], scale=4)
    assert 0.3 < _share_on(drawn, slice(230, 232), slice(20, 220)) < 0.7


def test_each_class_and_number_makes_another_tag() -> None:
    boxes = [[5, 20, 25, 50]]
    tags = [
        draw_objects(BLACK, make_target(boxes, [label]), ["bird", "car"], scale=4)[:80] for label in (1, 2)
    ]
    assert tags[0].any() and not np.array_equal(*tags)


def test_tags_do_not_cover_each_other() -> None:
    target = make_target([[10, 20, 50, 50], [10, 20, 50, 50]])
    drawn = draw_objects(BLACK, target, ["bird"], scale=4)
    first = (drawn == YELLOW).all(-1).sum()
    alone = draw_objects(BLACK, make_target(target.boxes[:1]), ["bird"], scale=4)
    edges = 2 * 2 * (160 + 120) - 16  # the second object's box lies on the first's
    assert first >= (alone == YELLOW).all(-1).sum() - edges


def test_anchors_are_drawn_and_counted() -> None:
    target = make_target([[20, 20, 40, 40]])
    anchors = [np.array([[2, 2, 58, 58], [10, 10, 50, 50]], np.float32)]
    drawn = draw_objects(BLACK, target, ["bird"], 4, anchors)
    plain = draw_objects(BLACK, target, ["bird"], 4)
    assert drawn[8, 120].any() and not plain[8, 120].any()
    with pytest.raises(ValueError, match="zip"):
        draw_objects(BLACK, target, ["bird"], 4, [])


@pytest.mark.parametrize("box", [[0, 0, 60, 60], [59, 59, 60, 60], [0, 0, 1, 1], [0, 0, 60, 1]])
def test_boxes_at_the_edge_keep_their_tags_in_the_picture(box) -> None:
    drawn = draw_objects(BLACK, make_target([box]), ["a rather long name of a class"], scale=4)
    assert drawn.shape == (240, 240, 3)
    assert (drawn == YELLOW).all(-1).sum() > 500


def test_titles_and_stacks_keep_the_pictures() -> None:
    picture = np.full((20, 90, 3), 7, np.uint8)
    named = titled(picture, "scenes of zwölf")
    assert np.array_equal(named[-20:], picture) and (named[:-20] < 100).any()
    both = stacked([picture, named[:, :40]])
    assert both.shape == (20 + len(named), 90, 3) and np.array_equal(both[:20], picture)
