"""A single-shot detector whose heads sit directly on the backbone's maps.

Two 3x3 convolutions a map, softmax focal loss over all anchors, no mining, no extra layers, as in
Leonardo-Blanger/synthesis_pretraining_object_detection.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torchvision.ops import batched_nms

from trainer.anchoring.anchor_maps import AnchorMap, Shapes, even_map, lay_out, scaled_shapes
from trainer.anchoring.boxes import clip_boxes, cxcywh_to_xyxy, decode, encode
from trainer.anchoring.focal_loss import detection_losses, l2_penalty
from trainer.anchoring.matching import Claims, match_anchors
from trainer.candidates import UNFIT, Candidates
from trainer.detector import Detector, DetectorConfig
from trainer.networks.backbones import AnyBackbone, BackboneName, make_backbone
from trainer.networks.timm_backbones import PREFIX, scales_of, timm_maps
from trainer.sample import Batch, Detections

Scales = tuple[tuple[PositiveFloat, ...], ...]

_SCALES: Mapping[str, Scales] = {
    "mobilenet_v1": ((0.1,), (0.2,), (0.4,), (0.8,)),
    "mobilenet_v2": ((0.05, 0.08, 0.12), (0.18, 0.27), (0.4, 0.6, 0.85)),
    "resnet50": ((0.05,), (0.1,), (0.2,), (0.4,), (0.6,), (0.8,)),
}


class SsdConfig(DetectorConfig):
    """The paper's detector (``preset: paper``), or the same with three changes (``default``).

    The changes: MobileNet v2 with a map at stride 8; the best anchor of every object is positive, however
    small the overlap, since an object that no anchor fits would be taught as background; and a background
    prior (arXiv:1708.02002), which keeps the classification loss small from the first step, even of a batch
    without objects. A key that is given wins over the preset's.

    backbone: see `trainer.networks.backbones`; also ``timm/NAME``, for any model that timm can take features
    of.
    scales: for each map, anchor sizes as fractions of the image's side; by default the backbone's own, of
    timm's ones see `scales_of`.
    positive_iou, negative_iou, force_iou, claims: see `match_anchors`.
    prior: expected share of objects among anchors, sets the bias of the background logit; None is bias 0.
    l2: strength of the penalty on the heads' kernels. topk: detections of an image that enter the NMS.
    keras_padding: see `make_backbone`; true for ``paper`` on MobileNet v1.
    """

    anchor_settings: ClassVar[tuple[str, ...]] = ("scales", "ratios")

    kind: Literal["ssd"] = "ssd"
    preset: Literal["default", "paper"] = "default"
    backbone: BackboneName = "mobilenet_v2"
    weights: str = "imagenet"  # imagenet, none or a file
    keras_padding: bool = False
    scales: Scales = ()
    ratios: tuple[PositiveFloat, ...] = Field((0.5, 1.0, 2.0), min_length=1)
    positive_iou: float = Field(0.5, gt=0, le=1)
    negative_iou: float = Field(0.3, gt=0, le=1)
    force_iou: float = Field(0.0, ge=0, le=1)
    claims: Claims = "greedy"
    gamma: float = Field(2.0, ge=0)
    prior: float | None = Field(0.01, gt=0, lt=1)
    l2: float = Field(5e-4, ge=0)
    score_threshold: float = Field(0.01, ge=0, le=1)
    nms_iou: float = Field(0.5, ge=0, le=1)
    topk: PositiveInt = 400
    max_detections: PositiveInt = 100

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, given: Any) -> Any:
        """Keys not given take the preset's values, so the resolved settings say everything."""
        if not isinstance(given, Mapping):
            return given
        preset: dict[str, Any] = {"backbone": "mobilenet_v2"}
        if given.get("preset") == "paper":
            preset = {"backbone": "mobilenet_v1", "force_iou": 0.3, "prior": None}
            preset["keras_padding"] = given.get("backbone", "mobilenet_v1") == "mobilenet_v1"
        settings = {**preset, **given}
        if not settings.get("scales"):
            size = settings.get("image_size", cls.model_fields["image_size"].default)
            settings["scales"] = _default_scales(settings["backbone"], size)
        return settings

    @model_validator(mode="after")
    def _check(self) -> "SsdConfig":
        wanted = _num_maps(self.backbone)
        if len(self.scales) != wanted or not all(self.scales):
            raise ValueError(f"scales: found {list(self.scales)}, wanted one list for each of {wanted} maps")
        if self.keras_padding and self.backbone.startswith(PREFIX):
            raise ValueError(f"keras_padding: found true, wanted false with {self.backbone}")
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou: found {self.negative_iou}, wanted at most {self.positive_iou}")
        return self

    def anchor_shapes(self) -> list[Shapes]:
        """See `DetectorConfig.anchor_shapes`."""
        square = (self.image_size, self.image_size)
        return [scaled_shapes(scales, self.ratios, square) for scales in self.scales]

    def build(self, num_classes: int, home: Path) -> Detector:
        """See `DetectorConfig.build`."""
        backbone = make_backbone(
            self.backbone,
            self.weights,
            home,
            image_size=self.image_size,
            keras_padding=self.keras_padding,
        )
        return Ssd(self, backbone, num_classes)


def _num_maps(backbone: str) -> int:
    return len(timm_maps(backbone).strides if backbone.startswith(PREFIX) else _SCALES[backbone])


def _default_scales(backbone: Any, image_size: Any) -> Scales:
    """None where the settings are none of a backbone, which their own check says better."""
    if not isinstance(backbone, str) or not isinstance(image_size, int) or image_size < 1:
        return ()
    if not backbone.startswith(PREFIX):
        return _SCALES.get(backbone, ())
    try:
        return scales_of(timm_maps(backbone).strides, image_size)
    except ValueError:
        return ()


