"""The house rules that tools can hold: layers, style, types. Slow tools run once each."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["lint-imports", "--no-cache"],
        ["mypy"],
    ],
    ids=["style", "format", "layers", "types"],
)
def test_the_house_rules_hold(command: list[str]) -> None:
    tool = _BIN / command[0]
    if not tool.exists():
        pytest.skip(f"{command[0]} is not installed beside this python")
    result = subprocess.run([str(tool), *command[1:]], cwd=_ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


@pytest.mark.parametrize(
    "module",
    [
        "configs.reference",
        "configs.show",
        "factory.backgrounds",
        "factory.build",
        "factory.convert",
        "factory.set_page",
        "factory.sets",
        "factory.train_copy_paste",
        "factory.train_gan",
        "factory.train_redo",
        "shards.inspect",
        "trainer.anchors",
        "trainer.datasets",
        "trainer.deploy",
        "trainer.evaluate",
        "trainer.experiment",
        "trainer.export",
        "trainer.predict",
        "trainer.preview",
        "trainer.report",
        "trainer.run",
    ],
)
def test_every_entry_point_teaches_with_examples(module: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert f"python -m {module}" in result.stdout


@pytest.mark.parametrize("package", ["factory", "trainer"])
def test_the_readme_draws_the_floors_that_the_contract_holds(package: str) -> None:
    settings = configparser.ConfigParser()
    settings.read(_ROOT / "setup.cfg")
    layers = settings[f"importlinter:contract:{package}-floors"]["layers"].strip().splitlines()
    held = [re.split(r" [:|] ", layer.strip()) for layer in layers]
    drawing = (_ROOT / "README.md").read_text().partition(f"\n{package}    ")[2]
    lines = re.split(r"\n\n|\n```", drawing)[0].splitlines()
    assert [line.strip().split(" · ") for line in lines] == held
    found = {path.parent.name if path.stem == "__init__" else path.stem for path in _modules(package)}
    assert found == {name for floor in held for name in floor}


def _modules(package: str) -> list[Path]:
    """Its modules and packages."""
    folder = _ROOT / package
    return [path for path in folder.glob("*.py") if path.stem != "__init__"] + [*folder.glob("*/__init__.py")]
