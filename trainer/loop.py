"""The one training loop: the phases differ only in their stream and first weights."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from configs.errors import InputError
from configs.kinds import StrictModel
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.detector import Detector
from trainer.progress import TrainingLog
from trainer.sample import Batch
from trainer.stream import Stream, batches

Scores = dict[str, float]


class TrainingConfig(StrictModel):
    """One phase. Adam; the rate warms up linearly, then stays or falls along a cosine.

    steps: optimiser steps. keep: which weights the phase hands on: ``last``, or ``best`` by AP50 on the
    validation images, which are labelled photos beyond the training subset (the paper's way; METHOD 0.4).
    """

    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=8, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float = Field(default=10.0, gt=0)
    validate_every: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=100, ge=1)
    log_every: int = Field(default=10, ge=1)
    keep: Literal["last", "best"] = "last"


def rate_at(config: TrainingConfig, step: int) -> float:
    """The learning rate of step 0, 1, …"""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def train(
    detector: Detector,
    stream: Stream,
    config: TrainingConfig,
    folder: Path,
    device: torch.device,
    *,
    validate: Callable[[Detector], Scores] | None = None,
    workers: int = 0,
) -> Detector:
    """Train in ``folder`` (checkpoints/, metrics.jsonl), going on from its last checkpoint if there is one.

    Returns the detector with the weights that ``config.keep`` names.
    Raises FloatingPointError at a non-finite loss, naming the step and the batch's keys.
    """
    detector.to(device)
    optimiser = torch.optim.Adam(detector.parameters(), lr=config.lr)
    last, best = folder / "checkpoints" / "last.pt", folder / "checkpoints" / "best.pt"
    first_step, best_score = _resume(last, detector, optimiser)
    if config.keep == "best" and (validate is None or not config.validate_every):
        raise InputError(f"{folder.name}: keep=best wants validate_every > 0 and validation images")
    with TrainingLog(folder / "metrics.jsonl", folder.name, config.steps, first_step) as log:
        detector.train()
        started = time.monotonic()
        loader = batches(stream, config.batch_size, first_step, config.steps, workers)
        for step, batch in enumerate(loader, start=first_step):
            for group in optimiser.param_groups:
                group["lr"] = rate_at(config, step)
            losses = _step(detector, optimiser, batch.to(device), config.clip_norm, step)
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                seconds = time.monotonic() - started
                rate = (done - first_step) * config.batch_size / seconds
                log.write(done, losses=losses, lr=rate_at(config, step), images_per_s=round(rate, 1))
                log.advance(done, f"loss {sum(losses.values()):.3f} {rate:.0f} images/s")
            if validate and config.validate_every and done % config.validate_every == 0:
                score = _validate(detector, validate, log, done)
                if score > best_score:
                    best_score = score
                    save_checkpoint(best, {"model": detector.state_dict(), "step": done, "AP50": score})
            if done % config.checkpoint_every == 0 or done == config.steps:
                state = {"model": detector.state_dict(), "optimiser": optimiser.state_dict()}
                save_checkpoint(last, state | {"step": done, "best_score": best_score})
    if config.keep == "best":
        detector.load_state_dict(load_checkpoint(best)["model"])
    return detector.eval()


def _resume(last: Path, detector: Detector, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    if not last.exists():
        return 0, -1.0
    state: dict[str, Any] = load_checkpoint(last)
    detector.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), float(state["best_score"])


def _step(
    detector: Detector, optimiser: torch.optim.Optimizer, batch: Batch, clip_norm: float, step: int
) -> dict[str, float]:
    losses = detector.losses(batch)
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        named = {name: float(value.detach()) for name, value in losses.items()}
        raise FloatingPointError(f"step {step}: losses {named} of images {', '.join(batch.keys)}")
    optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(detector.parameters(), clip_norm)
    optimiser.step()
    return {name: round(float(value.detach()), 5) for name, value in losses.items()}


def _validate(
    detector: Detector, validate: Callable[[Detector], Scores], log: TrainingLog, done: int
) -> float:
    detector.eval()
    scores = validate(detector)
    detector.train()
    log.write(done, validation=scores)
    return scores["AP50"]
