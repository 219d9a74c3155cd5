import errno
import subprocess
import sys

import pytest

from configs.entry import run
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
