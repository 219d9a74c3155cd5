import pytest
import yaml

from configs.errors import InputError
from configs.home import packaged_names
from configs.show import FAMILIES, main, resolved_lines


def origins(lines: list[str]) -> dict[str, str]:
    """Key and value to origin."""
    return dict(tuple(part.strip() for part in line.split("  # ")) for line in lines if "  # " in line)


def test_each_value_says_where_it_is_from() -> None:
    found = origins(resolved_lines("run", "birds-paper", ["pretrain.steps=7", "detector.gamma=1.5"]))
    assert found["steps: 7"] == "command line"
    assert found["gamma: 1.5"] == "command line"
    assert found["root: data/cub"] == "configs/runs/birds-paper.yaml"
    assert found["backbone: mobilenet_v1"] == "preset"
    assert found["image_size: 300"] == "default"


@pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for family, (folder, _, _) in FAMILIES.items() for name in packaged_names(folder)],
)
def test_what_is_shown_reads_back_as_the_same(family, name, tmp_path) -> None:
    lines = resolved_lines(family, name, [])
    path = tmp_path / "shown.yaml"
    path.write_text("\n".join(lines))
    again = resolved_lines(family, str(path), [])
    assert yaml.safe_load("\n".join(again)) == yaml.safe_load("\n".join(lines))


def test_a_name_of_several_is_shown_for_each_and_overridden_for_one(capsys) -> None:
    assert main(["birds"]) == 0
    shown = capsys.readouterr().out
    assert "# class birds: configs/classes/birds.yaml" in shown
    assert "# run birds: configs/runs/birds.yaml" in shown
    with pytest.raises(InputError, match=r"^birds: of which\? wanted class/birds or run/birds$"):
        main(["birds", "seed=3"])
    assert main(["class/birds", "seed=3"]) == 0
    assert "seed: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["brids"], "no configuration 'brids', did you mean 'birds'?"),
        (["mine.yaml"], "mine.yaml: of a class, a run or a preset? wanted for example run/mine.yaml"),
        (["birds", "cars"], "found 2 names (birds, cars), wanted one"),
        (["run/mine.yaml"], "mine.yaml: no such configuration file"),
        (
            ["run/birds", "pretrain.stepz=1"],
            "run birds: pretrain: unknown key 'stepz', did you mean 'steps'?",
        ),
    ],
)
def test_mistakes_are_named(arguments, message) -> None:
    with pytest.raises(InputError) as caught:
        main(arguments)
    assert message in str(caught.value)
