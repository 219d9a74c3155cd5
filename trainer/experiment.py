"""Every run of a table or figure by one command: ``python -m trainer.experiment birds-small``."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_home, packaged_names
from configs.load import to_yaml
from configs.log_file import keep_log
from configs.text_file import write_text
from shards.errors import ShardError
from trainer.evaluation.official_scores import shown_metrics
from trainer.experiments.config import ExperimentConfig, PlannedRun, load_experiment, plan_runs
from trainer.experiments.cost import Costs
from trainer.experiments.results import result_table, steps_and_seconds, write_results
from trainer.experiments.schedule import Machine, Schedule, alone
from trainer.experiments.sharing import Plan, link_shared, share
from trainer.runs.folder import Run
from trainer.runs.provenance import keep_origin, origin_of

_EXAMPLES = """examples:
  python -m trainer.experiment birds-small --dry-run
  python -m trainer.experiment birds-small --jobs 2
  python -m trainer.experiment table-1 --out runs/table-1 'seeds=[0]' 'num_real=[10, all]'

The same command again goes on where it stopped, and tries again what failed. key=value is for every run."""


def main(argv: list[str]) -> int:
    """Parse, plan, train what is missing, print the table; 1 when a cell failed."""
    args = _parse(argv)
    home = find_home()
    experiment = load_experiment(args.config, args.overrides)
    runs = plan_runs(experiment, [], home)
    plan = share(runs)
    out = args.out or home / "runs" / experiment.name
    machine = Machine.here(args.jobs, args.threads)
    if args.dry_run:
        print(forecast(runs, plan, out, home, machine))
        return 0
    with alone(out):
        keep_log(out)
        return carry_out(experiment, runs, plan, out, home, machine, argv)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "trainer.experiment", "Train and score all runs of an experiment: a table or figure.", _EXAMPLES
    )
    known = ", ".join(packaged_names("experiments"))
    parser.add_argument("arguments", nargs="+", metavar="EXPERIMENT key=value", help=f"{known}, or a file")
    parser.add_argument("--out", type=Path, help="the experiment's folder [runs/NAME]")
    parser.add_argument("--jobs", type=int, help="trainings at a time [one a GPU, else cores / threads]")
    parser.add_argument("--threads", type=int, help="of each training [1; with GPUs an equal part]")
    parser.add_argument("--dry-run", action="store_true", help="print the runs and the hours, write nothing")
    args = parser.parse_intermixed_args(argv)
    names = [text for text in args.arguments if "=" not in text]
    if len(names) != 1:
        raise InputError(f"found {len(names)} experiments, wanted one: {known}, or a file")
    for name in ("jobs", "threads"):
        if (getattr(args, name) or 1) < 1:
            raise InputError(f"--{name}: found {getattr(args, name)}, wanted 1 or more")
    args.config, args.overrides = names[0], [text for text in args.arguments if "=" in text]
    return args


def carry_out(
    experiment: ExperimentConfig,
    runs: Sequence[PlannedRun],
    plan: Plan,
    out: Path,
    home: Path,
    machine: Machine,
    argv: Sequence[str],
) -> int:
    """Train what is missing in ``out``; returns the exit status. Raises InputError before it trains anything
    when data is missing or ``out`` holds another experiment. argv: of the command, for the folders.
    """
    folders = [Run(planned.config, out / planned.folder, home) for planned in runs]
    write_text(out / "experiment.yaml", to_yaml(experiment))
    schedule = Schedule(plan.trainings, out, home, machine)

    _keep_origins(runs, plan, schedule, out, home, argv)

    def keep() -> None:
        for planned in runs:
            link_shared(plan, planned, out)
        write_results(experiment, runs, plan, schedule.failures, out)

    keep()
    with _Bar(plan, schedule, out) as bar:
        code = schedule.run(keep, bar.look)
    if code:
        done = sum(map(schedule.is_done, plan.trainings))
        print(
            f"{out}: {done} of {len(plan.trainings)} trainings done: run the same command again to go on",
            file=sys.stderr,
        )
        return code
    for folder in folders:
        folder.run([])  # its table and scores of all cells
    results = write_results(experiment, runs, plan, schedule.failures, out)
    metrics = shown_metrics(cell["scores"] for cell in results["cells"])
    print("\n\n".join(result_table(results, metric) for metric in metrics))
    for training, why in schedule.failures.items():
        print(f"failed: {training.name}: {why}")
    print(f"results: {out / 'results.json'}")
    return 1 if schedule.failures else 0


def _keep_origins(
    runs: Sequence[PlannedRun], plan: Plan, schedule: Schedule, out: Path, home: Path, argv: Sequence[str]
) -> None:
    """Where what is trained now comes from: in the experiment's folder, and in each run's."""
    folders = {out: runs} | {out / planned.folder: [planned] for planned in runs}
    for folder, of_folder in folders.items():
        trainings = {plan.of[planned.name, cell] for planned in of_folder for cell in planned.cells}
        done = sum(map(schedule.is_done, trainings))
        if done < len(trainings):
            configs = [planned.config for planned in of_folder]
            keep_origin(folder, origin_of("trainer.experiment", argv, configs, done, home))


def forecast(runs: Sequence[PlannedRun], plan: Plan, out: Path, home: Path, machine: Machine) -> str:
    """The runs, what of them is to be trained, and how long that takes on this machine."""
    torch.set_num_threads(machine.threads)
    costs = Costs(out, home, torch.device("cuda" if machine.gpus else "cpu"))
    costs.learn(plan.trainings)
    schedule = Schedule(plan.trainings, out, home, machine)
    lines, total_s = [], 0.0
    for planned in runs:
        cells = [plan.of[planned.name, cell] for cell in planned.cells]
        own = [training for training in cells if training.run is planned]
        left = [training for training in own if not schedule.is_done(training)]
        seconds = sum(map(costs.seconds, left))
        total_s += seconds
        lines.append(
            f"{planned.name}: {len(left)} to train, {len(own) - len(left)} done, "
            f"{len(cells) - len(own)} shared, {seconds / 3600:.2f} h"
        )
    hours = total_s / 3600 / machine.jobs
    return "\n".join([*lines, f"in all {hours:.2f} h with {machine.jobs} at a time"])


class _Bar(AbstractContextManager["_Bar"]):
    """All steps of all trainings on a terminal; nothing elsewhere."""

    def __init__(self, plan: Plan, schedule: Schedule, out: Path) -> None:
        self._schedule, self._out = schedule, out
        self._steps = {each: each.run.config.training_of(each.cell.phase).steps for each in plan.trainings}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            speed_estimate_period=600,
        )
        self._task = self._bar.add_task("begins", total=sum(self._steps.values()), completed=self._done())

    def look(self) -> None:
        """Show how far it is."""
        if not self._bar.disable:
            names = ", ".join(training.name for training in self._schedule.running)
            failed = f", {len(self._schedule.failures)} failed" if self._schedule.failures else ""
            self._bar.update(self._task, completed=self._done(), description=names + failed)

    def _done(self) -> int:
        count = 0
        for training, steps in self._steps.items():
            if training in self._schedule.running:
                folder = self._out / training.folder
                count += steps_and_seconds(folder, training.run.config, training)[0]
            elif self._schedule.is_done(training) or training in self._schedule.failures:
                count += steps
        return count

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


if __name__ == "__main__":
    run(main, ShardError)
