"""What a run shows for itself: the table of scores, sheets of scenes and of detections."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.dataset import BoxedImage
from trainer.imaging.drawing import contact_sheet, draw_detections, write_png
from trainer.imaging.images import read_image
from trainer.runs.config import Cell, Phase, RunConfig
from trainer.sample import Detections, Sample

_SHOWN_SCORE = 0.5  # detections below are left out of the pictures
_SHOWN = 24
_NAMES = {
    "scratch": "from scratch",
    "pretrain": "pretrained",
    "finetune": "pretrained, finetuned",
    "mixed": "mixed",
    "self_training": "then self-trained",
}


def score_table(config: RunConfig, scores_of: Callable[[Cell], dict[str, Any] | None], metric: str) -> str:
    """A Markdown table of a test metric in percent, mean ± std (n - 1) over the seeds; – where none is."""

    def entry(phase: Any, amount: int) -> str:
        found = [scores_of(Cell(phase, amount, seed)) for seed in config.seeds]
        values = [100 * scores[metric] for scores in found if scores is not None]
        if not values:
            return "–"
        spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        return f"{np.mean(values):.1f}{spread}"

    trained: list[Phase] = [phase for phase in config.phases if phase != "pretrain"]
    before: Phase = "finetune" if "finetune" in trained else "pretrain"  # where the pretrained-only row shows
    columns: list[Phase] = (
        trained if before in trained or "pretrain" not in config.phases else [*trained, before]
    )
    rows = [[f"{metric}, real photos", *(_NAMES[phase] for phase in columns)]]
    if "pretrain" in config.phases:
        rows.append(["0 (pretrained only)", *(entry("pretrain", 0) if p == before else "" for p in columns)])
    if trained:
        amounts = config.num_real
        rows += [
            [str(amount), *("" if p == "pretrain" else entry(p, amount) for p in columns)]
            for amount in amounts
        ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def scene_sheet(samples: Sequence[Sample], path: Path) -> None:
    """Composites with their boxes."""
    write_png(path, contact_sheet([draw_detections(s.image, None, s.target) for s in samples], 6, 220))


def detection_sheet(
    photos: Sequence[BoxedImage], detections: Sequence[Detections], classes: Sequence[str], path: Path
) -> None:
    """Test photos, evenly spread, with true boxes and what was found."""
    shown = np.unique(np.linspace(0, len(photos) - 1, min(_SHOWN, len(photos))).astype(int))
    cells = [
        draw_detections(read_image(photos[i].path), _confident(detections[i]), photos[i].target)
        for i in shown
    ]
    write_png(path, contact_sheet(cells, 6, 220))


def photo_sheet(photos: Sequence[BoxedImage], path: Path) -> None:
    """Photos, evenly spread, with their boxes."""
    shown = np.unique(np.linspace(0, len(photos) - 1, min(_SHOWN, len(photos))).astype(int))
    cells = [draw_detections(read_image(photos[i].path), None, photos[i].target) for i in shown]
    write_png(path, contact_sheet(cells, 6, 220))


def _confident(found: Detections) -> Detections:
    keep = found.scores >= _SHOWN_SCORE
    return Detections(found.boxes[keep], found.scores[keep], found.labels[keep])
