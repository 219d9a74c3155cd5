"""SSD300 and SSDLite: the publishers' networks, losses and checkpoints, behind our seams."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    SSD300_VGG16_Weights,
    SSDLite320_MobileNet_V3_Large_Weights,
    ssd300_vgg16,
    ssdlite320_mobilenet_v3_large,
)

from configs.errors import InputError
from configs.kinds import config_class
from trainer.anchoring.boxes import cxcywh_to_xyxy, decode
from trainer.anchoring.matching import IGNORED
from trainer.candidates import Selecting
from trainer.detector import DetectorConfig
from trainer.multibox.config import MultiBoxConfig
from trainer.multibox.detector import MultiBox
from trainer.sample import Batch, Sample, collate, make_target
from trainer.training.config import FreezeConfig
from trainer.training.optimisation import freeze, set_train_mode

THEIRS = {"ssd300_vgg16": ssd300_vgg16, "ssdlite320": ssdlite320_mobilenet_v3_large}
KINDS = [*THEIRS, "ssd300_resnet50"]
SMALL = 64  # px, of the kind that takes any size
LITE_FILE = "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield


def build(kind: str, num_classes: int = 1, home: Path = Path(), **settings: Any) -> MultiBox:
    if kind == "ssdlite320":
        settings = {"image_size": SMALL, **settings}
    config = config_class("trainer.detectors", kind, DetectorConfig)
    detector = config.model_validate({"kind": kind, "weights": "none", **settings}).build(num_classes, home)
    assert isinstance(detector, MultiBox)
    return detector


def theirs(detector: MultiBox, num_classes: int) -> nn.Module:
    """torchvision's model on the same tensors; strictly, so the state dict is its own."""
    with torch.device("meta"):
        model = THEIRS[detector.config.kind](weights=None, weights_backbone=None, num_classes=num_classes + 1)
    model.load_state_dict(detector.network.state_dict(), assign=True)
    return model


def enliven(detector: MultiBox) -> MultiBox:
    """Weights under which scores and offsets differ from place to place."""
    for module in detector.network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
    detector.eval()
    with torch.no_grad():
        logits, offsets = detector(pictures(detector.config.image_size, None).images)
        for name, parameter in detector.network.named_parameters():
            is_class = name.startswith(detector.network.class_head)
            if name.startswith(("head.", "loc.", "conf.")) and parameter.ndim == 4 and parameter.shape[1] > 1:
                parameter /= logits.std() if is_class else offsets.std()
    detector.train()
    return detector


def pictures(size: int, *places: tuple[int, int, int] | None, ignore: bool = False) -> Batch:
    """Noise, and in it a red square for each place (x, y, side)."""
    rng, samples = np.random.default_rng(1), []
    for i, place in enumerate(places):
        image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        boxes = []
        if place is not None:
            x, y, side = place
            image[y : y + side, x : x + side] = (230, 30, 30)
            boxes = [[x, y, x + side, y + side]]
        samples.append(Sample(str(i), image, make_target(boxes, ignore=[ignore] * len(boxes))))
    return collate(samples)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_found_by_its_files_name(kind: str) -> None:
    assert issubclass(config_class("trainer.detectors", kind, DetectorConfig), MultiBoxConfig)


@pytest.mark.parametrize(
    ("kind", "published"),
    [
        ("ssd300_vgg16", SSD300_VGG16_Weights.COCO_V1),
        ("ssdlite320", SSDLite320_MobileNet_V3_Large_Weights.COCO_V1),
    ],
)
def test_the_published_checkpoint_has_our_tensors_name_by_name(kind: str, published: Any) -> None:
    config = config_class("trainer.detectors", kind, DetectorConfig)
    with torch.device("meta"):
        ours = config.model_validate({"kind": kind, "weights": "none"}).build(90, Path()).network
        model = THEIRS[kind](weights=None, weights_backbone=None, num_classes=91)
    assert sum(p.numel() for p in ours.parameters()) == published.meta["num_params"]
    expected = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected


