"""Changes to files that a reader must survive: to bytes, to text, to JSON values and to tar headers.

Every change is a function of a numpy Generator and of what is changed; the same seed gives the same files.
"""

import json
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Files = dict[str, bytes]
"""A small folder: relative path to content. One input of a fuzzed reader."""

Mutation = Callable[[np.random.Generator, bytes], bytes]

BLOCK = 512
_NUMBERS = (
    *(
        "0",
        "-1",
        "1",
        "3",
        "-0",
        "0.5",
        "1e308",
        "-1e308",
        "1e999",
        "1e-320",
        "nan",
        "inf",
        "-inf",
        "1_0",
        "٣",
    ),
    *("2147483648", "-2147483649", "9223372036854775808", "18446744073709551616", "0x10", "0o17", "010"),
    *("9" * 30, "9" * 400, "9" * 5000, "1" + "0" * 309),
)
_TEXTS = (
    *("", " ", ".", "..", "/", "../..", "a/../b", "~", "\0", "\n", "\r", "\t", "\ufeff", "\u2028", "é", "😀"),
    *(
        "no",
        "on",
        "null",
        "true",
        "1e3",
        "0o7",
        "=",
        "<<",
        "!",
        "*a",
        "&a x",
        "x" * 300,
        "y" * 5000,
        "\x1b[31m",
    ),
)
_YAML = (
    *(
        "!!float ''",
        "!!bool x",
        "!!timestamp x",
        "!!int ''",
        "!!binary x",
        "!!set {a}",
        "!!omap [a]",
        "!!null x",
    ),
    *(
        "!!pairs [a]",
        "!!python/name:os.system",
        "!!merge x",
        "? [a]",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "|",
        ">",
        "---",
    ),
    *("&a [*a]", "&a {b: *a}", "[" * 3000, "{a: " * 1500, "...", "%YAML 3.0", "# ", "key: ", ": ", "'", '"'),
    "[&a [1,1,1,1], &b [*a,*a,*a,*a], &c [*b,*b,*b,*b], &d [*c,*c,*c,*c], &e [*d,*d,*d,*d], [*e,*e,*e]]",
)
_XML = (
    *('<?xml version="1.0" encoding="utf-16"?>', '<?xml version="1.0" encoding="nope"?>', "<a>" * 3000),
    *(
        "<![CDATA[x]]>",
        "&x;",
        "&#0;",
        "<name/>",
        "<name><b>x</b></name>",
        "</object>",
        "<object>",
        "<bndbox/>",
    ),
    '<!DOCTYPE a [<!ENTITY x "yyyyyyyyyy"><!ENTITY z "&x;&x;&x;&x;&x;&x;&x;&x;&x;">]>',
)
_TOKENS = (*_NUMBERS, *_TEXTS, *_YAML, *_XML, ",", '"', "#", "# x", "1 1 1 1", "0\n", "\n\n")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(
        float("nan"),
        float("inf"),
        "",
        "x",
        ".",
        "/",
        "..",
        "\0",
        "\ud800",
        "\n",
        "x" * 300,
        "9" * 5000,
        "1e999",
    ),
    *([], [[]], [1, 2, 3, 4], {}, {"id": 1}, [None], {"": None}),
)
_PARTS = re.compile(r"[A-Za-z_]+|[-+]?[0-9.]+|\s+|.", re.DOTALL)


def of_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """Bits, bytes, integers and stretches changed, cut out, doubled or moved: any format."""
    if not data:
        return bytes(rng.integers(0, 256, int(rng.integers(1, 64)), np.uint8))
    at, length = int(rng.integers(len(data))), int(2 ** rng.integers(0, 9))
    stretch = data[at : at + length]
    match int(rng.integers(9)):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
        case 1:
            return data[:at] + bytes([int(rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))]) + data[at + 1 :]
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[at + length :]
        case 4:
            return data[:at] + stretch * int(rng.integers(2, 5)) + data[at:]
        case 5:
            to = int(rng.integers(len(data)))
            return data[:to] + stretch + data[to + len(stretch) :]
        case 6:
            order = str(rng.choice(["<", ">"]))
            code = str(rng.choice(["H", "I", "Q"]))
            most = 2 ** (8 * struct.calcsize(code))
            value = int(rng.choice([0, 1, 255, 65500, 65535])) if rng.random() < 0.5 else most - 1
            number = struct.pack(order + code, value)
            return data[:at] + number + data[at + len(number) :]
        case 7:
            return data[:at] + rng.integers(0, 256, len(stretch), np.uint8).tobytes() + data[at + length :]
        case _:
            return data[:at] + bytes(length) + data[at:]


def of_text(rng: np.random.Generator, data: bytes) -> bytes:
    """A word, number, blank or sign replaced, left out, doubled or joined by one that is often mishandled."""
    parts = _PARTS.findall(data.decode("utf-8", "replace")) or [""]
    at = int(rng.integers(len(parts)))
    token = str(_TOKENS[int(rng.integers(len(_TOKENS)))])
    match int(rng.integers(5)):
        case 0:
            parts[at] = token
        case 1:
            parts.insert(at, token)
        case 2:
            del parts[at : at + int(rng.integers(1, 9))]
        case 3:
            end = at + int(rng.integers(1, 40))
            parts[at:at] = parts[at:end]
        case _:
            other = int(rng.integers(len(parts)))
            parts[at], parts[other] = parts[other], parts[at]
    return "".join(parts).encode("utf-8", "surrogatepass")


