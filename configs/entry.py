"""How every entry point begins and ends.

It takes ``--help`` with examples, ``--version`` and ``-v``; it ends with 0, with 2 and one line for the
user's mistake, or with a bug's traceback.
"""

import argparse
import errno
import logging
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from configs.errors import InputError
from configs.log_file import begin_command, end_log

_ENVIRONMENT = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)


class Parser(argparse.ArgumentParser):
    """A command's arguments, with what all commands share."""

    def __init__(self, command: str, description: str, examples: str, usage: str | None = None) -> None:
        """command: the module, ``factory.build``. examples: shown below the arguments, as they are.

        usage: what follows the command, for one that has commands of its own.
        """
        super().__init__(
            prog=f"python -m {command}",
            usage=usage and f"python -m {command} {usage}",
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--version", action="version", version=f"crop-foundry {find_version()}")
        self.add_argument("-v", "--verbose", action="store_true", help="say more; errors with their origin")

    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        self.exit(2, f"error: {message}: see {self.prog} --help\n")


def names_in(text: str) -> list[str]:
    """The names of an argument such as ``A,B``."""
    return [name.strip() for name in text.split(",") if name.strip()]


def find_version() -> str:
    """Of the installed package, ``0 (not installed)`` where it runs from a checkout alone."""
    try:
        return version("crop-foundry")
    except PackageNotFoundError:
        return "0 (not installed)"


def run(main: Callable[[list[str]], int | None], *user_errors: type[Exception]) -> NoReturn:
    """Call ``main`` with the command line's arguments and exit.

    InputError and ``user_errors`` become one line and exit 2, as do a full or forbidden disk. A reader that
    has seen enough (``| head``) ends the program as it ends any other, with SIGPIPE's 141. With ``-v`` the
    line follows its traceback, and the program's own messages of little weight are shown.
    """
    is_verbose = not {"-v", "--verbose"}.isdisjoint(sys.argv[1:])
    if is_verbose:
        logging.basicConfig(format="%(name)s: %(message)s")
        for package in ("factory", "shards", "trainer"):
            logging.getLogger(package).setLevel(logging.DEBUG)
    begin_command()
    try:
        code = main(sys.argv[1:]) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None  # so that Python does not try to flush it once more
        code = 141
    except SystemExit as ended:  # the parser's
        end_log(f"exit {ended.code}")
        raise
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        code = 130
    except Exception as error:
        if is_verbose:
            traceback.print_exc()
        line = _line_of(error, user_errors)
        if line is None:
            end_log(f"error: {error!r}")
            raise
        logging.getLogger("configs").info(f"error: {line}")
        print(f"error: {line}", file=sys.stderr)
        code = 2
    end_log(f"exit {code}")
    sys.exit(code)


def _line_of(error: Exception, user_errors: tuple[type[Exception], ...]) -> str | None:
    """What to tell the user; None for a bug."""
    if isinstance(error, (InputError, *user_errors)):
        return str(error)
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        return f"{error.filename or 'output'}: {error.strerror}; what is finished is kept"
    return None
