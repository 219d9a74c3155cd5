import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from configs.errors import InputError
from configs.kinds import config_class
from trainer.detector import DetectorConfig
from trainer.detectors.retinaface import RetinaFace, RetinaFaceConfig
from trainer.sample import Batch, Sample, collate, make_target
from trainer.training.config import FreezeConfig
from trainer.training.optimisation import freeze, set_train_mode

SIZE = 64


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def build(num_classes: int = 1, home: Path = Path(), **settings: object) -> RetinaFace:
    torch.manual_seed(0)
    settings = {"weights": "none", "image_size": SIZE, **settings}
    detector = RetinaFaceConfig.model_validate(settings).build(num_classes, home)
    assert isinstance(detector, RetinaFace)
    return detector


def squares(*images: list[tuple[int, int, int]]) -> Batch:
    """A grey image for each list of red squares (x, y, side)."""
    samples = []
    for i, places in enumerate(images):
        image = np.full((SIZE, SIZE, 3), 110, np.uint8)
        for x, y, side in places:
            image[y : y + side, x : x + side] = (230, 30, 30)
        boxes = [[x, y, x + side, y + side] for x, y, side in places]
        samples.append(Sample(str(i), image, make_target(boxes)))
    return collate(samples)


@dataclass(frozen=True)
class LandmarkBatch(Batch):
    landmarks: tuple[Tensor, ...] = ()
    has_landmarks: tuple[Tensor, ...] = ()


def with_landmarks(batch: Batch, *flags: list[bool], unknown: float = -1.0) -> LandmarkBatch:
    """Landmarks at a box's middle; ``unknown`` numbers where a face has none."""
    known = tuple(torch.tensor(flag, dtype=torch.bool) for flag in flags)
    middles = [((b[:, :2] + b[:, 2:]) / 2)[:, None].expand(-1, 5, 2) for b in batch.boxes]
    points = tuple(
        torch.where(k[:, None, None], m, torch.tensor(unknown)) for m, k in zip(middles, known, strict=True)
    )
    return LandmarkBatch(batch.keys, batch.images, batch.boxes, batch.labels, batch.ignore, points, known)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_the_kind_is_found_by_its_files_name() -> None:
    assert config_class("trainer.detectors", "retinaface", DetectorConfig) is RetinaFaceConfig


@pytest.mark.parametrize(
    ("backbone", "keys", "parameters", "digest"),
    [
        ("mobilenet0.25", 300, 426_608, "ccff862570be56f2"),
        ("resnet50", 456, 27_293_600, "44c12068268356e8"),
    ],
)
def test_the_state_dict_is_that_of_the_authors_checkpoint_key_by_key(
    backbone: str, keys: int, parameters: int, digest: str
) -> None:
    detector = build(backbone=backbone)
    listing = [f"{key} {tuple(value.shape)}" for key, value in detector.state_dict().items()]
    assert len(listing) == keys
    assert sum(p.numel() for p in detector.parameters()) == parameters
    assert hashlib.sha256("\n".join(listing).encode()).hexdigest().startswith(digest)


def save_checkpoint(path: Path, **settings: object) -> RetinaFace:
    """As the authors' programs do: wrapped, and trained on several devices."""
    detector = build(**settings)
    for parameter in detector.parameters():
        nn.init.normal_(parameter)
    state = {f"module.{key}": value for key, value in detector.state_dict().items()}
    torch.save({"epoch": 250, "state_dict": state}, path)
    return detector


def test_a_wrapped_checkpoint_loads_whole(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path / "Final.pth").state_dict()
    loaded = build(home=tmp_path, checkpoint="Final.pth").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in saved.items())


