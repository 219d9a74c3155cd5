import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from configs.errors import InputError
from configs.kinds import config_class, kinds_in
from trainer import deploy
from trainer.anchoring.boxes import clip_boxes
from trainer.candidates import UNFIT, Candidates
from trainer.deployment import onnx_file, pt2_file
from trainer.deployment.agreement import agreement, compare, unpacked
from trainer.deployment.program import OUTPUTS, Operators, Program
from trainer.detector import DetectorConfig
from trainer.runs.trained import TrainedAs, open_trained
from trainer.sample import Detections
from trainer.training.checkpoint import save_checkpoint

_SSD = {"kind": "ssd", "backbone": "mobilenet_v1", "scales": [[0.2], [0.3], [0.5], [0.8]], "image_size": 64}
_FACES = {"kind": "retinaface", "anchor_sizes_px": [[16], [64], [256]]}
_FORMS = [pt2_file, onnx_file]


def build(settings: dict, num_classes: int = 2):
    """A detector that is sure of nothing and finds many things."""
    torch.manual_seed(1)
    few = {"weights": "none", "score_threshold": 0.0, "topk": 60, "max_detections": 25}
    config = config_class("trainer.detectors", settings["kind"], DetectorConfig)(**few | settings)
    return config.build(num_classes, Path()).eval()


def save(folder: Path, settings: dict) -> Path:
    detector = build(settings)
    said = TrainedAs(detector=detector.config, classes=("bird", "car")).model_dump(mode="json")
    save_checkpoint(folder / "last.pt", {"model": detector.state_dict(), "trained_as": said})
    return folder / "last.pt"


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 3, height, width), np.uint8)


