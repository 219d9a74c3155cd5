"""Our painting against the same plans pasted with Pillow (bilinear, antialiased).

Run by hand: ``python tests/benchmarks/bench_compositor.py [NUM_SCENES]``. Both sides get decoded crops and
backgrounds and one core. The compared plans have no rotation, flip or colour changes: Pillow resizes each
crop and its mask to the painted size and pastes it; ours also finds the visible pixels and the boxes. The
last line is ours with the default config, rotation and colour changes included.
"""

import statistics
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from shards.records import CropRecord
from trainer.compositing.config import CompositorConfig
from trainer.compositing.placement import ScenePlan, plan_scene, shape_of_record
from trainer.compositing.render import render_scene

UPRIGHT = CompositorConfig.model_validate({"rotation_deg": 0, "flip_prob": 0, "background": {"flip_prob": 0}})


def make_crops(rng: np.random.Generator, count: int) -> list[CropRecord]:
    """Textured crops of 120 to 256 px with ragged soft masks."""
    crops = []
    for index in range(count):
        height, width = rng.integers(120, 257, size=2).tolist()
        image = cv2.resize(rng.integers(0, 256, (24, 24, 3), np.uint8), (width, height))
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, (width // 2, height // 2), (width // 2 - 4, height // 2 - 4), 0, 0, 360, 255, -1)
        crops.append(CropRecord(f"c{index:03d}", "bird", image, cv2.GaussianBlur(mask, (9, 9), 2)))
    return crops


def paste_with_pillow(plan: ScenePlan, background: np.ndarray, crops: list[CropRecord]) -> Image.Image:
    """The same background window, places and sizes."""
    where, (height, width) = plan.background, background.shape[:2]
    side = round((where.side_frac or 1) * min(height, width))
    x, y = round(where.x_frac * (width - side)), round(where.y_frac * (height - side))
    window = Image.fromarray(background).crop((x, y, x + side, y + side))
    canvas = window.resize((plan.size, plan.size), Image.Resampling.BILINEAR)
    for placement in plan.placements:
        x0, y0, x1, y1 = (round(edge) for edge in placement.bounds)
        crop = crops[placement.crop]
        image, mask = (
            Image.fromarray(pixels).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
            for pixels in (crop.image, crop.mask)
        )
        canvas.paste(image, (x0, y0), mask)
    return canvas


def scenes_a_second(paint: Callable[[int], object], count: int) -> float:
    """Median of five passes."""
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        for index in range(count):
            paint(index)
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    crops = make_crops(rng, 64)
    photos = [cv2.resize(rng.integers(0, 256, (30, 40, 3), np.uint8), (480, 360)) for _ in range(16)]

    def plans_of(config: CompositorConfig) -> list[ScenePlan]:
        shapes = [shape_of_record(crop) for crop in crops]
        return [plan_scene(config, rng, len(crops), len(photos), shapes.__getitem__) for _ in range(count)]

    def ours(plan: ScenePlan) -> object:
        return render_scene(plan, photos[plan.background.index], crops.__getitem__, {"bird": 1}, "bench")

    plain = UPRIGHT.photometric.model_copy(update={"contrast_min": 1, "contrast_max": 1, "blur_prob": 0})
    plain = plain.model_copy(update={"noise_prob": 0, "gain_min": 1, "gain_max": 1})
    upright = plans_of(UPRIGHT.model_copy(update={"photometric": plain}))
    default = plans_of(CompositorConfig())
    pillow_rate = scenes_a_second(
        lambda i: paste_with_pillow(upright[i], photos[upright[i].background.index], crops), count
    )
    our_rate = scenes_a_second(lambda i: ours(upright[i]), count)
    default_rate = scenes_a_second(lambda i: ours(default[i]), count)
    objects = statistics.mean(len(plan.placements) for plan in upright)
    print(f"{count} scenes of {UPRIGHT.size} px, {objects:.2f} objects each, one core")
    print(f"Pillow, upright          {pillow_rate:7.0f} scenes/s   1.0x")
    print(f"ours, upright            {our_rate:7.0f} scenes/s  {our_rate / pillow_rate:4.1f}x")
    print(f"ours, default config     {default_rate:7.0f} scenes/s  {default_rate / pillow_rate:4.1f}x")


if __name__ == "__main__":
    main()