def test_a_checkpoint_loads_without_its_landmark_head_where_none_is_wanted(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path / "Final.pth")
    loaded = build(home=tmp_path, checkpoint="Final.pth", landmarks="none")
    assert torch.equal(loaded.BboxHead[2].conv1x1.weight, saved.BboxHead[2].conv1x1.weight)
    assert not any("Landmark" in key for key in loaded.state_dict())


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"backbone": "resnet50"}, "foreign, first body.stage1.0.0.weight"),
        ({"num_classes": 3}, "6 of another shape, first ClassHead.0.conv1x1.bias"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_the_first_fault_named(
    tmp_path: Path, settings: dict[str, object], fault: str
) -> None:
    save_checkpoint(tmp_path / "Final.pth")
    with pytest.raises(InputError, match=rf"Final\.pth: found 253 tensors, .*{fault}"):
        build(home=tmp_path, checkpoint="Final.pth", **settings)


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    state = build().state_dict()
    del state["ssh3.conv7x7_3.1.bias"]
    torch.save(state, tmp_path / "Final.pth")
    with pytest.raises(InputError, match=r"1 missing, first ssh3\.conv7x7_3\.1\.bias"):
        build(home=tmp_path, checkpoint="Final.pth")


def test_weights_of_the_body_load_with_their_classifier_left_aside(tmp_path: Path) -> None:
    state = {f"module.{key}": value + 1 for key, value in build().body.state_dict().items()}
    state["module.fc.weight"] = torch.zeros(1000, 256)
    place = tmp_path / "data" / "weights" / "mobilenetV1X0.25_pretrain.tar"
    place.parent.mkdir(parents=True)
    torch.save({"state_dict": state}, place)
    detector = build(home=tmp_path, weights="imagenet")
    assert torch.equal(detector.body.stage3[1][4].weight, state["module.stage3.1.4.weight"])


def test_the_authors_weights_of_the_body_load(shared_data: Path) -> None:
    file = shared_data / "weights" / "mobilenetV1X0.25_pretrain.tar"
    stored = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    detector = build(weights=str(file))
    assert torch.equal(detector.body.stage1[0][0].weight, stored["module.stage1.0.0.weight"])


def test_missing_imagenet_weights_are_asked_for_by_name_and_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pretrain\.tar: found no file, wanted ImageNet weights: put"):
        build(home=tmp_path, weights="imagenet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchor_sizes_px": [[16], [64]]}, "wanted a list for each of 3 maps"),
        ({"least_iou": 0.5}, "least_iou: found 0.5, wanted at most 0.35"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RetinaFaceConfig.model_validate(settings)


def test_the_network_is_fed_blue_first_with_the_mean_taken_off() -> None:
    detector, fed = build().eval(), []
    detector.body.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    colour = torch.tensor([124, 120, 109], dtype=torch.uint8)  # RGB
    detector.detect(colour.view(1, 3, 1, 1).expand(2, 3, 40, 56))
    assert fed[0].shape == (2, 3, 40, 56)
    assert fed[0][0, :, 7, 9].tolist() == [5.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("mobilenet0.25", (1, 1)),
        ("mobilenet0.25", (33, 97)),
        ("mobilenet0.25", (64, 40)),
        ("resnet50", (35, 50)),
    ],
)
def test_any_image_size_has_a_value_for_each_anchor_and_boxes_in_the_image(
    backbone: str, size: tuple[int, int]
) -> None:
    detector = build(backbone=backbone, max_detections=9).eval()
    images = torch.randint(
        0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    logits, offsets, points = detector(images)
    count = len(detector.anchors_of(images))
    assert (logits.shape, offsets.shape) == ((2, count, 2), (2, count, 4))
    assert points is not None
    assert points.shape == (2, count, 5, 2)
    for found in detector.detect(images):
        assert 0 < len(found) <= 9
        assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (
            np.float32,
            np.float32,
            np.int64,
        )
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [size[1], size[0]] * 2).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (np.diff(found.scores) <= 0).all()


def test_a_perfect_answer_is_detected_with_its_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = build(num_classes=2, score_threshold=0.5)
    batch = with_landmarks(squares([(10, 20, 30)], []), [True], [])
    batch.labels[0][0] = 2
    goals = detector.encode_targets(batch)
    positive = goals.labels > 0
    offsets, points = torch.zeros(*positive.shape, 4), torch.zeros(*positive.shape, 5, 2)
    offsets[positive], points[positive] = goals.offsets, goals.landmarks
    logits = nn.functional.one_hot(goals.labels, 3).float() * 20
    monkeypatch.setattr(detector, "forward", lambda _: (logits, offsets, points))
    (found, landmarks), (nothing, no_landmarks) = detector.detect_with_landmarks(batch.images)
    np.testing.assert_allclose(found.boxes, [[10, 20, 40, 50]], atol=1e-3)
    np.testing.assert_allclose(landmarks, np.tile([25, 35], (1, 5, 1)), atol=1e-3)
    assert found.labels.tolist() == [2]
    assert (len(nothing), nothing.boxes.shape, no_landmarks.shape) == (0, (0, 4), (0, 5, 2))


