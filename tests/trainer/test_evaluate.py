import json
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import InputError
from configs.load import to_yaml
from trainer import evaluate
from trainer.datasets.voc import VocConfig
from trainer.detectors.ssd import SsdConfig
from trainer.evaluate import main
from trainer.evaluation.detections_file import read_detections, write_detections
from trainer.runs.config import RunConfig
from trainer.runs.trained import TrainedAs
from trainer.sample import Detections
from trainer.training.checkpoint import save_checkpoint


@pytest.fixture
def run_folder(voc_discs: Path, tmp_path: Path, monkeypatch) -> Path:
    """A run of two trainings, the first of which is done; its detections are the true boxes."""
    monkeypatch.chdir(tmp_path)
    config = RunConfig(
        crops=["crops"],
        backgrounds="backgrounds",
        dataset={"kind": "voc", "root": str(voc_discs)},
        detector={"kind": "ssd", "weights": "none", "image_size": 64},
        phases=("pretrain", "scratch"),
        num_real=(4,),
        seeds=(0,),
    )
    run = tmp_path / "run"
    folder = run / "seed-0/pretrain"
    folder.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(config))
    torch.manual_seed(0)
    detector = SsdConfig(weights="none", image_size=64)
    said = TrainedAs(detector=detector, classes=("disc",)).model_dump(mode="json")
    state = {"model": detector.build(1, tmp_path).state_dict(), "trained_as": said}
    save_checkpoint(folder / "checkpoints/last.pt", state)
    photos = VocConfig(root=voc_discs).read("test", ["disc"], tmp_path)
    detections = [
        Detections(photo.target.boxes, np.full(len(photo.target), 0.9, np.float32), photo.target.labels)
        for photo in photos
    ]
    write_detections(folder / "detections.npz", [photo.key for photo in photos], detections)
    (folder / "scores.json").write_text("{}")
    return run


def evaluated(place: Path, *options: str) -> dict:
    assert main([str(place), "--out", "scores", "--draws", "20", *options]) == 0
    return json.loads(Path("scores/evaluation.json").read_text())


def test_what_a_run_found_is_scored_without_detecting_again(run_folder, capsys, monkeypatch) -> None:
    monkeypatch.setattr(evaluate, "detect_photos", lambda *_: pytest.fail("detected"))
    report = evaluated(run_folder / "seed-0/pretrain")
    assert (report["photos"], report["scores"]["AP50"], report["split"]) == (6, 1.0, "test")
    assert report["checkpoint"] == str(run_folder / "seed-0/pretrain/checkpoints/last.pt")
    assert {path.name for path in Path("scores").iterdir()} == {
        "evaluation.json",
        "curves.png",
        "photos.png",
        "detections.npz",
    }
    assert "100.0 to 100.0" in capsys.readouterr().out


def test_of_a_run_every_finished_training_is_scored(run_folder, capsys) -> None:
    main([str(run_folder), "--out", "scores", "--draws", "0"])
    written = [path.relative_to("scores").as_posix() for path in Path("scores").rglob("evaluation.json")]
    assert written == ["seed-0/pretrain/evaluation.json"]


@pytest.mark.parametrize("how", ["incomplete", "older", "another data set", "another split", "a checkpoint"])
def test_what_a_run_found_is_not_taken_where_it_does_not_belong(run_folder, voc_discs, how) -> None:
    folder, options = run_folder / "seed-0/pretrain", []
    path = folder / "detections.npz"
    kept = read_detections(path)
    if how == "incomplete":
        write_detections(path, list(kept)[1:], list(kept.values())[1:])
    elif how == "older":
        (folder / "checkpoints/last.pt").touch()
    elif how == "another data set":
        options = ["--dataset", "voc", str(voc_discs), "one_based=true"]
    elif how == "another split":
        options = ["--split", "train"]
    report = evaluated(folder / "checkpoints/last.pt" if how == "a checkpoint" else folder, *options)
    assert report["scores"]["AP50"] < 0.5
    again = read_detections(Path("scores/detections.npz"))
    assert len(again) == (12 if how == "another split" else 6)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--dataset", "voc"], "--dataset: found voc, wanted KIND ROOT"),
        (["--dataset", "vok", "x"], "did you mean 'voc'"),
        (["--dataset", "voc", "x", "one_bsed=true"], "did you mean 'one_based'"),
        (["--size", "native"], "detects in squares of 64 px alone"),
        (["--draws", "-1"], "--draws: found -1"),
    ],
)
def test_mistakes_are_named(run_folder, options, wanted) -> None:
    with pytest.raises(InputError, match=wanted):
        evaluated(run_folder / "seed-0/pretrain", *options)


def test_a_place_without_a_run_needs_a_data_set(run_folder, tmp_path) -> None:
    (run_folder / "config.yaml").unlink()
    with pytest.raises(InputError, match="wanted --dataset KIND ROOT"):
        evaluated(run_folder / "seed-0/pretrain")
