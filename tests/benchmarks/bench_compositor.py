"""Our compositor and our loader against others that do the same antialiased work, on one core.

Run by hand: ``python tests/benchmarks/bench_compositor.py [NUM_SCENES] [compositor|loader]``. All contestants
take turns in one process; the best of seven passes counts, in processor time, for other work on the machine
is no part of it. Only the ratios of one run mean something.

Compositor: decoded crops and backgrounds, the same plans without rotation, flip and colour changes. Pillow
holds its crops as RGBA, whose colours it weights by opacity as ours does, resizes them bilinearly with
antialiasing, pastes them, and boxes what is seen of each. A second row leaves out the boxes and resizes
colour and mask apart, which lets the crop's outside bleed into its edge. albumentationsx (when installed)
gets crops that are resized beforehand and places them itself.
Quality: mean difference, in pixel values inside the objects, from a scene painted four times as large and
averaged. Loader: shards on disk to batches of 16, against webdataset's ``decode("pil")`` and Pillow.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import torch
import webdataset as wds
from PIL import Image

from shards.manifest import Manifest, fingerprint_of, shard_name, write_manifest
from shards.reader import ShardSet
from shards.records import BackgroundRecord, CropRecord
from shards.store import open_store
from shards.writer import write_shard
from trainer.compositing import render
from trainer.compositing.config import CompositorConfig
from trainer.compositing.placement import plan_scene
from trainer.compositing.plan import CropShape, ScenePlan, shape_of_record
from trainer.compositing.render import paint_background, render_scene
from trainer.compositing.resampling import weigh
from trainer.imaging.images import resize_antialiased
from trainer.sample import collate
from trainer.streaming.crop_pool import CropCollection, StreamConfig
from trainer.streaming.stream import SyntheticStream

PASSES, BATCH, OVERSAMPLING = 7, 16, 4
PLAIN = {"contrast_min": 1, "contrast_max": 1, "blur_prob": 0, "noise_prob": 0, "gain_min": 1, "gain_max": 1}
UPRIGHT = CompositorConfig.model_validate(
    {"rotation_deg": 0, "flip_prob": 0, "background": {"flip_prob": 0}, "photometric": PLAIN}
)
Plans = list[ScenePlan]
BILINEAR = Image.Resampling.BILINEAR


def make_texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of every octave, coarse to a pixel, amplitudes as of photos."""
    image = np.full((height, width, 3), 128, np.float32)
    for level in range(1, 8):
        coarse = rng.normal(0, 45 / 2 ** (0.6 * level), (2**level + 1, 2**level + 1, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def make_crops(rng: np.random.Generator, count: int) -> list[CropRecord]:
    """Crops of 100 to 200 px, as of the bird and car sets, with soft round masks and a flat outside."""
    crops = []
    for index in range(count):
        height, width = rng.integers(100, 201, size=2).tolist()
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, (width // 2, height // 2), (width // 2 - 4, height // 2 - 4), 0, 0, 360, 255, -1)
        mask = cv2.GaussianBlur(mask, (9, 9), 2)
        image = np.where(mask[..., None] > 0, make_texture(rng, height, width), np.uint8(128))
        crops.append(CropRecord(f"c{index:05d}", "bird", image, mask))
    return crops


# Contestants of the compositor


def paste_with_pillow(
    plan: ScenePlan, photo: Image.Image, crops: list[Image.Image]
) -> tuple[Image.Image, list]:
    """The scene and the boxes of what is seen."""
    canvas, owner, boxes = pillow_background(plan, photo), Image.new("L", (plan.size, plan.size)), []
    for order, placement in enumerate(plan.placements, start=1):
        x0, y0, x1, y1 = (round(edge) for edge in placement.bounds)
        crop = crops[placement.crop].resize((x1 - x0, y1 - y0), BILINEAR)
        canvas.paste(crop, (x0, y0), crop)
        owner.paste(order, (x0, y0), crop.getchannel("A").point(SOLID))
    for order in range(1, len(plan.placements) + 1):
        boxes.append(owner.point([255 * (value == order) for value in range(256)]).getbbox())
    return canvas, boxes


SOLID = [255 * (value > 127) for value in range(256)]


def paste_apart_with_pillow(
    plan: ScenePlan, photo: Image.Image, crops: list[tuple[Image.Image, Image.Image]]
) -> Image.Image:
    """The scene alone; colour and mask are resized apart."""
    canvas = pillow_background(plan, photo)
    for placement in plan.placements:
        x0, y0, x1, y1 = (round(edge) for edge in placement.bounds)
        image, mask = (part.resize((x1 - x0, y1 - y0), BILINEAR) for part in crops[placement.crop])
        canvas.paste(image, (x0, y0), mask)
    return canvas


def pillow_background(plan: ScenePlan, photo: Image.Image) -> Image.Image:
    where, (width, height) = plan.background, photo.size
    side = round((where.side_frac or 1) * min(height, width))
    x, y = round(where.x_frac * (width - side)), round(where.y_frac * (height - side))
    return photo.crop((x, y, x + side, y + side)).resize((plan.size, plan.size), BILINEAR)


def albumentations_contestant(
    plans: Plans, photos: list[np.ndarray], crops: list[CropRecord], blend: str
) -> Callable[[int], object]:
    """CopyAndPaste, which shrinks but never enlarges, so its crops come at their planned size."""
    import albumentations

    transform = albumentations.Compose(
        [albumentations.CopyAndPaste(p=1.0, blend_mode=blend)],
        bbox_params=albumentations.BboxParams(coord_format="pascal_voc", label_fields=["labels"]),
    )

    def paint(number: int) -> object:
        plan, donors = plans[number], []
        for placement in plan.placements:
            x0, y0, x1, y1 = (round(edge) for edge in placement.bounds)
            crop, shape = crops[placement.crop], (x1 - x0, y1 - y0)
            mask = (resize_antialiased(crop.mask, *shape) > 127).astype(np.uint8)
            image = resize_antialiased(crop.image, *shape)
            donors.append({"image": image, "mask": mask, "bbox_labels": {"labels": 1}})
        return transform(
            image=paint_background(plan.background, photos[plan.background.index], plan.size),
            masks=np.zeros((0, plan.size, plan.size), np.uint8),
            bboxes=np.zeros((0, 4), np.float32),
            labels=[],
            copy_paste_metadata=donors,
        )

    return paint


def scenes_a_second(contestants: Mapping[str, Callable[[int], object]], count: int) -> dict[str, float]:
    """Best of `PASSES`, the contestants in turn."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(PASSES):
        for name, paint in contestants.items():
            start = time.process_time()
            for number in range(count):
                paint(number)
            best[name] = min(best[name], time.process_time() - start)
    return {name: count / seconds for name, seconds in best.items()}


def show(rates: Mapping[str, float], reference: str) -> None:
    for name, rate in rates.items():
        print(f"  {name:44s} {rate:7.0f} scenes/s {rate / rates[reference]:5.2f}x")


def compare_compositors(count: int) -> None:
    rng = np.random.default_rng(0)
    crops = make_crops(rng, 64)
    photos = [make_texture(rng, 360, 480) for _ in range(16)]
    shapes = [shape_of_record(crop) for crop in crops]

    def plans_of(config: CompositorConfig) -> Plans:
        return [plan_scene(config, rng, len(crops), len(photos), shapes.__getitem__) for _ in range(count)]

    def ours(plans: Plans, crops: list) -> Callable[[int], object]:
        return lambda i: render_scene(
            plans[i], photos[plans[i].background.index], crops.__getitem__, {"bird": 1}, "bench"
        )

    weighed = [weigh(crop) for crop in crops]
    upright, default = plans_of(UPRIGHT), plans_of(CompositorConfig())
    fast = UPRIGHT.model_copy(update={"resampling": "fast"})
    hurried = [replace(plan, config=fast) for plan in upright]
    images = [Image.fromarray(photo) for photo in photos]
    pairs = [(Image.fromarray(crop.image), Image.fromarray(crop.mask)) for crop in crops]
    rgba = [Image.fromarray(np.dstack([crop.image, crop.mask]), "RGBA") for crop in crops]
    contestants: dict[str, Callable[[int], object]] = {
        "Pillow, RGBA, boxes": lambda i: paste_with_pillow(
            upright[i], images[upright[i].background.index], rgba
        ),
        "Pillow, colour and mask apart, no boxes": lambda i: paste_apart_with_pillow(
            upright[i], images[upright[i].background.index], pairs
        ),
        "ours": ours(upright, weighed),
        "ours, resampling: fast": ours(hurried, weighed),
        "ours, crops as their shards give them": ours(upright, crops),
        "ours, default config": ours(default, weighed),
    }
    try:
        for blend in ("hard", "gaussian"):
            contestants[f"albumentationsx CopyAndPaste, {blend}"] = albumentations_contestant(
                upright, photos, crops, blend
            )
    except ImportError:
        print("albumentationsx is not installed: no row for it")
    objects = np.mean([len(plan.placements) for plan in upright])
    print(f"Compositor: {count} scenes of {UPRIGHT.size} px, {objects:.2f} objects each")
    show(scenes_a_second(contestants, count), "Pillow, RGBA, boxes")
    show_quality(upright[:100], photos, crops, images, rgba)
    show_stages(upright, photos, weighed)


def show_quality(plans: Plans, photos: list, crops: list[CropRecord], images: list, rgba: list) -> None:
    """Both compositors against scenes painted larger and averaged."""
    differences: dict[str, list[float]] = {"Pillow": [], "ours": []}
    for plan in plans:
        photo = photos[plan.background.index]
        small = render.paint_scene(plan, photo, crops.__getitem__, {"bird": 1}, "bench")
        config = plan.config.model_copy(update={"size": OVERSAMPLING * plan.size})
        large = tuple(
            replace(place, matrix=tuple(OVERSAMPLING * entry for entry in place.matrix))
            for place in plan.placements
        )
        scene = ScenePlan(config, config.size, plan.background, large)
        image = render_scene(scene, photo, crops.__getitem__, {"bird": 1}, "bench").image
        truth = cv2.resize(image, (plan.size, plan.size), interpolation=cv2.INTER_AREA).astype(float)
        inside = small.owner > 0
        pillow = np.asarray(paste_with_pillow(plan, images[plan.background.index], rgba)[0])
        for name, found in (("Pillow", pillow), ("ours", small.sample.image)):
            differences[name].append(float(np.abs(found[inside] - truth[inside]).mean()))
    text = ", ".join(f"{name} {np.mean(values):.2f}" for name, values in differences.items())
    print(f"  mean difference from a {OVERSAMPLING}-fold oversampled scene, of 255: {text}")


def show_stages(plans: Plans, photos: list, crops: list[CropRecord]) -> None:
    """Shares of the time that `render_scene` spends on its steps."""
    spent: dict[str, float] = {}
    names = ("paint_background", "warp", "split", "_put", "_target_of_visible")
    kept = {name: getattr(render, name) for name in names}

    def timed(name: str) -> Callable[..., object]:
        def call(*args: object) -> object:
            start = time.process_time()
            result = kept[name](*args)
            spent[name] = spent.get(name, 0.0) + time.process_time() - start
            return result

        return call

    for name in names:
        setattr(render, name, timed(name))
    start = time.process_time()
    for plan in plans:
        render_scene(plan, photos[plan.background.index], crops.__getitem__, {"bird": 1}, "bench")
    total = time.process_time() - start
    for name, function in kept.items():
        setattr(render, name, function)
    shares = ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in spent.items())
    print(f"  where ours spends {1e6 * total / len(plans):.0f} us a scene: {shares}")


# Contestants of the loader


def write_sets(root: Path) -> None:
    rng = np.random.default_rng(1)
    crops = make_crops(rng, 512)
    photos = [BackgroundRecord(f"b{i:05d}", make_texture(rng, 360, 480)) for i in range(256)]
    for kind, records, classes in (("crops", crops, ("bird",)), ("backgrounds", photos, ())):
        store = open_store(root / kind)
        entry = write_shard(store, shard_name(kind, 0), records)
        write_manifest(store, Manifest(kind, classes, fingerprint_of({}), {}, (entry,), complete=True))


def batches_of_pillow(root: Path, as_float: bool) -> Iterator[torch.Tensor]:
    """webdataset, decoded by Pillow; scenes of the same counts, sizes and windows, pasted with Pillow."""

    def records(kind: str) -> Iterator[dict]:
        tar = str(root / kind / shard_name(kind, 0))
        while True:
            yield from wds.WebDataset(tar, shardshuffle=False, empty_check=False).decode("pil")

    rng = np.random.default_rng(2)
    crops, photos = records("crops"), records("backgrounds")
    while True:
        scenes = []
        for _ in range(BATCH):
            found: list[Image.Image] = []

            def shape_of(_: int, found: list[Image.Image] = found) -> CropShape:
                record = next(crops)
                image = record["rgb.jpg"].convert("RGB")
                image.putalpha(record["alpha.jpg"].convert("L"))
                found.append(image)
                return CropShape(*image.size, *image.size, 0, 0)

            plan = plan_scene(UPRIGHT, rng, 1, 1, shape_of)
            # crops of a scene that was begun anew were read in vain, here as in our own stream
            shown = [replace(p, crop=i - len(plan.placements)) for i, p in enumerate(plan.placements)]
            plan = replace(plan, placements=tuple(shown))
            scenes.append(np.asarray(paste_with_pillow(plan, next(photos)["jpg"].convert("RGB"), found)[0]))
        batch = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).contiguous()
        yield batch.float().div_(255) if as_float else batch


def batches_of_ours(root: Path, config: CompositorConfig, as_float: bool, decoded_mb: int) -> Iterator:
    stream = SyntheticStream(
        CropCollection([ShardSet.open(root / "crops")]),
        ShardSet.open(root / "backgrounds"),
        config,
        {"bird": 1},
        0,
        StreamConfig(decoded_mb=decoded_mb),
    )
    for first in cycle(range(0, 1 << 20, BATCH)):
        batch = collate([stream[first + i] for i in range(BATCH)]).images
        yield batch.float().div_(255) if as_float else batch


def compare_loaders(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_sets(root)
        kept_mb = StreamConfig().decoded_mb
        loaders = {
            "webdataset pil + Pillow, float": batches_of_pillow(root, True),
            "webdataset pil + Pillow, uint8": batches_of_pillow(root, False),
            "ours, float": batches_of_ours(root, UPRIGHT, True, kept_mb),
            "ours, uint8": batches_of_ours(root, UPRIGHT, False, kept_mb),
            "ours, uint8, nothing kept decoded": batches_of_ours(root, UPRIGHT, False, 0),
            "ours, uint8, all kept decoded": batches_of_ours(root, UPRIGHT, False, 1024),
            "ours, default config, uint8": batches_of_ours(root, CompositorConfig(), False, kept_mb),
        }
        steps = max(1, count // BATCH)
        rates = scenes_a_second({n: lambda _, it=it: next(it) for n, it in loaders.items()}, steps)
        print(f"Loader: shards to batches of {BATCH}, 512 crops and 256 backgrounds of 480x360")
        show({name: BATCH * rate for name, rate in rates.items()}, "webdataset pil + Pillow, float")


def main() -> None:
    count = next((int(word) for word in sys.argv[1:] if word.isdigit()), 200)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if "loader" not in sys.argv:
        compare_compositors(count)
    if "compositor" not in sys.argv:
        compare_loaders(count)


if __name__ == "__main__":
    main()
