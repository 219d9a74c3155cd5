from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from trainer.metrics.wider import (
    SETTINGS,
    WiderTruth,
    read_wider_predictions,
    read_wider_truth,
    wider_average_precision,
)
from trainer.sample import Detections, Target, make_target


def _plain_loop(detections: list[Detections], truth: WiderTruth, setting: str) -> float:
    """The published protocol step by step: an image, a detection, a threshold at a time."""
    everything = [float(s) for d in detections for s in d.scores]
    low, high = min([1.0, *everything]), max([0.0, *everything])
    proposals, recalled, faces = [0] * 1000, [0] * 1000, 0
    for found, target, counting in zip(detections, truth.targets, truth.counts[setting], strict=True):
        faces += int(counting.sum())
        if not len(found) or not len(target):
            continue
        rank = sorted(range(len(found)), key=lambda k: -float(found.scores[k]))
        state: dict[int, str] = {}
        kept, true = [], []
        for k in rank:
            x0, y0, x1, y1 = (float(v) for v in found.boxes[k])
            best, at = -1.0, -1
            for j, (u0, v0, u1, v1) in enumerate(target.boxes.astype(float).tolist()):
                w, h = min(x1, u1) - max(x0, u0) + 1, min(y1, v1) - max(y0, v0) + 1
                shared = w * h if w > 0 and h > 0 else 0.0
                union = (x1 - x0 + 1) * (y1 - y0 + 1) + (u1 - u0 + 1) * (v1 - v0 + 1) - shared
                if shared / union > best:
                    best, at = shared / union, j
            hit = best >= 0.5
            kept.append(not (hit and not counting[at]))
            true.append(hit and bool(counting[at]) and at not in state)
            if hit:
                state[at] = "recalled"
        scores = [(float(found.scores[k]) - low) / (high - low) for k in rank]
        for t in range(1000):
            reached = sum(score >= 1 - (t + 1) / 1000 for score in scores)
            proposals[t] += sum(kept[:reached])
            recalled[t] += sum(true[:reached])
    precision = [r / p if p else 0.0 for r, p in zip(recalled, proposals, strict=True)]
    recall = [r / faces for r in recalled]
    area, last = 0.0, 0.0
    for t in range(1000):
        if recall[t] != last:
            area += (recall[t] - last) * max(precision[t:])
            last = recall[t]
    return area


def _random_case(seed: int, num_images: int = 14) -> tuple[list[Detections], WiderTruth]:
    """Small faces on whole pixels; scores of two digits that tie; empty images of either kind."""
    rng = np.random.default_rng(seed)
    detections: list[Detections] = []
    targets: list[Target] = []
    counts: dict[str, list[Any]] = {setting: [] for setting in SETTINGS}
    for _ in range(num_images):
        count = int(rng.choice([0, 1, 4, 12]))
        corners = rng.integers(0, 50, (count, 2))
        faces = np.hstack([corners, corners + rng.integers(0, 16, (count, 2))])
        targets.append(make_target(faces))
        for setting, rate in zip(SETTINGS, (0.2, 0.5, 0.9), strict=True):
            counts[setting].append(rng.random(count) < rate)
        near = np.repeat(faces, 3, axis=0) + rng.integers(-2, 3, (3 * count, 4))
        near[:, 2:] = np.maximum(near[:, :2], near[:, 2:])
        corners = rng.integers(0, 50, (6, 2))
        found = np.vstack([near, np.hstack([corners, corners + rng.integers(3, 16, (6, 2))])])
        found = found[: 0 if rng.random() < 0.2 else len(found)].astype(np.float32)
        scores = rng.integers(20, 90, len(found)).astype(np.float32) / 100
        detections.append(Detections(found, scores, np.ones(len(found), np.int64)))
    return detections, WiderTruth(
        tuple(str(i) for i in range(num_images)), tuple(targets), {k: tuple(v) for k, v in counts.items()}
    )


@pytest.mark.parametrize("seed", range(4))
def test_random_cases_agree_with_a_plain_loop(seed: int) -> None:
    detections, truth = _random_case(seed)
    scores = wider_average_precision(detections, truth).average_precision
    for setting in SETTINGS:
        assert scores[setting] == pytest.approx(_plain_loop(detections, truth, setting), abs=1e-12)
    assert len(set(scores.values())) == 3


