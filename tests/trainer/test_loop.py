import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.errors import InputError
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.detector import Detector
from trainer.loop import TrainingConfig, rate_at, train
from trainer.sample import Batch, Sample, make_target

_CPU = torch.device("cpu")


class Brightness(Detector):
    """Learns the mean brightness of what it is shown: enough to follow the loop."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        means = batch.images.float().mean((2, 3)) / 255
        return {"error": ((self.layer(means)[:, 0] - means.mean(1)) ** 2).mean()}


class Greys:
    """Sample j is one grey."""

    def __getitem__(self, index: int) -> Sample:
        grey = np.random.default_rng([1, index]).integers(0, 255, (1, 1, 3), dtype=np.uint8)
        return Sample(f"grey-{index}", np.repeat(np.repeat(grey, 8, 0), 8, 1), make_target([]))


def test_a_resumed_training_gives_the_weights_of_an_unbroken_one(tmp_path) -> None:
    config = TrainingConfig(steps=20, batch_size=4, lr=1e-2, schedule="cosine", checkpoint_every=10)
    straight = train(Brightness(), Greys(), config, tmp_path / "a", _CPU)

    class Power(Greys):
        def __getitem__(self, index: int) -> Sample:
            if index >= 56:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        train(Brightness(), Power(), config, tmp_path / "b", _CPU)
    resumed = train(Brightness(), Greys(), config, tmp_path / "b", _CPU)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [10, 20]


def test_the_loss_falls_and_is_logged_by_name(tmp_path) -> None:
    config = TrainingConfig(steps=60, batch_size=4, lr=5e-2)
    train(Brightness(), Greys(), config, tmp_path, _CPU)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["losses"]["error"] < lines[0]["losses"]["error"]


def test_a_non_finite_loss_stops_and_names_step_and_images(tmp_path) -> None:
    class Broken(Brightness):
        def losses(self, batch: Batch) -> dict[str, Tensor]:
            return {"error": super().losses(batch)["error"] * math.nan}

    with pytest.raises(FloatingPointError, match=r"step 0: .*grey-0, grey-1"):
        train(Broken(), Greys(), TrainingConfig(steps=2, batch_size=2), tmp_path, _CPU)


def test_best_keeps_the_weights_of_the_best_validation(tmp_path) -> None:
    scores = iter([0.2, 0.9, 0.4])
    kept: list[Tensor] = []

    def validate(detector: Detector) -> dict[str, float]:
        assert not detector.training
        kept.append(detector.state_dict()["layer.weight"].clone())
        return {"AP50": next(scores)}

    config = TrainingConfig(steps=30, batch_size=2, lr=1e-2, validate_every=10, keep="best")
    trained = train(Brightness(), Greys(), config, tmp_path, _CPU, validate=validate)
    assert torch.equal(trained.state_dict()["layer.weight"], kept[1])
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt")["step"] == 20


def test_best_without_validation_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="keep=best wants validate_every"):
        train(Brightness(), Greys(), TrainingConfig(steps=2, keep="best"), tmp_path, _CPU)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    config = TrainingConfig(steps=100, lr=1.0, warmup_steps=4, schedule="cosine")
    rates = [rate_at(config, step) for step in range(100)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert max(rates) == 1.0
    assert rates[-1] < 0.01


def test_a_foreign_checkpoint_is_refused_in_one_line(tmp_path) -> None:
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="wanted a checkpoint of this program") as caught:
        load_checkpoint(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": {}, "step": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {"model": {}, "step": 2})
    assert load_checkpoint(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
