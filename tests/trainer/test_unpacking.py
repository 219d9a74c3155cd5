import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from configs.errors import InputError
from trainer.boxed_data import unpacking
from trainer.boxed_data.unpacking import unpack


def tar_of(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode, info.uid = kind, len(content), 0o4777, 4321
            info.linkname = "../../planted" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info, io.BytesIO(content))
    return path


def zip_of(path: Path, members: dict[str, bytes], mode: int = stat.S_IFREG) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = (mode | 0o777) << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def archive_of(path: Path, members: dict[str, bytes]) -> Path:
    return (zip_of if path.suffix == ".zip" else tar_of)(path, members)


@pytest.mark.parametrize("name", ["a.tgz", "a.tar", "a.zip"])
def test_the_content_of_a_folder_comes_directly_to_its_place(name: str, tmp_path: Path) -> None:
    path = archive_of(tmp_path / name, {"./top/a/b.txt": b"12", "top/c.txt": b"", "beside.txt": b"3"})
    assert unpack(path, name, tmp_path / "to", "top") == {"a/b.txt": 2, "c.txt": 0, "beside.txt": 1}
    found = [each for each in (tmp_path / "to").rglob("*") if each.is_file()]
    assert {each.relative_to(tmp_path / "to").as_posix() for each in found} == {
        "a/b.txt",
        "c.txt",
        "beside.txt",
    }
    assert not (tmp_path / "to/a/b.txt").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR | stat.S_IWOTH)


@pytest.mark.parametrize("name", ["a.tgz", "a.zip"])
@pytest.mark.parametrize(
    "member", ["../planted", "/tmp/w-planted", "a/../../planted", "..\\planted", "C:planted", "a\nb"]
)
def test_a_member_that_leads_out_is_refused(name: str, member: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = archive_of(tmp_path / "in" / name, {member: b"x"})
    with pytest.raises(InputError, match="leads out of the folder, wanted files inside it"):
        unpack(path, name, tmp_path / "in/to")
    assert not list(tmp_path.rglob("*planted*"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_a_link_or_device_in_a_tar_is_refused(kind: bytes, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"link": b""}, kind)
    with pytest.raises(InputError, match="link: a link or device, wanted files and folders"):
        unpack(path, path.name, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"link": b"/etc/passwd"}, stat.S_IFLNK)
    with pytest.raises(InputError, match="link: a link or device"):
        unpack(path, path.name, tmp_path / "to")


def test_a_member_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"top/a": b"1", "a": b"2"})
    with pytest.raises(InputError, match="a: found twice"):
        unpack(path, path.name, tmp_path / "to", "top")


@pytest.mark.parametrize("name", ["a.tgz", "a.zip"])
def test_an_archive_that_unpacks_to_far_more_than_it_is_stops(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(unpacking, "_ALWAYS_ALLOWED", 1000)
    path = archive_of(tmp_path / name, {"zeros": bytes(3_000_000)})
    with pytest.raises(InputError, match="unpacks to 30 times its size"):
        unpack(path, name, tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("name", ["a.tgz", "a.tar", "a.zip"])
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda _: b"<html>" * 200], ids=["cut", "web page"]
)
def test_a_damaged_archive_is_named(name: str, damage, tmp_path: Path) -> None:
    path = archive_of(tmp_path / name, {"a": bytes(range(256)) * 50, "b": bytes(range(256))})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{name}: [^\n]+, wanted a whole archive"):
        unpack(path, name, tmp_path / "to")


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"a": b"new", "b": b"new"})
    (tmp_path / "a").write_bytes(b"older")
    (tmp_path / ".b.new").write_bytes(b"what an unpacking that was killed has left")
    assert unpack(path, path.name, tmp_path) == {"a": 3, "b": 3}
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir() if each != path} == {
        "a": b"older",
        "b": b"new",
    }


def test_a_member_that_is_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a": bytes(5000)})
    path.write_bytes(path.read_bytes().replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"a\.zip: "):
        unpack(path, path.name, tmp_path / "to")
    assert not (tmp_path / "to/a").exists()
