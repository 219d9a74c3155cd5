"""The factory against the official way: ``python tests/benchmarks/bench_factory.py [--crops N]``.

Both turn latent vectors of the same kind into crops of at most 256 px with the same networks (random
weights), on one thread: generate, segment, judge, cut, encode, pack. The official way is that of the paper's
code: one image at a time, in float32, gradients of the mask network recorded. Ours is `factory.pipeline`,
batched. Only the ratios inside one run mean much.

Three sizes: the embedded one (64 px, a FastGAN and a mask network of 32 features); the paper's mask network
(128 px, 64 features) behind a 64 px DCGAN, whose own cost hardly counts there; and the paper's faces, that
mask network behind StyleGAN's 1024 px, which ours may also stop at 256 px, the most that a crop keeps.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor, nn

from factory.crops import cut
from factory.generators.dcgan import DcganGenerator, DcganSizes, to_uint8
from factory.generators.fastgan import FastganGenerator, FastganSizes, calibrate_norms
from factory.generators.found import Found, write_found
from factory.generators.rows import draw_latents
from factory.generators.stylegan1 import StyleGan1
from factory.pipeline import BATCH, CropLine, ShardTally, ShardTask
from factory.quality import judge
from factory.recipe import Recipe
from factory.redo.mask_network import MaskNetwork
from factory.segmenters.redo import squash
from factory.stages import ObjectImage, Segmentation
from shards.codec import encode
from shards.records import CropRecord
from shards.writer import pack_tar

REPEATS = 3
LIMITS = {"min_area_frac": 0, "max_area_frac": 1, "min_side_px": 1, "min_main_share": 0, "max_border_frac": 1}
QUALITY = {**LIMITS, "min_confidence": 0}


class Way(NamedTuple):
    """One of ours: what to call it, the precision of its masks, the settings of its source."""

    name: str
    precision: str
    source: dict[str, object]


class Case(NamedTuple):
    """title: of what both make. generate: latents (1, num_latent) to images (1, 3, S, S), the official way.
    crops: to make that way, None: as many as ours.
    """

    title: str
    kind: str
    generate: Callable[[Tensor], Tensor]
    num_latent: int
    masks: MaskNetwork
    crops: int | None
    ours: list[Way]


def official(case: Case, recipe: Recipe, count: int) -> bytes:
    """Crop after crop, gradients recorded."""
    masks = case.masks
    members: list[tuple[str, bytes]] = []
    for index in range(count):
        image = to_uint8(case.generate(draw_latents(0, index, 1, case.num_latent)).detach())[0].numpy()
        pixels = torch.from_numpy(squash(image, masks.image_size)).permute(2, 0, 1)[None].float() / 255
        soft: Tensor = masks(pixels)[0, 0]
        large = nn.functional.interpolate(soft[None, None], image.shape[:2], mode="bilinear")[0, 0]
        opacity = (large.detach() * 255 + 0.5).to(torch.uint8).numpy()
        segmentation = Segmentation(opacity, float((2 * soft.detach() - 1).abs().mean()))
        verdict = judge(segmentation, recipe.quality)
        record = cut(
            f"000000-{index:05d}",
            "thing",
            ObjectImage(str(index), image),
            segmentation,
            recipe.crop,
            verdict.scores,
        )
        members += named_members(record)
    return pack_tar(members)


def factory(line: CropLine, count: int) -> bytes:
    """One shard of the pipeline."""
    tally = ShardTally()
    packed = pack_tar(m for record in line.crops(ShardTask(0, count), tally) for m in named_members(record))
    assert tally.kept == count, tally.dropped
    return packed


def named_members(record: CropRecord) -> list[tuple[str, bytes]]:
    return [(f"{record.key}.{extension}", content) for extension, content in encode(record).items()]


def seconds(work: Callable[[], object]) -> float:
    """The least of three runs after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=2 * BATCH)
    count = parser.parse_args().crops
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with TemporaryDirectory() as name:
        folder = Path(name)
        for case in (embedded(folder), papers_masks(folder), papers_faces(folder)):
            run(case, folder, count)


def run(case: Case, folder: Path, count: int) -> None:
    """Print a line for each of our ways."""
    masks = case.masks
    facts = {"image_size": masks.image_size, "temperature": 1.0, "object_channel": 0}
    write_found(Found("redo-masks", facts, masks.state_dict()), folder / "masks.safetensors")
    recipes = [make_recipe(case.kind, way, folder / "masks.safetensors") for way in case.ours]
    crops = case.crops or count
    slow = seconds(partial(official, case, recipes[0], crops)) / crops
    for way, recipe in zip(case.ours, recipes, strict=True):
        fast = seconds(partial(factory, CropLine(recipe, folder), count)) / count
        speeds = f"{1 / fast:.3g} crops/s, one at a time in fp32 {1 / slow:.3g}"
        print(f"{case.title}, {way.name}: {speeds}: {slow / fast:.1f}x", flush=True)


def embedded(folder: Path) -> Case:
    """64 px throughout."""
    generator = FastganGenerator(FastganSizes())
    calibrate_norms(generator, torch.Generator().manual_seed(0), batches=2)  # else all shrinks to denormals
    path = folder / "fastgan.safetensors"
    write_found(Found("fastgan", {}, generator.state_dict()), path)
    ours = [Way(p, p, {"weights": path, "precision": p}) for p in ("fp32", "bf16")]
    return Case(
        "64 px, embedded", "fastgan", generator.eval(), 128, MaskNetwork(32, image_size=64), None, ours
    )


def papers_masks(folder: Path) -> Case:
    """Masks of 128 px."""
    generator, path = DcganGenerator(DcganSizes(100, 64, 3, 64)), folder / "dcgan.pth"
    torch.save(generator.state_dict(), path)
    ours = [Way(p, p, {"weights": path}) for p in ("fp32", "bf16")]
    masks = MaskNetwork(64, image_size=128)
    return Case("128 px masks, the paper's", "dcgan", generator.eval(), 100, masks, None, ours)


def papers_faces(folder: Path) -> Case:
    """StyleGAN's images of 1024 px, masks of 128 px."""
    channels = [min(8192 >> stage, 512) for stage in range(1, 10)]
    shapes = StyleGan1([512] * 9, channels, 3, 0.01).state_dict()
    tensors = {name: torch.randn(value.shape) for name, value in shapes.items()}
    path = folder / "stylegan.safetensors"
    write_found(Found("stylegan1", {"cutoff": 8, "image_channels": 3}, tensors), path)
    generator = StyleGan1.from_tensors(tensors, {}).to(memory_format=torch.contiguous_format)
    ours = [
        Way(name, p, {"weights": path, "image_px": side, "precision": p, "batch_size": 1})
        for name, p, side in (
            ("1024 px in fp32", "fp32", 1024),
            ("1024 px in bf16", "bf16", 1024),
            ("stopped at 256 px, in bf16", "bf16", 256),
        )
    ]
    generate = partial(generator, psi=0.7, cutoff=8)
    masks = MaskNetwork(64, image_size=128)
    return Case("the paper's faces, StyleGAN of 1024 px", "stylegan", generate, 512, masks, 4, ours)


def make_recipe(kind: str, way: Way, masks: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "label": "thing",
            "source": {"kind": kind, **way.source},
            "segmenter": {"kind": "redo", "weights": masks, "object_channel": 0, "precision": way.precision},
            "quality": {**QUALITY, "duplicate_bits": None},
        }
    )


if __name__ == "__main__":
    main()
