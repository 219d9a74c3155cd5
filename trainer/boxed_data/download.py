"""Fetch a large file over HTTP: what broke off goes on, what has changed on the server begins anew.

The part that is there lies in ``NAME.part``, and beside it in ``NAME.part.json`` what the server said of the
file. A request for the rest carries that as ``If-Range`` (RFC 9110, 13.1.5), so bytes of two versions never
meet in one file.
"""

import hashlib
import http.client
import json
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.filesize import decimal

from configs.entry import find_version
from configs.errors import InputError

_CHUNK = 1 << 20
_SILENCE_S = 30.0
_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # before going on, once anything came; each new byte begins them anew
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_PARTIAL, _UNSATISFIABLE = 206, 416

Report = Callable[[int, int], None]  # bytes that are there, and of how many; 0 when unknown


class _BrokenError(Exception):
    """It may go on when asked again."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a server said of a file. size: bytes; 0 when it did not. etag, modified: empty when it did not."""

    address: str
    size: int = 0
    etag: str = ""
    modified: str = ""

    @property
    def validator(self) -> str:
        """What tells versions apart for certain: not a weak ETag."""
        return self.modified if self.etag.startswith("W/") else self.etag or self.modified


def download(
    address: str,
    part: Path,
    report: Report,
    *,
    size: int = 0,
    waits_s: tuple[float, ...] = _WAITS_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Version:
    """Bring ``part`` to its full length. size: bytes that are wanted; 0 when that is not known.

    A connection that breaks after anything came is taken up again, ``waits_s`` long; one that never stood is
    an error at once. Raises InputError: the server is not there, refuses, or has a file of another size; the
    disk has no room.
    """
    stood, waits, furthest = False, iter(waits_s), _length(part)
    while True:
        before = _length(part)
        try:
            return _go_on(address, part, report, size)
        except _BrokenError as error:
            if _length(part) > furthest:
                stood, waits, furthest = True, iter(waits_s), _length(part)
            stood |= _length(part) < before  # it begins anew
            wait = next(waits, None) if stood else None
            if wait is None:
                kept = f" after {decimal(_length(part))}" if _length(part) else ""
                hint = "the same command again goes on" if kept else "wanted the file"
                raise InputError(f"{address}: {error}{kept}: {hint}") from error
            sleep(wait)


def discard(part: Path) -> None:
    """Remove a partial file and what is known of it."""
    for path in (part, _sidecar(part)):
        path.unlink(missing_ok=True)


def digests(path: Path, *algorithms: str) -> dict[str, str]:
    """The hex digest of a file by each algorithm, read once."""
    found = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for one in found.values():
                one.update(chunk)
    return {name: one.hexdigest() for name, one in found.items()}


def _go_on(address: str, part: Path, report: Report, size: int) -> Version:
    """One request, for all or for the rest."""
    begun, there = _begun(part), _length(part)
    if begun is None or not begun.validator or begun.address != address:
        begun, there = None, 0
    if begun and there and there == begun.size:
        return begun
    with _answer(_request(address, there, begun), part) as answer:
        version, goes_on = _version(address, answer), answer.status == _PARTIAL
        if goes_on and not _continues(answer, version, there, begun):
            discard(part)
            raise _BrokenError("the answer is not the part that was asked for")
        _check(address, answer, version, size)
        there = there if goes_on else 0
        _check_room(part, version.size, there)
        _sidecar(part).write_text(json.dumps(asdict(version)))
        _copy(answer, part, there, version.size, report)
    if version.size and _length(part) != version.size:
        raise _BrokenError("the connection broke")
    return version


def _request(address: str, there: int, begun: Version | None) -> Request:
    headers = {
        "User-Agent": f"crop-foundry/{find_version().partition(' ')[0]}",
        "Accept-Encoding": "identity",
    }
    if begun and there:
        headers |= {"Range": f"bytes={there}-", "If-Range": begun.validator}
    return Request(address, headers=headers)


@contextmanager
def _answer(request: Request, part: Path) -> Iterator[Any]:
    """The open answer; what the network does wrong becomes one of the two kinds of error."""
    address = request.full_url
    try:
        answer = urlopen(request, timeout=_SILENCE_S)
    except HTTPError as error:
        if error.code == _UNSATISFIABLE:  # the file has become shorter than what is here
            discard(part)
        if error.code in _TRANSIENT or error.code == _UNSATISFIABLE:
            raise _BrokenError(f"the server answered {error.code} {error.reason}") from error
        raise InputError(f"{address}: found {error.code} {error.reason}, wanted the file") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(f"{address}: {reason.verify_message}, wanted a certificate in force") from error
        raise _BrokenError(f"cannot be reached ({reason})") from error
    with answer:
        yield answer


def _version(address: str, answer: Any) -> Version:
    """Of the whole file, also where the answer is a part of it."""
    if answer.status == _PARTIAL:
        size = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = answer.headers.get("Content-Length", "")
    etag, modified = (answer.headers.get(name, "") for name in ("ETag", "Last-Modified"))
    return Version(address, int(size) if size.isdecimal() else 0, etag, modified)


def _continues(answer: Any, version: Version, there: int, begun: Version | None) -> bool:
    """Whether a partial answer is the rest of what is here: servers may overlook If-Range."""
    begins = answer.headers.get("Content-Range", "").startswith(f"bytes {there}-")
    same = begun is not None and version.size == begun.size and version.etag in ("", begun.etag)
    return begins and same


def _check(address: str, answer: Any, version: Version, size: int) -> None:
    if answer.headers.get_content_type() == "text/html":
        raise InputError(f"{address}: found a web page, wanted the file")
    if size and version.size and version.size != size:
        raise InputError(f"{address}: found {version.size:,} bytes, wanted {size:,}: it is another file")


def _check_room(part: Path, size: int, there: int) -> None:
    """Raises InputError without room for the rest and for what it unpacks to: photos, so about as much."""
    wanted, free = 2 * size - there, shutil.disk_usage(part.parent).free
    if free < wanted:
        name = part.name.removesuffix(".part")
        raise InputError(
            f"{part.parent}: {decimal(free)} free, wanted {decimal(wanted)} for {name} and what is in it"
        )


def _copy(answer: Any, part: Path, there: int, size: int, report: Report) -> None:
    """Append to what is there, or begin. What has come is on disk when the connection breaks."""
    with part.open("ab" if there else "wb") as file:
        while True:
            try:
                chunk = answer.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenError(f"the connection broke ({error})") from error
            if not chunk:
                return
            file.write(chunk)
            there += len(chunk)
            report(there, size)


def _sidecar(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _begun(part: Path) -> Version | None:
    """What the server said when the part was begun; None where nobody knows it any more."""
    try:
        return Version(**json.loads(_sidecar(part).read_text()))
    except (OSError, ValueError, TypeError):
        return None
