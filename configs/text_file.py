"""Small text files, whole or not at all."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """In UTF-8, written beside its place and renamed into it. The folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
