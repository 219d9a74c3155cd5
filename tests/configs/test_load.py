import pytest
import yaml
from pydantic import Field

from configs.errors import InputError
from configs.kinds import StrictModel
from configs.load import apply_overrides, load_config, parse_yaml, read_yaml, to_yaml, validated


class Inner(StrictModel):
    steps: int = Field(default=3, ge=1)
    rate: float = 0.1
    flip: bool = True


class Outer(StrictModel):
    name: str = "x"
    seed: int = 0
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-2", -2),
        ("010", 10),
        ("0x1f", 31),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("null", None),
        ("", None),
        ("2020-01-01", "2020-01-01"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    found = parse_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3: key 'a' stands twice"),
        ("a: [1, 2", "f.yaml:"),
        ("1: 2", "f.yaml:1: key 1 is not text"),
        ("a: !!python/object/apply:os.system [ls]", "f.yaml:1: could not determine a constructor"),
    ],
)
def test_broken_yaml_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match="not valid YAML") as caught:
        parse_yaml(text, "f.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml: no such configuration file"):
        read_yaml(tmp_path / "gone.yaml")


def test_a_file_that_holds_a_list_is_refused(tmp_path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="holds a list, wanted 'key: value' lines"):
        read_yaml(tmp_path / "list.yaml")


def test_an_unknown_key_gets_a_did_you_mean() -> None:
    with pytest.raises(InputError, match=r"^f\.yaml: inner: unknown key 'stesp', did you mean 'steps'\?$"):
        validated(Outer, {"inner": {"stesp": 1}}, "f.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"seed": "many"}, "f.yaml: seed: found 'many', wanted a number"),
        ({"seed": True}, "f.yaml: seed: found True, wanted a number"),
        ({"seed": 1.5}, "f.yaml: seed: found 1.5, wanted a whole number"),
        ({"inner": {"flip": "no"}}, "f.yaml: inner.flip: found 'no', wanted true or false"),
        ({"inner": {"steps": 0}}, "f.yaml: inner.steps: found 0, wanted 1 or more"),
        ({"inner": 3}, "f.yaml: inner: found 3, wanted settings: {key: value}"),
    ],
)
def test_a_wrong_type_names_key_found_and_wanted(data: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        validated(Outer, data, "f.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_overrides_reach_nested_keys_and_are_read_as_yaml() -> None:
    config = load_config(Outer, None, ["inner.rate=1e-4", "name=no", "inner.flip=false"])
    assert (config.inner.rate, config.name, config.inner.flip) == (1e-4, "no", False)


def test_overrides_do_not_change_what_they_are_put_on() -> None:
    data = {"inner": {"steps": 1}}
    apply_overrides(data, ["inner.steps=2"])
    assert data == {"inner": {"steps": 1}}


def test_choosing_another_kind_drops_the_other_kinds_settings() -> None:
    data = {"segmenter": {"kind": "grabcut", "iterations": 5}}
    merged = apply_overrides(data, ["segmenter.batch=2", "segmenter.kind=redo"])
    assert merged == {"segmenter": {"kind": "redo", "batch": 2}}


@pytest.mark.parametrize("text", ["steps", "=3", "a..b=1"])
def test_what_is_no_override_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="wanted key=value"):
        apply_overrides({}, [text])


def test_the_resolved_config_reads_back_equal() -> None:
    config = load_config(Outer, None, ["inner.rate=1e-5", "name=on"])
    assert validated(Outer, parse_yaml(to_yaml(config), "back"), "back") == config
    assert yaml.safe_load(to_yaml(config))["inner"]["rate"] == 1e-5
