"""Captions: the authors' tokens, and a vocabulary in a pickle that is not trusted."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from factory.generators.captions import (
    Vocabulary,
    convert_captions,
    padded,
    read_vocabulary,
    shorten,
    tokenise,
)

_IDS = {"<end>": 0, "bird": 1, "red": 2, "a": 3, "with": 4, "wings": 5}
_CONTENT = [[[3, 2, 1], [3, 1, 4, 2, 5]], [[3, 1]], {i: word for word, i in _IDS.items()}, _IDS]


def _python2(value: Any) -> bytes:
    """As Python 2 pickles it in protocol 2: texts are bytes."""
    if isinstance(value, str):
        text = value.encode("latin1")
        return b"U" + bytes([len(text)]) + text
    if isinstance(value, np.int64):
        code = b"cnumpy\ndtype\n" + _python2("i8") + b"K\x00K\x01\x87R(K\x03" + _python2("<")
        code += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return b"cnumpy.core.multiarray\nscalar\n" + code + b"U\x08" + struct.pack("<q", value) + b"\x86R"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key) + _python2(item) for key, item in value.items()) + b"u"
    return b"](" + b"".join(_python2(item) for item in value) + b"e"


def _write(path: Path, content: Any) -> Path:
    path.write_bytes(b"\x80\x02" + _python2(content) + b".")
    return path


@pytest.fixture
def vocabulary(tmp_path: Path) -> Vocabulary:
    return read_vocabulary(_write(tmp_path / "captions.pickle", _CONTENT))


def test_a_pickle_of_python_2_gives_words_and_captions(vocabulary: Vocabulary) -> None:
    assert vocabulary.ids == _IDS and vocabulary.num_tokens == 6
    assert vocabulary.splits == {"train": ((3, 2, 1), (3, 1, 4, 2, 5)), "test": ((3, 1),)}
    assert vocabulary.words_of((3, 2, 1)) == "a red bird"


def test_words_beyond_ascii_and_numpy_numbers_are_read(tmp_path: Path) -> None:
    ids = {"<end>": 0, "caf\xe9": np.int64(1)}
    path = _write(tmp_path / "a.pickle", [[[np.int64(1)]], [[1]], {}, ids])
    assert read_vocabulary(path).ids == {"<end>": 0, "caf\xe9": 1}
    (tmp_path / "b.pickle").write_bytes(pickle.dumps([[[np.int64(1)]], [[1]], {}, {"a": np.int32(1)}], 2))
    assert read_vocabulary(tmp_path / "b.pickle").splits["train"] == ((1,),)


class _Hostile:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def test_the_code_of_a_hostile_pickle_never_runs(tmp_path: Path) -> None:
    planted, path = tmp_path / "planted", tmp_path / "captions.pickle"
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps([_Hostile(open, str(planted), "w"), [], {}, _IDS], protocol))
        with pytest.raises(InputError, match=r"found _?io\.open, wanted") as error:
            read_vocabulary(path)
        assert "\n" not in str(error.value)
    assert not planted.exists()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (b"cos\nsystem\nU\x04true\x85R.", "os.system"),
        (b"c__builtin__\neval\nU\x011\x85R.", "__builtin__.eval"),
        (b"cnumpy\ndtype\nU\x01O\x85R.", "'O'"),
        (b"cnumpy\nndarray\n.", "numpy.ndarray"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.", "'zip'"),
        (b"cnumpy.core.multiarray\nscalar\nK\x01U\x01a\x86R.", "without its kind"),
        (b"cnumpy\ndtype\nN}U\x08__call__K\x01s\x86b.", "__call__"),
        (b"Pout\n.", "persistent"),
        (b"](K\x01", "Ran out"),
        (b"this is text", "found"),
        (b"", "found"),
    ],
)
def test_a_foreign_pickle_is_refused_by_name(tmp_path: Path, code: bytes, found: str) -> None:
    (tmp_path / "c.pickle").write_bytes((b"\x80\x02" if code[:1] != b"t" else b"") + code)
    with pytest.raises(InputError, match=r"wanted DM-GAN's captions\.pickle") as error:
        read_vocabulary(tmp_path / "c.pickle")
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "holds a list of 2"),
        ({"a": 1}, "holds a dict of 1"),
        ([[], [[1]], {}, _IDS], "train: holds a list of 0"),
        ([[[1]], [[]], {}, _IDS], "test caption 0: found a list of 0"),
        ([[[1, 99]], [[1]], {}, _IDS], "train caption 0: found 99"),
        ([[[1, 0]], [[1]], {}, _IDS], "train caption 0: found 0"),
        ([[[1]], [[1]], {}, {"a": "b"}], "'a': 'b'"),
        ([[[1]], [[1]], {}, {"a": 1, "b": 1}], "two words have one id"),
        ([[[1]], [[1]], {}, {}], "holds a dict of 0"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, found: str) -> None:
    with pytest.raises(InputError, match=found):
        read_vocabulary(_write(tmp_path / "c.pickle", content))


def test_tokens_are_cut_as_the_authors_cut_them() -> None:
    assert tokenise("A Bird, with red-wings!") == ["a", "bird", "with", "red", "wings"]
    assert tokenise("caf\xe9 2 it's \xfc a_b") == ["caf", "2", "it", "s", "a_b"]
    assert tokenise(" .,- ") == []


def test_free_texts_become_ids_and_unknown_words_are_named(vocabulary: Vocabulary) -> None:
    assert vocabulary.caption_of("A red bird.", "place") == (3, 2, 1)
    with pytest.raises(
        InputError, match=r"source\.captions\.3: unknown word 'brid' .* did you mean 'bird'\?"
    ):
        vocabulary.caption_of("a brid", "source.captions.3")
    with pytest.raises(InputError, match=r"unknown word 'xylophone' .* none of the 6 of .*captions\.pickle"):
        vocabulary.caption_of("xylophone", "place")
    with pytest.raises(InputError, match=r"found '\.\.\.', wanted a caption in words"):
        vocabulary.caption_of("...", "place")


def test_long_captions_lose_random_words_in_order() -> None:
    caption = tuple(range(1, 31))
    short = shorten(caption, 25, np.random.default_rng(3))
    assert len(short) == 25 and list(short) == sorted(set(short))
    assert short == shorten(caption, 25, np.random.default_rng(3))
    assert short != shorten(caption, 25, np.random.default_rng(4))
    assert shorten(caption, 30, np.random.default_rng(3)) == caption


def test_batches_are_padded_with_zero_to_the_longest() -> None:
    ids, lengths = padded([(4, 2), (1, 2, 3)])
    np.testing.assert_array_equal(ids, [[4, 2, 0], [1, 2, 3]])
    np.testing.assert_array_equal(lengths, [2, 3])
    assert ids.dtype == lengths.dtype == np.int64


def test_a_pickle_converts_to_json_and_back(tmp_path: Path, vocabulary: Vocabulary) -> None:
    to = tmp_path / "birds-vocabulary.json"
    line = convert_captions(vocabulary.path, to)
    assert line == f"{vocabulary.path}: 6 words, 2 train captions, 1 test captions"
    assert json.loads(to.read_text()) == _IDS
    again = read_vocabulary(to)
    assert again.ids == vocabulary.ids and again.splits == {}
    with pytest.raises(InputError, match=r"ending '\.txt'"):
        convert_captions(vocabulary.path, tmp_path / "a.txt")


def test_broken_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    for text, found in (("{", "not readable as JSON"), ('["a"]', "holds a list of 1"), ('{"a": 1.5}', "1.5")):
        path.write_text(text)
        with pytest.raises(InputError, match=found):
            read_vocabulary(path)
