import pytest
import torch
from torch import Tensor, nn

from trainer.detector import Detector
from trainer.sample import Batch
from trainer.training import precision
from trainer.training.config import TrainingConfig
from trainer.training.learner import Learner
from trainer.training.ranks import ALONE

_CPU = torch.device("cpu")


class Steep(Detector):
    """A loss whose gradient is ``slope`` in every weight."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.slope = slope

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"error": (self.weight * self.slope).sum()}


BATCH = Batch(("a",), torch.zeros(1, 3, 4, 4, dtype=torch.uint8), (), (), ())


def float16_learner(slope: float, monkeypatch: pytest.MonkeyPatch) -> Learner:
    """On the processor, which torch allows and the settings do not."""
    monkeypatch.setattr(precision, "check_precision", lambda *_: None)
    config = TrainingConfig(precision="float16", optimiser="sgd", momentum=0, lr=0.1)
    return Learner(Steep(slope), config, _CPU, 0, ALONE)


def test_an_overflow_of_float16_skips_the_step_and_scales_less(monkeypatch) -> None:
    learner = float16_learner(1e35, monkeypatch)
    scale = learner.state()["scaler"]["scale"]
    assert learner.gradients(0, [BATCH])["grad_norm"] == float("inf")
    assert learner.may_skip()
    learner.update(0)
    assert not learner.detector.weight.any()
    assert learner.state()["scaler"]["scale"] == scale / 2


def test_the_scale_of_float16_is_taken_up_and_its_gradients_are_true(monkeypatch) -> None:
    before, after = float16_learner(1e35, monkeypatch), float16_learner(2.0, monkeypatch)
    before.gradients(0, [BATCH])
    before.update(0)
    after.load(before.state())
    assert after.state()["scaler"]["scale"] == before.state()["scaler"]["scale"]
    assert after.gradients(1, [BATCH])["grad_norm"] == pytest.approx(2 * 3**0.5)
    after.update(1)
    torch.testing.assert_close(after.detector.weight.detach(), torch.full((3,), -0.2))


def test_the_gradient_is_clipped_to_the_norm() -> None:
    config = TrainingConfig(optimiser="sgd", momentum=0, lr=1.0, clip_norm=0.5)
    learner = Learner(Steep(100.0), config, _CPU, 0, ALONE)
    assert learner.gradients(0, [BATCH])["grad_norm"] == pytest.approx(100 * 3**0.5)
    learner.update(0)
    assert float(learner.detector.weight.detach().norm()) == pytest.approx(0.5, rel=1e-4)
