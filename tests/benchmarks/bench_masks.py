"""How well label-free masks box birds: IoU of each kind's boxes against the true ones of CUB-200-2011.

``python tests/benchmarks/bench_masks.py --root CUB_FOLDER [--sheet out.png] [segmenter.key=value | quality.key=value ...]``
Images are judged by the gate first; the table gives what is kept and how well it fits.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from factory.quality import QualityConfig, Verdict, judge, solid_box
from factory.segmenters.grabcut import GrabCutConfig
from factory.segmenters.whole import WholeConfig
from factory.stages import ObjectImage, Segmenter

Box = tuple[float, float, float, float]


def read_cub(root: Path) -> list[tuple[ObjectImage, Box]]:
    """Photos with their true xyxy boxes, px."""
    names = dict(line.split() for line in (root / "images.txt").read_text().splitlines())
    found = []
    for line in (root / "bounding_boxes.txt").read_text().splitlines():
        key, *numbers = line.split()
        x, y, width, height = map(float, numbers)
        pixels = cv2.cvtColor(cv2.imread(str(root / "images" / names[key])), cv2.COLOR_BGR2RGB)
        found.append((ObjectImage(names[key], np.asarray(pixels, np.uint8)), (x, y, x + width, y + height)))
    return found


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two xyxy boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    total = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return shared / (total - shared)


def measure(
    kind: str, segmenter: Segmenter, photos: list[tuple[ObjectImage, Box]], quality: QualityConfig
) -> None:
    """Print one line of the table."""
    started = time.process_time()
    masks = [segmenter.segment([photo])[0] for photo, _ in photos]
    spent_ms = (time.process_time() - started) / len(photos) * 1000
    verdicts: list[Verdict] = [judge(mask, quality) for mask in masks]
    fits = np.array(
        [iou(solid_box(m.mask) or (0, 0, 0, 0), box) for m, (_, box) in zip(masks, photos, strict=True)]
    )
    kept = fits[[v.keep for v in verdicts]]
    reasons = ", ".join(
        f"{name} {count}" for name, count in Counter(v.reason for v in verdicts if v.reason).items()
    )
    print(
        f"{kind:8} {len(kept):4}/{len(photos)} kept, mean IoU {kept.mean():.3f}, >= 0.5: {(kept >= 0.5).mean():.1%}, "
        f">= 0.75: {(kept >= 0.75).mean():.1%}; all {fits.mean():.3f}; {spent_ms:.0f} ms an image; dropped: {reasons}"
    )


def main() -> None:
    """Measure both kinds that need no weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="CUB-200-2011's folder, with images.txt")
    parser.add_argument("settings", nargs="*", help="segmenter.KEY=VALUE or quality.KEY=VALUE")
    arguments = parser.parse_args()
    chosen: dict[str, dict[str, str]] = {"segmenter": {}, "quality": {}}
    for setting in arguments.settings:
        place, _, value = setting.partition("=")
        chosen[place.split(".")[0]][place.split(".")[1]] = value
    photos = read_cub(arguments.root)
    everything = QualityConfig(max_area_frac=1, max_border_frac=1)
    measure("whole", WholeConfig().open(arguments.root), photos, everything)
    grabcut = GrabCutConfig.model_validate(chosen["segmenter"])
    measure("grabcut", grabcut.open(arguments.root), photos, QualityConfig.model_validate(chosen["quality"]))


if __name__ == "__main__":
    main()
