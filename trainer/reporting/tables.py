"""The tables of scores as Markdown and as LaTeX, the paper's values in rows of their own."""

from collections.abc import Sequence

from trainer.reporting.folder import PaperValue
from trainer.reporting.scores import Grid, Row, percent_of

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "∞": r"$\infty$",
    "“": "``",
    "”": "''",
}


def markdown(title: str, grids: Sequence[Grid]) -> str:
    """A table for each grid."""
    parts = [f"# {_markdown_text(title)}"]
    for grid in grids:
        rows = _rows(grid)
        cells = [[_markdown_text(text) for text in row] for row in rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = [_line(row, widths) for row in cells]
        rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
        heading = f"## {_markdown_text(f'{grid.title}: {grid.metric}')}"
        parts.append("\n".join([heading, "", lines[0], rule, *lines[1:]]))
        if notes := [*notes_of(grid), *grid.label_notes]:
            parts.append("\n".join(f"- {_markdown_text(note)}" for note in notes))
    return "\n\n".join([*parts, _CAPTION]) + "\n"


def latex(title: str, grids: Sequence[Grid]) -> str:
    """A ``tabular`` for each grid, in a ``table`` with a caption; it needs no package."""
    parts = [f"% {' '.join(title.split())}"]
    for grid in grids:
        head, *body = [[_latex_text(text) for text in row] for row in _rows(grid)]
        caption = " ".join([f"{grid.title}: {grid.metric}.", _CAPTION, *grid.label_notes])
        parts += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_text(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\hline",
            " & ".join(head) + r" \\",
            r"\hline",
            *(" & ".join(row) + r" \\" for row in body),
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def notes_of(grid: Grid) -> list[str]:
    """What is missing, and why."""
    return [
        f"{row.name}, {amount} real: {reason}"
        for row in grid.rows
        for amount, spread in row.spreads.items()
        for reason in spread.reasons
    ]


_CAPTION = "Percent, mean ± standard deviation over the seeds; – where nothing is measured."


def _rows(grid: Grid) -> list[list[str]]:
    head = [f"{grid.metric}, real photos:", *map(str, grid.amounts)]
    rows = [head]
    for row in grid.rows:
        rows.append([row.name, *(str(row.spreads.get(amount, "")) for amount in grid.amounts)])
        if any(amount in row.paper for amount in grid.amounts):
            rows.append(_paper_row(grid, row))
    return rows


def _paper_row(grid: Grid, row: Row) -> list[str]:
    values = [paper_text(row.paper.get(amount)) for amount in grid.amounts]
    return [f"{row.name}, paper's {grid.paper_detector}", *values]


def paper_text(value: PaperValue | None) -> str:
    """In percent, or nothing."""
    return "" if value is None else percent_of(value.mean, value.std)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        text.rjust(width) if i else text.ljust(width)
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def _markdown_text(text: str) -> str:
    """On one line, with nothing that would be markup."""
    return "".join(f"\\{sign}" if sign in "\\|*_`<>[]#" else sign for sign in " ".join(text.split()))


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
