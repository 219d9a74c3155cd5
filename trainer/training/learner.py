"""A detector in training: one step's gradients, its update, and all that going on needs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.errors import InputError
from trainer.detector import Detector
from trainer.sample import Batch
from trainer.training.config import TrainingConfig
from trainer.training.optimisation import (
    WeightAverage,
    freeze,
    make_optimiser,
    rate_at,
    set_rate,
    set_train_mode,
)
from trainer.training.precision import autocast, place
from trainer.training.ranks import Ranks

State = dict[str, Any]


class Learner:
    """Gradients first, then the update, so that a step whose figures are not finite changes nothing.

    What a step draws from torch's global generators (dropout) is a function of (seed, rank, step).
    """

    def __init__(
        self, detector: Detector, config: TrainingConfig, device: torch.device, seed: int, ranks: Ranks
    ) -> None:
        """Raises InputError when the device lacks the precision or the detector the parts to freeze."""
        place(detector, config, device)
        freeze(detector, config.freeze)
        self.detector, self.config = detector, config
        self._device, self._seed, self._ranks = device, seed, ranks
        self._optimiser = make_optimiser(detector, config)
        self._trained = [p for group in self._optimiser.param_groups for p in group["params"]]
        self._average = WeightAverage(detector, config.ema_decay) if config.ema_decay else None
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self._losses = ranks.wrap(_Losses(detector))
        self.set_train_mode()

    def set_train_mode(self) -> None:
        """Train mode, but for what is frozen."""
        set_train_mode(self.detector, self.config.freeze)

    @property
    def judged(self) -> Detector:
        """The detector that is validated and handed on: the average where there is one."""
        if self._average is None:
            return self.detector
        judged = self._average.detector
        assert isinstance(judged, Detector)
        return judged

    def gradients(self, step: int, parts: Sequence[Batch]) -> dict[str, float]:
        """The gradient of the parts' mean loss, clipped. Returns the named losses and ``grad_norm``."""
        self._seed_generators(step)
        self._optimiser.zero_grad(set_to_none=True)
        losses = [self._backward(part, i + 1, len(parts)) for i, part in enumerate(parts)]
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self._trained, self.config.clip_norm)
        means = {name: torch.stack([part[name] for part in losses]).mean() for name in losses[0]}
        values = torch.stack([*means.values(), norm.float()]).tolist()  # the step's one wait for the device
        return dict(zip([*means, "grad_norm"], values, strict=True))

    def update(self, step: int) -> None:
        """Take the step that `gradients` prepared."""
        set_rate(self._optimiser, rate_at(self.config, step))
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._average is not None:
            self._average.update(step)

    def may_skip(self) -> bool:
        """Whether gradients beyond float16 mend themselves: the scaler skips the step and scales less."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > 1

    def state(self) -> State:
        """All that going on needs, beside the step. ``model`` are the weights, ``ema`` their average."""
        state: State = {"model": self.detector.state_dict(), "optimiser": self._optimiser.state_dict()}
        if self._average is not None:
            state["ema"] = self._average.detector.state_dict()
        if self._scaler.is_enabled():
            state["scaler"] = self._scaler.state_dict()
        return state

    def load(self, state: State) -> None:
        """Take up a state. Raises InputError for that of a training with other settings."""
        own = self.state()
        differing = sorted(key for key in ("ema", "scaler") if (key in own) != (key in state))
        if differing:
            raise InputError(f"a checkpoint of other settings ({', '.join(differing)}): wanted the same")
        try:
            self.detector.load_state_dict(state["model"])
            self._optimiser.load_state_dict(_with_factors(state["optimiser"], own["optimiser"]))
            if self._average is not None:
                self._average.detector.load_state_dict(state["ema"])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(":")
            raise InputError(f"a checkpoint of other settings ({reason}): wanted the same") from error
        self._scaler.load_state_dict(state.get("scaler", {}))

    def _backward(self, part: Batch, number: int, num_parts: int) -> dict[str, Tensor]:
        part = part.to(self._device)
        with self._alone() if number < num_parts else nullcontext():
            with autocast(self.config.precision, self._device):
                losses: dict[str, Tensor] = self._losses(part)
            total = torch.stack([value.float() for value in losses.values()]).sum() / num_parts
            self._scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        return {name: value.detach().float() for name, value in losses.items()}

    def _alone(self) -> AbstractContextManager[Any]:
        """Ranks exchange gradients once a step, with its last part."""
        no_sync = getattr(self._losses, "no_sync", nullcontext)
        context: AbstractContextManager[Any] = no_sync()
        return context

    def _seed_generators(self, step: int) -> None:
        numbers = np.random.SeedSequence([self._seed, self._ranks.rank, step])
        torch.manual_seed(int(numbers.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class _Losses(nn.Module):
    """A detector's losses as a forward pass, which is what wrappers wrap."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.detector.losses(batch)


def _with_factors(saved: State, own: State) -> State:
    """The saved groups with the factors of the rate as configured (older checkpoints have none)."""
    groups = [
        {**group, "factor": mine["factor"]}
        for group, mine in zip(saved["param_groups"], own["param_groups"], strict=True)
    ]
    return {**saved, "param_groups": groups}
