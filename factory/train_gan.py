"""Train a generator on a class's photos: ``python -m factory.train_gan --class birds-photos``."""

import json
from pathlib import Path

import numpy as np
import torch

from configs.embedded import embedded
from configs.entry import run
from configs.errors import InputError
from configs.home import find_home
from factory.gan.learner import GanConfig, GanLearner
from factory.gan.scores import (
    FloatArray,
    copying,
    frechet_distance,
    kernel_distance,
    mobilenet_features,
    nearest,
)
from factory.generators.dcgan import to_uint8
from factory.generators.fastgan import FastganGenerator
from factory.generators.found import Fact, Found, read_found, write_found
from factory.stages import UInt8Array
from factory.training.checkpoint import write_whole
from factory.training.command import load_settings, parse_training
from factory.training.image_pool import PhotoPool, open_pool
from factory.training.loop import claim_folder, train
from factory.training.picture import grid, write_picture

_FINAL_SAMPLES = 2000
_EXAMPLES = """examples:
  python -m factory.train_gan --class birds-photos source.root=photos/birds
  python -m factory.train_gan --class cars-photos fit=squash loop.steps=2500
  python -m factory.train_gan --class faces-photos --preset paper image_px=256

The same command again goes on where it stopped. Afterwards use the weights with
  python -m factory.build --class birds source.weights=gan-birds-photos.safetensors"""


def main(argv: list[str]) -> int:
    """Parse, train, say where the weights are."""
    args = parse_training(
        argv,
        command="factory.train_gan",
        description="Train a generator on the photos of a class (few are enough).",
        examples=_EXAMPLES,
        presets="gan",
        folder="runs/gan-CLASS",
    )
    home = find_home()
    name = Path(args.class_name).stem
    recipe, config = load_settings(GanConfig, "gan", args)
    folder = args.out or home / "runs" / f"gan-{name}"
    source = recipe.source.open(recipe.seed, home)
    if source.size is None:
        raise InputError(
            f"class {name}: its images come from a generator: wanted photos, e.g. source.kind=images"
        )
    claim_folder(folder, config, {"source": dict(source.identity())})
    pool = open_pool(source, config.image_px, config.seed, fit=config.fit, flip=config.flip)
    assert isinstance(pool, PhotoPool)
    if len(pool) < 2:
        raise InputError(
            f"class {name}: {len(pool)} photo, wanted at least 2 (100 give samples worth having)"
        )
    reviewer = Reviewer(pool, config, folder, recipe.label)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train(GanLearner(pool, config, reviewer.review, device), folder, config.loop, f"gan {name}")
    weights = home / "data" / "weights" / f"gan-{name}.safetensors"
    write_whole(weights, (folder / "best.safetensors").read_bytes())
    scores = reviewer.final_scores()
    print(f"{weights}: the generator of step {reviewer.best()[1]}, {scores}")
    print(f"samples, beside their nearest training photos: {folder}/neighbours.png")
    return 0


class Reviewer:
    """Scores a generator, draws its samples, keeps the best: the one with the smallest KID."""

    def __init__(self, pool: PhotoPool, config: GanConfig, folder: Path, label: str) -> None:
        self._photos, self._aspect = pool.images, round(pool.aspect, 3)
        self._config, self._folder, self._label = config, folder, label
        self._features = mobilenet_features(embedded("weights/mobilenet_v2.safetensors"))
        order = np.random.default_rng(config.seed).permutation(len(pool))
        self._real = self._features(pool.images[order])
        self._order = order

    def review(self, generator: FastganGenerator, iteration: int) -> dict[str, float]:
        """KID and copying; pictures; the weights when they are the best so far."""
        samples = draw(generator, self._config.samples, self._config.seed)
        fake = self._features(samples)
        figures = {
            "kid": kernel_distance(self._real, fake),
            "copying": copying(self._real, fake),
        }
        write_picture(self._folder / "samples" / f"step-{iteration:08d}.png", grid(samples[:80], 10))
        if figures["kid"] < self.best()[0]:
            facts: dict[str, Fact] = {
                "class": self._label,
                "iteration": iteration,
                "image_px": self._config.image_px,
                "aspect": self._aspect,
                **figures,
            }
            write_found(Found("fastgan", facts, half(generator)), self._folder / "best.safetensors")
            write_picture(self._folder / "neighbours.png", self._beside_nearest(samples[:20], fake[:20]))
        return figures

    def final_scores(self) -> str:
        """KID, FID and copying of the best generator with as many samples as there are photos, up to 2,000;
        kept in ``scores.json``.
        """
        generator = FastganGenerator.from_state_dict(read_found(self._folder / "best.safetensors").tensors)
        count = min(len(self._real), _FINAL_SAMPLES)
        real, fake = self._real[:count], self._features(draw(generator, count, self._config.seed + 1))
        scores = {
            "kid": kernel_distance(real, fake),
            "fid": frechet_distance(real, fake),
            "copying": copying(self._real, fake),
            "samples": count,
        }
        (self._folder / "scores.json").write_text(json.dumps(scores) + "\n")
        return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())

    def best(self) -> tuple[float, int]:
        """KID and iteration of the best generator so far; infinite when there is none."""
        path = self._folder / "best.safetensors"
        if not path.is_file():
            return float("inf"), 0
        facts = read_found(path).facts
        return float(facts["kid"]), int(facts["iteration"])

    def _beside_nearest(self, samples: UInt8Array, fake: FloatArray) -> UInt8Array:
        """Row by row: a sample, its nearest training photo; five pairs a row."""
        photos = self._photos[self._order[nearest(fake, self._real)[1]]]
        pairs = np.stack([samples, photos], axis=1).reshape(-1, *samples.shape[1:])
        return grid(pairs, 10)


def draw(generator: FastganGenerator, count: int, seed: int) -> UInt8Array:  # (count, S, S, 3)
    """Images of latent vectors drawn from the seed."""
    rng = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, generator.sizes.num_latent, generator=rng)
    with torch.inference_mode():
        batches = [to_uint8(generator(latents[i : i + 64])).numpy() for i in range(0, count, 64)]
    return np.concatenate(batches)


def half(generator: FastganGenerator) -> dict[str, torch.Tensor]:
    """The state dict in float16; counters as they are."""
    state = generator.state_dict()
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in state.items()
    }


if __name__ == "__main__":
    run(main)
