import fcntl
import hashlib
import io
import json
import shutil
import tarfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from configs.errors import InputError
from trainer.boxed_data import sources
from trainer.boxed_data.download import discard, download
from trainer.boxed_data.get_command import TransferProgress
from trainer.boxed_data.sources import SOURCES, Archive, Source, find_source
from trainer.boxed_data.unpacking import is_archive
from trainer.datasets.__main__ import main
from trainer.datasets.cub import CubConfig

CONTENT = np.random.default_rng(7).bytes(300_000)


@dataclass
class Server:
    """Files by name, and how it behaves. drops: after how many bytes each of the next answers breaks off."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"one"'
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    content_type: str = "application/octet-stream"
    knows_ranges: bool = True
    heeds_if_range: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)  # of each request Range, If-Range

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", ""), request.headers.get("If-Range", "")
        self.asked.append(asked)
        content = self.files.get(request.path.lstrip("/"))
        status = self.statuses.pop(0) if self.statuses else 404 if content is None else 200
        if content is None or status != 200:
            request.send_error(status)
            return
        whole, begin = len(content), 0
        if asked[0] and self.knows_ranges and (asked[1] == self.etag or not self.heeds_if_range):
            begin = int(asked[0].removeprefix("bytes=").removesuffix("-"))
            status = 206 if begin < whole else 416
        if status == 416:
            request.send_error(416)
            return
        request.send_response(status)
        if self.etag:
            request.send_header("ETag", self.etag)
        if status == 206:
            request.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        request.send_header("Content-Type", self.content_type)
        request.send_header("Content-Length", str(whole - begin))
        request.end_headers()
        end = begin + self.drops.pop(0) if self.drops else whole
        request.wfile.write(content[begin:end])
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    behaviour = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            behaviour.answer(self)

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        behaviour.address = f"http://127.0.0.1:{listening.server_port}"
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield behaviour
        listening.shutdown()
        thread.join()


def tgz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def birds(shade: int = 9) -> bytes:
    """A CUB of one photo."""
    photo = io.BytesIO()
    Image.new("RGB", (40, 30), (shade, 200, 30)).save(photo, "PNG")
    tables = {
        "images.txt": "1 a/b.png\n",
        "bounding_boxes.txt": "1 2 3 10 11\n",
        "train_test_split.txt": "1 1\n",
    }
    members = {f"CUB_200_2011/{name}": text.encode() for name, text in tables.items()}
    return tgz({**members, "CUB_200_2011/images/a/b.png": photo.getvalue(), "attributes.txt": b"beside"})


def offer(server: Server, monkeypatch, content: bytes, checksum: str = "", **changes) -> Archive:
    """The server has this for ``get cub``, published with the right checksum where no other is given."""
    server.files["cub.tgz"] = content
    checksum = checksum or f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
    archive = Archive("cub.tgz", f"{server.address}/cub.tgz", checksum, "its page", below="CUB_200_2011")
    archive = replace(archive, leaves=("images.txt", "images"), **changes)
    monkeypatch.setitem(SOURCES, "cub", Source("cub", "cub", "http://page", (archive,), "for research"))
    return archive


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("CROP_FOUNDRY_HOME", str(tmp_path))
    return tmp_path


def fetched(server: Server, part: Path, **arguments) -> bytes:
    download(f"{server.address}/a", part, lambda *_: None, **{"waits_s": (0.0, 0.0), **arguments})
    return part.read_bytes()


def test_a_data_set_is_fetched_unpacked_and_readable(server, home, monkeypatch, capsys) -> None:
    offer(server, monkeypatch, content := birds())
    assert main(["get", "cub"]) == 0
    root = home / "data/cub"
    (image,) = CubConfig(root=Path("data/cub")).read("train", ["bird"], home)
    assert image.target.boxes.tolist() == [[2, 3, 12, 14]]
    assert {path.name for path in root.iterdir()} == {
        *("images.txt", "bounding_boxes.txt", "train_test_split.txt", "images", "attributes.txt", ".fetched")
    }
    receipt = json.loads((root / ".fetched/cub.tgz.json").read_text())
    assert (receipt["sha256"], receipt["etag"]) == (hashlib.sha256(content).hexdigest(), '"one"')
    said = capsys.readouterr()
    assert "checked by md5 of its page" in said.out
    assert f"python -m trainer.datasets check cub {root}" in said.out
    assert said.err == ""


def test_the_same_command_again_asks_for_nothing(server, home, monkeypatch, capsys) -> None:
    offer(server, monkeypatch, birds())
    assert main(["get", "cub"]) == 0
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    assert main(["get", "cub"]) == 0
    assert len(server.asked) == 1
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before
    assert "cub.tgz: there already" in capsys.readouterr().out


def test_a_connection_that_breaks_is_taken_up_where_it_was(server, tmp_path) -> None:
    server.files["a"], server.drops = CONTENT, [100_000, 50_000]
    assert fetched(server, tmp_path / "a.part") == CONTENT
    assert server.asked == [("", ""), ("bytes=100000-", '"one"'), ("bytes=150000-", '"one"')]


def test_an_interrupted_download_goes_on_with_the_same_command(server, tmp_path) -> None:
    server.files["a"], server.drops, part = CONTENT, [70_000, 0, 0], tmp_path / "a.part"
    with pytest.raises(
        InputError, match=r"the connection broke.* after 70\.0 kB: the same command again goes"
    ):
        fetched(server, part)
    assert part.read_bytes() == CONTENT[:70_000]
    assert fetched(server, part) == CONTENT
    assert server.asked[-1] == ("bytes=70000-", '"one"')


def test_a_busy_server_is_asked_again_once_something_came(server, tmp_path) -> None:
    server.files["a"], server.drops, server.statuses = CONTENT, [70_000], [200, 503]
    assert fetched(server, tmp_path / "a.part") == CONTENT
    assert len(server.asked) == 3


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_has_changed_on_the_server_begins_anew(heeds_if_range, server, tmp_path) -> None:
    server.files["a"], server.drops, part = CONTENT, [70_000], tmp_path / "a.part"
    with pytest.raises(InputError):
        fetched(server, part, waits_s=())
    server.files["a"], server.etag = CONTENT[::-1], '"two"'
    server.heeds_if_range = heeds_if_range
    assert fetched(server, part) == CONTENT[::-1]


def test_a_file_that_has_become_shorter_begins_anew(server, tmp_path) -> None:
    server.files["a"], server.drops, part = CONTENT, [70_000], tmp_path / "a.part"
    with pytest.raises(InputError):
        fetched(server, part, waits_s=())
    server.files["a"], server.heeds_if_range = CONTENT[:60_000], False
    assert fetched(server, part) == CONTENT[:60_000]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_certain_version_a_download_begins_anew(etag, server, tmp_path) -> None:
    server.files["a"], server.drops, server.etag = CONTENT, [70_000], etag
    assert fetched(server, tmp_path / "a.part") == CONTENT
    assert server.asked == [("", ""), ("", "")]


def test_a_server_without_ranges_sends_all_again(server, tmp_path) -> None:
    server.files["a"], server.drops, server.knows_ranges = CONTENT, [70_000], False
    assert fetched(server, tmp_path / "a.part") == CONTENT


def test_what_is_whole_is_not_asked_for_again(server, tmp_path) -> None:
    server.files["a"] = CONTENT
    assert fetched(server, tmp_path / "a.part") == fetched(server, tmp_path / "a.part")
    assert len(server.asked) == 1
    discard(tmp_path / "a.part")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"files": {}}, "found 404 Not Found, wanted the file"),
        ({"statuses": [503]}, "the server answered 503 Service Unavailable: wanted the file"),
        ({"content_type": "text/html; charset=utf-8"}, "found a web page, wanted the file"),
        ({"files": {"a": b"short"}}, "found 5 bytes, wanted 300,000: it is another file"),
    ],
)
def test_a_server_that_has_not_the_file_is_told_in_one_line(change, said, server, tmp_path) -> None:
    server.files["a"] = CONTENT
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(InputError, match=f"^{server.address}/a: {said}$"):
        fetched(server, tmp_path / "a.part", size=300_000)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_before_the_download(server, tmp_path, monkeypatch) -> None:
    server.files["a"] = CONTENT
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 599_999))
    with pytest.raises(InputError, match=r"600\.0 kB free, wanted 600\.0 kB for a and what is in it"):
        fetched(server, tmp_path / "a.part")
    assert not (tmp_path / "a.part").exists()


def test_a_wrong_checksum_is_refused_and_removed(server, home, monkeypatch) -> None:
    offer(server, monkeypatch, birds(), "sha1:00ff")
    with pytest.raises(
        InputError, match=r"found sha1 [0-9a-f]{40}, wanted 00ff \(its page\) \(by hand: http"
    ):
        main(["get", "cub"])
    assert [path.name for path in (home / "data/cub").iterdir()] == [".fetched"]


def test_an_unpublished_checksum_is_pinned_by_the_first_download(server, home, monkeypatch, capsys) -> None:
    archive = offer(server, monkeypatch, birds())
    source = replace(SOURCES["cub"], archives=(replace(archive, checksum=""),))
    monkeypatch.setitem(SOURCES, "cub", source)
    assert main(["get", "cub"]) == 0
    assert "nothing published: the sha256 pins what came first" in capsys.readouterr().out
    shutil.rmtree(home / "data/cub/images")
    server.files["cub.tgz"] = birds(shade=10)
    with pytest.raises(InputError, match=r"wanted \w{64} \(pinned in .+cub.tgz.json: remove it to take this"):
        main(["get", "cub"])


def test_a_lost_file_is_fetched_and_a_changed_one_stays(server, home, monkeypatch, capsys) -> None:
    offer(server, monkeypatch, birds())
    main(["get", "cub"])
    (home / "data/cub/images/a/b.png").unlink()
    (home / "data/cub/train_test_split.txt").write_text("1 0 and mine\n")
    assert main(["get", "cub"]) == 0
    assert (home / "data/cub/images/a/b.png").exists()
    assert (home / "data/cub/train_test_split.txt").read_text() == "1 0 and mine\n"
    assert "1 of its files have another size here, first train_test_split.txt" in capsys.readouterr().out
    assert len(server.asked) == 2


def test_an_unpacking_that_broke_off_is_finished_without_the_network(server, home, monkeypatch) -> None:
    offer(server, monkeypatch, birds())
    replaced = Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "replace", lambda path, to: replaced(path, to) if "png" not in path.name else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            main(["get", "cub"])
    assert not (home / "data/cub/images/a/b.png").exists()
    assert main(["get", "cub"]) == 0
    assert CubConfig(root=Path("data/cub")).read("train", ["bird"], home)
    assert len(server.asked) == 1
    assert not [path for path in home.rglob("*") if path.suffix in (".new", ".part")]


def test_what_was_unpacked_by_hand_is_left_as_it_is(server, home, monkeypatch, capsys) -> None:
    offer(server, monkeypatch, birds())
    (home / "data/cub/images").mkdir(parents=True)
    (home / "data/cub/images.txt").write_text("mine")
    assert main(["get", "cub"]) == 0
    assert not server.asked
    assert "left as it is, not checked" in capsys.readouterr().out


def test_an_archive_that_lies_there_is_checked_and_used_and_stays(server, home, monkeypatch) -> None:
    offer(server, monkeypatch, content := birds())
    (home / "data/cub").mkdir(parents=True)
    (home / "data/cub/cub.tgz").write_bytes(content)
    assert main(["get", "cub"]) == 0
    assert not server.asked
    assert (home / "data/cub/cub.tgz").read_bytes() == content


def test_a_mirror_is_asked_instead_and_checked_all_the_same(server, home, monkeypatch) -> None:
    offer(server, monkeypatch, content := birds(), address="http://127.0.0.1:9/cub.tgz")
    server.files["copies/cub.tgz"] = server.files.pop("cub.tgz")
    assert main(["get", "cub", "--mirror", f"{server.address}/copies/", "--keep"]) == 0
    assert (home / "data/cub/cub.tgz").read_bytes() == content


def test_a_bad_archive_leaves_no_receipt(server, home, monkeypatch) -> None:
    offer(server, monkeypatch, tgz({"CUB_200_2011/images.txt": b"1", "../planted": b"2"}))
    with pytest.raises(InputError, match=r"'\.\./planted': leads out of the folder"):
        main(["get", "cub"])
    assert not list(home.rglob("planted"))
    assert not (home / "data/cub/.fetched/cub.tgz.json").exists()


def test_another_archive_than_the_published_is_named(server, home, monkeypatch) -> None:
    offer(server, monkeypatch, tgz({"readme": b"1"}))
    with pytest.raises(
        InputError, match=r"unpacked without images\.txt, wanted cub\.tgz as it was published"
    ):
        main(["get", "cub"])


def test_two_at_once_are_refused(server, home, monkeypatch) -> None:
    offer(server, monkeypatch, birds())
    (home / "data/cub/.fetched").mkdir(parents=True)
    with (home / "data/cub/.fetched/lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process fetches into it"):
            main(["get", "cub"])


def test_what_nobody_offers_is_said_file_by_file(home, capsys) -> None:
    with pytest.raises(InputError, match="stanford_cars: lacks 4 files that no official place offers"):
        main(["get", "stanford_cars"])
    said = capsys.readouterr().out
    assert all(archive.name in said for archive in SOURCES["stanford_cars"].archives)
    assert f"Put these files into {home / 'data/stanford_cars'}" in said
    assert not (home / "data").exists()


def test_of_several_splits_only_what_one_needs_is_fetched(server, home, monkeypatch) -> None:
    archive = offer(server, monkeypatch, birds())
    parts = [
        replace(archive, name=name, splits=(name[:-4],), checksum="") for name in ("train.tgz", "val.tgz")
    ]
    source = replace(SOURCES["cub"], archives=tuple(parts), splits=("train", "val"))
    monkeypatch.setitem(SOURCES, "cub", source)
    assert main(["get", "cub", "--splits", "val"]) == 0
    assert {path.name for path in (home / "data/cub/.fetched").glob("*.json")} == {"val.tgz.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["yolo"], "a layout for data of your own"),
        (["brids"], "found the kind brids: wanted one of coco, cub"),
        (["cub", "--splits", "train"], "--splits: found train, wanted none: it comes whole"),
        (["coco", "--splits", "test"], "--splits: found test, wanted one of train, val"),
        (["voc", "--year", "2006"], "--year: found 2006, wanted one of 2007"),
        (["cub", "--year", "2007"], "with cub, wanted it with voc alone"),
        (["cub", "--mirror", "ftp://a"], "--mirror: found ftp://a, wanted http://"),
    ],
)
def test_a_mistaken_argument_is_named(arguments, said, home) -> None:
    with pytest.raises(InputError, match=said):
        main(["get", *arguments])
    assert not list(home.iterdir())


@pytest.mark.parametrize("kind", [*SOURCES, *(f"voc{year}" for year in range(2007, 2013))])
def test_the_facts_of_every_source_hold_together(kind: str) -> None:
    source = find_source("voc", kind[3:]) if kind.startswith("voc") else find_source(kind)
    lengths = {"md5": 32, "sha1": 40, "sha256": 64, "": 0}
    for archive in source.archives:
        algorithm, _, digest = archive.checksum.partition(":")
        assert len(digest) == lengths[algorithm] and set(digest) <= set("0123456789abcdef")
        assert bool(archive.told_by) == bool(digest)
        assert archive.address.startswith("http") != bool(source.gone)
        assert archive.address.endswith(f"/{archive.name}") or source.gone
        assert archive.leaves and (is_archive(archive.name) or archive.leaves == (archive.name,))
        assert {*archive.splits} <= {*source.splits}
    assert source.page and source.terms
    assert set(sources._OWN).isdisjoint(SOURCES)


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal() -> None:
    said, now = io.StringIO(), [0.0]
    shown = TransferProgress("a.zip", Console(file=said, width=200), lambda: now[0])
    for now[0], there in ((0, 10_000_000), (5, 20_000_000), (10, 30_000_000), (11, 31_000_000)):
        shown.report(there, 100_000_000)
    shown.say("a.zip: checking")
    assert said.getvalue() == "a.zip: 30.0 MB of 100.0 MB (30%), 2.0 MB/s\n"
