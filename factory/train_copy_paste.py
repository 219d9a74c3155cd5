"""Train a copy-pasting GAN on a class: ``python -m factory.train_copy_paste --class birds-photos``."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.entry import run
from configs.errors import InputError
from configs.home import find_home
from factory.copy_paste.destinations import BackgroundPool
from factory.copy_paste.learner import CopyPasteConfig, CopyPasteLearner, copy_masks
from factory.copy_paste.networks import paste
from factory.generators.dcgan import to_uint8
from factory.generators.found import Fact, Found, write_found
from factory.redo.mask_network import MaskNetwork
from factory.training.command import load_settings, parse_training
from factory.training.image_pool import ImagePool, open_pool, to_signed
from factory.training.loop import claim_folder, train
from factory.training.picture import grid, write_picture
from shards.errors import ShardError
from shards.reader import ShardSet

FAMILY = "copy-paste-masks"

_SHOWN = 16  # images in a picture, and of the review's figures
_EXAMPLES = """examples:
  python -m factory.train_copy_paste --class birds-photos source.root=photos/birds
  python -m factory.train_copy_paste --class birds-photos backgrounds=data/backgrounds/coco loop.steps=20000

The same command again goes on where it stopped. Afterwards use the masks with
  python -m factory.build --class birds segmenter.kind=copy_paste \\
    segmenter.weights=copy-paste-birds-photos.safetensors"""


def main(argv: list[str]) -> int:
    """Parse, train, say where the weights are."""
    args = parse_training(
        argv,
        command="factory.train_copy_paste",
        description="Train a network to find objects by pasting them elsewhere, unnoticed.",
        examples=_EXAMPLES,
        presets="copy_paste",
        folder="runs/copy-paste-CLASS",
    )
    home = find_home()
    name = Path(args.class_name).stem
    recipe, config = load_settings(CopyPasteConfig, "copy_paste", args)
    folder = args.out or home / "runs" / f"copy-paste-{name}"
    source = recipe.source.open(recipe.seed, home)
    backgrounds = None if config.backgrounds is None else _open_backgrounds(config.backgrounds)
    identity: dict[str, Any] = {"source": dict(source.identity())}
    if backgrounds is not None:
        identity["backgrounds"] = backgrounds.manifest.fingerprint
    claim_folder(folder, config, identity)
    objects = open_pool(source, config.image_px, config.seed, fit=config.fit, flip=config.flip)
    destinations: ImagePool = objects
    if backgrounds is not None:
        photos = (record.image for record in backgrounds.stream())
        destinations = BackgroundPool(photos, config.image_px, config.seed)
    reviewer = Reviewer(objects, destinations, config, folder, recipe.label)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = CopyPasteLearner(objects, destinations, config, reviewer.review, device)
    train(learner, folder, config.loop, f"copy-paste {name}")
    weights = home / "data" / "weights" / f"copy-paste-{name}.safetensors"
    sha256 = write_found(describe(learner.generator, config, recipe.label, learner.iteration), weights)
    print(f"{weights}: the mask network of step {learner.iteration}, sha256 {sha256[:12]}")
    print(f"look at its masks first: {folder}/masks")
    return 0


class Reviewer:
    """Looks at the same images at every checkpoint: figures, a picture, the newest weights."""

    def __init__(
        self, objects: ImagePool, destinations: ImagePool, config: CopyPasteConfig, folder: Path, label: str
    ) -> None:
        self._images = to_signed(objects.batch(0, _SHOWN, stream=8))
        self._destinations = to_signed(destinations.batch(0, _SHOWN, stream=9))
        self._config, self._folder, self._label = config, folder, label

    def review(self, network: MaskNetwork, iteration: int) -> dict[str, float]:
        """area: mean of the masks; sharp: mean of |2m - 1|, 1 when every pixel is wholly in or out."""
        device = next(network.parameters()).device
        with torch.inference_mode():
            masks = copy_masks(network, self._images.to(device), self._config.border_px).float().cpu()
        rows = (self._images, masks.expand(-1, 3, -1, -1) * 2 - 1, self._pasted(masks))
        sheet = np.concatenate([to_uint8(row).numpy() for row in rows])
        write_picture(self._folder / "masks" / f"step-{iteration:08d}.png", grid(sheet, _SHOWN))
        found = describe(network, self._config, self._label, iteration)
        write_found(found, self._folder / "masks.safetensors")
        return {"area": float(masks.mean()), "sharp": float((2 * masks - 1).abs().mean())}

    def _pasted(self, masks: Tensor) -> Tensor:
        return paste(masks, self._images, self._destinations)


def describe(network: MaskNetwork, config: CopyPasteConfig, label: str, iteration: int) -> Found:
    """The mask network's weights in float16, with what the segmenter needs to use them."""
    facts: dict[str, Fact] = {"class": label, "image_size": config.image_px, "border_px": config.border_px}
    tensors = {name: value.half() for name, value in network.state_dict().items()}
    return Found(FAMILY, {**facts, "fit": config.fit, "iteration": iteration}, tensors)


def _open_backgrounds(location: str) -> ShardSet:
    found = ShardSet.open(location)
    if found.manifest.kind != "backgrounds" or not len(found):
        raise InputError(
            f"backgrounds: {location}: holds {len(found)} {found.manifest.kind}, wanted backgrounds"
        )
    return found


if __name__ == "__main__":
    run(main, ShardError)
