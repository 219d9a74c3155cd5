"""Captions in words and in numbers: the vocabulary that a DAMSM text encoder was trained with.

The authors keep it, with the captions of CUB, in ``captions.pickle``, written by Python 2:
``[train captions, test captions, {id: word}, {word: id}]``, a caption being a list of ids. Ours is JSON:
``{word: id}``. Id 0 stands for the end of a caption and pads it.
"""

import difflib
import json
import pickle
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.errors import InputError

WANTED = "DM-GAN's captions.pickle, or JSON {word: id}"

Caption = tuple[int, ...]

_NUMBERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "b1")
_PICKLE_ERRORS = (
    *(pickle.UnpicklingError, EOFError, OSError, struct.error, UnicodeError, ValueError, LookupError),
    *(TypeError, AttributeError, OverflowError, MemoryError),
)


@dataclass(frozen=True)
class Vocabulary:
    """ids: the number of every word, from 1; 0 is the end. path: where they come from, for the errors.
    splits: the captions that came with them, as ``train`` and ``test``; none from JSON.
    """

    ids: Mapping[str, int]
    path: Path
    splits: Mapping[str, tuple[Caption, ...]]

    @property
    def num_tokens(self) -> int:
        """One more than the highest id."""
        return max(self.ids.values()) + 1

    @cached_property
    def _words(self) -> dict[int, str]:
        return {number: word for word, number in self.ids.items()}

    def words_of(self, caption: Iterable[int]) -> str:
        """The caption in words; an id without a word is left out."""
        return " ".join(self._words[number] for number in caption if number in self._words)

    def caption_of(self, text: str, place: str) -> Caption:
        """The ids of a free text. ``place``: where it stands, for the errors.

        Raises InputError for a text without words and, naming it, for a word that is not known.
        """
        words = tokenise(text)
        if not words:
            raise InputError(f"{place}: found {text!r}, wanted a caption in words")
        unknown = next((word for word in words if word not in self.ids), None)
        if unknown is not None:
            near = difflib.get_close_matches(unknown, self.ids, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"none of the {len(self.ids)} of {self.path}"
            raise InputError(f"{place}: unknown word '{unknown}' in {text!r}, {hint}")
        return tuple(self.ids[word] for word in words)


def tokenise(text: str) -> list[str]:
    """Words as the authors cut them: runs of letters, digits and ``_``, in lower case, then what of each is
    ASCII; the rest of the text separates.
    """
    ascii_only = (word.encode("ascii", "ignore").decode() for word in re.findall(r"\w+", text.lower()))
    return [word for word in ascii_only if word]


def shorten(caption: Caption, num_words: int, rng: np.random.Generator) -> Caption:
    """At most ``num_words`` of a caption's ids: of a longer one a random subset of places, kept in order."""
    if len(caption) <= num_words:
        return caption
    places = np.sort(rng.choice(len(caption), num_words, replace=False))
    return tuple(caption[place] for place in places)


def padded(captions: Sequence[Caption]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The ids (B, T), T being the longest caption's length and 0 the padding, and the lengths (B,)."""
    lengths = np.array([len(caption) for caption in captions], np.int64)
    ids = np.zeros((len(captions), lengths.max()), np.int64)
    for row, caption in zip(ids, captions, strict=True):
        row[: len(caption)] = caption
    return ids, lengths


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary in the authors' pickle or in our JSON (by the ending ``.json``).

    No code that a pickle names is run or even imported. Raises InputError for anything else.
    """
    if path.suffix == ".json":
        return Vocabulary(_checked_ids(_read_json(path), path), path, {})
    content = _read_pickle(path)
    if not isinstance(content, list) or len(content) != 4:
        raise InputError(f"{path}: holds {_described(content)}, wanted {WANTED}")
    train, test, _, ids = content
    ids = _checked_ids(ids, path)
    known = frozenset(ids.values()) - {0}
    splits = {
        name: _checked_captions(captions, known, f"{path}: {name}")
        for name, captions in (("train", train), ("test", test))
    }
    return Vocabulary(ids, path, splits)


def write_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Write ``{word: id}`` as JSON, in the order of the ids."""
    ids = dict(sorted(vocabulary.ids.items(), key=lambda item: item[1]))
    path.write_text(json.dumps(ids, indent=0) + "\n", encoding="utf-8")


def convert_captions(path: Path, to: Path) -> str:
    """Write the vocabulary in ``path`` to the JSON file ``to``; returns a line that says what was found.

    Raises InputError for a file of another kind and for another ending than ``.json``.
    """
    if to.suffix != ".json":
        raise InputError(f"{to}: found the ending '{to.suffix}', wanted a vocabulary's '.json'")
    vocabulary = read_vocabulary(path)
    write_vocabulary(vocabulary, to)
    counts = [f"{len(captions)} {name} captions" for name, captions in vocabulary.splits.items()]
    return f"{path}: " + ", ".join([f"{len(vocabulary.ids)} words", *counts])


class _NumberKind:
    """Stands for ``numpy.dtype``: how the bytes of one number are read."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: str) -> None:
        self._code, self._order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = ">" if state[1] == ">" else "<"

    def read(self, content: bytes) -> int | float | bool:
        found: int | float | bool = np.frombuffer(content, self._order + self._code)[0].item()
        return found


class _MakeNumberKind:
    """What a pickle may call as ``numpy.dtype``. No slots: a pickle cannot put anything into it either."""

    __slots__ = ()

    def __call__(self, code: str, *_: object) -> _NumberKind:
        if code not in _NUMBERS:
            raise pickle.UnpicklingError(f"numpy numbers of kind {code!r}")
        return _NumberKind(code)


class _MakeNumber:
    """What a pickle may call as ``numpy.core.multiarray.scalar``: a plain Python number comes of it."""

    __slots__ = ()

    def __call__(self, kind: Any, content: bytes | str) -> int | float | bool:
        if not isinstance(kind, _NumberKind):
            raise pickle.UnpicklingError("a numpy number without its kind")
        return kind.read(content.encode("latin1") if isinstance(content, str) else content)


class _MakeBytes:
    """What a pickle may call as ``_codecs.encode``: how Python 3 writes bytes in protocol 2."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes in {encoding!r}")
        return text.encode("latin1")


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "dtype"): _MakeNumberKind(),
    ("numpy.core.multiarray", "scalar"): _MakeNumber(),
    ("numpy._core.multiarray", "scalar"): _MakeNumber(),
    ("_codecs", "encode"): _MakeBytes(),
}


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, texts and numbers; any other name that a pickle mentions ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _ALLOWED[module, name]


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except _PICKLE_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: found {reason}, wanted {WANTED}: lists, dicts, texts and numbers only"
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}), wanted {WANTED}") from error


def _checked_ids(content: Any, path: Path) -> dict[str, int]:
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds {_described(content)}, wanted {WANTED}")
    for word, number in content.items():
        if not isinstance(word, str) or type(number) is not int or number < 0:
            raise InputError(f"{path}: found {word!r}: {number!r}, wanted a word and its id")
    if len(set(content.values())) < len(content):
        raise InputError(f"{path}: two words have one id, wanted {WANTED}")
    return dict(content)


def _checked_captions(content: Any, known: frozenset[int], place: str) -> tuple[Caption, ...]:
    if not isinstance(content, list) or not content:
        raise InputError(f"{place}: holds {_described(content)}, wanted a list of captions")
    for index, caption in enumerate(content):
        if not isinstance(caption, list) or not caption:
            raise InputError(f"{place} caption {index}: found {_described(caption)}, wanted a list of ids")
        foreign = next((number for number in caption if type(number) is not int or number not in known), None)
        if foreign is not None:
            raise InputError(f"{place} caption {index}: found {foreign!r}, wanted the id of a word")
    return tuple(tuple(caption) for caption in content)


def _described(content: Any) -> str:
    sized = isinstance(content, list | tuple | dict | str)
    return f"a {type(content).__name__}" + (f" of {len(content)}" if sized else "")
