"""One cell of a run folder, in a process of its own."""

import os
import signal
import sys
import threading
from multiprocessing import parent_process
from pathlib import Path

import torch

from configs.errors import InputError
from configs.load import read_yaml, validated
from shards.errors import ShardError
from trainer.runs.config import Cell, RunConfig
from trainer.runs.folder import Run
from trainer.training.stopping import Stopped


def run_cell(folder: Path, cell: Cell, home: Path, log: Path, threads: int, gpu: str | None) -> None:
    """Train and score that cell of the run that the folder's config.yaml says.

    What it says goes to ``log``, its last line being why it failed. gpu: the one to see, as CUDA names it.
    """
    os.setsid()  # a Ctrl-C is the parent's to hand on
    with log.open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    path = folder / "config.yaml"
    try:
        Run(validated(RunConfig, read_yaml(path), str(path)), folder, home).run([cell])
    except Stopped as stopped:
        sys.exit(stopped.code)
    except (InputError, ShardError) as error:
        sys.exit(f"error: {error}")


def _stop_without_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()  # however it went, nobody waits for this cell
    os.kill(os.getpid(), signal.SIGTERM)
