import json
import math
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.errors import InputError
from trainer.detector import Detector
from trainer.sample import Batch, Sample, make_target
from trainer.training.checkpoint import load_checkpoint
from trainer.training.config import FreezeConfig, TrainingConfig
from trainer.training.loop import train
from trainer.training.ranks import Ranks
from trainer.training.stopping import Stopped

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


class Convolutions(Detector):
    """All that could go on wrongly: batch norm, dropout, a strided depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=8)
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Conv2d(8, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = self.head(self.backbone(images.float() / 255))
        return values.float().mean((1, 2, 3))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        goal = batch.images.float().mean((1, 2, 3)) / 255
        return {"error": (self(batch.images) - goal).square().mean()}


class Greys:
    """Sample j is one grey."""

    def __getitem__(self, index: int) -> Sample:
        grey = np.random.default_rng([1, index]).integers(0, 255, (1, 1, 3), dtype=np.uint8)
        return Sample(f"grey-{index}", np.repeat(np.repeat(grey, 8, 0), 8, 1), make_target([[0, 0, 4, 5]]))


class SignalAt(Greys):
    """Sends this process a signal when a sample is read."""

    def __init__(self, number: int, index: int) -> None:
        self._number, self._index = number, index

    def __getitem__(self, index: int) -> Sample:
        if index == self._index:
            os.kill(os.getpid(), self._number)
        return super().__getitem__(index)


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


_ALL = {
    "optimiser": "adamw",
    "weight_decay": 0.1,
    "schedule": "cosine",
    "warmup_steps": 3,
    "accumulate": 2,
    "ema_decay": 0.99,
    "precision": "bfloat16",
    "lr_factors": {"backbone": 0.3},
}


@pytest.mark.parametrize(
    "settings",
    [{}, _ALL, {"optimiser": "sgd", "schedule": "multistep"}, {"freeze": FreezeConfig(batch_norm=True)}],
    ids=["plain", "all", "sgd", "frozen"],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_ten_steps_and_ten_more_give_the_weights_of_twenty(tmp_path, settings, seed) -> None:
    config = TrainingConfig.model_validate({"steps": 20, "batch_size": 4, "lr": 1e-2, **settings})
    straight = train(Convolutions(), Greys(), config, tmp_path / "a", _CPU, seed=seed)
    stop = SignalAt(signal.SIGTERM, 4 * 9 + 1)  # read for the tenth step
    with pytest.raises(Stopped, match="SIGTERM: saved at step 10 of 20"):
        train(Convolutions(), stop, config, tmp_path / "b", _CPU, seed=seed)
    torch.manual_seed(99)  # the state of another process
    resumed = train(Convolutions(), Greys(), config, tmp_path / "b", _CPU, seed=seed)
    assert_equal(straight, resumed)
    last = [load_checkpoint(tmp_path / run / "checkpoints" / "last.pt") for run in "ab"]
    for key in ("model", "ema"):
        for name in last[0].get(key, {}):
            assert torch.equal(last[0][key][name], last[1][key][name]), name


def test_what_a_step_draws_depends_on_the_seed(tmp_path) -> None:
    config = TrainingConfig(steps=2, batch_size=4, lr=1e-2)
    first, again, other = (
        train(Convolutions(), Greys(), config, tmp_path / name, _CPU, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert_equal(first, again)
    assert not torch.equal(first.head[1].weight, other.head[1].weight)


def test_a_training_killed_between_checkpoints_loses_only_the_steps_since(tmp_path) -> None:
    config = TrainingConfig(steps=20, batch_size=4, lr=1e-2, schedule="cosine", checkpoint_every=10)
    straight = train(Brightness(), Greys(), config, tmp_path / "a", _CPU)

    class Power(Greys):
        def __getitem__(self, index: int) -> Sample:
            if index >= 56:
                raise MemoryError
            return super().__getitem__(index)

    with pytest.raises(MemoryError):
        train(Brightness(), Power(), config, tmp_path / "b", _CPU)
    assert_equal(straight, train(Brightness(), Greys(), config, tmp_path / "b", _CPU))
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [10, 20]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_step_and_names_how_to_go_on(tmp_path, number, code) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="run the same command again to go on") as caught:
        train(
            Brightness(), SignalAt(number, 5), TrainingConfig(steps=9, batch_size=2), tmp_path / "run", _CPU
        )
    assert caught.value.code == code
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == 3
    assert signal.getsignal(number) is before


def test_a_signal_in_the_last_step_still_stops(tmp_path) -> None:
    config = TrainingConfig(steps=2, batch_size=2)
    with pytest.raises(Stopped):
        train(Brightness(), SignalAt(signal.SIGTERM, 3), config, tmp_path, _CPU)
    assert_equal(
        train(Brightness(), Greys(), config, tmp_path, _CPU),
        train(Brightness(), Greys(), config, tmp_path / "straight", _CPU),
    )


def test_a_second_signal_stops_at_once(tmp_path) -> None:
    class Twice(Greys):
        def __getitem__(self, index: int) -> Sample:
            os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        train(Brightness(), Twice(), TrainingConfig(steps=9, batch_size=2), tmp_path, _CPU)
    assert not (tmp_path / "checkpoints").exists()


def test_going_on_with_other_settings_is_refused(tmp_path) -> None:
    config = TrainingConfig(steps=2, batch_size=2)
    train(Brightness(), Greys(), config, tmp_path, _CPU)
    longer = config.model_copy(update={"steps": 4, "ema_decay": 0.9})
    with pytest.raises(InputError, match=r"last\.pt: a checkpoint of other settings \(ema\)"):
        train(Brightness(), Greys(), longer, tmp_path, _CPU)
    with pytest.raises(InputError, match=r"last\.pt: a checkpoint of other settings \(Error") as caught:
        train(Convolutions(), Greys(), config, tmp_path, _CPU)
    assert "\n" not in str(caught.value)


def test_a_line_of_the_log_has_losses_rate_norm_pace_and_memory(tmp_path) -> None:
    config = TrainingConfig(steps=60, batch_size=4, lr=5e-2, loggers=())
    train(Brightness(), Greys(), config, tmp_path, _CPU)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["losses"]["error"] < lines[0]["losses"]["error"]
    assert lines[-1].keys() == {
        *("step", "losses", "lr", "grad_norm", "memory_mb", "images_per_s", "data_frac")
    }
    assert 0 <= lines[-1]["data_frac"] <= 1
    assert 20 < lines[-1]["memory_mb"] < 20_000


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_and_leaves_step_and_images(tmp_path, where) -> None:
    class Broken(Brightness):
        def losses(self, batch: Batch) -> dict[str, Tensor]:
            error = super().losses(batch)["error"]
            if "grey-4" in batch.keys:
                error = error * math.nan if where == "loss" else error + (self.layer.bias * 0).sum().sqrt()
            return {"error": error}

    config = TrainingConfig(steps=4, batch_size=4, accumulate=2, checkpoint_every=1)
    with pytest.raises(InputError, match=r"step 1: .*grad_norm is nan of images grey-4, .*grey-7: wanted"):
        train(Broken(), Greys(), config, tmp_path, _CPU)
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert report["step"] == 1
    assert report["keys"] == ["grey-4", "grey-5", "grey-6", "grey-7"]
    assert report["boxes"][3] == [[0, 0, 4, 5]]
    assert report["figures"]["grad_norm"] == "nan"
    saved = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert saved["step"] == 1
    assert all(bool(value.isfinite().all()) for value in saved["model"].values())


def test_best_keeps_the_weights_of_the_best_validation(tmp_path) -> None:
    scores = iter([0.2, 0.9, 0.4])
    kept: list[Tensor] = []

    def validate(detector: Detector) -> dict[str, float]:
        assert not detector.training
        kept.append(detector.state_dict()["layer.weight"].clone())
        return {"AP50": 0.5, "AP": next(scores)}

    settings: dict[str, Any] = {"validate_every": 10, "keep": "best", "best_by": "AP"}
    config = TrainingConfig(steps=25, batch_size=2, lr=1e-2, **settings)
    trained = train(Brightness(), Greys(), config, tmp_path, _CPU, validate=validate)
    assert len(kept) == 3  # the last step, too
    assert torch.equal(trained.state_dict()["layer.weight"], kept[1])
    best = load_checkpoint(tmp_path / "checkpoints" / "best.pt")
    assert (best["step"], best["scores"]) == (20, {"AP50": 0.5, "AP": 0.9})


def test_best_without_validation_is_refused(tmp_path) -> None:
    config = TrainingConfig(steps=2, keep="best", validate_every=1)
    with pytest.raises(InputError, match="keep=best wants validation images"):
        train(Brightness(), Greys(), config, tmp_path, _CPU)


def test_the_average_is_what_is_validated_and_handed_on(tmp_path) -> None:
    judged: list[Tensor] = []

    def validate(detector: Detector) -> dict[str, float]:
        judged.append(detector.state_dict()["layer.weight"].clone())
        return {"AP50": 0.5}

    config = TrainingConfig(steps=6, batch_size=2, lr=0.1, ema_decay=0.9, validate_every=6)
    trained = train(Brightness(), Greys(), config, tmp_path, _CPU, validate=validate)
    saved = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert torch.equal(trained.layer.weight, judged[0])
    assert torch.equal(trained.layer.weight, saved["ema"]["layer.weight"])
    assert not torch.equal(trained.layer.weight, saved["model"]["layer.weight"])


def test_the_parts_of_a_batch_give_its_gradient(tmp_path) -> None:
    config = TrainingConfig(steps=5, batch_size=4, lr=1e-2)
    whole = train(Brightness(), Greys(), config, tmp_path / "whole", _CPU)
    in_parts = config.model_copy(update={"accumulate": 4})
    parts = train(Brightness(), Greys(), in_parts, tmp_path / "parts", _CPU)
    torch.testing.assert_close(whole.layer.weight, parts.layer.weight)


def test_a_wrapped_module_gives_the_losses_and_only_the_first_rank_writes(tmp_path) -> None:
    seen: list[tuple[str, ...]] = []

    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            seen.append(batch.keys)
            losses: dict[str, Tensor] = self.module(batch)
            return losses

    config = TrainingConfig(steps=2, batch_size=4, accumulate=2)
    train(
        Brightness(), Greys(), config, tmp_path / "second", _CPU, ranks=Ranks(rank=1, world=2, wrap=Wrapper)
    )
    assert seen == [("grey-1",), ("grey-3",), ("grey-5",), ("grey-7",)]
    assert not (tmp_path / "second").exists()


def test_all_ranks_stop_when_one_is_told_to(tmp_path) -> None:
    asked = iter([False, True])
    config = TrainingConfig(steps=9, batch_size=2)
    with pytest.raises(Stopped, match="saved at step 2 of 9"):
        train(Brightness(), Greys(), config, tmp_path, _CPU, ranks=Ranks(any_of=lambda _: next(asked)))


def test_a_compiled_forward_pass_learns_the_same_and_is_undone(tmp_path, monkeypatch) -> None:
    compiled: list[str] = []

    def graph_only(function: Any) -> Any:
        compiled.append(function.__qualname__)
        return torch._dynamo.optimize("eager")(function)  # captures the graph, without a C++ compiler

    monkeypatch.setattr(torch, "compile", graph_only)
    config = TrainingConfig(steps=2, batch_size=4, lr=1e-2)
    plain = train(Convolutions(), Greys(), config, tmp_path / "plain", _CPU)
    quick = train(
        Convolutions(), Greys(), config.model_copy(update={"compile": True}), tmp_path / "quick", _CPU
    )
    assert compiled == ["Convolutions.forward"]
    assert "forward" not in vars(quick)
    torch.testing.assert_close(plain.state_dict(), quick.state_dict())
