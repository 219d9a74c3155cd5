"""The report's page: one HTML file that stands alone."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs.errors import InputError
from trainer.metrics.error_breakdown import KINDS
from trainer.reporting import plots
from trainer.reporting.findings import findings_of, pretrained_alone, tally
from trainer.reporting.folder import CellResult, Results
from trainer.reporting.looks import Look, looks_of
from trainer.reporting.pictures import Picture, fit_pictures, open_picture
from trainer.reporting.provenance import (
    commands,
    commits_of,
    machines_of,
    plan_of,
    seeds_of,
    set_facts,
    versions_of,
    written_at,
)
from trainer.reporting.scores import Grid, conditions_of
from trainer.reporting.tables import notes_of
from trainer.reporting.templates import duration, make_environment
from trainer.runs.provenance import find_versions

_TEMPLATE, _SCRIPT, _PLOTS = "page.html", "page_script.html", "plots.svg"
_ERRORS = {
    "duplicate": "a second box on an object",
    "confused": "of another class",
    "mislocalised": "on its object, but not well enough",
    "both": "mislocalised on another class",
    "background": "on nothing",
    "missed": "an object not found",
}


@dataclass(frozen=True, slots=True)
class CostRow:
    """What the trainings of a condition took. steps, seconds: of one on the mean; None where unknown."""

    object: str
    detector: str
    condition: str
    trainings: int
    done: int
    steps: float | None
    seconds: float | None
    total_s: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture with its heading."""

    title: str
    picture: Picture | None
    note: str | None = None


def page_of(results: Results, grids: Sequence[Grid], home: Path, num_draws: int) -> str:
    """The page's HTML. grids: of all metrics, AP50's first. num_draws: for the intervals of the curves."""
    looks = looks_of(results, home, num_draws)
    composites, sheets = _pictures(results, looks)
    findings = [finding for grid in grids for finding in findings_of(grid)]
    environment = make_environment()
    script = environment.get_template(_SCRIPT).render()
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(_TEMPLATE).render(
        results=results,
        script=script,
        script_hash=hashed,
        facts=_facts(results),
        findings=findings,
        alone=[(grid, said) for grid in grids if (said := pretrained_alone(grid)) is not None],
        tally=tally([finding for finding in findings if finding.metric == "AP50"]),
        grids=grids,
        metrics=[*dict.fromkeys(grid.metric for grid in grids)],
        notes={grid.title: notes_of(grid) for grid in grids if grid.metric == "AP50"},
        other_paper=_other_paper(results, grids),
        plots=amounts_plots(grids),
        curves=_curves(looks),
        looks=looks,
        errors=[look for look in looks if look.report is not None],
        error_kinds=_error_kinds(looks),
        most_cost=_most_cost(looks),
        composites=composites,
        sheets=sheets,
        costs=_costs(results),
        total_s=sum(cell.seconds or 0 for cell in _distinct(results.cells)),
        seeds=seeds_of(results),
        commits=commits_of(results),
        machines=machines_of(results),
        trained_with=versions_of(results),
        versions=find_versions(),
        written_at=written_at(),
        commands=commands(results.folder),
        plan=plan_of(results.folder),
        sets=set_facts(results, home),
        has_objects=len({cell.object for cell in results.cells}) > 1,
        has_detectors=len({cell.detector for cell in results.cells}) > 1,
        is_one=len(grids) == len({grid.metric for grid in grids}),
        drawing=plots,
    )


def plots_of(grids: Sequence[Grid]) -> str:
    """The page's plots of scores over photos alone: an SVG, light or dark as its reader's screen is.

    Raises InputError where there is nothing to plot.
    """
    found = amounts_plots(grids)
    if not found:
        raise InputError("--plots: found no score yet, wanted one to draw")
    return make_environment().get_template(_PLOTS).render(plots=found, drawing=plots)


def amounts_plots(grids: Sequence[Grid]) -> list[plots.Plot]:
    """Of the grids that have enough for one."""
    return [plot for grid in grids if (plot := plots.amounts_plot(grid)) is not None]


