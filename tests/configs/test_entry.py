import errno
import subprocess
import sys

import pytest

from configs.entry import Parser, find_version, run
from configs.errors import InputError


class OtherError(Exception):
    pass


@pytest.mark.parametrize("error", [InputError("x: found 1, wanted 2"), OtherError("x: found 1, wanted 2")])
def test_a_users_mistake_is_one_line_and_exit_2(error: Exception, capsys, monkeypatch) -> None:
    def main(_: list[str]) -> int:
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main, OtherError)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: x: found 1, wanted 2\n"


def test_a_full_disk_is_one_line_and_exit_2(capsys) -> None:
    def main(_: list[str]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "crops-000001.tar")

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 2
    assert "crops-000001.tar: No space left on device" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback() -> None:
    def main(_: list[str]) -> int:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        run(main)


def test_success_exits_0() -> None:
    with pytest.raises(SystemExit) as caught:
        run(lambda _: None)
    assert caught.value.code == 0


def test_a_reader_that_leaves_early_ends_the_program_quietly() -> None:
    program = "from configs.entry import run\nrun(lambda _: [print(n) for n in range(100000)] and 0)"
    command = f"{sys.executable} -c '{program}' | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


def test_with_v_the_line_follows_its_origin(capsys, monkeypatch) -> None:
    def main(_: list[str]) -> int:
        raise InputError("x: found 1, wanted 2")

    monkeypatch.setattr(sys, "argv", ["command", "-v"])
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "in main" in told
    assert told.endswith("error: x: found 1, wanted 2\n")


def test_every_command_says_its_version_and_shows_examples(capsys) -> None:
    parser = Parser(
        "factory.build", "Build.", "examples:\n  python -m factory.build --class birds", "copy SET"
    )
    for flag, said in (("--version", f"crop-foundry {find_version()}\n"), ("--help", "--class birds\n")):
        with pytest.raises(SystemExit) as caught:
            parser.parse_args([flag])
        assert caught.value.code == 0
        assert capsys.readouterr().out.endswith(said)
    assert parser.format_usage() == "usage: python -m factory.build copy SET\n"
