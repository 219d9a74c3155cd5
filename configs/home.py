"""Where things lie by default: under ``$CROP_FOUNDRY_HOME``, else the working directory."""

import os
from pathlib import Path


def find_home() -> Path:
    """The folder that holds ``data/`` and ``runs/``."""
    return Path(os.environ.get("CROP_FOUNDRY_HOME") or Path.cwd())


def locate(path: Path, home: Path, below: str = "") -> Path:
    """``path`` as it stands when absolute or present, else the one in ``home``'s folder ``below``."""
    path = path.expanduser()
    if path.is_absolute() or path.exists():
        return path
    return home / below / path


def packaged(folder: str, name: str) -> Path | None:
    """The YAML file of that name that ships in ``configs/folder``, or None."""
    path = Path(__file__).parent / folder / f"{name}.yaml"
    return path if path.is_file() else None


def packaged_names(folder: str) -> list[str]:
    """Names of the YAML files that ship in ``configs/folder``."""
    return sorted(path.stem for path in (Path(__file__).parent / folder).glob("*.yaml"))
