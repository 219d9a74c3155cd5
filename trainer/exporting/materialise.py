"""Write scenes and their annotation to a folder: in parallel, in bounded memory, resumed by the same call.

``export.json`` says what the folder holds. ``export.jsonl`` gets a line for each scene, in order, once its
files are there; the annotation of all scenes is put together from it at the end.
"""

import json
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from configs.errors import InputError
from configs.text_file import write_text
from trainer.compositing.plan import ScenePlan
from trainer.exported import Entry, ExportConfig, ExportedScene
from trainer.exporting.journal import Journal, Record, open_journal, write_pieces, write_whole
from trainer.runs.config import RunConfig
from trainer.runs.open_scenes import Scenes, open_scenes
from trainer.sample import Target, UInt8Array

_PER_TASK = 8  # scenes that a worker makes at a time
_AHEAD = 4  # tasks a worker may be ahead of the journal


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What to write where. first: number of the first scene."""

    config: RunConfig
    home: Path
    form: ExportConfig
    folder: Path
    seed: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished export holds; made: scenes that this call painted."""

    images: int
    made: int
    objects: int
    ignored: int


def materialise(job: ExportJob, images: int, workers: int = 0, tell: Callable[[int], object] = id) -> Summary:
    """Have ``images`` scenes, from ``job.first`` on, in the folder, with their annotation.

    What an earlier call wrote is kept; a scene of which a file is gone or has another size is made again.
    The same bytes for any number of workers and interruptions. tell: called with the scenes that are done.
    Raises InputError, also for a folder that holds something else or more, ShardError.
    """
    scenes = open_scenes(job.config, job.home, job.seed)
    job.form.check(scenes.classes, scenes.size)
    _claim(job, scenes)
    with open_journal(job.folder, job.first) as journal:
        damaged = journal.recover()
        if journal.lines > images:
            raise InputError(f"{job.folder}: holds {journal.lines} images, wanted at most --images {images}")
        made = images - journal.lines + len(damaged)
        with _painting(job, scenes, workers) as paint_all:
            for _ in paint_all(damaged):
                pass
            tell(journal.lines)
            for record in paint_all(range(job.first + journal.lines, job.first + images)):
                journal.append(record)
                tell(journal.lines)
        entries = partial(_entries, job, journal)
        for path, pieces in job.form.documents(entries, scenes.classes, scenes.size).items():
            write_pieces(job.folder / path, pieces)
        return _summary(journal, made)


def _claim(job: ExportJob, scenes: Scenes) -> None:
    """Say in the folder what it holds; refuse one that holds something else."""
    path = job.folder / "export.json"
    identity = {"export": job.form.model_dump(mode="json"), "first": job.first, **scenes.identity}
    if path.exists():
        before = _read_json(path)
        differing = [key for key, value in identity.items() if before.get(key) != value]
        if differing:
            raise InputError(f"{job.folder}: holds an export with another {', '.join(differing)}")
        return
    if job.folder.exists() and (not job.folder.is_dir() or any(job.folder.iterdir())):
        raise InputError(f"{job.folder}: holds something else, wanted a new or empty folder or an export")
    write_text(path, json.dumps(identity, indent=1) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: {error}, wanted what an export wrote") from error
    return found


def _entries(job: ExportJob, journal: Journal) -> Iterator[Entry]:
    for record in journal.records():
        number = record["scene"]
        yield Entry(number, _name_of(job.form, number), job.form.split_of(number), record["note"])


def _summary(journal: Journal, made: int) -> Summary:
    objects = ignored = 0
    for record in journal.records():
        objects, ignored = objects + record["objects"], ignored + record["ignored"]
    return Summary(journal.lines, made, objects, ignored)


Paint = Callable[[Sequence[int]], Iterator[Record]]


@contextmanager
def _painting(job: ExportJob, scenes: Scenes, workers: int) -> Iterator[Paint]:
    """Writes the files of scenes, and gives their records, in order."""
    if not workers:
        yield lambda numbers: (_make(job, scenes, number) for number in numbers)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ExitStack() as stack:
        pool = ProcessPoolExecutor(workers, context, _start_worker, (job,))
        stack.callback(pool.shutdown, cancel_futures=True)
        yield partial(_in_order, pool, workers * _AHEAD)


def _in_order(pool: ProcessPoolExecutor, ahead: int, numbers: Sequence[int]) -> Iterator[Record]:
    tasks = (numbers[k : k + _PER_TASK] for k in range(0, len(numbers), _PER_TASK))
    waiting: deque[Future[list[Record]]] = deque(pool.submit(_work, task) for task in islice(tasks, ahead))
    try:
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(_work, task) for task in islice(tasks, 1))
    except BrokenProcessPool as error:
        raise InputError(
            "a worker was ended from outside, perhaps for want of memory: "
            "the same command goes on, with fewer --workers"
        ) from error


_worker: tuple[ExportJob, Scenes]


def _start_worker(job: ExportJob) -> None:
    """A worker uses one core, leaves signals to its parent, and ends when that is gone."""
    global _worker
    cv2.setNumThreads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = job, open_scenes(job.config, job.home, job.seed)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _work(numbers: Sequence[int]) -> list[Record]:
    job, scenes = _worker
    return [_make(job, scenes, number) for number in numbers]


def _make(job: ExportJob, scenes: Scenes, number: int) -> Record:
    """Paint a scene, write its files, and return what the journal keeps of it."""
    form, split, name = job.form, job.form.split_of(number), _name_of(job.form, number)
    plan, painted = scenes.paint(number)
    target = painted.sample.target
    cut = _truncated(plan, painted.orders, target)
    scene = ExportedScene(number, name, split, scenes.size, target, painted.owner, painted.orders, cut)
    image = form.image_path(split, name)
    files = {image: _encode(painted.sample.image, form), **form.files(scene, scenes.classes)}
    for path, content in files.items():
        write_whole(job.folder / path, content)
    return {
        "scene": number,
        "files": {path: len(content) for path, content in files.items()},
        "objects": len(target),
        "ignored": int(target.ignore.sum()),
        "note": form.note(scene),
    }


def _name_of(form: ExportConfig, number: int) -> str:
    return f"{number:08d}.{form.image}"


def _truncated(plan: ScenePlan, orders: tuple[int, ...], target: Target) -> tuple[bool, ...]:
    """Objects that are seen up to an edge of the scene, beyond which their crop goes on."""
    found = []
    for order, box in zip(orders, target.boxes, strict=True):
        x0, y0, x1, y1 = plan.placements[order - 1].bounds
        low = (x0 < 0 and box[0] <= 0) or (y0 < 0 and box[1] <= 0)
        side = plan.canvas_px
        high = (x1 > side and box[2] >= plan.size) or (y1 > side and box[3] >= plan.size)
        found.append(low or high)
    return tuple(found)


def _encode(image: UInt8Array, form: ExportConfig) -> bytes:
    pixels = np.ascontiguousarray(image)
    if form.image == "jpg":
        return bytes(simplejpeg.encode_jpeg(pixels, form.quality, colorspace="RGB", colorsubsampling="420"))
    return cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
