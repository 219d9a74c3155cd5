"""Object stores through fsspec: S3 (s3fs), GCS (gcsfs), memory. What fails for a moment is tried again."""

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem

from shards.errors import ShardError
from shards.local import plain_name
from shards.patience import Patience, answer_of, causes_of, is_of_a_driver, is_transient

_S3 = ("s3", "s3a")
_GCS = ("gs", "gcs")
_STALE_S = 24 * 3600.0
_SLOWEST_BYTES_S = 1e6  # what a connection must carry a second, beyond `Patience.try_s`
_CONNECT_S = 10.0
_PART_BYTES = 16 << 20  # an object of two parts and more goes up in parts; S3 wants 5 MiB or more
_PART_STEP = 256 << 10  # GCS wants a multiple
_MOST_PARTS = 10_000  # S3
_LONGEST_WAIT_S = 20.0
_REQUEST_TRIES = 3  # by botocore, of one request (a part of a large upload, a page of a listing)
_TOKEN = "token"

# Never let go of: a forked child that dropped its copy would close the connections' places in the event queue
# (epoll) that it shares with its parent, which would then wait in vain for answers.
_opened: dict[int, Any] = {}


class _Missing(ShardError):
    """There is no such object."""


class _Present(ShardError):
    """There is such an object already."""


