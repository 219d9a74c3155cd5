"""Where things lie by default: under ``$CROP_FOUNDRY_HOME``, else the working directory."""

import os
from pathlib import Path

from configs.errors import InputError
from configs.kinds import did_you_mean


def find_home() -> Path:
    """The folder that holds ``data/`` and ``runs/``."""
    return Path(os.environ.get("CROP_FOUNDRY_HOME") or Path.cwd())


def locate(path: Path, home: Path, below: str = "") -> Path:
    """``path`` as it stands when absolute or present, else the one in ``home``'s folder ``below``, which the
    path may name or leave out.
    """
    path = path.expanduser()
    if path.is_absolute() or path.exists():
        return path
    return (home if path.is_relative_to(below) else home / below) / path


def find_config(folder: str, name: str, what: str) -> Path:
    """The YAML file of that name that ships in ``configs/folder``, or the file that ``name`` names.

    Raises InputError, with a did-you-mean, when it is neither; ``what`` says what was looked for.
    """
    path = Path(__file__).parent / folder / f"{name}.yaml"
    if path.is_file():
        return path
    if not name.endswith((".yaml", ".yml")):
        hint = did_you_mean(name, packaged_names(folder))
        raise InputError(f"no {what} {hint} (or name a file: {what}.yaml)")
    return Path(name)


def packaged_names(folder: str) -> list[str]:
    """Names of the YAML files that ship in ``configs/folder``."""
    return sorted(path.stem for path in (Path(__file__).parent / folder).glob("*.yaml"))
