"""ReDO's training: resumed to the bit, started over on collapse, stopped when it cannot go on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.errors import InputError
from factory.quality import QualityConfig
from factory.redo.candidates import read_candidates
from factory.redo.distill import DistillLearner, random_crops, teacher_masks
from factory.redo.learner import Collapsed, RedoLearner
from factory.redo.networks import make_mask_network, started
from factory.redo.settings import RedoTraining
from factory.stages import ObjectImage, Segmentation, Unreadable
from factory.training.image_pool import PhotoPool
from factory.training.loop import train

_CPU = torch.device("cpu")


def _photos(count: int = 12) -> np.ndarray:
    """Bright discs on dark noise, uint8 (N, 32, 32, 3)."""
    rng = np.random.default_rng(3)
    photos = rng.integers(0, 60, (count, 32, 32, 3), dtype=np.uint8)
    photos[_discs(count) > 0] = (250, 200, 90)
    return photos


def _discs(count: int = 12) -> np.ndarray:
    rows, columns = np.mgrid[:32, :32]
    return np.stack([(rows - 12 - i % 8) ** 2 + (columns - 16) ** 2 < 60 for i in range(count)]).astype(
        np.uint8
    )


def _settings(**more: Any) -> RedoTraining:
    data: dict[str, Any] = {
        "name": "x",
        "label": "disc",
        "source": {"kind": "images"},
        "teacher": {"kind": "whole"},
        "image_size": 32,
        "batch_size": 2,
        "networks": {
            "latent_size": 3,
            "mask_features": 8,
            "mask_res_blocks": 1,
            "generator_features": 2,
            "discriminator_features": 2,
            "recovery_features": 2,
        },
        "loop": {"steps": 10, "checkpoint_every": 5, "log_every": 5},
    }
    return RedoTraining.model_validate({**data, **more})


def _learner(folder: Path, config: RedoTraining, warm: dict[str, Tensor] | None = None) -> RedoLearner:
    held_out = torch.from_numpy(_photos()[:3]).permute(0, 3, 1, 2)
    return RedoLearner(config, PhotoPool(_photos()[3:], config.seed), held_out, folder, _CPU, warm)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _with(config: RedoTraining, **loop: int) -> RedoTraining:
    return config.model_copy(update={"loop": config.loop.model_copy(update=loop)})


def test_ten_steps_are_five_and_five(tmp_path: Path) -> None:
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    config = _settings()
    once = _learner(straight, config)
    train(once, straight, config.loop, "x")
    train(_learner(parted, config), parted, _with(config, steps=5).loop, "x")
    again = _learner(parted, config)
    train(again, parted, config.loop, "x")
    assert _equal(once.state(), again.state())
    for name in ("step-0-000005", "step-0-000010"):
        one, two = (folder / "masks" / f"{name}.safetensors" for folder in (straight, parted))
        assert one.read_bytes() == two.read_bytes()
        assert one.with_suffix(".png").read_bytes() == two.with_suffix(".png").read_bytes()


def test_all_four_networks_learn_and_another_seed_draws_otherwise(tmp_path: Path) -> None:
    learner, other = (_learner(tmp_path, _settings(seed=seed)) for seed in (0, 1))
    before = [p.detach().clone() for p in learner.networks.masks.parameters()]
    starts = {name: next(n.parameters()).detach().clone() for name, n in learner.networks.items()}
    figures = learner.step()
    assert set(figures) == {"realism", "recovery", "min_region", "discriminator"}
    for name, network in learner.networks.items():
        assert not torch.equal(next(network.parameters()), starts[name]), name
    assert all(p.requires_grad for p in learner.networks.discriminator.parameters())
    assert figures != other.step()
    assert not torch.equal(before[0], next(other.networks.masks.parameters()))


@pytest.mark.parametrize("regions", [2, 3])
def test_any_number_of_regions_trains_in_either_precision(tmp_path: Path, regions: int) -> None:
    networks = {**_settings().networks.model_dump(), "num_regions": regions}
    for precision in ("float32", "bfloat16"):
        learner = _learner(tmp_path, _settings(networks=networks, precision=precision))
        assert all(np.isfinite(value) for value in learner.step().values())
        assert 0 < learner.review()["area_frac"] < 1


def test_a_collapse_starts_over_with_new_networks(tmp_path: Path) -> None:
    config = _settings(collapse={"min_region_frac": 0.49, "attempts": 2})
    learner = _learner(tmp_path, config)
    first = {name: network.state_dict() for name, network in learner.networks.items()}
    first = {name: {key: value.clone() for key, value in state.items()} for name, state in first.items()}
    learner.step()
    _drown(learner)
    recovery_bias = learner.networks.recovery.net.dense.bias.detach().clone()
    figures = learner.review()
    assert (figures["collapsed"], figures["attempt"], learner.iteration, learner.attempt) == (1, 1, 0, 1)
    for name, network in learner.networks.items():
        assert not torch.equal(network.state_dict()[_kernel_of(network)], first[name][_kernel_of(network)])
    assert torch.equal(learner.networks.recovery.net.dense.bias, recovery_bias)
    assert not learner.state()["optimizerDX"]["state"]


def test_a_restart_is_resumed_to_the_bit(tmp_path: Path) -> None:
    config = _settings(collapse={"min_region_frac": 0.49, "attempts": 2})
    learner = _learner(tmp_path, config)
    learner.step()
    _drown(learner)
    learner.review()
    again = _learner(tmp_path, config)
    again.load(learner.state())
    learner.step(), again.step()
    assert _equal(learner.state(), again.state())


@pytest.mark.parametrize("limits", [{"attempts": 1}, {"within_steps": 0}])
def test_a_collapse_that_cannot_start_over_names_the_best_checkpoint(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    learner = _learner(tmp_path, _settings(collapse={"min_region_frac": 0.49, **limits}))
    learner.step()
    _drown(learner)
    with pytest.raises(Collapsed, match=r"step 1, attempt 1: .*step-0-000001\.safetensors"):
        learner.review()


def test_a_warm_start_is_taken_up_and_again_after_a_collapse(tmp_path: Path) -> None:
    config = _settings(collapse={"min_region_frac": 0.49, "attempts": 2})
    warm = started(make_mask_network(config.networks, 32), 99).state_dict()
    learner = _learner(tmp_path, config, warm)
    assert _equal(dict(learner.networks.masks.state_dict()), dict(warm))
    learner.step()
    _drown(learner)
    learner.review()
    assert _equal(dict(learner.networks.masks.state_dict()), dict(warm))


def test_frozen_masks_stay_until_their_time(tmp_path: Path) -> None:
    config = _settings(optimiser={"mask_frozen_steps": 2})
    learner = _learner(tmp_path, config)
    before = {name: value.clone() for name, value in learner.networks.masks.state_dict().items()}
    learner.step(), learner.step()
    assert _equal(dict(learner.networks.masks.state_dict()), before)
    learner.step()
    assert not _equal(dict(learner.networks.masks.state_dict()), before)


def test_a_loss_that_is_not_finite_stops_with_the_step_named(tmp_path: Path) -> None:
    config = _settings()
    learner = _learner(tmp_path, config)
    with torch.no_grad():
        learner.networks.discriminator.dense.weight.fill_(float("nan"))
    with pytest.raises(InputError, match=r"step 1: realism is nan"):
        train(learner, tmp_path, config.loop, "x")


def test_the_log_holds_figures_of_steps_and_reviews(tmp_path: Path) -> None:
    config = _settings()
    train(_learner(tmp_path, config), tmp_path, config.loop, "x")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"realism", "recovery", "discriminator"} <= lines[0].keys()
    assert {"area_frac", "border", "flip", "shift", "realism_gap", "min_region_held_out"} <= lines[1].keys()
    assert [kept.name for kept in read_candidates(tmp_path / "masks")] == ["step-0-000005", "step-0-000010"]


def _drown(learner: RedoLearner) -> None:
    """Give all to region 0."""
    last = learner.networks.masks.out.mods[-1]
    with torch.no_grad():
        last.bias.fill_(50)
    learner._areas = np.array([1, 0], np.float32)


def _kernel_of(network: torch.nn.Module) -> str:
    return next(name for name in network.state_dict() if name.endswith(("weight_orig", "0.mods.1.weight")))


class _Source:
    """Slots of which the third cannot be read."""

    def __init__(self, count: int = 12) -> None:
        self.size, self.asked = count, 0

    def images(self, start: int, count: int) -> Iterator[ObjectImage | Unreadable]:
        self.asked += 1
        for i, photo in enumerate(_photos(self.size)[start : start + count], start):
            yield Unreadable("2", "broken") if i == 2 else ObjectImage(str(i), photo)


class _Teacher:
    """Knows where the discs are, but calls every other mask empty."""

    def segment(self, images: list[ObjectImage]) -> list[Segmentation]:
        masks = _discs() * np.uint8(255)
        return [Segmentation(masks[int(i.name)] * np.uint8(int(i.name) % 2), 1.0) for i in images]


def test_the_teacher_is_asked_once_and_its_bad_masks_are_marked(tmp_path: Path) -> None:
    source = _Source()
    path = tmp_path / "teacher.npz"
    found = [
        teacher_masks(path, source, _Teacher(), QualityConfig(min_side_px=4), 100, 32, "crop")
        for _ in range(2)
    ]
    assert source.asked == 1
    assert found[0].good.tolist() == [i % 2 == 1 for i in range(12) if i != 2]
    for one, two in zip(*[(f.images, f.masks, f.good) for f in found], strict=True):
        assert np.array_equal(one, two)


def test_a_teacher_whose_masks_are_all_bad_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of 11 masks passes quality"):
        teacher_masks(
            tmp_path / "t.npz", _Source(), _Teacher(), QualityConfig(min_side_px=30), 100, 32, "crop"
        )


def _distiller(folder: Path, steps: int) -> DistillLearner:
    images = torch.from_numpy(_photos()).permute(0, 3, 1, 2)
    targets = torch.from_numpy(_discs()).float()
    config = _settings(distill={"steps": steps, "batch_size": 4, "lr": 3e-3})
    return DistillLearner(config, images, targets, (images[:4], targets[:4]), folder, _CPU)


def test_distillation_learns_the_teachers_masks(tmp_path: Path) -> None:
    learner = _distiller(tmp_path, 40)
    before = learner.review()["teacher_overlap"]
    for _ in range(40):
        learner.step()
    assert learner.review()["teacher_overlap"] > max(0.5, before)


def test_distillation_resumes_to_the_bit(tmp_path: Path) -> None:
    loop = _settings(loop={"steps": 4, "checkpoint_every": 2}).loop
    once = _distiller(tmp_path / "a", 4)
    train(once, tmp_path / "a", loop, "x")
    train(_distiller(tmp_path / "b", 4), tmp_path / "b", loop.model_copy(update={"steps": 2}), "x")
    again = _distiller(tmp_path / "b", 4)
    train(again, tmp_path / "b", loop, "x")
    assert _equal(once.state(), again.state())


def test_crops_and_flips_move_all_channels_alike() -> None:
    one = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    cut = random_crops(one.expand(6, 4, 16, 16), np.random.default_rng(0), 0.8)
    assert cut.shape == (6, 4, 16, 16)
    assert torch.equal(cut[:, 0], cut[:, 3])
    whole = random_crops(one, np.random.default_rng(0), 1.0)
    for before, after in zip(one, whole, strict=True):
        near = [torch.allclose(after, way, atol=1e-5) for way in (before, before.flip(2))]
        assert any(near)
