"""RetinaFace (Deng et al., arXiv:1905.00641) as biubug6/Pytorch_Retinaface has it, with its checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights
from torchvision.ops import batched_nms

from configs.errors import InputError
from trainer.anchoring.anchor_maps import AnchorMap, Shapes, stepped_map
from trainer.anchoring.boxes import clip_boxes, cxcywh_to_xyxy, decode, encode
from trainer.anchoring.multibox_loss import mined_cross_entropy, smooth_l1_per_anchor
from trainer.candidates import UNFIT, Candidates
from trainer.detector import Detector, DetectorConfig
from trainer.networks.weights import StateDict, first_line, load_strictly, read_state_dict
from trainer.retinaface.network import (
    BODIES,
    STRIDES,
    BodyName,
    ContextModule,
    FeaturePyramid,
    make_heads,
    run_heads,
)
from trainer.retinaface.targets import (
    Claims,
    decode_landmarks,
    encode_landmarks,
    make_square_anchors,
    match_faces,
)
from trainer.sample import Batch, Detections, FloatArray

_MEAN_BGR = (104.0, 117.0, 123.0)
_NUM_LANDMARKS = 5  # left eye, right eye, nose, left and right corner of the mouth, as seen in the picture
_RESNET50 = ResNet50_Weights.IMAGENET1K_V1
_BODY_FILES = {"mobilenet0.25": "mobilenetV1X0.25_pretrain.tar", "resnet50": Path(_RESNET50.url).name}


class RetinaFaceConfig(DetectorConfig):
    """Defaults are the authors' but for ``min_negatives``: with their 0 images without faces teach nothing.

    image_size: of training; detection takes any size. The authors use 840 with resnet50.
    checkpoint: a trained detector's file, whole; ``weights`` are not looked at then. weights: of the body,
    ``imagenet``, ``none`` or a file. Files lie relative to the working directory, else to home.
    anchor_sizes_px: for each of the maps at strides 8, 16 and 32; the sides of its square anchors.
    landmarks: ``trained`` over the faces that have them; ``frozen``, for a checkpoint whose head is to stay
    as it is while faces without landmarks are learnt (weight decay would shrink it); ``none``, no such head.
    claims, positive_iou, least_iou: see `match_faces`. negative_ratio, min_negatives: of each image, see
    `mined_cross_entropy`. topk: detections of an image that enter the NMS.

    To finetune a checkpoint on few photos: Adam, ``{lr: 1e-4, freeze: {batch_norm: true}}``, see
    ``configs/runs/faces-finetune.yaml``. ``lr_factors`` knows the backbone as ``body``.
    """

    anchor_settings: ClassVar[tuple[str, ...]] = ("anchor_sizes_px",)

    kind: Literal["retinaface"] = "retinaface"
    image_size: PositiveInt = 640
    backbone: BodyName = "mobilenet0.25"
    weights: str = "imagenet"
    checkpoint: str | None = None
    landmarks: Literal["trained", "frozen", "none"] = "trained"
    anchor_sizes_px: tuple[tuple[PositiveFloat, ...], ...] = ((16, 32), (64, 128), (256, 512))
    claims: Claims = "last"
    positive_iou: float = Field(0.35, gt=0, le=1)
    least_iou: float = Field(0.2, ge=0, le=1)
    negative_ratio: PositiveInt = 7
    min_negatives: int = Field(32, ge=0)
    box_weight: PositiveFloat = 2.0
    score_threshold: float = Field(0.02, ge=0, le=1)
    nms_iou: float = Field(0.4, ge=0, le=1)
    topk: PositiveInt = 5000
    max_detections: PositiveInt = 750

    @model_validator(mode="after")
    def _check(self) -> "RetinaFaceConfig":
        found = self.anchor_sizes_px
        if len(found) != len(STRIDES) or not all(found):
            raise ValueError(f"anchor_sizes_px: found {list(found)}, wanted a list for each of 3 maps")
        if self.least_iou > self.positive_iou:
            raise ValueError(f"least_iou: found {self.least_iou}, wanted at most {self.positive_iou}")
        return self

    def anchor_shapes(self) -> list[Shapes]:
        """See `DetectorConfig.anchor_shapes`."""
        return [np.array([(side, side) for side in sizes], np.float64) for sizes in self.anchor_sizes_px]

    def build(self, num_classes: int, home: Path) -> Detector:
        """See `DetectorConfig.build`."""
        detector = RetinaFace(self, num_classes)
        if self.checkpoint is not None:
            path = _find(self.checkpoint, home)
            load_checkpoint(detector, read_state_dict(path), str(path))
        elif self.weights != "none":
            load_body(detector, *_find_body_weights(self, home))
        return detector


@dataclass(frozen=True, slots=True, eq=False)
class Goals:
    """What a batch's anchors should say: labels (B, A), see `match_faces`; of the P positive ones, in order,
    box offsets (P, 4) and has_landmarks (P,) bool; landmarks, the offsets (Q, 5, 2) of those that have them.
    """

    labels: Tensor
    offsets: Tensor
    landmarks: Tensor
    has_landmarks: Tensor


class RetinaFace(Detector):
    """See `Detector`. Class 0 of the logits is the background. Its state dict is the authors'.

    ``LandmarkHead`` is None without landmarks.
    """

    any_size = True
    mean: Tensor  # (3, 1, 1) BGR, 0..255
    LandmarkHead: nn.ModuleList | None

    def __init__(self, config: RetinaFaceConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.body = BODIES[config.backbone]()
        width, counts = self.body.pyramid_width, [len(sizes) for sizes in config.anchor_sizes_px]
        self.fpn = FeaturePyramid(self.body.channels, width)
        self.ssh1, self.ssh2, self.ssh3 = (ContextModule(width) for _ in STRIDES)
        self.ClassHead = make_heads(width, counts, num_classes + 1)
        self.BboxHead = make_heads(width, counts, 4)
        self.LandmarkHead = None
        if config.landmarks != "none":
            self.LandmarkHead = make_heads(width, counts, 2 * _NUM_LANDMARKS)
            self.LandmarkHead.requires_grad_(config.landmarks == "trained")
        self.register_buffer("mean", torch.tensor(_MEAN_BGR).view(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)

    @property
    def backbone(self) -> nn.Module:
        """The body, by the name that `FreezeConfig` knows."""
        return self.body

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """uint8 (B, 3, H, W) RGB, any size, to float32 values of the A anchors of this size.

        Class logits (B, A, classes + 1), box offsets (B, A, 4), and landmark offsets (B, A, 5, 2) or None.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: found {tuple(images.shape)}, wanted (B, 3, H, W)")
        x = (images.flip(1).float() - self.mean).contiguous(memory_format=torch.channels_last)
        maps = self.fpn(self.body(x))
        maps = [ssh(x) for ssh, x in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)]
        points = None
        if self.LandmarkHead is not None:
            points = run_heads(self.LandmarkHead, maps)
            points = points.view(*points.shape[:2], _NUM_LANDMARKS, 2)
        return run_heads(self.ClassHead, maps), run_heads(self.BboxHead, maps), points

    def anchors_of(self, images: Tensor) -> Tensor:
        """Anchors (A, 4), cxcywh px, of images of this size."""
        height, width = images.shape[2:]
        make: Callable[..., Tensor] = make_square_anchors
        if torch.compiler.is_compiling():  # an exported program makes them for whatever size it is given
            make = make_square_anchors.__wrapped__
        return make(self.config.anchor_sizes_px, STRIDES, (height, width), images.device)

    def anchor_maps(self) -> list[AnchorMap]:
        """See `Detector.anchor_maps`."""
        cells = [-(-self.config.image_size // stride) for stride in STRIDES]
        return [
            stepped_map((count, count), stride, shapes)
            for count, stride, shapes in zip(cells, STRIDES, self.config.anchor_shapes(), strict=True)
        ]

    def match(self, corners: Tensor, boxes: Tensor, labels: Tensor, ignore: Tensor) -> tuple[Tensor, Tensor]:
        """`match_faces` with the configured overlaps."""
        return match_faces(
            corners,
            boxes,
            labels,
            ignore,
            positive_iou=self.config.positive_iou,
            least_iou=self.config.least_iou,
            claims=self.config.claims,
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``classification`` (`mined_cross_entropy`), ``localization`` (smooth L1, times box_weight) and
        ``landmarks``, where that head is trained: smooth L1 over the positive anchors whose face has them.
        """
        config = self.config
        logits, offsets, points = self(batch.images)
        goals = self.encode_targets(batch)
        positive = goals.labels > 0
        ratio, least = config.negative_ratio, config.min_negatives
        losses = {
            "classification": mined_cross_entropy(
                logits, goals.labels, negative_ratio=ratio, min_negatives=least
            ),
            "localization": config.box_weight * smooth_l1_per_anchor(offsets[positive], goals.offsets),
        }
        if points is not None and config.landmarks == "trained":
            known = points[positive][goals.has_landmarks]
            losses["landmarks"] = smooth_l1_per_anchor(known, goals.landmarks)
        return losses

    @torch.no_grad()
    def encode_targets(self, batch: Batch) -> Goals:
        """What the anchors should say.

        Landmarks are the batch's ``landmarks``, (N_b, 5, 2) px of each image, of the faces in its
        ``has_landmarks``, (N_b,) bool: never inferred from the numbers. A batch without them has none.
        """
        anchors = self.anchors_of(batch.images)
        corners = cxcywh_to_xyxy(anchors)
        goals = []
        faces = zip(batch.boxes, batch.labels, batch.ignore, *_landmarks_of(batch), strict=True)
        for boxes, labels, ignore, points, has_points in faces:
            assigned, index = self.match(corners, boxes, labels, ignore)
            face, own = index[assigned > 0], anchors[assigned > 0]
            known = has_points[face]
            landmarks = encode_landmarks(points[face[known]], own[known])
            goals.append(Goals(assigned[None], encode(boxes[face], own), landmarks, known))
        return Goals(*(torch.cat([getattr(goal, name) for goal in goals]) for name in Goals.__slots__))

    def detect(self, images: Tensor) -> list[Detections]:
        """Boxes clipped to the image, scores over score_threshold, best first. Call it in eval mode.

        With landmarks where there is a head for them.
        """
        with torch.inference_mode():
            found = self.candidates(images)
            points = [None] * len(images) if found.landmarks is None else found.landmarks
            height, width = images.shape[2:]
            return [
                self._detections(*image, width, height)
                for image in zip(found.boxes, found.scores, points, strict=True)
            ]

    def detect_with_landmarks(self, images: Tensor) -> list[tuple[Detections, FloatArray]]:
        """`detect`, and the landmarks (N, 5, 2) px of each image's detections; (N, 0, 2) without the head."""
        return [
            (found, np.zeros((len(found), 0, 2), np.float32) if found.landmarks is None else found.landmarks)
            for found in self.detect(images)
        ]

    def candidates(self, images: Tensor) -> Candidates:
        """See `Selecting`."""
        anchors = self.anchors_of(images)
        logits, offsets, points = self(images)
        scores = logits.softmax(-1)[..., 1:]
        return Candidates(
            decode(offsets, anchors),
            scores.where(scores > self.config.score_threshold, UNFIT),
            None if points is None else decode_landmarks(points, anchors),
        )

    def _detections(
        self, boxes: Tensor, scores: Tensor, points: Tensor | None, width: int, height: int
    ) -> Detections:
        anchor, category = self._select(boxes, scores)
        clipped = clip_boxes(boxes[anchor], width, height)
        has_area = (clipped[:, 2:] > clipped[:, :2]).all(-1)
        anchor, category = anchor[has_area], category[has_area]
        return Detections(
            boxes=clipped[has_area].cpu().numpy(),
            scores=scores[anchor, category].cpu().numpy(),
            labels=(category + 1).cpu().numpy(),
            landmarks=None if points is None else points[anchor].cpu().numpy(),
        )

    def _select(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors and categories kept, best first, of one image's boxes (A, 4) and scores (A, classes)."""
        config = self.config
        anchor, category = (scores > UNFIT).nonzero(as_tuple=True)
        score, order = scores[anchor, category].sort(descending=True, stable=True)
        order = order[: config.topk]
        anchor, category = anchor[order], category[order]
        kept = batched_nms(boxes[anchor], score[: config.topk], category, config.nms_iou)
        kept = kept[: config.max_detections]
        return anchor[kept], category[kept]


def _landmarks_of(batch: Batch) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Points and flags of each image's faces."""
    points, flags = getattr(batch, "landmarks", None), getattr(batch, "has_landmarks", None)
    if points is not None and flags is not None:
        return points, flags
    shape = (_NUM_LANDMARKS, 2)
    return [x.new_zeros(len(x), *shape) for x in batch.boxes], [torch.zeros_like(x) for x in batch.ignore]


def load_checkpoint(detector: RetinaFace, state: StateDict, source: str) -> None:
    """A trained detector's tensors, all of them; without a head for landmarks those of its head are left.

    Raises InputError that names what differs.
    """
    if detector.LandmarkHead is None:
        state = {key: value for key, value in state.items() if not key.startswith("LandmarkHead.")}
    load_strictly(detector, state, source, f"RetinaFace on {detector.config.backbone}")


def load_body(detector: RetinaFace, state: StateDict, source: str) -> None:
    """A classifier's tensors but for its last layer. Raises InputError that names what differs."""
    name = f"{detector.config.backbone} (the classifier aside)"
    load_strictly(detector.body, state, source, name, lambda key: key.startswith("fc."))


def _find(file: str, home: Path) -> Path:
    path = Path(file)
    return path if path.is_absolute() or path.exists() else home / path


def _find_body_weights(config: RetinaFaceConfig, home: Path) -> tuple[StateDict, str]:
    """The body's tensors and where they are from. torchvision fetches those of ResNet50 where it can."""
    if config.weights != "imagenet":
        path = _find(config.weights, home)
        return read_state_dict(path), str(path)
    place = home / "data" / "weights" / _BODY_FILES[config.backbone]
    if place.exists():
        return read_state_dict(place), str(place)
    remedy = f"wanted ImageNet weights: put {place.name} there, or set weights=none"
    if config.backbone != "resnet50":
        raise InputError(f"{place}: found no file, {remedy}")
    try:
        return _RESNET50.get_state_dict(progress=False, check_hash=True), place.name
    except (OSError, RuntimeError) as error:
        why = first_line(error)
        raise InputError(f"{place}: found no file, and the download failed ({why}), {remedy}") from error
