"""Fuzz the readers of foreign files for a bounded time: ``python -m tests.fuzz.fuzz_readers --seconds 600``.

Each target's inputs are changed seeds (`tests.fuzz.targets`), read in a child process that may hold so much
memory and take so long. A crash is any error but the documented ones, a broken promise, a hang, a death. Each
kind of crash is kept once, as a folder that ``--replay`` reads again.
"""

import argparse
import json
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutations import Files
from tests.fuzz.targets import TARGETS, Target

HANG_S = 5
_STALL_S = 4 * HANG_S  # a child in native code that hears no alarm is killed then
_GENERATIONS = 6  # changes on changes, at most
_KEPT = 200  # inputs that were read, to change further


def main() -> int:
    """Fuzz, print a line a target; the exit status is 1 when there was a crash."""
    args = _parsed()
    logging.disable(logging.WARNING)
    if args.replay:
        print("read" if TARGETS[args.replay[0]].check(Path(args.replay[1])) else "refused")
        return 0
    names = args.targets or list(TARGETS)
    args.out.mkdir(parents=True, exist_ok=True)
    crashed = False
    for name in names:
        figures = fuzz(name, args.seconds / len(names), args.seed, args.out)
        crashed |= bool(figures["crashes"])
        print(json.dumps({"target": name, **figures}), flush=True)
    return int(crashed)


def fuzz(name: str, seconds: float, seed: int, out: Path) -> dict[str, Any]:
    """Inputs tried and read, seconds, and crashes by what and where."""
    began = time.monotonic()
    figures: dict[str, Any] = {"inputs": 0, "read": 0, "crashes": {}}
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        here, round_ = Path(folder, "input"), 0
        while (left := seconds - (time.monotonic() - began)) > 0:
            ours, theirs = context.Pipe()
            child = context.Process(target=_child, args=(theirs, name, (seed, round_), left, here, out))
            child.start()
            theirs.close()
            while _told(ours, figures):
                pass
            if child.is_alive() and not ours.closed:
                child.kill()
            child.join()
            if child.exitcode:
                what = f"child ended with {child.exitcode}"
                figures["crashes"][what] = figures["crashes"].get(what, 0) + 1
                _keep(here, out, name, what, what)
            round_ += 1
    figures["seconds"] = round(time.monotonic() - began, 1)
    return figures


def _told(ours: Any, figures: dict[str, Any]) -> bool:
    """Adds what the child says; False when it has ended or says nothing any more."""
    if not ours.poll(_STALL_S):
        return False
    try:
        inputs, read, crashes = ours.recv()
    except EOFError:
        return False
    figures["inputs"] += inputs
    figures["read"] += read
    for what, count in crashes.items():
        figures["crashes"][what] = figures["crashes"].get(what, 0) + count
    return True


def _child(pipe: Any, name: str, seed: tuple[int, int], seconds: float, here: Path, out: Path) -> None:
    target, rng = TARGETS[name], np.random.default_rng(seed)
    seeds = target.make()
    pool: list[tuple[Files, int]] = [(files, 0) for files in seeds]
    _limit_memory(target.memory_mb)
    signal.signal(signal.SIGALRM, _too_long)
    until, told = time.monotonic() + seconds, time.monotonic()
    inputs, read, crashes = 0, 0, Counter[str]()
    while time.monotonic() < until:
        files, age = pool[int(rng.integers(len(pool)))]
        changed = target.mutated(rng, files)
        inputs += 1
        try:
            is_read = attempt(target, changed, here)
        except BaseException as error:  # whatever it is, it is a crash
            what = _where(error)
            crashes[what] += 1
            _keep(here, out, name, what, traceback.format_exc())
            is_read = False
        read += is_read
        if is_read and age < _GENERATIONS:
            if len(pool) < _KEPT:
                pool.append((changed, age + 1))
            else:
                pool[int(rng.integers(len(seeds), _KEPT))] = changed, age + 1
        if time.monotonic() - told > 1:
            pipe.send((inputs, read, dict(crashes)))
            inputs, read, crashes, told = 0, 0, Counter(), time.monotonic()
    pipe.send((inputs, read, dict(crashes)))


def attempt(target: Target, files: Files, here: Path) -> bool:
    """Writes the files and reads them, within the time."""
    shutil.rmtree(here, ignore_errors=True)
    for name, content in files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        return target.check(here)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"a hang: over {HANG_S} s")


def _limit_memory(megabytes: int) -> None:
    """Address space so much over what the libraries take already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _where(error: BaseException) -> str:
    """The error's type and the last place in our own code: crashes of one place are one crash."""
    root = str(Path(__file__).parents[2])
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(root)]
    ours = [f for f in frames if "/tests/" not in f.filename] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"
    said = str(error).split(":")[0][:60] if "/tests/" in frames[-1].filename else ""
    return f"{type(error).__name__} {place} {said}".strip()


def _keep(here: Path, out: Path, name: str, what: str, report: str) -> None:
    """The input's folder and its report, once for each kind."""
    clean = "".join(c if c.isalnum() else "-" for c in what)[:80]
    to = out / name / clean
    if not to.exists() and here.exists():
        shutil.copytree(here, to / "input")
        (to / "report.txt").write_text(report, errors="backslashreplace")


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.fuzz_readers", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} [all]")
    parser.add_argument("--seconds", type=float, default=60, help="of all targets together [60]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("crashes"), help="where crashes are kept [crashes]")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FOLDER"), help="read a kept input again")
    args = parser.parse_args()
    if unknown := set(args.targets) - set(TARGETS):
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}")
    return args


if __name__ == "__main__":
    sys.exit(main())
