from pathlib import Path

import cv2
import numpy as np
import pytest

from configs.errors import InputError
from trainer.dataset import BoxedImage
from trainer.datasets.fddb import FddbConfig
from trainer.datasets.voc import VocConfig
from trainer.datasets.wider import WiderConfig
from trainer.evaluation.official_scores import official_scores
from trainer.sample import Detections, make_target


def found(*boxes: tuple[float, ...], score: float = 0.9) -> Detections:
    scores = np.full(len(boxes), score, np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, np.ones(len(boxes), np.int64))


def boxed(name: str) -> BoxedImage:
    return BoxedImage(name, Path(f"{name}.jpg"), 100, 80, make_target([]))


def cells(values: list) -> np.ndarray:
    made = np.empty((len(values), 1), object)
    made[:, 0] = values
    return made


@pytest.fixture
def wider(tmp_path: Path) -> WiderConfig:
    """Two photos of a face each; the second's counts only in hard."""
    savemat = pytest.importorskip("scipy.io").savemat
    folder = tmp_path / "ground_truth"
    folder.mkdir()
    faces = [np.array([[10.0, 10, 30, 30]]), np.array([[50.0, 20, 20, 20]])]
    content = {
        "event_list": cells(["0--Parade"]),
        "file_list": cells([cells(["a", "b"])]),
        "face_bbx_list": cells([cells(faces)]),
    }
    savemat(folder / "wider_face_val.mat", content)
    for setting, second in (("easy", []), ("medium", []), ("hard", [[1]])):
        numbers = [np.array([[1]]), np.array(second).reshape(-1, 1)]
        savemat(folder / f"wider_{setting}_val.mat", {"gt_list": cells([cells(numbers)])})
    return WiderConfig(root=tmp_path)


def test_wider_has_its_three_settings_whatever_the_photos_order(wider, tmp_path: Path) -> None:
    photos = [boxed("0--Parade/b"), boxed("0--Parade/a")]
    detections = [found(score=0.1), found((10, 10, 40, 40))]
    scores = official_scores(wider, "val", photos, detections, tmp_path, tmp_path)
    assert scores["wider"] == pytest.approx({"easy": 1, "medium": 1, "hard": 0.5})
    truth = tmp_path / "ground_truth"
    assert official_scores(wider, "val", photos, detections, tmp_path, tmp_path, truth) == scores


def test_wider_wants_all_of_its_photos_and_does_without_its_tables(wider, tmp_path: Path) -> None:
    photos, detections = [boxed("0--Parade/a")], [found((10, 10, 40, 40))]
    with pytest.raises(InputError, match="1 of its 2 photos are not among the 1, 0--Parade/b first"):
        official_scores(wider, "val", photos, detections, tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"wider_face_val\.mat: no such file"):
        official_scores(wider, "val", photos, detections, tmp_path, tmp_path, tmp_path / "nowhere")
    elsewhere = WiderConfig(root=tmp_path / "nowhere")
    assert official_scores(elsewhere, "val", photos, detections, tmp_path, tmp_path) == {}


def test_fddb_has_its_rates_and_its_curves(tmp_path: Path) -> None:
    fold = tmp_path / "FDDB-folds" / "FDDB-fold-01-ellipseList.txt"
    fold.parent.mkdir()
    fold.write_text("2002/a\n1\n20 15 0.0 50 40 1\n2002/b\n2\n10 8 1.5 30 30  1\n12 9 0 70 50  1\n")
    for name in "ab":
        (tmp_path / "originalPics/2002").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / f"originalPics/2002/{name}.jpg"), np.zeros((80, 100, 3), np.uint8))
    config = FddbConfig(root=tmp_path, splits={"test": (1,)})
    photos = config.read("test", ["face"], tmp_path)
    detections = [found((30, 25, 70, 55)), found((58, 41, 82, 59), (0, 0, 5, 5))]
    scores = official_scores(config, "test", photos, detections, tmp_path, tmp_path / "out")["fddb"]
    assert scores["faces"] == 3
    assert scores["false_positives"]["100"]["discrete"] == pytest.approx(2 / 3)
    assert (
        0.4 < scores["false_positives"]["1000"]["continuous"] < 0.55
    )  # a box has 0.79 of an ellipse at most
    assert (tmp_path / "out/DiscROC.txt").read_text().split()[0] == "0.666666667"
    assert (tmp_path / "out/ContROC.txt").exists()


def test_other_data_sets_have_none(tmp_path: Path) -> None:
    assert official_scores(VocConfig(root=tmp_path), "test", [], [], tmp_path, tmp_path) == {}
