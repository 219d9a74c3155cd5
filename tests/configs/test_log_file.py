import logging
import re
import sys
from pathlib import Path

import pytest

from configs.entry import run
from configs.errors import InputError
from configs.log_file import keep_log


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs a main as a command that keeps its log in tmp_path, and gives the log's lines."""
    monkeypatch.setattr(sys, "argv", ["/a b/run.py", "birds", "name=x y"])

    def call(main) -> list[str]:
        def with_log(argv: list[str]) -> int:
            keep_log(tmp_path / "out")
            return main(argv)

        with pytest.raises((SystemExit, KeyError)):
            run(with_log)
        text = Path(tmp_path / "out" / "log.txt").read_text()
        return [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "", line) for line in text.splitlines()]

    return call


def test_a_log_holds_the_command_its_messages_and_its_end(command) -> None:
    def main(_: list[str]) -> int:
        logging.getLogger("trainer.training.loop").info("step 1")
        logging.getLogger("others").info("chatter")
        logging.getLogger("others").warning("careful")
        return 0

    assert command(main) == [
        "INFO configs: begins: run.py birds 'name=x y'",
        "INFO trainer.training.loop: step 1",
        "WARNING others: careful",
        "INFO configs: ends after 0 s: exit 0",
    ]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(InputError("x: found 1"), "exit 2"), (KeyError("bug"), "error: KeyError('bug')")],
)
def test_errors_end_a_log_and_the_next_command_goes_on_in_it(command, error, outcome) -> None:
    def main(_: list[str]) -> int:
        raise error

    first = command(main)
    assert first[-1].endswith(outcome)
    if isinstance(error, InputError):
        assert "error: x: found 1" in first[1]
    assert command(lambda _: 0)[: len(first)] == first


def test_a_function_called_outside_a_command_keeps_no_log(command, tmp_path) -> None:
    command(lambda _: 0)
    with pytest.raises(SystemExit):
        run(lambda _: sys.exit(3))
    (tmp_path / "out" / "log.txt").unlink()
    (tmp_path / "out").rmdir()
    keep_log(tmp_path / "out")
    assert not (tmp_path / "out").exists()
