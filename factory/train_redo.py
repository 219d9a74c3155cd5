"""Train ReDO's mask network: ``python -m factory.train_redo --class birds-photos source.root=photos/``."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from configs.entry import run
from configs.errors import InputError
from configs.home import find_home
from factory.generators.found import write_found
from factory.redo.candidates import Candidate, choose, read_candidates
from factory.redo.distill import DistillLearner, TeacherMasks, teacher_masks
from factory.redo.learner import Collapsed, RedoLearner
from factory.redo.official import write_official
from factory.redo.selection import MaskFigures
from factory.redo.settings import RedoTraining, load_training
from factory.stages import ObjectSource
from factory.training.command import parse_training
from factory.training.image_pool import EndlessPool, ImagePool, PhotoPool, open_pool
from factory.training.loop import LoopConfig, claim_folder, train

_HELD_OUT = 64  # images at most, and a tenth of a finite source
_HELD_OUT_STREAM = 2
_SPLIT = 5  # what the split's key begins with after the seed

_EXAMPLES = """examples:
  python -m factory.train_redo --class birds-photos source.root=photos/
  python -m factory.train_redo --class birds-photos --preset paper device=cuda precision=bfloat16
  python -m factory.train_redo --class cars-photos warm_start=distill distill.steps=2000 loop.steps=0
  python -m factory.train_redo --class faces-dcgan loop.steps=20000 collapse.attempts=3

The same command again goes on where it stopped, to the bit; a larger loop.steps prolongs a training.
No label is used: the checkpoint and the object's region are chosen by what the masks look like."""


def main(argv: list[str]) -> int:
    """Parse, train, choose, print what was chosen and why."""
    args = parse_training(
        argv,
        command="factory.train_redo",
        description="Train ReDO to part object and background on images of one class, without labels.",
        examples=_EXAMPLES,
        presets="redo",
        folder="runs/redo-NAME",
    )
    home = find_home()
    config = load_training(args.class_name, args.preset, args.overrides)
    folder = args.out or home / "runs" / f"redo-{config.name}"
    print(train_redo(config, folder, home))
    return 0


def train_redo(config: RedoTraining, folder: Path, home: Path) -> str:
    """Bring the training in ``folder`` to its end; returns what was chosen, to print.

    Raises InputError for wrong settings or photos, and when the masks collapse for good.
    """
    device = _device(config)
    source = config.source.open(config.seed, home)
    claim_folder(folder, config, {"source": dict(source.identity())})
    warm = _distil(config, source, folder, home, device) if config.warm_start == "distill" else None
    if config.loop.steps:
        pool, held_out = _split(config, source)
        learner = RedoLearner(config, pool, held_out, folder, device, warm)
        try:
            train(learner, folder, config.loop, f"redo {config.name}")
        except Collapsed as error:
            raise InputError(f"{error}; {_publish(config, folder, home)}") from error
        write_official(folder / f"state_{learner.iteration:05d}.pth", learner.networks, config)
    return _publish(config, folder, home)


def _device(config: RedoTraining) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: found cuda, and torch sees no GPU: wanted cpu, or auto")
    name = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _split(config: RedoTraining, source: ObjectSource) -> tuple[ImagePool, Tensor]:
    """The training's images, and those held out: uint8 (N, 3, S, S)."""
    pool = open_pool(source, config.image_size, config.seed, fit=config.fit, flip=config.flip)
    if isinstance(pool, EndlessPool):
        return pool, pool.batch(0, _HELD_OUT, _HELD_OUT_STREAM)
    kept, held_out = split_indices(len(pool), config.seed)
    shown = torch.from_numpy(pool.images[held_out]).permute(0, 3, 1, 2)
    return PhotoPool(pool.images[kept], config.seed, flip=config.flip), shown


def split_indices(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Which of ``count`` images are trained on and which are held out, each in order.

    Raises InputError when there are fewer than two.
    """
    if count < 2:
        raise InputError(f"source: {count} readable image, wanted two or more: one is held out")
    order = np.random.default_rng([seed, _SPLIT]).permutation(count)
    num_held_out = max(1, min(_HELD_OUT, count // 10))
    return sorted(order[num_held_out:].tolist()), sorted(order[:num_held_out].tolist())


def _distil(
    config: RedoTraining, source: ObjectSource, folder: Path, home: Path, device: torch.device
) -> Mapping[str, Tensor]:
    """The warm start's weights of the mask network."""
    teacher = config.teacher.open(home)
    path = folder / "distill" / "teacher.npz"
    found = teacher_masks(
        path, source, teacher, config.quality, config.distill.max_images, config.image_size, config.fit
    )
    learner = _distiller(config, found, folder / "distill", device)
    loop = LoopConfig(**{**config.loop.model_dump(), "steps": config.distill.steps})
    train(learner, folder / "distill", loop, f"distil {config.name}")
    return learner.network.state_dict()


def _distiller(
    config: RedoTraining, found: TeacherMasks, folder: Path, device: torch.device
) -> DistillLearner:
    kept, held_out = split_indices(len(found.images), config.seed)
    images = torch.from_numpy(found.images).permute(0, 3, 1, 2)
    targets = torch.from_numpy(found.masks * found.good[:, None, None]).float() / 255
    good = [i for i in kept if found.good[i]]
    if not good:
        raise InputError("teacher: the one mask that passes quality.* is held out: wanted more images")
    shown = (images[held_out], targets[held_out])
    return DistillLearner(config, images[good], targets[good], shown, folder, device)


def _publish(config: RedoTraining, folder: Path, home: Path) -> str:
    """Write the best mask network to the home's weights; returns a line that says which and why."""
    best = choose(read_candidates(folder / "distill" / "masks", folder / "masks"))
    path = home / "data" / "weights" / f"redo-{config.name}.safetensors"
    facts = {**best.found.facts, "class": config.label, "seed": config.seed, "checkpoint": best.name}
    write_found(replace(best.found, facts=facts), path)
    return f"{path}: {best.name}, object is region {facts['object_channel']} ({_why(best)})"


def _why(best: Candidate) -> str:
    facts = best.found.facts
    names = [item.name for item in fields(MaskFigures) if item.name in facts]
    known = [f"{name} {float(facts[name]):.2f}" for name in names]
    return f"score {best.score:.3f}: {', '.join(known)}"


if __name__ == "__main__":
    run(main)
