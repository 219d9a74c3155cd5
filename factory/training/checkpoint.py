"""Checkpoints of a network's training: whole or not at all, the newest few kept."""

import os
from pathlib import Path
from typing import Any

import torch

from configs.errors import InputError
from configs.unreadable import why_unreadable


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write ``step-NNNNNNNN.pt`` beside, flush, rename; then drop all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    beside = folder / f".{path.name}.tmp-{os.getpid()}"
    try:
        with beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    for old in _saved(folder)[:-keep]:
        old.unlink()
    return path


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint's state, or None when there is none yet. No code of the file runs.

    Raises InputError for a file that is no checkpoint.
    """
    saved = _saved(folder)
    if not saved:
        return None
    try:
        state = torch.load(saved[-1], map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a file that is not its own
        reason = why_unreadable(saved[-1], error)
        raise InputError(
            f"{saved[-1]}: {reason}: wanted a checkpoint of this training (remove the file to go on from"
            " the one before)"
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{saved[-1]}: holds a {type(state).__name__}, wanted a checkpoint of this training")
    return state


def write_whole(path: Path, content: bytes) -> None:
    """A file, whole or not at all: a full disk leaves an older one as it was. Makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _saved(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))
