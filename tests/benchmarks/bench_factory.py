"""The factory against the official way: ``python tests/benchmarks/bench_factory.py [--crops N]``.

Both turn the same latent vectors into the same kind of crops with the same networks (random weights), on one
thread: generate, segment, judge, cut, encode, pack. The official way is that of the paper's code: one image
at a time, gradients recorded. Ours is `factory.pipeline`, batched. Only the ratios inside one run mean much.

Two sizes: the embedded one (64 px, a FastGAN and a mask network of 32 features), and the paper's mask
network (128 px, 64 features) behind a 64 px DCGAN, whose own cost hardly counts there.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from factory.crops import cut
from factory.generators.dcgan import DcganGenerator, DcganSizes, to_uint8
from factory.generators.fastgan import FastganGenerator, FastganSizes, calibrate_norms
from factory.generators.found import Found, write_found
from factory.generators.rows import draw_latents
from factory.pipeline import CropLine, ShardTally, ShardTask
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


def official(generator: nn.Module, latent: int, masks: MaskNetwork, recipe: Recipe, count: int) -> bytes:
    """Crop after crop, gradients recorded."""
    generator.eval()
    members: list[tuple[str, bytes]] = []
    for index in range(count):
        image = to_uint8(generator(draw_latents(0, index, 1, latent)).detach())[0].numpy()
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
    parser.add_argument("--crops", type=int, default=64)
    count = parser.parse_args().crops
    torch.set_num_threads(1)
    torch.manual_seed(0)
    fastgan = FastganGenerator(FastganSizes())
    calibrate_norms(fastgan, torch.Generator().manual_seed(0), batches=2)  # else all shrinks to denormals
    dcgan = DcganGenerator(DcganSizes(100, 64, 3, 64))
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_found(Found("fastgan", {}, fastgan.state_dict()), folder / "fastgan.safetensors")
        torch.save(dcgan.state_dict(), folder / "dcgan.pth")
        rows = [
            (
                "64 px, embedded",
                "fastgan",
                "fastgan.safetensors",
                fastgan,
                128,
                MaskNetwork(32, image_size=64),
            ),
            ("128 px masks, the paper's", "dcgan", "dcgan.pth", dcgan, 100, MaskNetwork(64, image_size=128)),
        ]
        for title, kind, file, generator, latent, masks in rows:
            facts = {"image_size": masks.image_size, "temperature": 1.0, "object_channel": 0}
            write_found(Found("redo-masks", facts, masks.state_dict()), folder / "masks.safetensors")
            slow = None
            for precision in ("fp32", "bf16"):
                recipe = make_recipe(kind, folder / file, folder / "masks.safetensors", precision)
                slow = slow or seconds(partial(official, generator, latent, masks, recipe, count)) / count
                fast = seconds(partial(factory, CropLine(recipe, folder), count)) / count
                speeds = f"{1 / fast:.0f} crops/s, one at a time in fp32 {1 / slow:.0f}"
                print(f"{title}, {precision}: {speeds}: {slow / fast:.1f}x")


def make_recipe(kind: str, generator: Path, masks: Path, precision: str) -> Recipe:
    source = {"kind": kind, "weights": generator} | ({"precision": precision} if kind == "fastgan" else {})
    return Recipe.model_validate(
        {
            "label": "thing",
            "source": source,
            "segmenter": {"kind": "redo", "weights": masks, "object_channel": 0, "precision": precision},
            "quality": {**QUALITY, "duplicate_bits": None},
        }
    )


if __name__ == "__main__":
    main()
