"""How long to bear with a remote storage, and which of its errors may pass."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

from shards.errors import ShardError

_DRIVERS = {"aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs", "urllib3"}
_TRANSIENT_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
_TRANSIENT_CODES = {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"}
_TRANSIENT_TYPES = {  # by name, since the drivers are optional
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ResponseParserError",
    "Timeout",
    "TimeoutError",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to bear with a storage; each may be set as ``CROP_FOUNDRY_REMOTE_TRIES`` and so on."""

    tries: int = 8  # of an operation, each of up to 3 requests: about a minute where answers come at once
    wait_s: float = 0.5  # before the second try, then doubled, up to 20 s
    silence_s: float = 30.0  # without an answer to a request
    try_s: float = 100.0  # for one try of an operation, and a second more for each megabyte it carries

    @classmethod
    def from_environment(cls) -> Self:
        """Raises ShardError when a variable is not a number over 0."""
        found: dict[str, Any] = {}
        for item in fields(cls):
            variable = f"CROP_FOUNDRY_REMOTE_{item.name.upper()}"
            text = os.environ.get(variable)
            if text is None:
                continue
            try:
                found[item.name] = int(text) if item.name == "tries" else float(text)
            except ValueError:
                found[item.name] = 0
            if not 0 < found[item.name] < 1e9:
                raise ShardError(f"${variable}: found {text!r}, wanted a number over 0")
        return cls(**found)


def is_of_a_driver(error: Exception) -> bool:
    """Whether the storage or its driver says so; all else is a bug and keeps its traceback."""
    return isinstance(error, OSError | ValueError) or type(error).__module__.partition(".")[0] in _DRIVERS


def is_transient(error: Exception, method: str) -> bool:
    """Whether the driver's method may succeed later: the server is busy, broken, gone or silent.

    An upload in parts may also find itself ended, by a try whose answer was lost, or thrown away.
    """
    for cause in causes_of(error):
        if not _TRANSIENT_TYPES.isdisjoint(kind.__name__ for kind in type(cause).__mro__):
            return True
        status, code = answer_of(cause)
        if status or code:
            ended = code == "NoSuchUpload" and method == "pipe_file"
            return ended or status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES
    return False


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def answer_of(error: BaseException) -> tuple[int, str]:
    """HTTP status and S3's name of what the server answered; 0 and "" where the error is no answer."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's ClientError
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return int(status), str(response.get("Error", {}).get("Code", ""))
    status = getattr(error, "status", None) or getattr(error, "code", None)  # aiohttp's, gcsfs's
    return (int(status), "") if isinstance(status, int | str) and str(status).isdecimal() else (0, "")
