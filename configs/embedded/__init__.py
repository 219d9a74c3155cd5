"""Data that ships with the package, so that everything runs offline: weights, backgrounds, cut-outs.

Each file's origin, licence and figures are in the text beside it.
"""

from pathlib import Path

from configs.errors import InputError
from configs.kinds import did_you_mean

_ROOT = Path(__file__).parent
EMBEDDED_WEIGHTS = _ROOT / "weights"


def embedded(name: str) -> Path:
    """The embedded file or folder of that name, e.g. ``weights/mobilenet_v2.safetensors``.

    Raises InputError, with what there is, for an unknown one.
    """
    path = _ROOT / name
    if not path.exists():
        found = [*_ROOT.glob("[!_]*/"), *EMBEDDED_WEIGHTS.glob("*.safetensors")]
        known = sorted(path.relative_to(_ROOT).as_posix() for path in found)
        raise InputError(f"no embedded {did_you_mean(name, known)}")
    return path
