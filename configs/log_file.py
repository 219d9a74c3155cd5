"""What a command did with a folder, kept in it as ``log.txt``: each run with its messages and its end."""

import logging
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG_NAME = "log.txt"

_OURS = ("configs", "factory", "shards", "trainer")
_LOG = logging.getLogger("configs")


class _Command:
    """The command under way; where a function is called by another program there is none, and no log."""

    begun: float | None = None
    file: logging.FileHandler | None = None


def begin_command() -> None:
    """The program was started as a command: folders may keep its log."""
    _Command.begun = time.monotonic()


def keep_log(folder: Path) -> None:
    """From here on append the command's messages to ``folder/log.txt``, the command line first.

    What goes to the terminal stays as it is. Does nothing outside a command, or once it keeps a log.
    """
    if _Command.begun is None or _Command.file is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    if not root.handlers:  # else the file would take the place of what Python shows where nothing is set
        shown = logging.StreamHandler()
        shown.setLevel(logging.WARNING)
        root.addHandler(shown)
    file = logging.FileHandler(folder / LOG_NAME, encoding="utf-8")
    stamped = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    stamped.converter = time.gmtime
    file.setFormatter(stamped)
    root.addHandler(file)
    _Command.file = file
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
    _LOG.info(f"begins: {shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}")


def end_log(outcome: str) -> None:
    """The command is over: write how it ended, if it keeps a log."""
    begun, file = _Command.begun, _Command.file
    if begun is not None and file is not None:
        _LOG.info(f"ends after {time.monotonic() - begun:.0f} s: {outcome}")
        logging.getLogger().removeHandler(file)
        file.close()
    _Command.begun = _Command.file = None


@contextmanager
def without_warnings_of(name: str) -> Iterator[None]:
    """Of this logger only errors are heard."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
