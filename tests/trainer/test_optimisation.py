import pytest
import torch
from torch import nn

from configs.errors import InputError
from trainer.training.config import FreezeConfig, TrainingConfig
from trainer.training.optimisation import (
    WeightAverage,
    check_names,
    freeze,
    make_optimiser,
    parameter_groups,
    rate_at,
    set_rate,
    set_train_mode,
)


class Staged(nn.Module):
    """The names that detectors have."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(3)
        )
        self.class_heads = nn.Conv2d(3, 2, 1)


def config_of(**settings: object) -> TrainingConfig:
    return TrainingConfig.model_validate(settings)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    config = TrainingConfig(steps=100, lr=1.0, warmup_steps=4, schedule="cosine")
    rates = [rate_at(config, step) for step in range(100)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert max(rates) == 1.0
    assert rates[-1] < 0.01


def test_the_rate_falls_at_each_milestone() -> None:
    config = config_of(steps=10, lr=1.0, schedule="multistep", milestones=[0.5, 0.8], step_factor=0.1)
    assert [rate_at(config, step) for step in range(10)] == pytest.approx([1] * 5 + [0.1] * 3 + [0.01] * 2)


def test_without_further_settings_there_is_one_group_of_all_parameters_in_order() -> None:
    detector = Staged()
    (group,) = parameter_groups(detector, TrainingConfig())
    assert [id(p) for p in group["params"]] == [id(p) for p in detector.parameters()]


def test_kernels_alone_decay_unless_all_are_to() -> None:
    detector = Staged()
    kernels, others = parameter_groups(detector, config_of(weight_decay=0.1))
    assert {p.ndim for p in kernels["params"]} == {4}
    assert {p.ndim for p in others["params"]} == {1}
    assert (kernels["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    (everything,) = parameter_groups(detector, config_of(weight_decay=0.1, decay_all=True))
    assert everything["weight_decay"] == 0.1


def test_the_longest_name_that_fits_sets_the_factor() -> None:
    detector = Staged()
    config = config_of(lr=1.0, lr_factors={"backbone": 0.1, "backbone.stages.2": 0.5})
    optimiser = make_optimiser(detector, config)
    set_rate(optimiser, 2.0)
    rate_of = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    named = dict(detector.named_parameters())
    assert rate_of[id(named["backbone.stages.0.0.weight"])] == pytest.approx(0.2)
    assert rate_of[id(named["backbone.stages.2.0.weight"])] == pytest.approx(1.0)
    assert rate_of[id(named["class_heads.weight"])] == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_factors": {"back": 0.1}}, "lr_factors: no parameters 'back', did you mean 'backbone'?"),
        ({"freeze": {"stages": 4}}, "freeze.stages: found 4, the backbone has 3"),
    ],
)
def test_names_that_fit_nothing_are_refused(settings, message) -> None:
    with pytest.raises(InputError) as caught:
        check_names(Staged(), config_of(**settings))
    assert message in str(caught.value)


def test_freezing_all_or_what_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no backbone of its own"):
        check_names(nn.Linear(1, 1), config_of(freeze={"backbone": True}))
    headless = Staged()
    del headless.class_heads
    with pytest.raises(InputError, match="leaves nothing to train"):
        check_names(headless, config_of(freeze={"backbone": True}))


@pytest.mark.parametrize(
    ("settings", "frozen", "still"),
    [
        ({"backbone": True}, {0, 1, 2}, {0, 1, 2}),
        ({"stages": 2}, {0, 1}, {0, 1}),
        ({"batch_norm": True}, set(), {0, 1, 2}),
        ({}, set(), set()),
    ],
)
def test_what_is_frozen_neither_learns_nor_counts(settings, frozen, still) -> None:
    detector, config = Staged(), FreezeConfig.model_validate(settings)
    freeze(detector, config)
    set_train_mode(detector, config)
    stages = list(detector.backbone.stages)
    assert {i for i, stage in enumerate(stages) if not stage[0].weight.requires_grad} == frozen
    assert {i for i, stage in enumerate(stages) if not stage[1].training} == still
    assert detector.class_heads.training
    assert detector.class_heads.weight.requires_grad


def test_the_average_follows_its_formula_and_takes_in_running_statistics() -> None:
    detector = Staged()
    average = WeightAverage(detector, 0.5)
    weight, norm = detector.class_heads.weight, detector.backbone.stages[0][1]
    expected, mean = weight.detach().clone(), norm.running_mean.clone()
    for step in range(8):
        with torch.no_grad():
            weight.add_(1.0)
            norm.running_mean.add_(2.0)
            norm.num_batches_tracked.add_(1)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
        mean = decay * mean + (1 - decay) * norm.running_mean
    held = average.detector
    torch.testing.assert_close(held.class_heads.weight, expected)
    torch.testing.assert_close(held.backbone.stages[0][1].running_mean, mean)
    assert held.backbone.stages[0][1].num_batches_tracked == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 8, "accumulate": 3}, "wanted a divisor of batch_size 8"),
        ({"keep": "best"}, "keep=best wants validate_every > 0"),
        ({"milestones": [0.9, 0.7]}, "wanted ascending shares"),
        ({"lr_factors": {"backbone": 0}}, "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(**settings)
