"""Bring a published data set into its folder: fetch, check, unpack, and keep a receipt of each file.

Under the data set's root, ``.fetched`` holds for each of its files ``NAME.json``, the receipt (where from,
what the server said, sha256, who vouches for it), and ``NAME.files``, a line ``bytes path`` for all that it
unpacked to. The receipt is written last: without one an archive is unpacked again, where nothing is yet.
"""

import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.errors import InputError
from configs.text_file import write_text
from trainer.boxed_data.download import Report, Version, digests, discard, download
from trainer.boxed_data.sources import Archive, Source
from trainer.boxed_data.unpacking import is_archive, unpack

_FOLDER = ".fetched"
_PINNED = "nothing published: the sha256 pins what came first"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came. address: empty for a file that was put there by hand. checked: against what."""

    address: str
    size: int
    sha256: str
    checked: str
    etag: str = ""
    modified: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """How far an archive of a data set is. missing, changed: of the files that it unpacked to."""

    receipt: Receipt | None = None
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    is_foreign: bool = False  # it is unpacked, and not by us

    @property
    def is_complete(self) -> bool:
        return self.is_foreign or (self.receipt is not None and not self.missing)


def wanted_archives(source: Source, splits: Sequence[str]) -> list[Archive]:
    """Those that the splits need; all for none. Raises InputError for a split that it does not know."""
    for split in splits:
        if split not in source.splits:
            known = f"one of {', '.join(source.splits)}" if source.splits else "none: it comes whole"
            raise InputError(f"--splits: found {split}, wanted {known}")
    if not splits:
        return list(source.archives)
    return [each for each in source.archives if not each.splits or not {*each.splits}.isdisjoint(splits)]


def state_of(archive: Archive, root: Path) -> State:
    """What is there of an archive, told by its receipt; by what it leaves, where it was unpacked by hand."""
    receipt = read_receipt(archive, root)
    if receipt is None:
        begun = (root / archive.name, root / f"{archive.name}.part")
        has_left = bool(archive.leaves) and all((root / name).exists() for name in archive.leaves)
        return State(is_foreign=has_left and not any(path.exists() for path in begun))
    listed = _read_files(archive, root)
    sizes = {path: _size(root / path) for path in listed}
    missing = tuple(path for path, size in sizes.items() if size is None)
    changed = tuple(path for path, size in sizes.items() if size not in (None, listed[path]))
    return State(receipt, missing, changed)


def fetch(
    archive: Archive,
    root: Path,
    report: Report,
    *,
    mirror: str = "",
    say: Callable[[str], None] = lambda _: None,
    keep: bool = False,
) -> Receipt:
    """Bring one archive into its place: the one that lies in root by its name, else from its address.

    mirror: a folder's URL to take it from instead. keep: the archive, once it is unpacked.
    Raises InputError when nothing offers it, when it is not what was published, or not safe to unpack.
    """
    by_hand, part = root / archive.name, root / f"{archive.name}.part"
    address = f"{mirror.rstrip('/')}/{archive.name}" if mirror else archive.address
    path, version = by_hand, Version("")
    if not by_hand.exists():
        if not address:
            raise InputError(f"{by_hand}: no such file, and no official place has it: wanted by hand")
        path, version = part, download(address, part, report, size=archive.size)
    say(f"{archive.name}: checking")
    receipt = _check(archive, path, version, root)
    files = _unpack(archive, path, root, say)
    _write_receipt(archive, root, receipt, files)
    if path == part and keep:
        part.replace(by_hand)
    if path == part:
        discard(part)
    return receipt


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Alone in a data set's folder. Raises InputError when another process fetches into it."""
    folder = root / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{root}: another process fetches into it, wanted one at a time") from None
        yield


def read_receipt(archive: Archive, root: Path) -> Receipt | None:
    """Raises InputError when there is one that is not ours."""
    path = _receipt(archive, root)
    if not path.exists():
        return None
    try:
        return Receipt(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}, wanted a receipt (remove it to fetch anew)") from error


def _check(archive: Archive, path: Path, version: Version, root: Path) -> Receipt:
    """Hash it, and compare with what is published, else with what came the first time."""
    algorithm, _, published = archive.checksum.partition(":")
    earlier, algorithm = read_receipt(archive, root), algorithm or "sha256"
    found = digests(path, *{"sha256", algorithm})
    wanted, by = published, archive.told_by
    if earlier and not published:
        wanted, by = earlier.sha256, f"pinned in {_receipt(archive, root)}: remove it to take this one"
    if wanted and found[algorithm] != wanted:
        if version.address:
            discard(path)
        raise InputError(
            f"{version.address or path}: found {algorithm} {found[algorithm]}, wanted {wanted} ({by})"
        )
    checked = f"{algorithm} of {archive.told_by}" if published else _PINNED
    size = path.stat().st_size
    return Receipt(version.address, size, found["sha256"], checked, version.etag, version.modified)


def _unpack(archive: Archive, path: Path, root: Path, say: Callable[[str], None]) -> dict[str, int]:
    """The sizes of its files, by path under root."""
    if not is_archive(archive.name):
        return {archive.name: path.stat().st_size}
    say(f"{archive.name}: unpacking")
    sizes = unpack(path, archive.name, root / archive.into, archive.below)
    lost = [name for name in archive.leaves if not (root / name).exists()]
    if lost:
        raise InputError(f"{path}: unpacked without {lost[0]}, wanted {archive.name} as it was published")
    return {(Path(archive.into) / name).as_posix(): size for name, size in sizes.items()}


def _write_receipt(archive: Archive, root: Path, receipt: Receipt, files: dict[str, int]) -> None:
    lines = "".join(f"{size} {name}\n" for name, size in files.items())
    write_text(root / _FOLDER / f"{archive.name}.files", lines)
    write_text(_receipt(archive, root), f"{json.dumps(asdict(receipt), indent=1)}\n")


def _read_files(archive: Archive, root: Path) -> dict[str, int]:
    path = root / _FOLDER / f"{archive.name}.files"
    if read_receipt(archive, root) is None:
        return {}
    try:
        lines = (line.split(" ", 1) for line in path.read_text(encoding="utf-8").split("\n") if line)
        return {name: int(size) for size, name in lines}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}, wanted the list of files (remove {path.stem}.json)") from error


def _receipt(archive: Archive, root: Path) -> Path:
    return root / _FOLDER / f"{archive.name}.json"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
