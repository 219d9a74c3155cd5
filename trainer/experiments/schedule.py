"""The trainings of an experiment as processes of their own, so many at a time."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from configs.errors import InputError
from trainer.experiments.sharing import Training
from trainer.experiments.worker import run_cell
from trainer.training.stopping import stop_asked

_LOOK_EVERY_S = 0.2
_SCORES = "scores.json"


@dataclass(frozen=True, slots=True)
class Machine:
    """jobs: trainings at a time. threads: of each. gpus: that they take turns on."""

    jobs: int
    threads: int
    gpus: int

    @classmethod
    def here(cls, jobs: int | None, threads: int | None) -> "Machine":
        """A job a GPU where there are GPUs, else a job for every so many of the processor's cores."""
        gpus, cores = torch.cuda.device_count(), len(os.sched_getaffinity(0))
        threads = threads or (max(1, cores // gpus) if gpus else 1)
        return cls(jobs or gpus or max(1, cores // threads), threads, gpus)


class Schedule:
    """Runs what is not done; keeps why a training failed. See `Schedule.run`."""

    def __init__(self, trainings: Sequence[Training], out: Path, home: Path, machine: Machine) -> None:
        self._out, self._home, self._machine = out, home, machine
        self.trainings = trainings
        self.failures: dict[Training, str] = {}
        self.running: dict[Training, ForkServerProcess] = {}
        self._places: dict[Training, int] = {}

    def is_done(self, training: Training) -> bool:
        """Whether it is trained and scored."""
        return (self._out / training.folder / _SCORES).exists()

    def run(self, ended: Callable[[], None], look: Callable[[], None]) -> int:
        """Train what is missing; others go on when one fails. ended: called after each end, look: often.

        Returns 0, or 128 + the signal's number after SIGTERM or Ctrl-C, when all processes have saved and
        ended; a second signal ends them at once.
        """
        waiting = [each for each in self.trainings if not self.is_done(each)]
        is_told = False
        with stop_asked() as asked, self._all_ended():
            while self.running or (waiting and not asked):
                if not asked:
                    waiting = self._start(waiting)
                elif not is_told:
                    is_told = True  # once: a second signal would end them before they have saved
                    for child in self.running.values():
                        child.terminate()
                if self._collect(is_stopping=bool(asked)):
                    ended()
                look()
                time.sleep(_LOOK_EVERY_S)
        return 128 + asked[0] if asked else 0

    def _start(self, waiting: list[Training]) -> list[Training]:
        """Start what can be; returns what still waits."""
        left = []
        for training in waiting:
            before = training.before
            if before is not None and before in self.failures:
                self.failures[training] = f"goes on from {before.name}, which failed"
            elif len(self.running) < self._machine.jobs and (before is None or self.is_done(before)):
                self.running[training] = self._open(training)
            else:
                left.append(training)
        return left

    def _open(self, training: Training) -> ForkServerProcess:
        log = self._log_of(training)
        log.parent.mkdir(parents=True, exist_ok=True)
        gpu = self._gpu_of(training) if self._machine.gpus > 1 else None
        folder = self._out / training.run.folder
        context = get_context("forkserver")
        context.set_forkserver_preload([run_cell.__module__])  # torch is imported once
        child = context.Process(
            target=run_cell, args=(folder, training.cell, self._home, log, self._machine.threads, gpu)
        )
        child.start()
        return child

    def _gpu_of(self, training: Training) -> str:
        """That of the first place that nobody has."""
        taken = {self._places[other] for other in self.running}
        place = self._places[training] = min(set(range(self._machine.jobs)) - taken)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(i) for i in range(self._machine.gpus)]
        return names[place % len(names)]

    def _collect(self, *, is_stopping: bool) -> bool:
        """Note what has ended since; whether anything has. What was told to stop has not failed."""
        ended = [each for each in self.running.items() if each[1].exitcode is not None]
        for training, child in ended:
            del self.running[training]
            log, code = self._log_of(training), child.exitcode or 0
            child.close()
            if not self.is_done(training) and not is_stopping:
                self.failures[training] = _why(log, code)
            else:
                log.unlink(missing_ok=True)
        return bool(ended)

    @contextmanager
    def _all_ended(self) -> Iterator[None]:
        """Leave no process behind."""
        try:
            yield
        finally:
            for child in self.running.values():
                child.kill()
                child.join()

    def _log_of(self, training: Training) -> Path:
        return self._out / "failures" / f"{training.name}.log"


def _why(log: Path, code: int) -> str:
    """The last line that a failed training said."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "said nothing"
    return f"{said} (ended by signal {-code})" if code < 0 else said


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the experiment's folder. Raises InputError when another process does."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: another process runs this experiment: wanted it to end first") from None
        yield
