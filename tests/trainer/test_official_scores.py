import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs.errors import InputError
from trainer.dataset import BoxedImage
from trainer.datasets.fddb import FddbConfig
from trainer.datasets.voc import VocConfig
from trainer.datasets.wider import WiderConfig
from trainer.evaluation.official_scores import find_truth, official_scores, shown_metrics, table_scores
from trainer.runs.config import RunConfig
from trainer.runs.folder import Run
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
    tabled = table_scores(config, "test", photos, detections, tmp_path, tmp_path / "out")
    assert tabled == {
        f"TPR_{kind}": round(rate, 6) for kind, rate in scores["false_positives"]["1000"].items()
    }


def test_other_data_sets_have_none(tmp_path: Path) -> None:
    assert official_scores(VocConfig(root=tmp_path), "test", [], [], tmp_path, tmp_path) == {}
    assert table_scores(VocConfig(root=tmp_path), "test", [], [], tmp_path, tmp_path) == {}


def test_a_run_has_widers_settings_where_the_tables_and_all_of_their_photos_are(wider, tmp_path) -> None:
    photos = [boxed("0--Parade/b"), boxed("0--Parade/a"), boxed("0--Parade/none-of-them")]
    detections = [found(score=0.1), found((10, 10, 40, 40)), found((0, 0, 9, 9))]
    scores = table_scores(wider, "val", photos, detections, tmp_path, tmp_path)
    assert scores == {"AP_easy": 1, "AP_medium": 1, "AP_hard": 0.5}
    assert shown_metrics([None, {"AP50": 0.1}, {"AP50": 0.1, **scores}]) == ["AP50", "AP", *scores]
    assert table_scores(wider, "val", photos[:1], detections[:1], tmp_path, tmp_path) == {}
    (tmp_path / "ground_truth" / "wider_hard_val.mat").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"wider_hard_val\.mat"):
        find_truth(wider, tmp_path)
    (tmp_path / "ground_truth" / "wider_easy_val.mat").unlink()
    assert table_scores(wider, "val", photos, detections, tmp_path, tmp_path) == {}


def test_a_runs_scores_and_table_hold_widers_settings(wider, sets, tmp_path: Path) -> None:
    for split in ("train", "val"):
        folder = tmp_path / f"WIDER_{split}" / "images" / "0--Parade"
        folder.mkdir(parents=True)
        lines = []
        for name, (x, y, side) in {"a": (10, 10, 30), "b": (50, 20, 20)}.items():
            cv2.imwrite(str(folder / f"{name}.jpg"), np.full((80, 100, 3), 90, np.uint8))
            lines += [f"0--Parade/{name}.jpg", "1", f"{x} {y} {side} {side} 0 0 0 0 0 0"]
        listed = tmp_path / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text("\n".join(lines) + "\n")
    config = RunConfig(
        crops=[str(sets[0])],
        backgrounds=str(sets[1]),
        classes=("disc",),
        dataset=wider.model_dump(),
        test_split="val",
        detector={"kind": "ssd", "weights": "none", "image_size": 64},
        phases=("scratch",),
        num_real=(1,),
        seeds=(0,),
        training={"steps": 1, "batch_size": 1},
    )
    run = Run(config, tmp_path / "run", tmp_path)
    run.run()
    (scores,) = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert all(0 <= scores[f"AP_{setting}"] <= 1 for setting in ("easy", "medium", "hard"))
    assert "| AP_hard, real photos" in (tmp_path / "run" / "table.md").read_text()
    (tmp_path / "ground_truth" / "wider_hard_val.mat").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"wider_hard_val\.mat"):
        Run(config, tmp_path / "another", tmp_path)


def test_a_setting_without_a_face_has_no_score(wider, tmp_path: Path) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    none = cells([cells([np.zeros((0, 1))] * 2)])
    savemat(tmp_path / "ground_truth" / "wider_easy_val.mat", {"gt_list": none})
    photos = [boxed("0--Parade/a"), boxed("0--Parade/b")]
    scores = table_scores(wider, "val", photos, [found((10, 10, 40, 40))] * 2, tmp_path, tmp_path)
    assert scores.keys() == {"AP_medium", "AP_hard"}
