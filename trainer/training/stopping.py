"""SIGTERM and Ctrl-C: finish the step, save, say how to go on."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Stopped(Exception):
    """A signal came; the step was finished and saved. The message is one line, code the exit status."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


@contextmanager
def stop_asked() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM or SIGINT comes; a second one stops at once.

    Threads other than the main one get no signals: there the list stays empty.
    """
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    in_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if in_main else ()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped(folder: Path, done: int, steps: int, asked: Sequence[int]) -> Stopped:
    """What to raise once all is saved. asked is empty on a rank whose neighbour was told to stop."""
    number = signal.Signals(asked[0] if asked else signal.SIGTERM)
    return Stopped(
        f"{folder}: {number.name}: saved at step {done} of {steps}: run the same command again to go on",
        number,
    )