def test_training_on_two_images_reduces_every_loss() -> None:
    detector = build()
    batch = with_landmarks(squares([(10, 20, 30)], [(4, 4, 20), (36, 30, 24)]), [True], [True, False])
    optimiser = torch.optim.Adam(detector.parameters(), 2e-3)
    seen = []
    for _ in range(40):
        losses = detector.losses(batch)
        optimiser.zero_grad()
        total(losses).backward()
        optimiser.step()
        seen.append({name: value.item() for name, value in losses.items()})
    assert set(seen[0]) == {"classification", "localization", "landmarks"}
    assert all(seen[-1][name] < 0.4 * seen[0][name] for name in seen[0])


def test_numbers_of_landmarks_that_a_face_does_not_have_change_nothing() -> None:
    detector, batch = build(), squares([(10, 20, 30), (40, 10, 20)])
    losses = [
        detector.losses(with_landmarks(batch, [True, False], unknown=value))["landmarks"]
        for value in (-1.0, 0.0, float("nan"))
    ]
    assert losses[0] > 0
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("min_negatives", [0, 32])
@pytest.mark.parametrize("places", [[], [(10, 20, 30)]])
def test_without_landmarks_or_faces_every_parameter_has_a_finite_gradient_as_ranks_want(
    places: list[tuple[int, int, int]], min_negatives: int
) -> None:
    detector = build(min_negatives=min_negatives)
    losses = detector.losses(squares(places, []))
    total(losses).backward()
    gradients = {name: p.grad for name, p in detector.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert losses["landmarks"].item() == 0
    learns = bool(places) or min_negatives > 0
    assert bool(gradients["ClassHead.0.conv1x1.weight"].any()) == learns


def test_a_frozen_landmark_head_is_kept_and_has_no_loss() -> None:
    detector = build(landmarks="frozen")
    losses = detector.losses(with_landmarks(squares([(10, 20, 30)]), [True]))
    total(losses).backward()
    assert set(losses) == {"classification", "localization"}
    assert all(p.grad is None for name, p in detector.named_parameters() if name.startswith("LandmarkHead"))
    assert detector.eval().detect_with_landmarks(squares([]).images)[0][1].shape[1:] == (5, 2)


def test_a_crowd_of_tiny_faces_has_finite_losses() -> None:
    rng = np.random.default_rng(0)
    crowd = [(int(x), int(y), 1) for x, y in rng.integers(0, SIZE - 1, (200, 2))]
    detector = build(claims="greedy", least_iou=0.0)
    batch = squares(crowd, [])
    assert total(detector.losses(batch)).isfinite()
    assert (detector.encode_targets(batch).labels[0] > 0).sum() >= 150


@pytest.mark.parametrize(
    ("backbone", "parts"),
    [
        ("mobilenet0.25", {"stage1", "stage2"}),
        ("resnet50", {"conv1", "bn1", "layer1", "layer2", "layer3"}),
    ],
)
def test_frozen_stages_are_those_of_the_body(backbone: str, parts: set[str]) -> None:
    detector = build(backbone=backbone)
    freeze(detector, FreezeConfig(stages=2))
    frozen = {name.split(".")[1] for name, p in detector.named_parameters() if not p.requires_grad}
    assert frozen == parts


def test_frozen_batch_norms_keep_their_statistics() -> None:
    detector = build()
    set_train_mode(detector, FreezeConfig(batch_norm=True))
    assert not detector.fpn.merge1[1].training
    before = detector.fpn.merge1[1].running_mean.clone()
    detector.losses(squares([(10, 20, 30)]))
    assert torch.equal(detector.fpn.merge1[1].running_mean, before)
