"""Writes one shard: a plain ustar file whose bytes are a function of its records alone.

Headers are packed by hand: fixed owner and whole-second times need no PAX header (a float time costs 3 kB a
sample and makes each run's files differ), and it is several times quicker than ``tarfile``.
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from shards.codec import encode
from shards.errors import ShardError
from shards.manifest import ShardEntry
from shards.records import BackgroundRecord, CropRecord, Record
from shards.store import Store

BLOCK = 512
_NAME_BYTES = 100
_SIZE_LIMIT = 8**11  # eleven octal digits
_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s 1s 100s 6s 2s 32s 32s 8s 8s 155s 12x")
_CHECKSUM = slice(148, 156)


def write_shard(
    store: Store,
    name: str,
    records: Iterable[Record],
    *,
    dropped: Mapping[str, int] | None = None,
    seen: int = 0,
) -> ShardEntry:
    """Encodes, packs, hashes and commits a shard; the manifest is the caller's to write.

    name: `manifest.shard_name`; its kind says which records it takes. dropped, seen: as in `ShardEntry`.
    The whole shard is held in memory. Raises ShardError when a key does not rise, a record is of the other
    kind or cannot be encoded, or the store refuses; then nothing is written.
    """
    labels: Counter[str] = Counter()
    keys: list[str] = []
    wanted = CropRecord if name.startswith("crops-") else BackgroundRecord

    def members() -> Iterator[tuple[str, bytes]]:
        for record in records:
            if not isinstance(record, wanted):
                raise ShardError(
                    f"{name}: {record.key}: is a {type(record).__name__}, wanted a {wanted.__name__}"
                )
            if keys and record.key <= keys[-1]:
                raise ShardError(f"{name}: {record.key}: comes after {keys[-1]}, wanted rising keys")
            keys.append(record.key)
            if isinstance(record, CropRecord):
                labels[record.label] += 1
            for extension, data in encode(record).items():
                yield f"{record.key}.{extension}", data

    packed = pack_tar(members())
    store.write(name, packed)
    sha256 = hashlib.sha256(packed).hexdigest()
    counts = dict(sorted(labels.items())), dict(sorted((dropped or {}).items()))
    return ShardEntry(name, len(keys), len(packed), sha256, *counts, seen)


def pack_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A ustar file of (name, content) members in the given order; equal members give equal bytes.

    Raises ShardError for a name that is not 1 to 100 bytes of ASCII, or a member of 8 GiB and more.
    """
    parts: list[bytes] = []
    for name, data in members:
        parts += (_header(name, len(data)), data, bytes(-len(data) % BLOCK))
    parts.append(bytes(2 * BLOCK))
    return b"".join(parts)


def _header(name: str, size: int) -> bytes:
    """POSIX.1-1988 ustar, 512 bytes. The checksum counts its own field as eight spaces."""
    if not name or not name.isascii() or len(name) > _NAME_BYTES:
        raise ShardError(
            f"{name}: {len(name)} characters, wanted 1 to {_NAME_BYTES} of ASCII for a tar member"
        )
    if size >= _SIZE_LIMIT:
        raise ShardError(f"{name}: {size} bytes, wanted less than {_SIZE_LIMIT}")
    ids = b"0000644", b"0000000", b"0000000"  # mode, owner, group
    size_and_time = b"%011o" % size, b"%011o" % 0
    file_without_link = b"0", b"", b"ustar", b"00"
    no_names_nor_device = b"", b"", b"0000000", b"0000000", b""
    blank = b" " * 8
    fields = *ids, *size_and_time, blank, *file_without_link, *no_names_nor_device
    header = _HEADER.pack(name.encode(), *fields)
    return header[: _CHECKSUM.start] + b"%06o\x00 " % sum(header) + header[_CHECKSUM.stop :]
