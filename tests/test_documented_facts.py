"""What the Markdown says that can be looked up: links, places, modules, and scores of docs/results."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from trainer.report import main as report

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPERIMENTS = sorted(path.parent for path in (ROOT / "docs" / "results").glob("*/results.json"))
_OURS = "configs|factory|shards|trainer|tests"
_HEADER = "| class | boxed photos | AP50 from scratch | AP50 pretrained | AP from scratch | AP pretrained |"


def links_of(text: str) -> list[str]:
    """Targets of links and pictures that are files of ours."""
    return [to for to in re.findall(r"\]\(([^)#\s]+)", text) if not to.startswith(("http:", "https:"))]


def places_of(text: str) -> list[str]:
    """Folders and files of the repository in backticks, without their placeholders."""
    return re.findall(rf"`((?:{_OURS}|docs)/[\w./-]*)", text)


def modules_of(text: str) -> list[str]:
    """``factory.build`` of every command and of every name in backticks."""
    return re.findall(rf"(?:`|python -m )((?:{_OURS})\.[a-z_]+)", text)


def exists(module: str) -> bool:
    return find_spec(module) is not None


def rows_below(text: str, header: str) -> list[list[str]]:
    """The rows of each table with that header."""
    tables = [table.split("\n\n")[0] for table in text.split(f"{header}\n")[1:]]
    return [table.splitlines()[1:] for table in tables]


def read_results(name: str) -> list[dict]:
    return json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())


def score(results: list[dict], metric: str, **wanted: object) -> str:
    """In percent, mean ± standard deviation (n - 1) over the seeds."""
    values = [
        100 * each[metric] for each in results if all(each.get(key) == value for key, value in wanted.items())
    ]
    assert len(values) == 3, f"{wanted}: {len(values)} seeds"
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def row_of(label: str, results: list[dict], num_real: int) -> str:
    """A line of the README's tables; nobody trains from scratch on no photo."""
    cells = []
    for metric in ("AP50", "AP"):
        phases = ("scratch", "finetune") if num_real else (None, "pretrain")
        cells += [score(results, metric, phase=p, num_real=num_real) if p else "–" for p in phases]
    return f"| {label} | {num_real} | {' | '.join(cells)} |"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_of_ours_leads_to_one(page: Path) -> None:
    text = page.read_text()
    assert [to for to in links_of(text) if not (page.parent / to).exists()] == []
    assert [place for place in places_of(text) if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_is_named_is_there(page: Path) -> None:
    assert sorted({name for name in modules_of(page.read_text()) if not exists(name)}) == []


def test_the_readmes_scores_are_those_of_the_result_files() -> None:
    tables = rows_below((ROOT / "README.md").read_text(), _HEADER)
    for table, suffix, amounts in zip(tables, ("", "-plain"), ((0, 10, 50), (10, 50)), strict=True):
        sources = {f"{name}": read_results(f"{name}{suffix}") for name in ("birds", "cars")}
        assert table == [row_of(name, found, num) for name, found in sources.items() for num in amounts]


def test_the_scores_of_finetuning_are_those_of_the_result_file() -> None:
    (table,) = rows_below((ROOT / "docs" / "training.md").read_text(), "| `finetune` | AP50 | AP |")
    gentler, plain = read_results("birds-finetune"), {"phase": "finetune", "num_real": 10}
    kinds = sorted({each["finetune"] for each in gentler}, key=lambda kind: "batch" in kind or "3e-4" in kind)
    expected = [[score(read_results("birds"), metric, **plain) for metric in ("AP50", "AP")]]
    expected += [[score(gentler, metric, finetune=kind) for metric in ("AP50", "AP")] for kind in kinds]
    assert [row.strip("| ").split(" | ")[1:] for row in table] == expected
    assert f"becomes AP50 {expected[-1][0]}, AP {expected[-1][1]}" in (ROOT / "README.md").read_text()


def test_the_scores_of_blends_are_those_of_the_result_file() -> None:
    (table,) = rows_below((ROOT / "docs" / "training.md").read_text(), "| blend | AP50 | AP |")
    blends = read_results("birds-blends")
    expected = {
        " | ".join(score(blends, metric, blend=kind) for metric in ("AP50", "AP"))
        for kind in {each["blend"] for each in blends}
    }
    assert {row.strip("| ").partition(" | ")[2] for row in table} == expected
    assert len(table) == len(expected)


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: folder.name)
def test_the_tables_and_the_drawing_of_an_experiment_are_those_of_its_results(
    folder: Path, tmp_path: Path
) -> None:
    made = {name: tmp_path / name for name in ("tables.md", "amounts.svg")}
    report([str(folder), "--markdown", str(made["tables.md"]), "--plots", str(made["amounts.svg"])])
    for name, path in made.items():
        assert (folder / name).read_text() == path.read_text()
    tables = made["tables.md"].read_text()
    sections = (ROOT / "docs" / "experiments.md").read_text().split("\n## ")
    (section,) = (text for text in sections if f"results/{folder.name}/tables.md" in text)
    spreads = re.findall(r"[\d.]+ ± [\d.]+\d", section)
    assert spreads
    assert [spread for spread in spreads if spread not in tables] == []


def test_what_is_not_there_is_found_out() -> None:
    page = "[a](docs/gone.md) [b](https://host/x) `tests/gone.py` `trainer.juggle` python -m factory.knit"
    assert links_of(page) == ["docs/gone.md"]
    assert places_of(page) == ["tests/gone.py"]
    assert [name for name in modules_of(page) if not exists(name)] == ["trainer.juggle", "factory.knit"]
