"""SSD's losses and detections over any network that has its maps and heads."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from configs.errors import InputError
from trainer.anchoring.anchor_maps import AnchorMap, lay_out
from trainer.anchoring.boxes import clip_boxes, cxcywh_to_xyxy, decode, encode
from trainer.anchoring.matching import match_anchors
from trainer.anchoring.multibox_loss import mined_cross_entropy, smooth_l1_per_anchor
from trainer.candidates import UNFIT, Candidates
from trainer.detector import Detector
from trainer.multibox.config import MultiBoxConfig
from trainer.sample import Batch, Detections


class MultiBoxNetwork(nn.Module):
    """What a kind brings.

    mean, std: of R, G and B, 0..255. class_head: how the names of the parameters begin that tell the classes
    apart. backbone: the part that `FreezeConfig` knows by this name.
    """

    mean: Sequence[float]
    std: Sequence[float]
    class_head: str
    backbone: nn.Module

    def maps(self, x: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to one (B, C, h, w) for each map."""
        raise NotImplementedError

    def heads(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps to class logits (B, A, classes + 1) and box offsets (B, A, 4), in the anchors' order."""
        raise NotImplementedError


class MultiBox(Detector):
    """See `Detector`. Class 0 of the logits is the background. ``network`` has the publisher's state dict."""

    anchors: Tensor  # (A, 4) cxcywh px
    mean: Tensor
    std: Tensor

    def __init__(self, config: MultiBoxConfig, network: MultiBoxNetwork) -> None:
        super().__init__()
        self.config = config
        self.network = network
        for name in ("mean", "std"):
            values = torch.tensor(getattr(network, name)).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.to(memory_format=torch.channels_last)
        self.map_sizes = self._map_sizes()
        self.register_buffer("anchors", lay_out(self.anchor_maps()), persistent=False)

    @property
    def backbone(self) -> nn.Module:
        """The network's, by the name that `FreezeConfig` knows."""
        return self.network.backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) RGB to class logits (B, A, classes + 1) and box offsets (B, A, 4), float32."""
        size = self.config.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"images: found {tuple(images.shape)}, wanted (B, 3, {size}, {size})")
        if self.training and len(images) == 1:
            self._check_single()
        logits, offsets = self.network.heads(self._maps(images))
        return logits.float(), offsets.float()

    def anchor_maps(self) -> list[AnchorMap]:
        """See `Detector.anchor_maps`."""
        return self.config.anchor_maps(self.map_sizes)

    def match(self, corners: Tensor, boxes: Tensor, labels: Tensor, ignore: Tensor) -> tuple[Tensor, Tensor]:
        """`match_anchors`: background below ``positive_iou``; an object claims an anchor at any overlap."""
        least = self.config.positive_iou
        return match_anchors(
            corners,
            boxes,
            labels,
            ignore,
            positive_iou=least,
            negative_iou=least,
            force_iou=0.0,
            claims=self.config.claims,
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``classification`` (`mined_cross_entropy`) and ``localization`` (smooth L1)."""
        logits, offsets = self(batch.images)
        labels, targets = self.encode_targets(batch)
        ratio, least = self.config.negative_ratio, self.config.min_negatives
        return {
            "classification": mined_cross_entropy(logits, labels, negative_ratio=ratio, min_negatives=least),
            "localization": smooth_l1_per_anchor(offsets[labels > 0], targets),
        }

    @torch.no_grad()
    def encode_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the anchors should say: labels (B, A), and offsets (P, 4) of the positive ones in order."""
        corners = cxcywh_to_xyxy(self.anchors)
        labels, targets = [], []
        for boxes, *rest in zip(batch.boxes, batch.labels, batch.ignore, strict=True):
            assigned, index = self.match(corners, boxes, *rest)
            positive = assigned > 0
            labels.append(assigned)
            targets.append(encode(boxes[index[positive]], self.anchors[positive]))
        return torch.stack(labels), torch.cat(targets)

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
        least = scores.topk(min(self.config.class_topk, scores.shape[1]), dim=1).values[:, -1:]
        fits = (scores > self.config.score_threshold) & (scores >= least) & has_area[..., None]
        return Candidates(boxes, scores.where(fits, UNFIT))

    def _select(self, boxes: Tensor, scores: Tensor) -> Detections:
        """boxes (A, 4), scores (A, classes) of one image's candidates: topk, NMS within each class."""
        config = self.config
        best = min(config.topk, int((scores > UNFIT).sum()))
        score, place = scores.flatten().topk(best)
        anchor, category = place // scores.shape[1], place % scores.shape[1]
        kept = batched_nms(boxes[anchor], score, category, config.nms_iou)[: config.max_detections]
        return Detections(
            boxes=boxes[anchor[kept]].cpu().numpy(),
            scores=score[kept].cpu().numpy(),
            labels=(category[kept] + 1).cpu().numpy(),
        )

    def _maps(self, images: Tensor) -> list[Tensor]:
        x = (images.float() - self.mean) / self.std
        return self.network.maps(x.contiguous(memory_format=torch.channels_last))

    def _map_sizes(self) -> list[tuple[int, int]]:
        size = self.config.image_size
        self.eval()
        with torch.no_grad():
            maps = self._maps(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        self.train()
        return [(each.shape[2], each.shape[3]) for each in maps]

    def _check_single(self) -> None:
        norms = (m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        if (1, 1) in self.map_sizes and any(norm.training for norm in norms):
            raise InputError(
                f"batch_size: {self.config.kind} found 1 image at a time, wanted 2 or more: the last map is "
                "one cell, and batch norm cannot train on one value"
            )
