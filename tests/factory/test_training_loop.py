"""The loop that trains generators and mask networks: resume, stop, log."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import InputError
from configs.kinds import StrictModel
from factory.training.checkpoint import load_newest, save_checkpoint
from factory.training.image_pool import EndlessPool, PhotoPool, fit_square, open_pool, to_signed
from factory.training.loop import LoopConfig, claim_folder, train
from factory.training.picture import grid, write_picture


class Counter:
    """Adds numbers that depend on its iteration; starts over once when told to."""

    def __init__(self, bad_at: int = -1, restart_at: int = -1, killed_at: int = -1) -> None:
        self.iteration, self.sum, self.reviews = 0, 0.0, 0
        self.bad_at, self.restart_at, self.killed_at = bad_at, restart_at, killed_at
        self.restarts = 0

    def step(self) -> dict[str, float]:
        if self.iteration == self.killed_at:
            raise RuntimeError("killed")
        self.iteration += 1
        self.sum += self.iteration**2
        return {"loss": float("nan") if self.iteration == self.bad_at else self.sum}

    def review(self) -> dict[str, float]:
        self.reviews += 1
        if self.iteration == self.restart_at and not self.restarts:
            self.iteration, self.sum, self.restarts = 0, 0.0, 1
        return {"sum": self.sum}

    def state(self) -> dict[str, Any]:
        return {"iteration": self.iteration, "sum": self.sum, "restarts": self.restarts}

    def load(self, state: dict[str, Any]) -> None:
        self.iteration, self.sum, self.restarts = state["iteration"], state["sum"], state["restarts"]


CONFIG = LoopConfig(steps=10, checkpoint_every=4, log_every=2, keep=2)


def lines_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        train(Counter(killed_at=7), tmp_path, CONFIG, "test")
    after = Counter()
    train(after, tmp_path, CONFIG, "test")
    assert (after.iteration, after.sum) == (10, 385)
    assert after.reviews == 2  # at 8 and 10: the one at 4 was done before
    totals = [line["total"] for line in lines_of(tmp_path) if "loss" in line]
    assert totals == [2, 4, 6, 8, 10]


def test_a_finished_training_is_left_alone_and_can_be_prolonged(tmp_path: Path) -> None:
    train(Counter(), tmp_path, CONFIG, "test")
    again = Counter()
    train(again, tmp_path, CONFIG, "test")
    assert again.reviews == 0
    train(again, tmp_path, CONFIG.model_copy(update={"steps": 12}), "test")
    assert again.iteration == 12


def test_a_restart_counts_from_zero_while_the_total_goes_on(tmp_path: Path) -> None:
    learner = Counter(restart_at=8)
    train(learner, tmp_path, CONFIG, "test")
    assert learner.restarts == 1
    assert learner.sum == 385
    assert lines_of(tmp_path)[-1]["total"] == 18


def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"step 7: loss is nan"):
        train(Counter(bad_at=7), tmp_path, CONFIG, "test")
    saved = load_newest(tmp_path / "checkpoints")
    assert saved is not None
    assert saved["learner"]["iteration"] == 4


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002.pt", "step-00000003.pt"]
    assert load_newest(tmp_path) == {"step": 3}


def test_a_checkpoint_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.pt").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"step-00000001\.pt: .*wanted a checkpoint"):
        load_newest(tmp_path)


class Settings(StrictModel):
    width: int = 3
    loop: LoopConfig = LoopConfig()


def test_a_folder_belongs_to_one_training_whose_length_may_change(tmp_path: Path) -> None:
    claim_folder(tmp_path, Settings(), {"source": {"sha": "a"}})
    claim_folder(tmp_path, Settings(loop=LoopConfig(steps=3)), {"source": {"sha": "a"}})
    with pytest.raises(InputError, match="width differ"):
        claim_folder(tmp_path, Settings(width=4), {"source": {"sha": "a"}})
    with pytest.raises(InputError, match="identity differ"):
        claim_folder(tmp_path, Settings(), {"source": {"sha": "b"}})


def numbered(count: int) -> PhotoPool:
    images = np.zeros((count, 4, 4, 3), np.uint8)
    images[:] = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return PhotoPool(images, seed=5)


def test_every_epoch_of_a_pool_shows_each_photo_once() -> None:
    pool = numbered(12)
    for first in (0, 3):
        seen = [int(image[0, 0, 0]) for step in range(first, first + 3) for image in pool.batch(step, 4)]
        assert sorted(seen) == list(range(12))
    assert not torch.equal(pool.batch(0, 12), pool.batch(0, 12, stream=1))


def test_a_batch_depends_on_its_number_alone() -> None:
    assert torch.equal(numbered(12).batch(7, 5), numbered(12).batch(7, 5))


def test_a_centre_crop_keeps_shapes_and_a_squash_keeps_everything() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert fit_square(image, 10, "crop").min() == 200
    assert fit_square(image, 10, "squash").mean() == pytest.approx(200 / 3, abs=2)


def test_unreadable_photos_are_left_out_of_a_pool(tmp_path: Path) -> None:
    from factory.sources.images import ImagesConfig

    write_picture(tmp_path / "good.png", np.full((20, 20, 3), 7, np.uint8))
    (tmp_path / "bad.jpg").write_bytes(b"not a photo")
    pool = open_pool(ImagesConfig(root=tmp_path).open(0, tmp_path), 8, 0)
    assert isinstance(pool, PhotoPool)
    assert pool.images.shape == (1, 8, 8, 3)


def test_an_endless_pool_asks_the_source_for_new_slots_only() -> None:
    from factory.stages import ObjectImage

    class Slots:
        size = None

        def images(self, start: int, count: int) -> Any:
            return (
                ObjectImage(str(i), np.full((8, 8, 3), i % 251, np.uint8))
                for i in range(start, start + count)
            )

        def identity(self) -> dict[str, int]:
            return {}

    pool = open_pool(Slots(), 8, 0)
    assert isinstance(pool, EndlessPool)
    assert pool.batch(2, 3)[:, 0, 0, 0].tolist() == [6, 7, 8]


def test_bytes_become_minus_one_to_one() -> None:
    assert to_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_a_grid_goes_row_by_row_and_fills_up_with_black() -> None:
    images = np.stack([np.full((2, 2, 3), i + 1, np.uint8) for i in range(3)])
    assert grid(images, 2)[::2, ::2, 0].tolist() == [[1, 2], [3, 0]]
