"""Where the numbers come from: versions, seeds, sets and settings."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from configs.entry import find_version
from configs.errors import InputError
from shards.errors import ShardError
from shards.manifest import Kind
from trainer.reporting.folder import Results
from trainer.streaming.sets import open_set

_PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pillow")


@dataclass(frozen=True, slots=True)
class SetFacts:
    """A set that runs name. fingerprint: of its recipe as it is now, None where the set is not at hand."""

    place: str
    kind: Kind
    records: int | None
    fingerprint: str | None
    problem: str | None


def versions() -> dict[str, str]:
    """Of what made the page."""
    found = {"crop-foundry": find_version(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # OpenCV and others come under several names
    return found


def commands(folder: Path) -> list[str]:
    """Those that worked on the folder, by its log."""
    path = folder / "log.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    begun = [line.split(" begins: ", 1) for line in lines if " begins: " in line]
    return [f"{when.split()[0]}  {command}" for when, command in begun if when]


def plan_of(folder: Path) -> str:
    """The experiment as it was asked for; empty for a run."""
    path = folder / "experiment.yaml"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def set_facts(results: Results, home: Path) -> list[SetFacts]:
    """Each set that a run names, once."""
    wanted: dict[str, Kind] = {}
    for run in results.runs:
        if run.config is not None:
            wanted |= {each.place: "crops" for each in (*run.config.crops, *run.config.distractors)}
            wanted |= {each.place: "backgrounds" for each in run.config.backgrounds}
    return [_facts(place, kind, home) for place, kind in wanted.items()]


def written_at() -> str:
    """Now, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def seeds_of(results: Results) -> Sequence[int]:
    """In order."""
    return sorted({cell.seed for cell in results.cells})


def _facts(place: str, kind: Kind, home: Path) -> SetFacts:
    if "://" in place:
        return SetFacts(place, kind, None, None, "at a URL, not asked")
    try:
        found = open_set(place, kind, home)
    except (InputError, ShardError):
        return SetFacts(place, kind, None, None, "not at hand")
    return SetFacts(place, kind, len(found), found.manifest.fingerprint, None)
