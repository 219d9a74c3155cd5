"""Writes one shard: a plain ustar file whose bytes are a function of its records alone.

Headers are packed by hand: fixed owner and whole-second times need no PAX header (a float time costs 3 kB a
sample and makes each run's files differ), and it is several times quicker than ``tarfile``.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future

from shards.codec import encode
from shards.errors import ShardError
from shards.manifest import ShardEntry
from shards.records import BackgroundRecord, CropRecord, Record
from shards.store import Store

BLOCK = 512
_NAME_BYTES = 100
_SIZE_LIMIT = 8**11  # eleven octal digits
_LOOK_AHEAD = 64  # records in the encoders' hands: more than a source makes in one batch


def write_shard(
    store: Store,
    name: str,
    records: Iterable[Record],
    *,
    dropped: Mapping[str, int] | None = None,
    seen: int | Callable[[], int] = 0,
    encoders: Executor | None = None,
) -> ShardEntry:
    """Packs a shard and commits it; the manifest is the caller's to write.

    Arguments and errors as in `pack_shard`, and ShardError when the store refuses; then nothing is written.
    """
    entry, packed = pack_shard(name, records, dropped=dropped, seen=seen, encoders=encoders)
    store.write(name, packed)
    return entry


def pack_shard(
    name: str,
    records: Iterable[Record],
    *,
    dropped: Mapping[str, int] | None = None,
    seen: int | Callable[[], int] = 0,
    encoders: Executor | None = None,
) -> tuple[ShardEntry, bytes]:
    """A shard's manifest entry and its bytes, which are held in memory whole; nothing is written.

    name: `manifest.shard_name`; its kind says which records it takes.
    dropped, seen: as in `ShardEntry`. They are looked at after the last record, so the generator that gives
        the records may fill ``dropped`` and what ``seen`` returns as it goes.
    encoders: threads that encode while ``records`` goes on, at most 64 records ahead of the one packed; the
        bytes are the same. Without any, each record is encoded before the next one is asked for.

    Raises ShardError when a key does not rise, a record is of the other kind or cannot be encoded.
    """
    labels: Counter[str] = Counter()
    sha256 = hashlib.sha256()
    parts: list[bytes] = []
    for part in _encoded(_checked(name, records, labels), encoders):
        sha256.update(part)
        parts.append(part)
    count = len(parts)
    parts.append(_END)
    sha256.update(_END)
    packed = b"".join(parts)
    counts = dict(sorted(labels.items())), dict(sorted((dropped or {}).items()))
    looked_at = seen() if callable(seen) else seen
    return ShardEntry(name, count, len(packed), sha256.hexdigest(), *counts, looked_at), packed


def _checked(name: str, records: Iterable[Record], labels: Counter[str]) -> Iterator[Record]:
    """The records, each of the shard's kind and with a key over the last one's; counts their labels."""
    wanted = CropRecord if name.startswith("crops-") else BackgroundRecord
    last_key = ""
    for record in records:
        if not isinstance(record, wanted):
            raise ShardError(
                f"{name}: {record.key}: is a {type(record).__name__}, wanted a {wanted.__name__}"
            )
        if record.key <= last_key:
            raise ShardError(f"{name}: {record.key}: comes after {last_key}, wanted rising keys")
        last_key = record.key
        if isinstance(record, CropRecord):
            labels[record.label] += 1
        yield record


def _encoded(records: Iterable[Record], encoders: Executor | None) -> Iterator[bytes]:
    """Each record's stretch of the tar, in order."""
    if encoders is None:
        yield from map(_tar_group, records)
        return
    waiting: deque[Future[bytes]] = deque()
    try:
        for record in records:
            waiting.append(encoders.submit(_tar_group, record))
            while len(waiting) >= _LOOK_AHEAD or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:  # after an error nobody wants these
            future.cancel()


def _tar_group(record: Record) -> bytes:
    return b"".join(_tar_parts((f"{record.key}.{ext}", data) for ext, data in encode(record).items()))


def pack_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A ustar file of (name, content) members in the given order; equal members give equal bytes.

    Raises ShardError for a name that is not 1 to 100 bytes of ASCII, or a member of 8 GiB and more.
    """
    parts = _tar_parts(members)
    parts.append(_END)
    return b"".join(parts)


def _tar_parts(members: Iterable[tuple[str, bytes]]) -> list[bytes]:
    parts: list[bytes] = []
    for name, data in members:
        parts += (_header(name, len(data)), data, _END[: -len(data) % BLOCK])
    return parts


def _header(name: str, size: int) -> bytes:
    """POSIX.1-1988 ustar, 512 bytes: all but name, size and checksum is the same for every member."""
    if not name or not name.isascii() or len(name) > _NAME_BYTES:
        raise ShardError(
            f"{name}: {len(name)} characters, wanted 1 to {_NAME_BYTES} of ASCII for a tar member"
        )
    if size >= _SIZE_LIMIT:
        raise ShardError(f"{name}: {size} bytes, wanted less than {_SIZE_LIMIT}")
    name_bytes, digits = name.encode(), b"%011o" % size
    checksum = _FIXED_SUM + sum(name_bytes) + sum(digits)
    return b"%b%b%b%b%06o%b" % (name_bytes.ljust(_NAME_BYTES, b"\0"), _IDS, digits, _TIME, checksum, _REST)


_END = bytes(2 * BLOCK)
_IDS = b"0000644\0" + b"0000000\0" * 2  # mode, owner, group
_TIME = b"\0" + b"0" * 11 + b"\0"  # ends the size; then the time
_REST = (b"\0 " + b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2).ljust(358, b"\0")
_FIXED_SUM = sum(_IDS + _TIME) + 8 * ord(" ") + sum(_REST[2:])  # its own field counts as eight spaces
