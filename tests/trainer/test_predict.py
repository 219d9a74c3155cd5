import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from configs.errors import InputError
from trainer.detectors.retinaface import RetinaFaceConfig
from trainer.detectors.ssd import SsdConfig
from trainer.predict import main
from trainer.runs.trained import TrainedAs
from trainer.training.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained SSD of two classes: it finds something everywhere, with low scores."""
    path = tmp_path_factory.mktemp("training") / "last.pt"
    torch.manual_seed(0)
    config = SsdConfig(weights="none", image_size=64, max_detections=5, score_threshold=0.0)
    said = TrainedAs(detector=config, classes=("bird", "car")).model_dump(mode="json")
    save_checkpoint(path, {"model": config.build(2, path.parent).state_dict(), "trained_as": said})
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """a/x.jpg, b/x.jpg of other sizes, b/broken.png and clip.avi of three frames."""
    rng = np.random.default_rng(0)
    for name, shape in (("a/x.jpg", (40, 60, 3)), ("b/x.jpg", (50, 30, 3))):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), rng.integers(0, 256, shape, np.uint8))
    (tmp_path / "photos/b/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    writer = cv2.VideoWriter(str(tmp_path / "photos/clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return tmp_path / "photos"


def predicted(photos: Path, *options: object) -> tuple[int, dict]:
    code = main([str(photos), "--out", str(photos.parent / "out"), *map(str, options)])
    return code, json.loads((photos.parent / "out/detections.json").read_text())


def test_everything_that_is_found_is_written_three_ways(checkpoint, photos, capsys) -> None:
    code, found = predicted(photos, "--checkpoint", checkpoint, "--threshold", 0)
    assert code == 1
    pictures = found["images"]
    assert [(Path(each["image"]).relative_to(photos).as_posix(), each.get("frame")) for each in pictures] == [
        ("a/x.jpg", None),
        ("b/x.jpg", None),
        *(("clip.avi", number) for number in range(3)),
    ]
    assert [(each["width"], each["height"]) for each in pictures[:3]] == [(60, 40), (30, 50), (64, 48)]
    assert [each["image"] for each in found["unreadable"]] == [str(photos / "b/broken.png")]
    assert (found["classes"], found["size"], found["threshold"]) == (["bird", "car"], "square", 0)
    rows = list(csv.DictReader((photos.parent / "out/detections.csv").read_text().splitlines()))
    assert len(rows) == sum(len(each["detections"]) for each in pictures) > 10
    first = pictures[0]["detections"][0]
    assert [float(rows[0][name]) for name in ("x0", "y0", "x1", "y1")] == first["box"]
    assert (rows[0]["label"], float(rows[0]["score"])) == (first["label"], first["score"])
    for each in pictures:
        for one in each["detections"]:
            x0, y0, x1, y1 = one["box"]
            assert 0 <= x0 < x1 <= each["width"]
            assert 0 <= y0 < y1 <= each["height"]
    drawn = {
        path.relative_to(photos.parent / "out/images").as_posix()
        for path in photos.parent.glob("out/images/**/*.*g")
    }
    assert drawn == {"a/x.jpg", "b/x.jpg", *(f"clip.avi/{number:06d}.jpg" for number in range(3))}
    assert cv2.imread(str(photos.parent / "out/images/b/x.jpg")).shape == (50, 30, 3)
    out, err = capsys.readouterr()
    assert "in 5 pictures, 1 cannot be read" in out
    assert err.count("\n") == 1
    assert "broken.png: " in err


def test_a_phones_photo_is_looked_at_upright(checkpoint, tmp_path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    with Image.new("RGB", (60, 40), "red") as image:
        image.save(folder / "turned.jpg", exif=exif)
    _, found = predicted(folder, "--checkpoint", checkpoint, "--threshold", 0)
    assert [(each["width"], each["height"]) for each in found["images"]] == [(40, 60)]


def test_the_same_command_again_writes_the_same(checkpoint, photos) -> None:
    def written() -> dict[str, bytes]:
        predicted(photos, "--checkpoint", checkpoint, "--threshold", 0.1)
        return {str(path): path.read_bytes() for path in photos.parent.rglob("out/**/*") if path.is_file()}

    assert written() == written()


def test_scores_classes_frames_and_formats_are_chosen(checkpoint, photos) -> None:
    _, everything = predicted(photos, "--checkpoint", checkpoint, "--threshold", 0, "--format", "json")
    assert {path.name for path in photos.parent.glob("out/*")} == {"detections.json"}
    scores = sorted(d["score"] for each in everything["images"] for d in each["detections"])
    least = scores[len(scores) // 2]
    _, birds = predicted(
        photos, "--checkpoint", checkpoint, "--threshold", least, "--class", "bird", "--every", 2
    )
    assert [each.get("frame") for each in birds["images"]] == [None, None, 0, 2]
    for few, all_of_it in zip(birds["images"][:2], everything["images"][:2], strict=True):
        wanted = [d for d in all_of_it["detections"] if d["label"] == "bird" and d["score"] > least]
        assert [d for d in few["detections"] if d["score"] > least] == wanted
        assert all(d["score"] >= least and d["label"] == "bird" for d in few["detections"])


def test_others_weights_find_faces_with_landmarks_at_any_size(photos, tmp_path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "faces.pth"
    torch.save(RetinaFaceConfig(weights="none").build(1, tmp_path).state_dict(), weights)
    given = ["--detector", "retinaface", f"checkpoint={weights}", "max_detections=3", "--names", "face"]
    _, found = predicted(photos, "--threshold", 0.1, *given)
    assert (found["size"], found["classes"]) == ("native", ["face"])
    detections = [one for each in found["images"] for one in each["detections"]]
    assert detections
    assert all(np.shape(one["landmarks"]) == (5, 2) for one in detections)
    header = (photos.parent / "out/detections.csv").read_text().partition("\n")[0]
    assert header.endswith("left_mouth_x,left_mouth_y,right_mouth_x,right_mouth_y")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], "found no checkpoint and --detector: wanted one of them"),
        (["--detector", "retinaface"], "found no checkpoint=FILE, wanted trained weights"),
        (["--detector", "retinafase", "a=b"], "did you mean 'retinaface'"),
        (["--detector", "retinaface", "x.jpg"], "found x.jpg, wanted key=value"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt: no such checkpoint"),
        (["--checkpoint", "LAST", "--size", "native"], "detects in squares of 64 px alone"),
        (["--checkpoint", "LAST", "--class", "brid"], "did you mean 'bird'"),
        (["--checkpoint", "LAST", "--threshold", "30"], "--threshold: found 30.0, wanted 0 to 1"),
        (["--checkpoint", "LAST", "--every", "0"], "--every: found 0"),
        (["--checkpoint", "LAST", "--out", "LAST"], "last.pt is a file, wanted a folder"),
        (["--checkpoint", "LAST", "--names", "x"], "--names: wanted with --detector alone"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(checkpoint, photos, options, wanted) -> None:
    given = [str(checkpoint) if word == "LAST" else word for word in options]
    with pytest.raises(InputError, match=wanted):
        predicted(photos, *given)
    assert not (photos.parent / "out").exists()


def test_a_crash_leaves_what_was_there(checkpoint, photos, monkeypatch) -> None:
    predicted(photos, "--checkpoint", checkpoint, "--threshold", 0)
    before = (photos.parent / "out/detections.json").read_bytes()
    monkeypatch.setattr("trainer.evaluation.predictions.draw_named", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predicted(photos, "--checkpoint", checkpoint)
    assert (photos.parent / "out/detections.json").read_bytes() == before
    assert not list((photos.parent / "out").glob(".*"))
