from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from configs.kinds import config_class
from trainer.detector import DetectorConfig
from trainer.detectors.ssd import Ssd, SsdConfig
from trainer.sample import Batch, Sample, collate, make_target

SIZE = 96


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def build(num_classes: int = 1, **settings: object) -> Ssd:
    torch.manual_seed(0)
    config = SsdConfig.model_validate({"weights": "none", "image_size": SIZE, **settings})
    detector = config.build(num_classes, Path())
    assert isinstance(detector, Ssd)
    return detector


def squares(*places: tuple[int, int, int] | None) -> Batch:
    """A grey image for each place (x, y, side) with a red square there, or without."""
    samples = []
    for i, place in enumerate(places):
        image = np.full((SIZE, SIZE, 3), 110, np.uint8)
        boxes = []
        if place is not None:
            x, y, side = place
            image[y : y + side, x : x + side] = (230, 30, 30)
            boxes = [[x, y, x + side, y + side]]
        samples.append(Sample(str(i), image, make_target(boxes)))
    return collate(samples)


def test_the_kind_is_found_by_its_files_name() -> None:
    assert config_class("trainer.detectors", "ssd", DetectorConfig) is SsdConfig


@pytest.mark.parametrize(("backbone", "count"), [("mobilenet_v1", 2430), ("resnet50", 4149)])
def test_the_papers_detector_has_its_number_of_anchors(backbone: str, count: int) -> None:
    detector = build(preset="paper", backbone=backbone, image_size=300)
    assert detector.anchors.shape == (count, 4)


def test_the_papers_preset_gives_way_to_what_is_said_and_resolves_to_itself() -> None:
    config = SsdConfig.model_validate({"preset": "paper", "force_iou": 0.1})
    assert (config.backbone, config.keras_padding, config.prior) == ("mobilenet_v1", True, None)
    assert config.force_iou == 0.1
    assert SsdConfig.model_validate(config.model_dump(mode="json")) == config


def test_scales_that_do_not_fit_the_maps_are_refused() -> None:
    with pytest.raises(ValidationError, match="wanted one list for each of 3 maps"):
        SsdConfig.model_validate({"scales": [[0.1], [0.2]]})


def test_training_on_two_images_reduces_the_loss() -> None:
    detector, batch = build(), squares((10, 20, 40), (40, 30, 50))
    optimizer = torch.optim.Adam(detector.parameters(), 1e-3)
    totals = []
    for _ in range(30):
        losses = detector.losses(batch)
        assert set(losses) == {"classification", "localization", "l2"}
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.3 * totals[0]


def test_the_prior_makes_untrained_anchors_background() -> None:
    detector, batch = build(num_classes=3, prior=0.01), squares((10, 20, 40))
    for parameter in detector.class_heads.parameters():
        if parameter.ndim == 4:
            parameter.data.zero_()
    logits, _ = detector(batch.images)
    torch.testing.assert_close(logits.softmax(-1)[..., 0], torch.full(logits.shape[:2], 0.99))


def test_a_perfect_answer_is_detected_as_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, batch = build(num_classes=2, score_threshold=0.5), squares((10, 20, 40), None)
    batch.labels[0][0] = 2
    labels, offsets = detector.encode_targets(batch)
    logits = torch.nn.functional.one_hot(labels.clamp(min=0), 3).float() * 20
    monkeypatch.setattr(detector, "forward", lambda _: (logits, offsets))
    found, nothing = detector.detect(batch.images)
    np.testing.assert_allclose(found.boxes, [[10, 20, 50, 60]], atol=1e-3)
    assert found.labels.tolist() == [2]
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)


def test_detections_are_clipped_sorted_capped_and_typed() -> None:
    detector = build(prior=None, max_detections=7).eval()
    found = detector.detect(squares((10, 20, 40), None).images)
    assert [len(d) for d in found] == [7, 7]
    for d in found:
        assert (d.boxes.dtype, d.scores.dtype, d.labels.dtype) == (np.float32, np.float32, np.int64)
        assert d.boxes.min() >= 0
        assert d.boxes.max() <= SIZE
        assert (d.boxes[:, 2:] > d.boxes[:, :2]).all()
        assert (np.diff(d.scores) <= 0).all()


def test_detecting_changes_neither_mode_nor_weights() -> None:
    detector = build().eval()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    detector.detect(squares(None).images)
    assert not detector.training
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_batch_without_objects_has_a_finite_loss_with_a_gradient(preset: str) -> None:
    detector = build(preset=preset)
    total = torch.stack(list(detector.losses(squares(None, None)).values())).sum()
    total.backward()
    assert total.isfinite()
    gradients = [p.grad for p in detector.class_heads.parameters() if p.grad is not None]
    assert sum(float(g.abs().sum()) for g in gradients) > 0
    assert all(g.isfinite().all() for g in gradients)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted \\(B, 3, 96, 96\\)"):
        build()(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
