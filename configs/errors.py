"""What went wrong when the user's input did: one line that says place, found and wanted."""


class InputError(Exception):
    """The user's input is wrong; the message is one line: ``place: found, wanted``.

    Entry points print it without a traceback and exit 2.
    """