def _facts(results: Results) -> list[tuple[str, str]]:
    done = [cell for cell in _distinct(results.cells) if cell.scores is not None]
    best = max((value for cell in done if (value := (cell.scores or {}).get("AP50"))), default=None)
    tested = {int(value) for cell in done if (value := (cell.scores or {}).get("photos"))}
    facts = [
        ("trainings done", f"{len(done)} of {len(_distinct(results.cells))}"),
        ("conditions", str(len(conditions_of(results)))),
        ("seeds", str(len(seeds_of(results)))),
        ("test photos", " or ".join(f"{count:,}" for count in sorted(tested)[:3])),
        ("best AP50", "" if best is None else f"{100 * best:.1f}"),
        ("training time", duration(sum(cell.seconds or 0 for cell in _distinct(results.cells)))),
    ]
    return [(name, value) for name, value in facts if value]


def _distinct(cells: Sequence[CellResult]) -> list[CellResult]:
    """Trainings that several runs share, once."""
    return list({cell.folder: cell for cell in cells}.values())


def _pictures(results: Results, looks: Sequence[Look]) -> tuple[list[Shown], list[Shown]]:
    """Composites of each run, and the sheet of each look, within the bound together."""
    scenes: list[tuple[str, Image.Image]] = []
    for run in results.runs:
        image = open_picture(run.path / "scenes.png")
        if image is not None and not any(_equal(image, other) for _, other in scenes):
            scenes.append((run.name, image))
    with_sheet = [(look, look.sheet) for look in looks if look.sheet is not None]
    images = [(image, f"training scenes of {name}, with their boxes") for name, image in scenes]
    images += [(sheet, f"test photos with detections: {look.name}") for look, sheet in with_sheet]
    pictures = fit_pictures(images)
    of_scenes = [Shown(name, picture) for (name, _), picture in zip(scenes, pictures, strict=False)]
    of_looks = [
        Shown(_looked_at(results, look), picture, look.problem)
        for (look, _), picture in zip(with_sheet, pictures[len(scenes) :], strict=True)
    ]
    return of_scenes, of_looks


def _equal(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


def _looked_at(results: Results, look: Look) -> str:
    """The look's name, and whose it is where there are several."""
    several = len({(cell.object, cell.detector) for cell in results.cells}) > 1
    return f"{look.cell.object}, {look.cell.detector}: {look.name}" if several else look.name


def _curves(looks: Sequence[Look]) -> list[plots.CurvePlot]:
    """A drawing for each object and detector."""
    groups: dict[tuple[str, str], list[tuple[str, int, dict[str, Any]]]] = {}
    for look in looks:
        if look.report is not None:
            group = groups.setdefault((look.cell.object, look.cell.detector), [])
            group.append((look.name, look.number, look.report))
    return [plots.curve_plot(", ".join(pair), group) for pair, group in groups.items()]


def _most_cost(looks: Sequence[Look]) -> float:
    """The longest bar's, at least a tenth of a point."""
    reports = [look.report for look in looks if look.report is not None]
    costs: list[float | None] = [report["errors"][kind]["cost"] for report in reports for kind in KINDS]
    return max([0.001, *(cost for cost in costs if cost is not None)])


def _error_kinds(looks: Sequence[Look]) -> dict[str, str]:
    """Those that can be: where there is one class, none is confused with another."""
    many = any(len(look.report["classes"]) > 1 for look in looks if look.report is not None)
    return {kind: text for kind, text in _ERRORS.items() if many or kind not in ("confused", "both")}


def _costs(results: Results) -> list[CostRow]:
    conditions = conditions_of(results)
    groups: dict[tuple[str, str, str], list[CellResult]] = {}
    for cell in _distinct(results.cells):
        groups.setdefault((cell.object, cell.detector, cell.condition), []).append(cell)
    rows = []
    for key, cells in sorted(groups.items(), key=lambda item: (*item[0][:2], conditions.index(item[0][2]))):
        done = [cell for cell in cells if cell.scores is not None]
        steps = [cell.steps for cell in done if cell.steps is not None]
        seconds = [cell.seconds for cell in done if cell.seconds is not None]
        rows.append(
            CostRow(
                *key,
                len(cells),
                len(done),
                float(np.mean(steps)) if steps else None,
                float(np.mean(seconds)) if seconds else None,
                sum(cell.seconds or 0 for cell in cells),
            )
        )
    return rows


def _other_paper(results: Results, grids: Sequence[Grid]) -> list[Any]:
    """The paper's rows that no table has beside ours."""
    shown = {
        id(value)
        for grid in grids
        for row in grid.rows
        for amount, value in row.paper.items()
        if amount in grid.amounts
    }
    return [value for value in results.paper if id(value) not in shown]
