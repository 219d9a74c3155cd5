"""What a training leaves on disk: whole or not at all, plain tensors only."""

import os
from pathlib import Path
from typing import Any

import torch

from configs.errors import InputError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
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


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read with ``weights_only=True``: no code of the file runs. Raises InputError for a foreign file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises many types for a file that is not its own
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: {reason}: wanted a checkpoint of this program") from error
    if not isinstance(state, dict) or "model" not in state:
        raise InputError(f"{path}: holds no 'model': wanted a checkpoint of this program")
    return state


def write_text(path: Path, text: str) -> None:
    """A small text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