class Ssd(Detector):
    """See `Detector`. Class 0 of the logits is the background."""

    anchors: Tensor  # (A, 4) cxcywh px

    def __init__(self, config: SsdConfig, backbone: AnyBackbone, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.register_buffer("anchors", lay_out(self.anchor_maps()), persistent=False)
        counts = [len(scales) * len(config.ratios) for scales in config.scales]  # anchors in a cell
        self.class_heads = _make_heads(backbone.channels, counts, num_classes + 1)
        self.box_heads = _make_heads(backbone.channels, counts, 4)
        if config.prior is not None:
            _expect_background(self.class_heads, num_classes, config.prior)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) RGB to class logits (B, A, classes + 1) and box offsets (B, A, 4), float32."""
        size = self.config.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"images: found {tuple(images.shape)}, wanted (B, 3, {size}, {size})")
        maps = self.backbone(images)
        per_anchor = self.anchors.shape[0]
        return (
            _run_heads(self.class_heads, maps).view(images.shape[0], per_anchor, -1),
            _run_heads(self.box_heads, maps).view(images.shape[0], per_anchor, 4),
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``classification``, ``localization`` (see `detection_losses`) and ``l2`` of the heads' kernels."""
        logits, offsets = self(batch.images)
        labels, targets = self.encode_targets(batch)
        losses = detection_losses(logits, offsets, labels, targets, self.config.gamma)
        heads = (*self.class_heads.parameters(), *self.box_heads.parameters())
        kernels = [parameter for parameter in heads if parameter.ndim == 4]  # biases go free
        return {**losses, "l2": l2_penalty(kernels, self.config.l2)}

    def anchor_maps(self) -> list[AnchorMap]:
        """See `Detector.anchor_maps`."""
        square = (self.config.image_size, self.config.image_size)
        return [
            even_map(cells, square, shapes)
            for cells, shapes in zip(self.backbone.map_sizes, self.config.anchor_shapes(), strict=True)
        ]

    def match(self, corners: Tensor, boxes: Tensor, labels: Tensor, ignore: Tensor) -> tuple[Tensor, Tensor]:
        """`match_anchors` with the configured overlaps."""
        config = self.config
        return match_anchors(
            corners,
            boxes,
            labels,
            ignore,
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            force_iou=config.force_iou,
            claims=config.claims,
        )

    @torch.no_grad()
    def encode_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the anchors should say: labels (B, A) and offsets (B, A, 4), 0 where not positive."""
        corners = cxcywh_to_xyxy(self.anchors)
        labels = torch.zeros(len(batch.boxes), len(corners), dtype=torch.int64, device=corners.device)
        offsets = corners.new_zeros(*labels.shape, 4)
        for b, objects in enumerate(zip(batch.boxes, batch.labels, batch.ignore, strict=True)):
            labels[b], index = self.match(corners, *objects)
            positive = labels[b] > 0
            offsets[b, positive] = encode(objects[0][index[positive]], self.anchors[positive])
        return labels, offsets

    def detect(self, images: Tensor) -> list[Detections]:
        """Boxes clipped to the image, scores over score_threshold, best first. Call it in eval mode."""
        with torch.inference_mode():
            found = self.candidates(images)
            return [self._select(*image) for image in zip(found.boxes, found.scores, strict=True)]

    def candidates(self, images: Tensor) -> Candidates:
        """See `Selecting`."""
        logits, offsets = self(images)
        size = self.config.image_size
        boxes = clip_boxes(decode(offsets, self.anchors), size, size)
        scores = logits.softmax(-1)[..., 1:]
        has_area = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        fits = (scores >= self.config.score_threshold) & has_area[..., None]
        return Candidates(boxes, scores.where(fits, UNFIT))

    def _select(self, boxes: Tensor, scores: Tensor) -> Detections:
        """boxes (A, 4), scores (A, classes), one image's candidates: topk, suppression within each class."""
        config = self.config
        anchor, category = (scores > UNFIT).nonzero(as_tuple=True)
        score, order = scores[anchor, category].sort(descending=True, stable=True)
        anchor, category, score = (
            anchor[order][: config.topk],
            category[order][: config.topk],
            score[: config.topk],
        )
        kept = batched_nms(boxes[anchor], score, category, config.nms_iou)[: config.max_detections]
        return Detections(
            boxes=boxes[anchor[kept]].cpu().numpy(),
            scores=score[kept].cpu().numpy(),
            labels=(category[kept] + 1).cpu().numpy(),
        )


def _make_heads(channels: Sequence[int], counts: Sequence[int], values: int) -> nn.ModuleList:
    """A 3x3 convolution for each map, ``values`` numbers an anchor; Glorot-uniform, bias 0."""
    return nn.ModuleList(
        _make_head(width, count * values) for width, count in zip(channels, counts, strict=True)
    )


def _make_head(channels: int, values: int) -> nn.Conv2d:
    head = nn.Conv2d(channels, values, 3, padding=1)
    nn.init.xavier_uniform_(head.weight)
    head.bias = nn.Parameter(torch.zeros(values))
    return head.to(memory_format=torch.channels_last)


def _expect_background(heads: nn.ModuleList, num_classes: int, prior: float) -> None:
    """Bias the background logit so that an untrained anchor is an object with probability ``prior``."""
    bias = math.log(num_classes * (1 - prior) / prior)
    for parameter in heads.parameters():
        if parameter.ndim == 1:
            parameter.data.view(-1, num_classes + 1)[:, 0] = bias


def _run_heads(heads: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """All heads' values (B, numbers) float32, in the anchors' order: map, y, x, anchor of the cell."""
    values = [head(x).permute(0, 2, 3, 1).flatten(1) for head, x in zip(heads, maps, strict=True)]
    return torch.cat(values, 1).float()
