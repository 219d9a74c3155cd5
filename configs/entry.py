"""How every entry point ends: 0, 2 with one line for the user's mistake, or a bug's traceback."""

import errno
import sys
from collections.abc import Callable
from typing import NoReturn

from configs.errors import InputError

_ENVIRONMENT = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def run(main: Callable[[list[str]], int | None], *user_errors: type[Exception]) -> NoReturn:
    """Call ``main`` with the command line's arguments and exit.

    InputError and ``user_errors`` become one line and exit 2, as do a full or forbidden disk. A reader that
    has seen enough (``| head``) ends the program as it ends any other, with SIGPIPE's 141.
    """
    try:
        code = main(sys.argv[1:]) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None  # so that Python does not try to flush it once more
        code = 141
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        code = 130
    except Exception as error:
        if isinstance(error, (InputError, *user_errors)):
            code = _complain(str(error))
        elif isinstance(error, OSError) and error.errno in _ENVIRONMENT:
            code = _complain(f"{error.filename or 'output'}: {error.strerror}; what is finished is kept")
        else:
            raise
    sys.exit(code)


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