@dataclass(frozen=True, slots=True)
class RemoteStore:
    """A prefix in an object store; one put is one whole object. fsspec connects anew in each process."""

    location: str
    patience: Patience = field(default_factory=Patience.from_environment)

    def check(self) -> None:
        """Raises ShardError when fsspec cannot drive this URL."""
        try:
            self._file_system()
        except ImportError as error:
            extra = "s3" if self._is_s3 else "gcs" if self._protocol in _GCS else None
            hint = f": pip install 'crop-foundry[{extra}]'" if extra else ""
            raise ShardError(f"{self.location}: cannot be opened: {error}{hint}") from error
        except ValueError as error:
            known = "wanted a folder, s3://, gs:// or another of fsspec's"
            raise ShardError(f"{self.location}: cannot be opened: {error}: {known}") from error

    def names(self) -> list[str]:
        return list(self.sizes())

    def sizes(self) -> dict[str, int]:
        _, prefix = self._file_system()
        folder = f"{prefix.strip('/')}/"
        try:
            rows = self._ask(self.location, "ls", prefix, detail=True)
        except _Missing:
            return {}
        files = ((row["name"].lstrip("/"), int(row["size"])) for row in rows if row["type"] == "file")
        inside = ((name.removeprefix(folder), size) for name, size in files if name.startswith(folder))
        return dict(sorted((name, size) for name, size in inside if name))  # "" marks the folder itself

    def exists(self, name: str) -> bool:
        try:
            return bool(self._info(name)["type"] == "file")
        except _Missing:
            return False

    def size(self, name: str) -> int:
        return int(self._info(name)["size"])

    def modified(self, name: str) -> float:
        info = self._info(name)
        when: datetime = info.get("LastModified") or info.get("mtime") or info["created"]
        return when.timestamp()

    def write(self, name: str, data: bytes) -> None:
        self._put(name, data)

    def create(self, name: str, data: bytes) -> bool:
        # After a lost answer the next try finds our own object there: its mark tells it from another's.
        token = secrets.token_hex(16)
        try:
            self._put(name, data, mode="create", **self._mark(token))
        except _Present:
            return self._is_marked(name, token)
        return True

    def read(self, name: str) -> bytes:
        one_get = {"max_concurrency": 1} if self._is_s3 else {}
        return bytes(self._ask(self._place(name), "cat_file", self._path(name), **one_get))

    def view(self, name: str) -> memoryview:
        return memoryview(self.read(name))

    def remove(self, name: str, *, missing_ok: bool = False) -> None:
        if not missing_ok:
            self._info(name)  # S3 removes what is not there without a word
        with suppress(_Missing):
            self._ask(self._place(name), "rm_file", self._path(name))

    def remove_stale_temporaries(self, *, alone: bool = False) -> list[str]:
        if not self._is_s3:
            return []  # GCS forgets an unfinished upload by itself, memory has none
        bucket, prefix = self._bucket_and_prefix()
        removed: list[str] = []
        for upload in list(self._uploads(bucket, prefix)):
            name = upload["Key"].removeprefix(prefix)
            age_s = (datetime.now(UTC) - upload["Initiated"]).total_seconds()
            if "/" not in name and (alone or age_s > _STALE_S):
                key = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                with suppress(_Missing):  # ended meanwhile
                    self._ask(self._place(name), "call_s3", "abort_multipart_upload", **key)
                    removed.append(name)
        return sorted(removed)

    @property
    def _is_s3(self) -> bool:
        return self._protocol in _S3

    @property
    def _protocol(self) -> str:
        return self.location.partition("://")[0]

    def _file_system(self) -> tuple[Any, str]:
        """fsspec keeps one connection in each process, so asking each time is cheap and survives a fork."""
        options = _s3_options(self.patience) if self._is_s3 else {}
        file_system, path = fsspec.url_to_fs(self.location, use_listings_cache=False, **options)
        if self._is_s3:
            file_system.retries = 1  # botocore retries below it and `_ask` above: three would multiply
        _opened.setdefault(id(file_system), file_system)
        return file_system, str(path)

    def _path(self, name: str) -> str:
        return f"{self._file_system()[1].rstrip('/')}/{plain_name(name)}"

    def _place(self, name: str) -> str:
        return f"{self.location}/{name}"

    def _info(self, name: str) -> dict[str, Any]:
        info: dict[str, Any] = self._ask(self._place(name), "info", self._path(name))
        return info

    def _put(self, name: str, data: bytes, **options: Any) -> None:
        place = f"{self._place(name)}: not written"
        if self._protocol in (*_S3, *_GCS):
            options["chunksize"] = max(_PART_BYTES, -(-len(data) // _MOST_PARTS // _PART_STEP) * _PART_STEP)
        try:
            self._ask(place, "pipe_file", self._path(name), data, size=len(data), **options)
        except _Missing as error:  # what GCS says of the bucket
            raise ShardError(f"{place}: no such bucket") from error

    def _mark(self, token: str) -> dict[str, Any]:
        """The driver's own word for metadata."""
        if self._is_s3:
            return {"Metadata": {_TOKEN: token}}
        if self._protocol in _GCS:
            return {"metadata": {_TOKEN: token}}
        if self._protocol == "memory":
            return {}
        raise ShardError(f"{self.location}: cannot create an object only once here, wanted s3:// or gs://")

    def _is_marked(self, name: str, token: str) -> bool:
        if self._protocol == "memory":
            return False
        with suppress(_Missing, KeyError):
            return bool(self._ask(self._place(name), "getxattr", self._path(name), _TOKEN) == token)
        return False

    def _bucket_and_prefix(self) -> tuple[str, str]:
        file_system, path = self._file_system()
        bucket, key, _ = file_system.split_path(f"{path}/any")
        return bucket, key.removesuffix("any")

    def _uploads(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        """Unfinished multipart uploads below a prefix, page after page."""
        start: dict[str, str] = {}
        while True:
            place = f"{self.location}: unfinished uploads"
            query: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, **start}
            page = self._ask(place, "call_s3", "list_multipart_uploads", **query)
            yield from page.get("Uploads", [])
            if not page.get("IsTruncated"):
                return
            start = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _ask(self, place: str, method: str, *args: Any, size: int = 0, **options: Any) -> Any:
        """The driver's answer. What fails for a moment is asked again, as long as the patience lasts.

        size: bytes to carry, which lengthen a try. Raises ShardError, of it _Missing and _Present.
        """
        tries, began = 0, time.monotonic()
        while True:
            file_system, _ = self._file_system()
            limit_s = self.patience.try_s + size / _SLOWEST_BYTES_S
            limit = {"timeout": limit_s} if isinstance(file_system, AsyncFileSystem) else {}
            try:
                return getattr(file_system, method)(*args, **limit, **options)
            except Exception as error:
                if not is_of_a_driver(error):
                    raise
                if not is_transient(error, method):
                    raise _refusal(place, error) from error
                tries += 1
                if tries == self.patience.tries:
                    took = f"tried {tries} times in {time.monotonic() - began:.0f} s"
                    raise ShardError(f"{place}: {_reason(error)} ({took})") from error
                time.sleep(self._pause_s(tries))

    def _pause_s(self, tries: int) -> float:
        """Up to half of it is drawn, so that a cluster's workers do not all come back at once."""
        longest = min(_LONGEST_WAIT_S, self.patience.wait_s * 2.0 ** (tries - 1))
        return longest * random.SystemRandom().uniform(0.5, 1.0)


def _s3_options(patience: Patience) -> dict[str, Any]:
    """s3fs's arguments: our time limits where the user's fsspec configuration has none."""
    ours = {
        "connect_timeout": min(_CONNECT_S, patience.silence_s),
        "read_timeout": patience.silence_s,
        "retries": {"mode": "standard", "total_max_attempts": _REQUEST_TRIES},
    }
    theirs = (fsspec.config.conf.get(protocol, {}).get("config_kwargs", {}) for protocol in _S3)
    for configured in theirs:
        ours.update(configured)
    return {"config_kwargs": ours}


def _refusal(place: str, error: Exception) -> ShardError:
    answers = [answer_of(cause) for cause in causes_of(error)]
    if any(code == "NoSuchBucket" for _, code in answers):
        return ShardError(f"{place}: no such bucket")
    if isinstance(error, FileExistsError) or any(status == 412 for status, _ in answers):
        return _Present(f"{place}: exists already")
    if isinstance(error, FileNotFoundError):
        return _Missing(f"{place}: not found")
    return ShardError(f"{place}: {_reason(error)}")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError) and not text:
        return "no answer"
    return text or type(error).__name__