@pytest.mark.parametrize("kind", THEIRS)
def test_outputs_and_detections_are_torchvisions_on_the_same_weights(kind: str) -> None:
    detector = enliven(build(kind, num_classes=2, image_size=320 if kind == "ssdlite320" else 300)).eval()
    model = theirs(detector, 2).eval()
    images = pictures(detector.config.image_size, (30, 40, 120)).images
    floats = [image / 255 for image in images]
    with torch.no_grad():
        listed, _ = model.transform(floats)
        maps = list(model.backbone(listed.tensors).values())
        expected = model.head(maps)
        logits, offsets = detector(images)
        anchors = model.anchor_generator(listed, maps)[0]
        found = model(floats)[0]
    torch.testing.assert_close(logits, expected["cls_logits"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(offsets, expected["bbox_regression"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cxcywh_to_xyxy(detector.anchors), anchors, rtol=0, atol=1e-4)
    ours = detector.detect(images)[0]
    assert len(ours) == len(found["scores"]) > 50
    np.testing.assert_allclose(ours.scores, found["scores"].numpy(), atol=1e-5)
    distance = np.abs(ours.boxes[:, None] - found["boxes"].numpy()).max(2)
    distance[ours.labels[:, None] != found["labels"].numpy()] = np.inf
    assert distance.min(0).max() < 0.01 and distance.min(1).max() < 0.01


def test_the_losses_are_torchvisions_under_its_rules() -> None:
    detector = enliven(build("ssdlite320", 2, image_size=320, claims="last", min_negatives=0))
    model = theirs(detector, 2).train()
    batch = pictures(320, (30, 40, 120), (200, 100, 70), None)
    batch.labels[1][0] = 2
    targets = [{"boxes": b, "labels": n} for b, n in zip(batch.boxes, batch.labels, strict=True)]
    expected = model([image / 255 for image in batch.images], targets)
    losses = detector.losses(batch)
    torch.testing.assert_close(losses["localization"], expected["bbox_regression"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(losses["classification"], expected["classification"], rtol=1e-3, atol=1e-3)


def test_resnets_heads_and_boxes_are_laid_out_as_nvidias() -> None:
    detector = enliven(build("ssd300_resnet50", num_classes=2)).eval()
    network, images = detector.network, pictures(300, (30, 40, 120)).images
    with torch.no_grad():
        logits, offsets = detector(images)
        maps = network.maps((images - detector.mean) / detector.std)
        loc, conf = (
            torch.cat([head(x).reshape(1, values, -1) for head, x in zip(heads, maps, strict=True)], 2)[0].T
            for heads, values in ((network.loc, 4), (network.conf, 3))
        )
    theirs = torch.cat((decode(loc, nvidias_boxes()), conf), 1)
    ours = torch.cat((decode(offsets, detector.anchors)[0], logits[0]), 1)
    places, start = [], 0  # of their anchors in our order: y, x, shape instead of shape, y, x
    for (rows, columns), shapes in zip(detector.map_sizes, detector.config.anchor_shapes(), strict=True):
        own = torch.arange(start, start + len(shapes) * rows * columns)
        places.append(own.view(len(shapes), rows, columns).permute(1, 2, 0).flatten())
        start += len(own)
    torch.testing.assert_close(ours, theirs[torch.cat(places)], rtol=1e-4, atol=1e-2)


def nvidias_boxes() -> Tensor:
    """cxcywh px, in the order map, shape, y, x; all four are cut to the image in fractions of it."""
    cells, steps = (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300)
    sizes = (21, 45, 99, 153, 207, 261, 315)
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    boxes = []
    for k, count in enumerate(cells):
        shapes = [(sizes[k],) * 2, ((sizes[k] * sizes[k + 1]) ** 0.5,) * 2]
        for ratio in ratios[k]:
            long, short = sizes[k] * ratio**0.5, sizes[k] / ratio**0.5
            shapes += [(long, short), (short, long)]
        boxes += [
            ((x + 0.5) * steps[k], (y + 0.5) * steps[k], *shape)
            for shape in shapes
            for y in range(count)
            for x in range(count)
        ]
    assert len(boxes) == 8732
    return torch.tensor(boxes).clamp(0, 300)


def test_resnets_state_dict_has_nvidias_names() -> None:
    with torch.device("meta"):
        config = config_class("trainer.detectors", "ssd300_resnet50", DetectorConfig)
        network = (
            config.model_validate({"kind": "ssd300_resnet50", "weights": "none"}).build(80, Path()).network
        )
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert {key.split(".")[0] for key in shapes} == {"feature_extractor", "additional_blocks", "loc", "conf"}
    assert shapes["feature_extractor.feature_extractor.0.weight"] == (64, 3, 7, 7)
    assert shapes["feature_extractor.feature_extractor.6.5.conv3.weight"] == (1024, 256, 1, 1)
    assert shapes["additional_blocks.4.3.weight"] == (256, 128, 3, 3)
    assert shapes["loc.1.weight"] == (24, 512, 3, 3)
    assert shapes["conf.5.bias"] == (4 * 81,)


def test_a_checkpoint_of_other_classes_loads_but_for_what_tells_them_apart(tmp_path: Path) -> None:
    path = tmp_path / "data" / "weights" / LITE_FILE
    path.parent.mkdir(parents=True)
    coco = enliven(build("ssdlite320", num_classes=90)).network.state_dict()
    torch.save(coco, path)
    loaded = build("ssdlite320", home=tmp_path, checkpoint="coco").network.state_dict()
    others = {key for key, value in loaded.items() if value.shape != coco[key].shape}
    assert len(others) == 12 and all("classification_head" in key for key in others)
    assert all(torch.equal(loaded[key], coco[key]) for key in loaded.keys() - others)


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_checkpoint_of_the_same_classes_loads_whole_and_a_foreign_one_not(
    is_ours: bool, tmp_path: Path
) -> None:
    trained = enliven(build("ssdlite320", num_classes=3))
    state = (trained if is_ours else trained.network).state_dict()
    torch.save({"model": state}, tmp_path / "mine.pth")
    loaded = build("ssdlite320", num_classes=3, home=tmp_path, checkpoint="mine.pth").network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in trained.network.state_dict().items())
    with pytest.raises(InputError, match=r"mine\.pth: found .* missing, first additional_blocks"):
        build("ssd300_resnet50", num_classes=3, home=tmp_path, checkpoint="mine.pth")


@pytest.mark.parametrize(
    ("kind", "settings", "file"),
    [
        ("ssdlite320", {"checkpoint": "coco"}, LITE_FILE),
        ("ssdlite320", {"weights": "imagenet"}, "mobilenet_v3_large-8738ca79.pth"),
        ("ssd300_vgg16", {"weights": "imagenet"}, "vgg16_features-amdegroot-88682ab5.pth"),
        ("ssd300_resnet50", {"weights": "imagenet"}, "resnet50-0676ba61.pth"),
    ],
)
def test_missing_weights_are_not_fetched_but_named(
    kind: str, settings: dict[str, str], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(InputError) as caught:
        build(kind, home=tmp_path, **settings)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'data' / 'weights' / file}: found no file, wanted ")
    assert f"https://download.pytorch.org/models/{file}" in message and "\n" not in message


def test_imagenet_weights_are_found_where_torch_keeps_its_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import mobilenet_v3_large

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    model = mobilenet_v3_large()
    torch.save(model.state_dict(), folder / "mobilenet_v3_large-8738ca79.pth")
    detector = build("ssdlite320", home=tmp_path, weights="imagenet")
    assert not detector.config.reduced_tail
    assert torch.equal(detector.backbone.features[0][0][0].weight, model.features[0][0].weight)


def test_without_weights_the_network_stays_the_same() -> None:
    config = config_class("trainer.detectors", "ssdlite320", DetectorConfig).model_validate(
        {"kind": "ssdlite320", "image_size": SMALL}
    )
    bare = config.without_weights()
    assert (bare.weights, bare.reduced_tail) == ("none", False)
    again = type(config).model_validate(bare.model_dump(mode="json"))
    assert again == bare


def test_training_on_two_images_reduces_the_loss() -> None:
    detector, batch = build("ssdlite320"), pictures(SMALL, (10, 12, 30), (20, 8, 40))
    optimizer = torch.optim.Adam(detector.parameters(), 2e-3)
    totals = []
    for _ in range(16):
        losses = detector.losses(batch)
        assert set(losses) == {"classification", "localization"}
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.5 * totals[0]


def test_a_batch_without_objects_has_a_finite_loss_that_teaches() -> None:
    detector = enliven(build("ssdlite320"))
    losses = detector.losses(pictures(SMALL, None, None))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite() and losses["localization"] == 0
    gradient = detector.network.head.classification_head.module_list[0][1].weight.grad
    assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0


def test_two_hundred_objects_and_boxes_of_one_pixel_have_a_finite_loss_and_an_anchor_each() -> None:
    detector, batch = build("ssdlite320", image_size=128), pictures(128, None, None)
    low = torch.from_numpy(np.random.default_rng(0).uniform(0, 120, (200, 2))).float()
    boxes = (torch.cat((low, low + 6), 1), torch.tensor([[0.0, 0, 1, 1], [127, 127, 128, 128], [3, 3, 3, 3]]))
    labels = tuple(torch.ones(len(own), dtype=torch.int64) for own in boxes)
    ignore = tuple(torch.zeros(len(own), dtype=torch.bool) for own in boxes)
    losses = detector.losses(Batch(batch.keys, batch.images, boxes, labels, ignore))
    assert all(value.isfinite() for value in losses.values())
    corners = cxcywh_to_xyxy(detector.anchors)
    assigned, index = detector.match(corners, boxes[0], labels[0], ignore[0])
    assert len(index[assigned > 0].unique()) == 200


def test_an_ignored_box_is_neither_positive_nor_negative() -> None:
    detector = build("ssdlite320")
    seen, _ = detector.encode_targets(pictures(SMALL, (9, 8, 46)))
    ignored, targets = detector.encode_targets(pictures(SMALL, (9, 8, 46), ignore=True))
    assert set(ignored.unique().tolist()) == {0, IGNORED} and len(targets) == 0
    assert torch.equal(ignored == IGNORED, seen == 1)


def test_a_perfect_answer_is_detected_as_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, batch = build("ssdlite320", 2, score_threshold=0.5), pictures(SMALL, (10, 12, 30), None)
    batch.labels[0][0] = 2
    labels, targets = detector.encode_targets(batch)
    offsets = torch.zeros(*labels.shape, 4)
    offsets[labels > 0] = targets
    logits = torch.nn.functional.one_hot(labels, 3).float() * 20
    monkeypatch.setattr(detector, "forward", lambda _: (logits, offsets))
    found, nothing = detector.detect(batch.images)
    np.testing.assert_allclose(found.boxes, [[10, 12, 40, 42]], atol=1e-3)
    assert found.labels.tolist() == [2]
    assert nothing.boxes.shape == (0, 4)
    assert isinstance(detector, Selecting)


def test_one_image_at_a_time_is_refused_in_training_alone() -> None:
    detector, batch = build("ssdlite320"), pictures(SMALL, (10, 12, 30))
    with pytest.raises(InputError, match="batch_size: ssdlite320 found 1 image at a time, wanted 2 or more"):
        detector.losses(batch)
    set_train_mode(detector, FreezeConfig(batch_norm=True))
    assert detector.losses(batch)["classification"].isfinite()


def test_the_backbone_can_be_frozen() -> None:
    detector = build("ssd300_resnet50")
    freeze(detector, FreezeConfig(backbone=True))
    frozen = {name.split(".")[1] for name, p in detector.named_parameters() if not p.requires_grad}
    assert frozen == {"feature_extractor"}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("ssd300_vgg16", {"image_size": 224}, "image_size: found 224, wanted at least 257"),
        ("ssdlite320", {"scales": [0.1, 0.2]}, "scales and ratios: found 2 and 6, wanted 7"),
        ("ssdlite320", {"claims": "first"}, "'greedy' or 'last'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(kind, **settings)