def of_json(rng: np.random.Generator, data: bytes) -> bytes:
    """Any value of a JSON text replaced by one of another type or size, left out, or doubled."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return of_text(rng, data)
    places = _places(value, [])
    if not places:
        return json.dumps(_value(rng)).encode()
    holder, key = places[int(rng.integers(len(places)))]
    match int(rng.integers(5)):
        case 0 if isinstance(holder, list):
            holder.append(holder[key])
        case 0:
            holder[str(_TEXTS[int(rng.integers(len(_TEXTS)))])] = holder[key]
        case 1:
            del holder[key]
        case 2:
            other, name = places[int(rng.integers(len(places)))]
            holder[key] = json.loads(json.dumps(other[name]))
        case _:
            holder[key] = _value(rng)
    return _dumped(value)


def of_tar(rng: np.random.Generator, data: bytes) -> bytes:
    """A tar's header field changed with its checksum made right, or whole members moved, doubled or lost."""
    headers = _headers(data)
    if not headers or rng.random() < 0.2:
        return of_bytes(rng, data)
    number = int(rng.integers(len(headers)))
    start, end = headers[number]
    match int(rng.integers(4)):
        case 0:
            return data[:start] + data[end:]
        case 1:
            to = headers[int(rng.integers(len(headers)))][0]
            return data[:to] + data[start:end] + data[to:]
        case 2:
            return data[:start] + _content_changed(rng, data[start:end]) + data[end:]
        case _:
            return data[:start] + _header_changed(rng, data[start : start + BLOCK]) + data[start + BLOCK :]


_NAMES = (
    b"",
    b"../x.jpg",
    b"/etc/x.json",
    b"a\0b.jpg",
    b"\xff\xfe.jpg",
    b".json",
    b"a.b.c",
    b"n" * 100,
    b"-._",
)
_SIZES = (
    b"00000000000",
    b"77777777777",
    b"-0000000001",
    b"0o000000017",
    b"1_0        ",
    b"\x80" + b"\xff" * 10,
)


def _header_changed(rng: np.random.Generator, header: bytes) -> bytes:
    """Name, size, kind of member (links, directories, pax, GNU long names) or prefix; the checksum fits."""
    block = bytearray(header)
    match int(rng.integers(5)):
        case 0:
            block[:100] = _NAMES[int(rng.integers(len(_NAMES)))].ljust(100, b"\0")
        case 1:
            block[124:135] = _SIZES[int(rng.integers(len(_SIZES)))][:11]
        case 2:
            block[156] = int(rng.choice(list(b"01234567xgLKS\0\xff")))
        case 3:
            block[124:135] = b"%011o" % int(rng.integers(0, 5000))
        case _:
            at = int(rng.integers(BLOCK))
            block[at] = int(rng.integers(256))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _content_changed(rng: np.random.Generator, member: bytes) -> bytes:
    """A member with other bytes in it (JSON as JSON), its header's size and checksum made right."""
    size = int(member[124:135], 8) if member[124:135].isdigit() else 0
    name = member[:100].rstrip(b"\0")
    content = member[BLOCK : BLOCK + size]
    content = of_json(rng, content) if name.endswith(b"json") else of_jpeg(rng, content)
    block = bytearray(member[:BLOCK])
    block[124:135] = b"%011o" % len(content)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content + bytes(-len(content) % BLOCK)


def of_jpeg(rng: np.random.Generator, data: bytes) -> bytes:
    """A JPEG's size, sampling or segments changed; else its bytes."""
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if frame < 0 or rng.random() < 0.6:
        return of_bytes(rng, data)
    block = bytearray(data)
    at = frame + int(rng.choice([4, 5, 7, 9, 11, 12]))
    if at + 2 > len(block):
        return data
    sides = [0, 1, 2, 37, 4096, 30000, 65500, 65535]
    value = int(rng.choice(sides)) if at < frame + 9 else int(rng.integers(65536))
    block[at : at + 2] = value.to_bytes(2, "big")
    return bytes(block)


def _headers(data: bytes) -> list[tuple[int, int]]:
    """Start and end of each member that a lenient reader would see."""
    found, at = [], 0
    while at + BLOCK <= len(data) and data[at + 257 : at + 262] == b"ustar":
        digits = data[at + 124 : at + 135]
        size = int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else 0
        end = at + BLOCK + size + -size % BLOCK
        found.append((at, min(end, len(data))))
        at = end
    return found


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(holder, key or index) of every value in a JSON value."""
    keys: Sequence[Any] = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        found.append((value, key))
        _places(value[key], found)
    return found


def _value(rng: np.random.Generator) -> Any:
    value = _VALUES[int(rng.integers(len(_VALUES)))]
    return json.loads(json.dumps(value)) if isinstance(value, dict | list) else value


def _dumped(value: Any) -> bytes:
    """JSON text; numbers that Python would not write stand for themselves."""
    text = json.dumps(value)
    return re.sub(r'"1e999"|"9{400,}"', lambda found: found[0].strip('"'), text).encode()