def _one_image(found: Any, scores: Any, faces: Any, counting: Any) -> dict[str, float]:
    detections = Detections(
        np.array(found, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.ones(len(scores), int)
    )
    truth = WiderTruth(("a",), (make_target(faces),), {"easy": (np.array(counting, bool),)})
    return wider_average_precision([detections], truth).average_precision


FACE, OTHER, NOWHERE = [0, 0, 20, 20], [50, 50, 70, 70], [100, 0, 120, 20]


def test_faces_that_do_not_count_take_their_detections_along() -> None:
    assert _one_image([OTHER, FACE], [0.9, 0.8], [FACE, OTHER], [1, 0]) == {"easy": 1.0}
    assert _one_image([NOWHERE, FACE], [0.9, 0.8], [FACE, OTHER], [1, 0]) == {"easy": 0.5}


def test_a_second_detection_of_a_face_is_false() -> None:
    scores = _one_image([FACE, FACE, OTHER], [0.9, 0.8, 0.5], [FACE, OTHER], [1, 1])
    assert scores["easy"] == pytest.approx((1 + 2 / 3) / 2)


def test_only_the_order_of_scores_in_thousandths_of_their_range_counts() -> None:
    detections, truth = _random_case(9)
    squeezed = [Detections(d.boxes, d.scores * 0.1 + 0.3, d.labels) for d in detections]
    one, two = (wider_average_precision(d, truth).average_precision for d in (detections, squeezed))
    assert one == pytest.approx(two, abs=5e-3)


def test_equal_scores_no_detections_and_no_faces_are_not_errors() -> None:
    assert _one_image([FACE, NOWHERE], [0.5, 0.5], [FACE], [1]) == {"easy": 0.5}
    assert _one_image([], [], [FACE], [1]) == {"easy": 0.0}
    assert np.isnan(_one_image([FACE], [0.5], [FACE], [0])["easy"])


def _write_truth(folder: Path, last: int = 1) -> None:
    """Two events; the second image of the first has no face that counts."""
    savemat = pytest.importorskip("scipy.io").savemat

    def cells(values: list[Any]) -> Any:
        column = np.empty((len(values), 1), object)
        column[:, 0] = values
        return column

    boxes = [[[[10, 20, 30, 40], [1, 1, 0, 0]], [[5, 5, 9, 9]]], [[[7, 8, 9, 10]]]]
    content = {
        "event_list": cells(["0--Parade", "1--Handshaking"]),
        "file_list": cells([cells(["0_a_1", "0_a_2"]), cells(["1_b_1"])]),
        "face_bbx_list": cells([cells([np.array(b, np.int32) for b in event]) for event in boxes]),
    }
    savemat(folder / "wider_face_val.mat", content)
    numbers = [[[[1]], np.zeros((0, 1))], [[[last]]]]
    for setting in SETTINGS:
        listed = cells([cells([np.array(n, np.uint8) for n in event]) for event in numbers])
        savemat(folder / f"wider_{setting}_val.mat", {"gt_list": listed})


def test_the_official_files_are_read(tmp_path: Path) -> None:
    _write_truth(tmp_path)
    truth = read_wider_truth(tmp_path)
    assert truth.names == ("0--Parade/0_a_1", "0--Parade/0_a_2", "1--Handshaking/1_b_1")
    assert truth.targets[0].boxes.tolist() == [[10, 20, 40, 60], [1, 1, 1, 1]]
    assert [c.tolist() for c in truth.counts["hard"]] == [[True, False], [False], [True]]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    with pytest.raises(InputError, match=r"wider_face_val\.mat: .*, wanted"):
        read_wider_truth(tmp_path)


def test_a_face_that_is_not_there_cannot_count(tmp_path: Path) -> None:
    _write_truth(tmp_path, last=2)
    with pytest.raises(InputError, match=r"wider_easy_val.mat: image 3: face 2, wanted 1 to 1"):
        read_wider_truth(tmp_path)


def test_predictions_are_read_from_text(tmp_path: Path) -> None:
    _write_truth(tmp_path)
    names = read_wider_truth(tmp_path).names
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_text(f"{name}\n1\n10 20 30 40 0.123456789012\n")
    (tmp_path / f"{names[2]}.txt").write_text(f"{names[2]}\n0\n")
    found = read_wider_predictions(tmp_path, names)
    assert [len(d) for d in found] == [1, 1, 0]
    assert found[0].boxes.tolist() == [[10, 20, 40, 60]]
    assert found[0].scores.tolist() == [0.123456789012]
    (tmp_path / f"{names[1]}.txt").write_text("a\n1\n1 2 3\n")
    with pytest.raises(InputError, match=r"0_a_2.txt: found a line that is not 5 numbers"):
        read_wider_predictions(tmp_path, names)
    (tmp_path / f"{names[0]}.txt").unlink()
    with pytest.raises(InputError, match=r"0_a_1.txt: no such file"):
        read_wider_predictions(tmp_path, names)
