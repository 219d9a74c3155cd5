"""What a training leaves on disk: whole or not at all, plain tensors only."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import InputError

State = dict[str, Any]


class Checkpoints:
    """``last.pt`` to go on from, ``best.pt``, and the newest ``keep_last`` of ``step-NNNNNNNN.pt``.

    trained_as: plain values that every file says of the detector, see `trainer.runs.trained`.
    """

    def __init__(self, folder: Path, keep_last: int, trained_as: State | None = None) -> None:
        self._folder, self._keep_last = folder, keep_last
        self._said = {} if trained_as is None else {"trained_as": trained_as}
        self.last, self.best = folder / "last.pt", folder / "best.pt"

    def save(self, step: int, state: State) -> None:
        """After ``step`` steps: the step's own file first, so that ``last.pt`` is never ahead of it."""
        state = {**state, **self._said, "step": step}
        if self._keep_last:
            save_checkpoint(self._folder / f"step-{step:08d}.pt", state)
            for old in sorted(self._folder.glob("step-*.pt"))[: -self._keep_last]:
                old.unlink()
        save_checkpoint(self.last, state)

    def save_best(self, weights: dict[str, Tensor], step: int, scores: dict[str, float]) -> None:
        """Weights alone, with what they scored."""
        save_checkpoint(self.best, {"model": weights, **self._said, "step": step, "scores": scores})


def save_checkpoint(path: Path, state: State) -> None:
    """Write beside, flush to disk, rename: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> State:
    """Read with ``weights_only=True``: no code of the file runs. Raises InputError for a foreign file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises many types for a file that is not its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: {reason}: wanted a checkpoint of this program") from error
    if not isinstance(state, dict) or "model" not in state:
        raise InputError(f"{path}: holds no 'model': wanted a checkpoint of this program")
    return state


def weights_of(state: State) -> dict[str, Tensor]:
    """The weights that a checkpoint's training would hand on: the moving average where there is one."""
    weights: dict[str, Tensor] = state["ema"] if "ema" in state else state["model"]
    return weights
