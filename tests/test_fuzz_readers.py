"""A short, always equal stretch of the fuzzing that ``tests.fuzz.fuzz_readers`` does at length."""

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.fuzz_readers import attempt
from tests.fuzz.targets import TARGETS

INPUTS = {"run": 6, "recipe": 12, "yolo": 60}
USUAL = 120
NEEDS_SCIPY = {"cars", "wider_mat"}


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_is_read(name: str, tmp_path: Path) -> None:
    if name in NEEDS_SCIPY:
        pytest.importorskip("scipy")
    seeds = TARGETS[name].make()
    refused = [
        number for number, files in enumerate(seeds) if not attempt(TARGETS[name], files, tmp_path / "a")
    ]
    postscript = len(seeds) - 1  # the last picture, which no reader of photos takes
    assert refused == ([postscript] if name in ("photo", "image") else [])


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_or_refused_as_documented(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if name in NEEDS_SCIPY:
        pytest.importorskip("scipy")
    caplog.set_level(logging.ERROR)
    target, rng = TARGETS[name], np.random.default_rng(8)
    seeds = target.make()
    outcomes = set()
    for number in range(INPUTS.get(name, USUAL)):
        files = target.mutated(rng, seeds[number % len(seeds)])
        outcomes.add(attempt(target, files, tmp_path / "a"))
    assert False in outcomes or name == "recipe"


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_seed_changes_files_the_same_way(name: str) -> None:
    if name in NEEDS_SCIPY:
        pytest.importorskip("scipy")
    files = TARGETS[name].make()[0]
    one, other = (TARGETS[name].mutated(np.random.default_rng([5, 6]), files) for _ in range(2))
    assert one == other
