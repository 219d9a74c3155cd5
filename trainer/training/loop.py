"""The one training loop: the phases differ only in their stream, first weights and settings."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch

from configs.errors import InputError
from configs.text_file import write_text
from trainer.detector import Detector
from trainer.sample import Batch
from trainer.streaming.loader import Stream, batches
from trainer.training.checkpoint import Checkpoints, State, load_checkpoint, weights_of
from trainer.training.config import TrainingConfig
from trainer.training.learner import Learner
from trainer.training.optimisation import rate_at
from trainer.training.precision import compiled, device_settings
from trainer.training.progress import TrainingLog
from trainer.training.ranks import ALONE, Ranks
from trainer.training.stopping import stop_asked, stopped

Scores = dict[str, float]
Validate = Callable[[Detector], Scores]

_NAMED = 8  # keys that an error lists; the file has all


class LoadBatches(Protocol):
    """What makes batches of a stream: `trainer.streaming.loader.batches`, or what keeps its promise."""

    def __call__(
        self,
        stream: Stream,
        batch_size: int,
        first_step: int,
        last_step: int,
        workers: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> Iterator[Batch]: ...


def train(
    detector: Detector,
    stream: Stream,
    config: TrainingConfig,
    folder: Path,
    device: torch.device,
    *,
    validate: Validate | None = None,
    workers: int = 0,
    seed: int = 0,
    ranks: Ranks = ALONE,
    load_batches: LoadBatches = batches,
    trained_as: State | None = None,
) -> Detector:
    """Train in ``folder`` (checkpoints/, metrics.jsonl), going on from its last checkpoint if there is one.

    Going on gives the weights of a training that never stopped: step s sees the stream's s-th batch and
    random numbers of (seed, s). trained_as: what checkpoints say of the detector, see `trainer.runs.trained`.
    Returns the detector, in eval mode, with the weights that ``config`` hands on. Raises Stopped after
    SIGTERM or Ctrl-C, when the step is finished and saved. Raises InputError at a loss or gradient that is
    not finite, which leaves ``nonfinite.json``, and for what the device lacks.
    """
    if config.keep == "best" and validate is None:
        raise InputError(f"{folder.name}: keep=best wants validation images")
    learner = Learner(detector, config, device, seed, ranks)
    checkpoints = Checkpoints(folder / "checkpoints", config.keep_last, trained_as)
    first_step, best_score = _resume(checkpoints, learner)
    parts_of = _steps(stream, config, first_step, workers, ranks, load_batches)
    with (
        device_settings(config),
        compiled(detector, config.compile),
        stop_asked() as asked,
        TrainingLog(folder, config, first_step, quiet=not ranks.is_first) as log,
    ):
        for step, parts in enumerate(log.pace.waiting(parts_of), start=first_step):
            figures = learner.gradients(step, parts)
            _refuse_not_finite(figures, learner, parts, step, folder / _file_of(ranks))
            learner.update(step)
            done = step + 1
            is_last = done == config.steps
            log.add(done, figures, rate_at(config, step), device)
            due = config.validate_every and (is_last or done % config.validate_every == 0)
            if validate is not None and due and ranks.is_first:
                with log.pace.resting():
                    scores = _validate(learner, validate)
                log.write(done, validation=scores)
                if scores[config.best_by] > best_score:
                    best_score = scores[config.best_by]
                    checkpoints.save_best(learner.judged.state_dict(), done, scores)
            stop = ranks.any_of(bool(asked))
            if ranks.is_first and (is_last or stop or done % config.checkpoint_every == 0):
                checkpoints.save(done, learner.state() | {"best_score": best_score})
            if stop:
                raise stopped(folder, done, config.steps, asked)
    return _finished(learner, checkpoints, ranks)


def _steps(
    stream: Stream,
    config: TrainingConfig,
    first_step: int,
    workers: int,
    ranks: Ranks,
    load_batches: LoadBatches,
) -> Iterator[list[Batch]]:
    """The parts of each step's batch, from ``first_step`` on."""
    parts = config.accumulate
    loaded = load_batches(
        stream,
        config.batch_size // parts,
        first_step * parts,
        config.steps * parts,
        workers,
        ranks.rank,
        ranks.world,
    )
    return iter(lambda: list(islice(loaded, parts)), [])


def _resume(checkpoints: Checkpoints, learner: Learner) -> tuple[int, float]:
    """The step to go on with, and the best score so far."""
    if not checkpoints.last.exists():
        return 0, -1.0
    state = load_checkpoint(checkpoints.last)
    try:
        learner.load(state)
        return int(state["step"]), float(state["best_score"])
    except InputError as error:
        raise InputError(f"{checkpoints.last}: {error}") from error


def _validate(learner: Learner, validate: Validate) -> Scores:
    learner.judged.eval()
    is_compiled = learner.config.compile  # for the training's shapes and modes, not for these
    with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
        scores = validate(learner.judged)
    learner.set_train_mode()
    return scores


def _finished(learner: Learner, checkpoints: Checkpoints, ranks: Ranks) -> Detector:
    """The detector with the weights to hand on."""
    ranks.wait()
    if learner.config.keep == "best":
        learner.detector.load_state_dict(weights_of(load_checkpoint(checkpoints.best)))
    elif learner.judged is not learner.detector:
        learner.detector.load_state_dict(learner.judged.state_dict())
    return learner.detector.eval()


def _file_of(ranks: Ranks) -> str:
    return "nonfinite.json" if ranks.is_first else f"nonfinite-{ranks.rank}.json"


def _refuse_not_finite(
    figures: dict[str, float], learner: Learner, parts: Sequence[Batch], step: int, path: Path
) -> None:
    bad = [name for name, value in figures.items() if not math.isfinite(value)]
    if not bad or (bad == ["grad_norm"] and learner.may_skip()):
        return
    keys = [key for part in parts for key in part.keys]
    boxes = [boxes.tolist() for part in parts for boxes in part.boxes]
    labels = [labels.tolist() for part in parts for labels in part.labels]
    shown = {name: value if math.isfinite(value) else str(value) for name, value in figures.items()}
    report = {"step": step, "lr": rate_at(learner.config, step), "figures": shown}
    write_text(path, json.dumps(report | {"keys": keys, "boxes": boxes, "labels": labels}, indent=1) + "\n")
    named = ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
    found = " and ".join(f"{name} is {figures[name]}" for name in bad)
    raise InputError(
        f"{path}: step {step}: {found} of images {named}: wanted finite numbers; lower lr, or look at them"
    )
