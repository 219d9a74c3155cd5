"""What users get wrong, and the one line that answers it: the table is mistakes.txt, beside this file.

Each command runs through its real ``main`` by the rules of `configs.entry.run`: exit code 2, exactly one line
on stderr that starts with ``error: ``, no traceback; what lay in the folder before lies there unchanged.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import cv2
import pytest
import torch

import shards.local
from configs.embedded import EMBEDDED_WEIGHTS
from configs.entry import run
from factory.maker import ShardMaker
from shards.errors import ShardError
from shards.reader import ShardSet
from tests.mistakes_world import make_world, picture

_ROOT = Path(__file__).parents[1]
_LEAST = 80  # mistakes in the table
_BUILD = "factory.build --ray off --class class.yaml --out new"


@dataclass
class Mistake:
    """A block of the table."""

    name: str
    command: str = ""
    message: str = ""
    leaves: list[str] = field(default_factory=list)


def read_table() -> list[Mistake]:
    """The blocks of mistakes.txt; its first paragraph says how they are written."""
    mistakes: list[Mistake] = []
    blocks = (Path(__file__).parent / "mistakes.txt").read_text().split("\n\n")[1:]
    for block in blocks:
        lines = [line for line in block.splitlines() if line and not line.startswith("== ")]
        if lines:
            says = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            command = [line[2:] for line in lines if line.startswith("$ ")]
            leaves = [line[2:] for line in lines if line.startswith("+ ")]
            mistakes.append(Mistake(lines[0], *command, *says, leaves))
    return mistakes


def pattern_of(message: str, here: Path) -> str:
    """The message as a regular expression."""
    pattern = re.escape(message)
    holes = {"HASH": "[0-9a-f]{64}", "BYTES": "[0-9]+", "KINDS": "[a-z_, ]+"}
    holes |= {"HERE": re.escape(str(here)), "EMBEDDED": re.escape(str(EMBEDDED_WEIGHTS))}
    for name, hole in holes.items():
        pattern = pattern.replace(name, hole)
    return pattern


@pytest.fixture(scope="module")
def made_world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mistakes") / "world"
    make_world(root)
    return root


@pytest.fixture
def world(made_world: Path, monkeypatch) -> Iterator[Path]:
    """The folder as working directory; what a test leaves in it is taken away again."""
    monkeypatch.chdir(made_world)
    monkeypatch.delenv("CROP_FOUNDRY_HOME", raising=False)
    there = content_of(made_world)
    yield made_world
    for name in content_of(made_world).keys() - there.keys():
        (made_world / name).unlink()
    for left in ("new", "data", "runs"):
        shutil.rmtree(made_world / left, ignore_errors=True)


@pytest.fixture
def tell(monkeypatch, capsys) -> Callable[[str], tuple[int, str]]:
    """Run a command as ``python -m`` would: its exit code and what it says on stderr."""

    def run_command(command: str) -> tuple[int, str]:
        name, *arguments = shlex.split(command)
        module = import_module(f"{name}.__main__" if name == "trainer.datasets" else name)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capsys.readouterr()
        if name == "shards.inspect":  # it imports nothing of ours, so it has these rules itself
            code = module.main(arguments)
        else:
            with pytest.raises(SystemExit) as caught:
                run(module.main, ShardError)
            code = caught.value.code
        return code, capsys.readouterr().err

    return run_command


def content_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_table_is_long_and_says_nothing_twice() -> None:
    table = read_table()
    assert len(table) >= _LEAST
    assert (
        len({mistake.name for mistake in table}) == len({mistake.command for mistake in table}) == len(table)
    )


@pytest.mark.parametrize("mistake", read_table(), ids=lambda mistake: mistake.name)
def test_a_mistake_is_answered_with_one_line_and_harms_nothing(mistake: Mistake, world, tell) -> None:
    if "GPU" in mistake.message and torch.cuda.is_available():
        pytest.skip("this machine has what the user's lacks")
    before = content_of(world)
    code, said = tell(mistake.command)
    assert re.fullmatch(f"error: {pattern_of(mistake.message, world)}\n", said), said
    assert code == 2
    after = content_of(world)
    assert {name: after.get(name) for name in before} == before
    assert sorted(after.keys() - before.keys()) == mistake.leaves


@pytest.mark.parametrize(
    ("number", "reason"),
    [(28, "No space left on device"), (30, "Read-only file system"), (13, "Permission denied")],
)
def test_a_disk_that_refuses_is_said_with_the_file(number, reason, world, tell, monkeypatch) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(number, reason, str(path))

    monkeypatch.setattr(shards.local, "_write_and_sync", refuse)
    assert tell(_BUILD) == (2, f"error: new/lease.json: not written: {reason}\n")
    assert content_of(world / "new") == {}


def test_a_disk_full_amid_a_weight_file_leaves_the_older_one(world, tell, monkeypatch) -> None:
    source = EMBEDDED_WEIGHTS / "birds-masks.safetensors"
    older = world / "new" / "masks.safetensors"
    older.parent.mkdir()
    older.write_bytes(b"older")

    def refuse(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    code, said = tell(f"factory.convert {source} --to {older}")
    assert (code, said) == (2, "error: output: No space left on device; what is finished is kept\n")
    assert content_of(older.parent) == {"masks.safetensors": b"older"}


def test_a_training_that_found_the_disk_full_begins_when_there_is_room(world, tell, monkeypatch) -> None:
    write = Path.write_bytes

    def refuse(path: Path, data: bytes) -> int:
        write(path, data[:10])
        raise OSError(28, "No space left on device")

    command = "factory.train_redo --class class.yaml --out new loop.steps=1 warm_start=none"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", refuse)
        assert tell(command)[0] == 2
    assert content_of(world / "new") == {}
    assert tell(command)[0] == 0


def test_after_ctrl_c_another_recipe_is_refused_and_the_same_goes_on(world, tell, monkeypatch) -> None:
    make = ShardMaker.make

    def stop_at_the_second(self, task):
        if task.index == 1:
            raise KeyboardInterrupt
        return make(self, task)

    command = f"{_BUILD} shard_size=2"
    with monkeypatch.context() as patched:
        patched.setattr(ShardMaker, "make", stop_at_the_second)
        code, said = tell(command)
    assert (code, said) == (130, "interrupted: run the same command again to go on\n")
    first = (world / "new" / "crops-000000.tar").read_bytes()
    code, said = tell(f"{command} seed=1")
    other = "error: new: made by another recipe (settings.seed is 0 there, 1 here): wanted another --out\n"
    assert (code, said) == (2, other)
    code, said = tell("trainer.run run.yaml --out run crops=[new]")
    unfinished = "the set is incomplete (1 shards so far): run the command that made it again to finish it"
    assert (code, said) == (2, f"error: new: {unfinished}\n")
    assert tell(command)[0] == 0
    assert len(ShardSet.open(world / "new")) == 6
    assert (world / "new" / "crops-000000.tar").read_bytes() == first


def test_where_nothing_was_kept_a_looser_recipe_takes_the_place_and_the_same_fails_again(world, tell) -> None:
    strict = f"{_BUILD} segmenter.kind=alpha"
    said = tell(strict)
    assert said[0] == 2
    assert tell(strict) == (2, said[1].replace(f"{world}/", ""))
    assert tell(_BUILD)[0] == 0
    assert len(ShardSet.open(world / "new")) == 6


def test_an_unreadable_photo_among_good_ones_is_skipped_and_named(world, tell) -> None:
    folder = world / "new photos"
    shutil.copytree(world / "photos", folder)
    (folder / "9.png").write_bytes((world / "photos" / "0=.png").read_bytes()[:200])
    assert tell(f"{_BUILD} 'source.root=new photos'")[0] == 0
    assert "9.png" in (world / "new" / "unreadable.txt").read_text()
    assert len(ShardSet.open(world / "new")) == 6
    shutil.rmtree(folder)


def test_spaces_equals_signs_and_bytes_that_are_no_text_are_names_like_others(world, tell) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    cv2.imwrite(str(world / "odd names" / "2.png"), picture(2))
    (world / "odd names" / "2.png").rename(world / "odd names" / odd)
    assert tell("factory.build --ray off --class class.yaml --out 'new/a =b' 'source.root=odd names'")[0] == 0
    assert len(ShardSet.open(world / "new" / "a =b")) == 3


def test_a_home_that_points_to_nothing_is_named(world, tell, monkeypatch) -> None:
    monkeypatch.setenv("CROP_FOUNDRY_HOME", "/nowhere")
    maker = "python -m factory.build --class birds makes it"
    said = f"error: crops: /nowhere/data/crops/birds is not there: {maker}\n"
    assert tell("trainer.run birds") == (2, said)


def test_a_gpu_for_workers_that_this_machine_lacks_is_said_at_once(world, tell) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    command = "factory.build --class class.yaml --out new --ray local --gpus-per-worker 1"
    code, said = tell(command)
    wanted = "error: --gpus-per-worker: found 1, Ray sees 0 GPUs here: leave it unset"
    assert (code, said.splitlines()[-1]) == (2, wanted)


@pytest.mark.parametrize("wrong", ["--corps 5", "--crops five"])
def test_an_unknown_or_ill_typed_option_is_named_after_the_usage(wrong, world, tell) -> None:
    code, said = tell(f"factory.build --class birds {wrong}")
    assert code == 2
    assert wrong.split()[0] in said.splitlines()[-1]
    assert "error: " in said.splitlines()[-1]


def entry_points() -> list[str]:
    """Every module that a user runs with ``python -m``, but for those whose parser another module makes."""
    files = [
        path
        for package in ("factory", "shards", "trainer", "configs")
        for path in (_ROOT / package).rglob("*.py")
    ]
    texts = {path: path.read_text() for path in files}
    found = [
        path for path, text in texts.items() if '\nif __name__ == "__main__":' in text and "Parser(" in text
    ]
    return sorted(".".join(path.relative_to(_ROOT).with_suffix("").parts) for path in found)


@pytest.mark.parametrize("name", entry_points())
def test_every_command_has_help_with_examples(name, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        import_module(name).main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert said.count(f"python -m {name.removesuffix('.__main__')}") >= 2  # the usage, and an example


def test_a_reader_that_leaves_early_ends_inspect_quietly(world) -> None:
    command = f"{sys.executable} -m shards.inspect crops --json | true; exit ${{PIPESTATUS[0]}}"
    paths = os.environ | {"PYTHONPATH": str(_ROOT)}
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, env=paths)
    assert (done.returncode, done.stderr) == (141, "")


def test_every_message_in_the_docs_is_one_that_the_table_sees() -> None:
    messages = [mistake.message for mistake in read_table()]
    shown = re.findall(r"^    error: (.+)$", (_ROOT / "docs" / "mistakes.md").read_text(), re.MULTILINE)
    assert len(shown) >= 20
    for message in shown:
        assert message in messages
