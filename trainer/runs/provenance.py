"""Where a folder's results come from, kept in it as ``provenance.json``: each command that trained for it."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import torch
from pydantic import BaseModel, ConfigDict

from configs.entry import find_version
from configs.errors import InputError
from configs.load import validated
from configs.text_file import write_text
from shards.manifest import Kind
from trainer.runs.config import RunConfig
from trainer.streaming.sets import open_set

PROVENANCE_NAME = "provenance.json"

_PACKAGES = ("torch", "torchvision", "numpy", "pillow")
_TOP = Path(__file__).parents[2]
_FREE = {"begun", "done"}  # what may differ between a command and the same one again


class SetOrigin(BaseModel):
    """A set as it was. fingerprint: of its recipe. sha256: of its manifest, which holds its shards' own."""

    model_config = ConfigDict(frozen=True)

    place: str
    kind: Kind
    records: int
    fingerprint: str
    sha256: str


class Origin(BaseModel):
    """A command. begun: UTC. done: trainings that others had done before it. commit: see `find_commit`."""

    model_config = ConfigDict(frozen=True)

    begun: str
    command: str
    done: int
    commit: str | None
    machine: str
    versions: dict[str, str]
    seeds: tuple[int, ...]
    sets: tuple[SetOrigin, ...]


class _File(BaseModel):
    commands: list[Origin]


def origin_of(
    module: str, argv: Sequence[str], configs: Sequence[RunConfig], done: int, home: Path
) -> Origin:
    """``python -m MODULE ARGV``, for these runs, here and now. Raises InputError, ShardError."""
    places: dict[str, Kind] = {}
    for config in configs:
        places |= places_of(config)
    return Origin(
        begun=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=shlex.join(["python", "-m", module, *argv]),
        done=done,
        commit=find_commit(),
        machine=find_machine(),
        versions=find_versions(),
        seeds=tuple(sorted({seed for config in configs for seed in config.seeds})),
        sets=tuple(set_origin(place, kind, home) for place, kind in places.items()),
    )


def keep_origin(folder: Path, origin: Origin) -> None:
    """Add it to the folder's, unless the last one is the same but for its time. Raises InputError."""
    before = read_origins(folder)
    if not before or before[-1].model_dump(exclude=_FREE) != origin.model_dump(exclude=_FREE):
        commands = [each.model_dump(mode="json") for each in (*before, origin)]
        write_text(folder / PROVENANCE_NAME, json.dumps({"commands": commands}, indent=1) + "\n")


def read_origins(folder: Path) -> list[Origin]:
    """In the order in which they were begun; none in a folder of before they were kept. Raises InputError."""
    path = folder / PROVENANCE_NAME
    if not path.is_file():
        return []
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: {error}: wanted what trainer.run wrote") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: found {type(value).__name__}, wanted what trainer.run wrote")
    return validated(_File, value, str(path)).commands


def places_of(config: RunConfig) -> Mapping[str, Kind]:
    """The sets that a run names, each once."""
    scenes = config.validation_scenes
    places: dict[str, Kind] = {each.place: "crops" for each in (*config.crops, *config.distractors)}
    places |= dict.fromkeys(scenes.crops, "crops")
    places |= {each.place: "backgrounds" for each in config.backgrounds}
    return places | ({scenes.backgrounds: "backgrounds"} if scenes.backgrounds else {})


def set_origin(place: str, kind: Kind, home: Path) -> SetOrigin:
    """A set as it is now. Raises InputError, ShardError."""
    manifest = open_set(place, kind, home).manifest
    sha256 = hashlib.sha256(manifest.to_utf8()).hexdigest()
    return SetOrigin(
        place=place, kind=kind, records=manifest.records, fingerprint=manifest.fingerprint, sha256=sha256
    )


@cache  # of what was imported, whatever happens to the checkout afterwards
def find_commit() -> str | None:
    """Of the checkout that this file is in, ``+changes`` behind it where tracked files differ from it.

    None for an installed package, or without git.
    """
    if not (_TOP / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(_TOP)]
    asked = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changes else commit


def find_machine() -> str:
    """Its processors, and PyTorch's version."""
    cores = f"{len(os.sched_getaffinity(0))} cores of {platform.machine()}, torch {torch.__version__}"
    if not torch.cuda.is_available():
        return cores
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {cores}"


def find_versions() -> dict[str, str]:
    """Of what computes."""
    found = {"crop-foundry": find_version(), "python": platform.python_version()}
    found["opencv"] = cv2.__version__  # which comes as packages of several names
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
