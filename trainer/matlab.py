"""MATLAB's ``.mat`` files, as data sets come with them. The one place that needs scipy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import InputError


def read_mat(path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """These variables of a file, in this order, as MATLAB shapes them; structs have named fields.

    Raises InputError for a file that is missing, of another kind, or without one of them.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise InputError(f"{path}: reading it needs scipy, wanted: pip install 'crop-foundry[mat]'") from None
    try:
        content: dict[str, Any] = loadmat(str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, wanted MATLAB's {', '.join(wanted)}") from None
    except (OSError, ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: {reason}, wanted a .mat file before version 7.3") from error
    if missing := [name for name in wanted if name not in content]:
        raise InputError(f"{path}: no variable '{missing[0]}', wanted {', '.join(wanted)}")
    return {name: content[name] for name in wanted}
