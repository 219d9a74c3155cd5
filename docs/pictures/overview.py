"""Draw README's picture of the way from a generator to detections, after README's one line has run there:

    python docs/pictures/overview.py HOME docs/pictures/overview.jpg

HOME is the folder that holds ``data/crops/birds`` and ``runs/offline``.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from factory.crops import cut
from factory.quality import judge
from factory.recipe import load_recipe
from factory.stages import ObjectImage, Segmentation
from shards.records import CropRecord
from trainer.imaging.drawing import (
    contact_sheet,
    draw_detections,
    draw_objects,
    encode_image,
    stacked,
    titled,
)
from trainer.imaging.images import read_boxed_image, resize_antialiased
from trainer.runs.config import load_run
from trainer.runs.data import RunData
from trainer.runs.open_scenes import open_scenes
from trainer.runs.trained import open_trained
from trainer.sample import UInt8Array

SMALL, LARGE = (9, 112), (5, 205)  # columns, px of a cell
PAPER = 245
SURE = 0.5  # detections shown


def kept(count: int, home: Path) -> list[tuple[ObjectImage, Segmentation, CropRecord]]:
    """The generator's first images whose masks the gate lets through, and their crops."""
    recipe = load_recipe("birds", [])
    source, segmenter = recipe.source.open(recipe.seed, home), recipe.segmenter.open(home)

    def made() -> Iterator[tuple[ObjectImage, Segmentation, CropRecord]]:
        for image in source.images(0, 10 * count):
            assert isinstance(image, ObjectImage)
            [mask] = segmenter.segment([image])
            verdict = judge(mask, recipe.quality)
            if verdict.keep:
                yield image, mask, cut("0", "bird", image, mask, recipe.crop, verdict.scores)

    return list(islice(made(), count))


def on_paper(crop: CropRecord) -> UInt8Array:
    """The crop where it is opaque, paper elsewhere."""
    opacity = crop.mask[..., None].astype(np.float32) / 255
    return np.asarray(crop.image * opacity + PAPER * (1 - opacity) + 0.5, np.uint8)


def row(title: str, images: Sequence[UInt8Array], shape: tuple[int, int]) -> UInt8Array:
    columns, cell_px = shape
    return titled(contact_sheet(images, columns, cell_px), title)


def main(home: Path, out: Path) -> None:
    objects = kept(SMALL[0], home)
    config = load_run("offline", [])
    scenes = open_scenes(config, home, seed=0)
    composed = [scenes.stream[number] for number in range(LARGE[0])]
    trained = open_trained(home / "runs" / "offline" / "seed-0" / "pretrain", home)
    unseen = [read_boxed_image(photo) for photo in RunData(config, home).test[: LARGE[0]]]
    batch = np.stack([resize_antialiased(image, scenes.size, scenes.size) for image in unseen])
    detections = trained.detector.detect(torch.from_numpy(batch).permute(0, 3, 1, 2))
    sure = [each.chosen(each.scores >= SURE) for each in detections]
    found = [draw_detections(image, each) for image, each in zip(batch, sure, strict=True)]
    masks = [np.repeat(mask.mask[..., None], 3, axis=2) for _, mask, _ in objects]
    sheet = stacked(
        [
            row(
                "1  a generator's images of the class (or photos of it)", [o[0].image for o in objects], SMALL
            ),
            row("2  masks, learnt without labels", masks, SMALL),
            row("3  crops, as they lie in shards", [on_paper(crop) for *_, crop in objects], SMALL),
            row(
                "4  composited while a detector trains: boxes for nothing",
                [draw_objects(s.image, s.target, scenes.classes) for s in composed],
                LARGE,
            ),
            row("5  what it finds on photographed birds that no training saw", found, LARGE),
        ]
    )
    out.write_bytes(encode_image(sheet, out.suffix))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
