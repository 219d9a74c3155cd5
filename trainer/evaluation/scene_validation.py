"""Scores on held-out composites: a validation that costs no label.

What it tells: whether scenes that were never shown are found, so whether a training still learns or
diverges; with ``crops`` and ``backgrounds`` of their own also whether it learns the crops by heart. What it
cannot tell: how far photos differ from composites. So a falling rate (or an average of the weights) and the
last checkpoint come first; this chooses among checkpoints of a constant rate, better by AP, which still
tells them apart when AP50 has reached its ceiling.
"""

import torch
from pydantic import Field

from configs.kinds import StrictModel
from trainer.detector import Detector
from trainer.evaluation.scores import score
from trainer.sample import Detections, Target, collate
from trainer.streaming.loader import Stream

_BATCH = 16


class SceneValidation(StrictModel):
    """Scenes number 0 to ``count - 1`` of ``seed``, the same ones for every training.

    crops, backgrounds: sets that no training sees; without them those of the training, newly arranged.
    """

    count: int = Field(default=200, ge=1)
    seed: int = Field(default=2**31, ge=0)
    crops: tuple[str, ...] = ()
    backgrounds: str | None = None


def score_on_scenes(
    detector: Detector, scenes: Stream, count: int, num_classes: int, device: torch.device
) -> dict[str, float]:
    """AP50 (VOC's) and AP (COCO's), 0..1, on scenes 0 to ``count - 1``. Raises InputError without objects."""
    detections: list[Detections] = []
    targets: list[Target] = []
    for start in range(0, count, _BATCH):
        samples = [scenes[i] for i in range(start, min(start + _BATCH, count))]
        detections += detector.detect(collate(samples).images.to(device))
        targets += [sample.target for sample in samples]
    scores = score(detections, targets, num_classes, "validation_scenes:")
    return {name: scores[name] for name in ("AP50", "AP")}
