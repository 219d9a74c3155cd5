"""Kill a build at every step it takes on disk, run it again, compare.

``python tests/faults/crash_points.py``. Each write, flush, rename, link and removal is a point: a forked
child kills itself before its k-th (half-way through it where it is a write), another one then runs the same
command. Every resumed set must hold the undisturbed one's files, byte for byte.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from factory.build import main as build

_RECIPE = """
label: blob
source: {kind: images}
segmenter: {kind: whole}
quality: {duplicate_bits: null}
shard_size: 3
"""
_STEPS = ("write", "fsync", "replace", "rename", "link", "unlink")


def write_photos(folder: Path, count: int) -> None:
    """Photos of 96 px with a bright disc on noise; the fifth is no picture."""
    folder.mkdir()
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 90, (96, 96, 3), np.uint8)
        cv2.circle(pixels, (48, 48), 16 + index % 16, (90, 160 + index % 64, 250), -1)
        cv2.imwrite(str(folder / f"{index:03d}.png"), pixels)
    (folder / "004.png").write_bytes(b"no picture")


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in a set's folder, hidden files too."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def die_at(point: int) -> None:
    """Make this process kill itself at the given step, counted from 1, that it takes on disk from now on."""
    steps = 0
    write = os.write

    def watch(step: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == point:
                if step is write:
                    write(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*args, **options)

        return watched

    for name in _STEPS:
        setattr(os, name, watch(getattr(os, name)))


def in_child(work: Callable[[], object]) -> int:
    """Runs work in a fork without output; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def build_and_die(command: Sequence[str], point: int) -> None:
    """A build that is killed at a step, unless it takes fewer."""
    die_at(point)
    build(list(command))


def check_all_points(scratch: Path, arguments: Sequence[str]) -> tuple[int, list[str]]:
    """The number of points, and what differed at which."""
    expected_at = scratch / "undisturbed"
    assert in_child(lambda: build([*arguments, "--out", str(expected_at)])) == 0
    expected, point = files_of(expected_at), 0
    problems: list[str] = []
    while True:
        point += 1
        out = scratch / f"point-{point}"
        command = [*arguments, "--out", str(out)]
        died = in_child(lambda: build_and_die(command, point))  # noqa: B023
        if died == 0:
            return point - 1, problems
        assert died == -signal.SIGKILL, f"point {point}: exit {died}"
        status = in_child(lambda: build(command))  # noqa: B023
        found = files_of(out)
        if status or found != expected:
            names = sorted(name for name in found | expected if found.get(name) != expected.get(name))
            problems.append(f"point {point}: exit {status}, differing: {', '.join(names)}")


def main(argv: Sequence[str]) -> int:
    """All points of one build; 1 when a set differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=10)
    parser.add_argument("--crops", type=int, help="cut the set to fewer crops than the photos give")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_photos(scratch / "photos", args.photos)
        (scratch / "blob.yaml").write_text(_RECIPE)
        arguments = [
            "--class",
            str(scratch / "blob.yaml"),
            "--ray",
            "off",
            f"source.root={scratch / 'photos'}",
        ]
        arguments += ["--crops", str(args.crops)] if args.crops else []
        points, problems = check_all_points(scratch, arguments)
    print(f"killed at each of {points} points, {len(problems)} wrong")
    print("\n".join(problems), end="\n" if problems else "")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
