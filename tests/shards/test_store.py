import errno
import multiprocessing
import os
import pickle
import socket
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shards.errors import ShardError
from shards.local import LocalStore
from shards.store import open_store


@pytest.fixture(params=["folder", "file URL", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    places = {
        "folder": f"{tmp_path}/s",
        "file URL": f"file://{tmp_path}/s",
        "memory": f"memory://{uuid.uuid4()}/s",
    }
    return places[request.param]


def test_objects_come_back(location: str) -> None:
    store = open_store(location)
    assert store.names() == []
    store.write("b.tar", b"second")
    store.write("a.tar", b"first")
    store.write("a.tar", b"newer")
    assert store.names() == ["a.tar", "b.tar"]
    assert store.exists("a.tar")
    assert not store.exists("c.tar")
    assert (store.size("b.tar"), store.read("a.tar"), bytes(store.view("a.tar"))) == (6, b"newer", b"newer")
    assert list(store.sizes().items()) == [("a.tar", 5), ("b.tar", 6)]
    assert abs(store.modified("a.tar") - time.time()) < 10
    store.remove("a.tar")
    store.remove("a.tar", missing_ok=True)
    assert store.names() == ["b.tar"]


def test_an_object_is_created_once(location: str) -> None:
    store = open_store(location)
    assert store.create("a", b"first")
    assert not store.create("a", b"first")
    assert not store.create("a", b"second")
    assert store.read("a") == b"first"
    store.remove("a")
    assert store.create("a", b"third")
    assert store.names() == ["a"]


def test_of_many_creators_one_wins(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda text: store.create("a", text.encode()), "abcdefgh"))
    assert sum(won) == 1
    assert store.read("a").decode() == "abcdefgh"[won.index(True)]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_object_is_created_once_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    test_an_object_is_created_once(str(tmp_path))


def test_a_link_whose_answer_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link_and_forget(old: Path, new: Path) -> None:
        real(old, new)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(os, "link", link_and_forget)
    assert open_store(tmp_path).create("a", b"mine")


def test_housekeeping_spares_what_other_threads_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    real = os.fsync
    removed: list[str] = []

    def clean_then_sync(descriptor: int) -> None:
        removed.extend(store.remove_stale_temporaries(alone=True))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", clean_then_sync)
    store.write("a", b"whole")
    assert removed == []
    assert store.read("a") == b"whole"


def test_an_empty_object_comes_back(location: str) -> None:
    store = open_store(location)
    store.write("empty", b"")
    assert bytes(store.view("empty")) == store.read("empty") == b""


def test_a_store_survives_pickling(location: str) -> None:
    store = open_store(location)
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


def test_opening_creates_nothing(tmp_path: Path) -> None:
    open_store(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("act", ["read", "view", "size", "remove"])
def test_a_missing_object_is_named(location: str, act: str) -> None:
    store = open_store(location)
    with pytest.raises(ShardError, match=r"/s/none: not found$"):
        getattr(store, act)("none")


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/etc/passwd", "a\\b", "a\0"])
def test_a_name_that_leaves_the_folder_is_refused(location: str, name: str) -> None:
    store = open_store(location)
    for act in (store.read, store.view, store.size, store.remove, lambda n: store.write(n, b"")):
        with pytest.raises(ShardError, match="not a plain file name"):
            act(name)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ShardError, match=r"^nowhere://a: cannot be opened: "):
        open_store("nowhere://a")


def out_of_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_out_of_disk_leaves_the_older_object_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = open_store(tmp_path)
    store.write("a", b"old")
    monkeypatch.setattr(os, call, out_of_disk)
    with pytest.raises(ShardError, match=r"/a: not written: No space left on device$"):
        store.write("a", b"new")
    with pytest.raises(ShardError, match=r"/b: not written: No space left on device$"):
        store.write("b", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert store.read("a") == b"old"


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_store(tmp_path).write("a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_write_in_small_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[int, memoryview], int] = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    store = open_store(tmp_path)
    store.write("a", b"0123456789")
    assert store.read("a") == b"0123456789"


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("no folder")
    with pytest.raises(ShardError, match=r"/s/a: not written: "):
        open_store(tmp_path / "s").write("a", b"")


def temporary(folder: Path, pid: int, host: str) -> Path:
    path = folder / f".crops-000000.tar.tmp-{pid}-{host}-0123abcd"
    path.write_bytes(b"half")
    return path


def test_temporaries_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path: Path) -> None:
    dead = multiprocessing.get_context("spawn").Process(target=int)
    dead.start()
    dead.join()
    assert dead.pid is not None
    host = socket.gethostname()
    left = [temporary(tmp_path, dead.pid, host), temporary(tmp_path, os.getpid(), host)]
    old = temporary(tmp_path, 1, "elsewhere-old")
    os.utime(old, (time.time() - 90_000,) * 2)
    kept = [temporary(tmp_path, os.getppid(), host), temporary(tmp_path, 1, "elsewhere")]
    other = tmp_path / ".gitignore"
    other.write_text("")
    store = LocalStore(tmp_path)
    assert store.names() == [".gitignore"]
    assert store.remove_stale_temporaries() == sorted(path.name for path in [*left, old])
    assert sorted(tmp_path.iterdir()) == sorted([*kept, other])
    assert store.remove_stale_temporaries(alone=True) == sorted(path.name for path in kept)
    assert LocalStore(tmp_path / "none").remove_stale_temporaries() == []
