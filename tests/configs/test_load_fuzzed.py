"""What fuzzing found in configurations: texts that did not come back, errors that were no InputError."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from configs.kinds import StrictModel
from configs.load import load_config, parse_yaml, to_yaml, validated


class Texts(StrictModel):
    texts: tuple[str, ...] = ()
    counts: Mapping[str, int] = {}
    place: Path = Path("here")
    share: float = 0.5


@pytest.mark.parametrize(
    "text",
    ["1e3", "1E5", "08", "0o17", "1e-3", "+.5e3", "no", "~", "", "a\x85b", "\u2028", "=", "12:30", "- a"],
)
def test_a_text_that_looks_like_something_else_comes_back_as_text(text: str) -> None:
    model = Texts(texts=(text,), counts={text: 1}, place=Path(text))
    assert validated(Texts, parse_yaml(to_yaml(model), "again"), "again") == model


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=9)).map(tuple),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_settings_come_back_from_their_yaml(texts: tuple[str, ...], share: float) -> None:
    model = Texts(texts=texts, counts=dict.fromkeys(texts, 3), share=share)
    assert validated(Texts, parse_yaml(to_yaml(model), "again"), "again") == model


@pytest.mark.parametrize(
    "value", ["!!bool x", "!!float ''", "!!timestamp x", "!!int ''", "!!binary x", "!!set {a}", "!!omap [a]"]
)
def test_a_tag_on_a_value_it_does_not_fit_is_refused(value: str) -> None:
    with pytest.raises(InputError):
        load_config(Texts, None, [f"share={value}"])


@pytest.mark.parametrize("override", ["\udcff=1", "share=\udcff"])
def test_an_override_that_is_not_utf_8_is_refused(override: str) -> None:
    with pytest.raises(InputError):
        load_config(Texts, None, [override])


def test_half_a_character_in_a_text_comes_back() -> None:
    model = load_config(Texts, None, ['texts=["\\ud800"]'])
    assert model.texts == ("\ud800",)
    assert validated(Texts, parse_yaml(to_yaml(model), "again"), "again") == model
