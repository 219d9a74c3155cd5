"""Scenes a second that a device composes, against the CPU renderer on one core, and where the time goes.

Run by hand: ``python tests/benchmarks/bench_render_gpu.py [BATCH [PRESET]]`` (64 scenes of ``default``).
On the first CUDA device if there is one, waiting for it around every part; else on the CPU, where composing
in batches is far slower than OpenCV: only the split and the differences then mean something. Contestants take
turns, and the best of five passes counts. Crops and photos are decoded, made in code, sized as of real sets.

``pack`` runs in loader workers, one core each; ``transfer`` is the pixels' way to the device, from
page-locked memory if there is CUDA; ``compose`` is all of the device's work and the targets, from pixels that
are there. ``compiled`` is compose with ``compile=True``, after its first pass.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch

from shards.records import CropRecord
from trainer.compositing.config import preset
from trainer.compositing.placement import plan_scene
from trainer.compositing.plan import shape_of_record
from trainer.compositing.render import render_scene
from trainer.compositing.render_gpu import BatchComposer
from trainer.streaming.stream import SceneParts

PASSES, LABELS = 5, {"bird": 1}


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).view(np.uint8)


def make_crop(rng: np.random.Generator) -> CropRecord:
    height, width = rng.integers(100, 201, 2).tolist()
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width * 2 // 5, height * 2 // 5), 20, 0, 360, 255, -1)
    return CropRecord("c", "bird", texture(rng, height, width), cv2.GaussianBlur(mask, (7, 7), 1.5))


def make_scenes(name: str, count: int) -> list[SceneParts]:
    rng, config = np.random.default_rng(0), preset(name)
    crops = [make_crop(rng) for _ in range(100)]
    photos = [texture(rng, 360 + 40 * (i % 4), 640) for i in range(16)]
    plans = [
        plan_scene(config, rng, len(crops), len(photos), lambda i: shape_of_record(crops[i]))
        for _ in range(count)
    ]
    return [
        SceneParts(
            f"{i}", plan, photos[plan.background.index], {p.crop: crops[p.crop] for p in plan.placements}
        )
        for i, plan in enumerate(plans)
    ]


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begun


def main(batch_size: int = 64, name: str = "default") -> None:
    cv2.setNumThreads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    scenes = make_scenes(name, batch_size)
    config = scenes[0].plan.config
    composer, compiled = (BatchComposer(config, LABELS, device, compile=c) for c in (False, True))
    packed = composer.pack(scenes)
    packed = packed.pin_memory() if device.type == "cuda" else packed
    there = replace(packed, pixels=packed.pixels.to(device))
    contestants: dict[str, Callable[[], object]] = {
        "cpu": lambda: [
            render_scene(s.plan, s.background, s.crops.__getitem__, LABELS, s.key) for s in scenes
        ],
        "pack": lambda: composer.pack(scenes),
        "transfer": lambda: packed.pixels.to(device, non_blocking=True, copy=True),
        "compose": lambda: composer.compose(there),
        "compiled": lambda: compiled.compose(there),
        "batch after batch": lambda: list(composer.composed([packed] * 4)),
    }
    per_pass = dict.fromkeys(contestants, batch_size) | {"batch after batch": 4 * batch_size}
    for work in contestants.values():
        work()
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(PASSES):
        for part, work in contestants.items():
            best[part] = min(best[part], seconds_of(work, device))
    named = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread"
    print(f"{name}, {config.size} px, batches of {batch_size}, {len(packed.notes)} objects; device: {named}")
    for part, seconds in best.items():
        rate = per_pass[part] / seconds
        print(f"{part:18} {1e6 / rate:9.1f} us a scene {rate:9.0f} scenes/s")
    print(f"{packed.pixels.nbytes / batch_size / 1e6:.2f} MB to transfer a scene")
    wanted = torch.from_numpy(np.stack([s.image for s in contestants["cpu"]()])).int()  # type: ignore[attr-defined]
    for part, found in (("compose", composer), ("compiled", compiled)):
        difference = (found.compose(there).images.permute(0, 2, 3, 1).cpu().int() - wanted).abs().float()
        shown = np.quantile(difference.numpy(), [0.99, 0.999])
        print(f"{part} differs from cpu by {difference.mean():.3f} levels, 99 % up to {shown[0]:.0f}")


if __name__ == "__main__":
    main(*(convert(text) for convert, text in zip((int, str), sys.argv[1:], strict=False)))