def call_of(detector, form):
    program = Program(detector, Operators(form.rank, form.suppress)).eval()

    def call(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return dict(
                zip(OUTPUTS, map(torch.Tensor.numpy, program(torch.from_numpy(images))), strict=False)
            )

    return call


def some_candidates(fit_share: float) -> Candidates:
    """Of two images, 200 boxes and two classes; no two scores are equal. Some boxes lie outside of 64 px."""
    rng = np.random.default_rng(7)
    low = rng.uniform(0, 70, (2, 200, 2))
    boxes = np.concatenate((low, low + rng.uniform(5, 30, low.shape)), -1).astype(np.float32)
    scores = rng.permuted(np.linspace(0.1, 1, 800, dtype=np.float32)).reshape(2, 200, 2)
    scores[rng.random(scores.shape) > fit_share] = UNFIT
    return Candidates(torch.from_numpy(boxes), torch.from_numpy(scores))


@pytest.fixture(scope="module")
def ssd_in_onnx(tmp_path_factory):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("ssd")
    checkpoint, photo = save(folder, _SSD), folder / "photo.png"
    cv2.imwrite(str(photo), noise(1, 70, 90)[0].transpose(1, 2, 0))
    assert deploy.main([str(checkpoint), "--to", str(folder / "birds.onnx"), "--check", str(photo)]) == 0
    return checkpoint, folder / "birds.onnx"


@pytest.fixture(scope="module")
def faces_in_pt2(tmp_path_factory):
    """A detector, the program in the file that was made of it, and what the file says."""
    detector, path = build(_FACES), tmp_path_factory.mktemp("faces") / "faces.pt2"
    pt2_file.write(detector, {"classes": '["face", "mask"]'}, path)
    said = {"classes": ""}
    with path.open("rb") as file:
        return detector, torch.export.load(file, extra_files=said), said


def test_an_onnx_file_finds_what_the_detector_finds_in_any_number_of_images(ssd_in_onnx) -> None:
    checkpoint, path = ssd_in_onnx
    call, detector = onnx_file.open_file(path), open_trained(checkpoint, Path()).detector
    found = compare(detector, call, [noise(1, 64, 64), noise(5, 64, 64)])
    assert (found.images, found.lone, found.holds) == (6, 0, True)
    assert found.both > 50
    assert found.px < 1e-2
    assert {file.name for file in path.parent.iterdir()} == {"last.pt", "photo.png", "birds.onnx"}


def test_an_onnx_file_says_what_it_is(ssd_in_onnx) -> None:
    import onnx

    checkpoint, path = ssd_in_onnx
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(said["classes"]) == ["bird", "car"]
    assert said["input"] == "uint8 RGB (any, 3, 64, 64)"
    assert json.loads(said["detector"])["backbone"] == "mobilenet_v1"
    assert said["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_a_torch_program_finds_what_the_detector_finds_at_any_size(faces_in_pt2) -> None:
    detector, program, _ = faces_in_pt2
    module = program.module()
    for images in (noise(1, 33, 47), noise(2, 120, 75)):
        outputs = dict(zip(OUTPUTS, map(torch.Tensor.numpy, module(torch.from_numpy(images))), strict=True))
        for wanted, found in zip(detector.detect(torch.from_numpy(images)), unpacked(outputs), strict=True):
            assert len(wanted) > 5
            assert found.landmarks.shape == (len(wanted), 5, 2)
            assert agreement(wanted, found).lone == 0
            moved = Detections(wanted.boxes, wanted.scores, wanted.labels, wanted.landmarks + 1)
            assert agreement(moved, found).both == 0
        assert not outputs["landmarks"][0, outputs["counts"][0] :].any()


def test_a_torch_program_needs_torch_and_torchvision_alone_and_says_what_it_is(faces_in_pt2) -> None:
    _, program, said = faces_in_pt2
    called = [node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    assert {target.namespace for target in called} == {"aten", "torchvision"}
    assert json.loads(said["classes"]) == ["face", "mask"]


@pytest.mark.parametrize("kind", kinds_in("trainer.detectors"))
def test_the_program_of_every_kind_selects_as_its_detector_does(kind) -> None:
    detector = build({"kind": kind, "max_detections": 20})
    for share in (0.9, 0.05, 0.0):
        found = some_candidates(share)
        clipped = found if detector.any_size else Candidates(clip_boxes(found.boxes, 64, 64), found.scores)
        has_area = (clipped.boxes[..., 2:] > clipped.boxes[..., :2]).all(-1, keepdim=True)
        fits = has_area if not detector.any_size else torch.ones_like(has_area)
        detector.candidates = lambda images, c=clipped, f=fits: Candidates(c.boxes, c.scores.where(f, UNFIT))
        for form in _FORMS:
            agreed = compare(detector, call_of(detector, form), [noise(2, 64, 64)])
            assert (agreed.images, agreed.lone, agreed.px, agreed.score) == (2, 0, 0, 0)
            assert (agreed.both > 0) == (share > 0)


@pytest.mark.parametrize("form", _FORMS)
def test_each_class_of_each_image_is_suppressed_alone_and_the_unfit_suppress_nothing(form) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (3, 30, 2))
    boxes = torch.tensor(np.concatenate((low, low + rng.uniform(5, 30, (3, 30, 2))), -1), dtype=torch.float32)
    scores = torch.tensor(-np.sort(-rng.random((3, 30)), 1), dtype=torch.float32)
    scores[1, 20:], scores[2] = UNFIT, UNFIT
    category = torch.tensor(rng.integers(0, 2, (3, 30)))
    kept = form.suppress(boxes, scores, category, 2, 0.3) & (scores > UNFIT)
    for image, fits in enumerate(scores > UNFIT):
        wanted = batched_nms(boxes[image, fits], scores[image, fits], category[image, fits], 0.3)
        assert kept[image].nonzero()[:, 0].tolist() == sorted(wanted.tolist())
    assert 0 < kept.sum() < 45


@pytest.mark.parametrize("form", _FORMS)
def test_places_that_are_not_filled_hold_zeros(form) -> None:
    detector = build(_SSD | {"max_detections": 70})
    detector.candidates = lambda images: some_candidates(0.1)
    outputs = call_of(detector, form)(noise(2, 64, 64))
    assert outputs["scores"].shape == (2, 60)  # topk is less than max_detections
    for found, boxes, scores in zip(unpacked(outputs), outputs["boxes"], outputs["scores"], strict=True):
        count = len(found)
        assert 5 < count < 60
        assert (np.diff(found.scores) < 0).all()
        assert set(found.labels) == {1, 2}
        assert not boxes[count:].any()
        assert not scores[count:].any()


def test_detections_agree_in_any_order_of_equal_scores_and_the_lone_are_counted() -> None:
    boxes = np.array([[0, 0, 9, 9], [20, 20, 29, 29], [5, 5, 9, 9]], np.float32)
    first = Detections(boxes, np.array([0.9, 0.5, 0.5], np.float32), np.array([1, 1, 2]))
    swapped = Detections(boxes[[0, 2, 1]], first.scores, first.labels[[0, 2, 1]])
    assert agreement(first, swapped).holds
    moved = Detections(boxes + np.float32(0.05), first.scores, first.labels)
    assert agreement(first, moved).px == pytest.approx(0.05, abs=1e-5)
    relabelled = agreement(first, Detections(boxes, first.scores, np.array([1, 1, 1])))
    assert (relabelled.both, relabelled.lone, relabelled.holds) == (2, 2, False)
    one_lost = agreement(first, Detections(boxes[:2], first.scores[:2], first.labels[:2]))
    assert (one_lost.both, one_lost.lone, one_lost.holds) == (2, 1, False)


def _form(call) -> SimpleNamespace:
    return SimpleNamespace(
        RUNTIME="a runtime",
        write=lambda detector, about, path: path.write_text("a file"),
        is_runnable=lambda: call is not None,
        open_file=lambda path: call,
    )


def test_a_file_that_finds_other_things_is_refused(tmp_path, monkeypatch, capsys) -> None:
    other = call_of(build(_SSD | {"ratios": [3.0]}), pt2_file)
    monkeypatch.setattr(deploy, "_FORMS", {".other": _form(other)})
    path = tmp_path / "out" / "file.other"
    assert deploy.main([str(save(tmp_path, _SSD)), "--to", str(path)]) == 1
    assert [file.name for file in path.parent.iterdir()] == ["file.other.refused"]
    assert "does not find what" in capsys.readouterr().err


def test_a_file_is_written_with_a_warning_where_there_is_no_runtime(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(deploy, "_FORMS", {".other": _form(None)})
    assert deploy.main([str(save(tmp_path, _SSD)), "--to", str(tmp_path / "file.other")]) == 0
    assert (tmp_path / "file.other").read_text() == "a file"
    assert "NOT checked: a runtime is not installed" in capsys.readouterr().err


def test_what_cannot_be_deployed_is_refused_in_one_line(tmp_path, monkeypatch) -> None:
    with pytest.raises(
        InputError, match=r"--to: found model\.pth, wanted a name that ends in \.onnx or \.pt2"
    ):
        deploy.main(["last.pt", "--to", "model.pth"])
    with pytest.raises(InputError, match=r"--to: /.*: found a folder, wanted a file"):
        (tmp_path / "folder.pt2").mkdir()
        deploy.main(["last.pt", "--to", str(tmp_path / "folder.pt2")])
    with pytest.raises(InputError, match=r"nowhere\.pt: no such checkpoint"):
        deploy.main([str(tmp_path / "nowhere.pt"), "--to", str(tmp_path / "model.pt2")])
    checkpoint = str(save(tmp_path, _SSD))
    monkeypatch.setattr(onnx_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"ONNX: found no package onnx, onnxscript, wanted it: pip install"):
        deploy.main([checkpoint, "--to", str(tmp_path / "model.onnx")])
    cv2.imwrite(str(tmp_path / "tiny.png"), noise(1, 20, 50)[0].transpose(1, 2, 0))
    with pytest.raises(InputError, match=r"tiny\.png: found a side of 20 px, wanted 33 or more"):
        deploy.main([checkpoint, "--to", str(tmp_path / "a.pt2"), "--check", str(tmp_path / "tiny.png")])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.pt2", "last.pt", "tiny.png"]
