"""The rate of each step, parameter groups, frozen parts, and the moving average of the weights."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import InputError
from configs.kinds import did_you_mean
from trainer.training.config import FreezeConfig, TrainingConfig

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def rate_at(config: TrainingConfig, step: int) -> float:
    """The learning rate of step 0, 1, …"""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "multistep":
        passed = bisect_right([share * config.steps for share in config.milestones], step)
        return config.lr * float(config.step_factor**passed)
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimiser(detector: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """An optimiser of what is not frozen, in groups of equal decay and ``factor`` of the rate.

    Raises InputError when nothing is left to train, or a factor's name fits no parameter.
    """
    groups = parameter_groups(detector, config)
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr)


def check_names(detector: nn.Module, config: TrainingConfig) -> None:
    """Raises InputError where the settings name parts that the detector lacks. Changes the detector."""
    freeze(detector, config.freeze)
    parameter_groups(detector, config)


def parameter_groups(detector: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """``params``, ``weight_decay`` and ``factor`` of each group; see `make_optimiser`."""
    named = list(detector.named_parameters())
    for prefix in config.lr_factors:
        if not any(_starts_with(name, prefix) for name, _ in named):
            parts = list(dict.fromkeys(name.split(".")[0] for name, _ in named))
            raise InputError(f"lr_factors: no parameters {did_you_mean(prefix, parts)}")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            is_kernel = parameter.ndim > 1
            decay = config.weight_decay if is_kernel or config.decay_all else 0.0
            groups.setdefault((_factor_of(name, config.lr_factors), decay), []).append(parameter)
    if not groups:
        raise InputError("freeze: leaves nothing to train")
    return [
        {"params": parameters, "factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]


def _factor_of(name: str, factors: dict[str, float]) -> float:
    fitting = [prefix for prefix in factors if _starts_with(name, prefix)]
    return factors[max(fitting, key=len)] if fitting else 1.0


def _starts_with(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, times each group's factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def freeze(detector: nn.Module, config: FreezeConfig) -> None:
    """No gradients for the frozen parts. Raises InputError when the detector has no such part."""
    for part in _frozen_parts(detector, config):
        part.requires_grad_(False)


def set_train_mode(detector: nn.Module, config: FreezeConfig) -> None:
    """``detector.train()``, but for what is frozen."""
    detector.train()
    for part in _frozen_parts(detector, config):
        part.eval()
    if config.batch_norm:
        for module in detector.modules():
            if isinstance(module, _BATCH_NORMS):
                module.eval()


def _frozen_parts(detector: nn.Module, config: FreezeConfig) -> Iterator[nn.Module]:
    if not (config.backbone or config.stages):
        return
    backbone = getattr(detector, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise InputError("freeze: this detector has no backbone of its own, wanted backbone false, stages 0")
    if config.backbone:
        yield backbone
    if config.stages:
        stages = getattr(backbone, "stages", ())
        if config.stages > len(stages):
            raise InputError(f"freeze.stages: found {config.stages}, the backbone has {len(stages)}")
        yield from list(stages)[: config.stages]


class WeightAverage:
    """An exponential moving average of a detector's weights and running statistics.

    The decay of update 0, 1, … is min(decay, (1 + update) / (10 + update)), as in TensorFlow's
    ExponentialMovingAverage, so that the first weights are soon forgotten.
    """

    def __init__(self, detector: nn.Module, decay: float) -> None:
        self.detector = deepcopy(detector).eval().requires_grad_(False)
        self._decay = decay
        self._averages, self._values = _floats(self.detector), _floats(detector)
        self._exact = list(zip(_integers(self.detector), _integers(detector), strict=True))

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Take in the weights after step ``number``."""
        decay = min(self._decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        for average, value in self._exact:
            average.copy_(value)


def _floats(module: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in module.state_dict().values() if tensor.is_floating_point()]


def _integers(module: nn.Module) -> list[Tensor]:
    return [tensor for tensor in module.state_dict().values() if not tensor.is_floating_point()]
