"""Why a file of weights cannot be read, in words that help: mostly it is no such file at all."""

import re
from pathlib import Path

_HEAD_BYTES = 512
_STARTS = (  # what a file begins with, and what it then is
    (b"version https://git-lfs", "a git-lfs pointer: 'git lfs pull' fetches the file itself"),
    (b"<", "a web page, or XML: the download was answered with one"),
    (b"{", "a text, JSON perhaps"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)
_NAMED = re.compile(r"\bGLOBAL (?P<name>[\w.]+[\w])")
_CUT = ("PytorchStreamReader failed", "incomplete metadata", "not fully covered", "unexpected EOF")
_NOT_SAFETENSORS = ("header too large", "header too small", "invalid header")


def why_unreadable(path: Path, error: BaseException) -> str:
    """What is wrong with the file, on one line; ``error`` is what the library that reads it raised.

    ``a web page …``, ``a git-lfs pointer …``, ``empty``, ``cut short …``, ``it names os.system, …``; else the
    library's own first line.
    """
    known = _by_its_start(path) or _by_its_error(str(error))
    if known is not None:
        return known
    line = str(error).strip().partition("\n")[0].rstrip(".")
    return line or type(error).__name__


def _by_its_start(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if not head:
        return "an empty file"
    if head[257:262] == b"ustar":
        return "a tar archive"
    told = [what for start, what in _STARTS if head.lstrip().startswith(start)]
    return told[0] if told else None


def _by_its_error(text: str) -> str | None:
    named = _NAMED.search(text)
    if named is not None:
        return f"it names {named['name']}, which is not allowed: code in a file is never run"
    if any(sign in text for sign in _CUT):
        return "cut short or damaged: fetch it again"
    if any(sign in text for sign in _NOT_SAFETENSORS):
        return "no safetensors inside"
    if text.startswith("Weights only load failed"):
        return "neither tensors nor a pickle of tensors"
    return None
