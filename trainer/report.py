"""A page of what an experiment or a run has found: ``python -m trainer.report DIR``."""

import argparse
from pathlib import Path

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_home, locate
from configs.text_file import write_text
from shards.errors import ShardError
from trainer.evaluation.official_scores import shown_metrics
from trainer.reporting.folder import read_folder
from trainer.reporting.page import page_of, plots_of
from trainer.reporting.scores import grids_of
from trainer.reporting.tables import latex, markdown

_EXAMPLES = """examples:
  python -m trainer.report runs/birds-small
  python -m trainer.report runs/birds --out report.html --markdown tables.md --latex tables.tex
  python -m trainer.report runs/birds-small --plots amounts.svg

DIR is what trainer.experiment or trainer.run wrote, finished or not. The page stands alone: nothing is
fetched. Curves and kinds of errors need a run's detections.npz and the test photos; what lacks is said."""


def main(argv: list[str]) -> int:
    """Read the folder, write the page and the tables."""
    args = _parse(argv)
    home = find_home()
    folder = locate(args.folder, home, "runs")
    results = read_folder(folder)
    if not (args.out or args.markdown or args.latex or args.plots):
        args.out = folder / "report.html"
    metrics = shown_metrics(cell.scores for cell in results.cells)
    of_metrics = zip(*(grids_of(results, metric) for metric in metrics), strict=True)
    grids = [grid for of_all in of_metrics for grid in of_all]
    if args.markdown:
        write_text(args.markdown, markdown(results.title, grids))
    if args.latex:
        write_text(args.latex, latex(results.title, grids))
    if args.plots:
        write_text(args.plots, plots_of(grids))
    if args.out:
        write_text(args.out, page_of(results, grids, home, args.draws))
    for path in (args.out, args.markdown, args.latex, args.plots):
        if path:
            print(path)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser("trainer.report", "Write a page of an experiment's or a run's results.", _EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="DIR", help="an experiment's or a run's folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page [DIR/report.html]")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the tables alone")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="the tables alone")
    parser.add_argument("--plots", type=Path, metavar="FILE.svg", help="scores over photos, drawn, alone")
    parser.add_argument("--draws", type=int, default=200, help="of photos, for the curves' intervals [200]")
    args = parser.parse_args(argv)
    if args.draws < 0:
        raise InputError(f"--draws: found {args.draws}, wanted 0 or more")
    for name in ("out", "markdown", "latex", "plots"):
        path = getattr(args, name)
        if path and path.is_dir():
            raise InputError(f"--{name}: {path} is a folder, wanted a file")
    return args


if __name__ == "__main__":
    run(main, ShardError)
