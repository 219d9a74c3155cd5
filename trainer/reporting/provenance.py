"""Where the numbers come from, for the page: commands, seeds, sets and settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from configs.errors import InputError
from shards.errors import ShardError
from shards.manifest import Kind
from trainer.reporting.folder import Results
from trainer.runs.provenance import SetOrigin, places_of, set_origin


@dataclass(frozen=True, slots=True)
class SetFacts:
    """A set that runs name. kept: as it was when they trained, None where that was not kept.

    now: as it is, None where it is not at hand, and then ``problem`` says why.
    """

    place: str
    kind: Kind
    kept: SetOrigin | None
    now: SetOrigin | None
    problem: str | None

    @property
    def shown(self) -> SetOrigin | None:
        """What is known of it."""
        return self.kept or self.now

    @property
    def state(self) -> str:
        """What it is now to those who trained with it."""
        if self.now is None:
            return self.problem or "not at hand"
        if self.kept is None:
            return "as it is now; what it was is not recorded"
        return "still the same" if self.kept == self.now else "another now"


def commands(folder: Path) -> list[str]:
    """Those that worked on the folder, by its log."""
    path = folder / "log.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    begun = [line.split(" begins: ", 1) for line in lines if " begins: " in line]
    return [f"{when.split()[0]}  {command}" for when, command in begun if when]


def plan_of(folder: Path) -> str:
    """The experiment as it was asked for; empty for a run."""
    path = folder / "experiment.yaml"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def set_facts(results: Results, home: Path) -> list[SetFacts]:
    """Each set that a run names, once for each state that it was kept in."""
    kept: dict[str, list[SetOrigin]] = {}
    for origin in results.origins:
        for each in origin.sets:
            states = kept.setdefault(each.place, [])
            if each not in states:
                states.append(each)
    kinds: dict[str, Kind] = {place: states[0].kind for place, states in kept.items()}
    for run in results.runs:
        if run.config is not None:
            kinds |= places_of(run.config)
    facts = []
    for place, kind in sorted(kinds.items(), key=lambda item: (item[1] != "crops", item[0])):
        now, problem = _now(place, kind, home)
        states_of: Sequence[SetOrigin | None] = kept.get(place) or [None]
        facts += [SetFacts(place, kind, state, now, problem) for state in states_of]
    return facts


def versions_of(results: Results) -> list[str]:
    """``torch 2.9, numpy 2.3``: of each command that trained, once."""
    said = [
        ", ".join(f"{name} {number}" for name, number in each.versions.items()) for each in results.origins
    ]
    return list(dict.fromkeys(said))


def commits_of(results: Results) -> list[str]:
    """Of the commands that trained, else of the results."""
    found = [each.commit for each in results.origins] or [results.commit]
    return [commit for commit in dict.fromkeys(found) if commit]


def machines_of(results: Results) -> list[str]:
    """Of the commands that trained, else of the results."""
    found: list[str | None] = [each.machine for each in results.origins] or [results.machine]
    return [machine for machine in dict.fromkeys(found) if machine]


def written_at() -> str:
    """Now, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def seeds_of(results: Results) -> Sequence[int]:
    """In order."""
    return sorted({cell.seed for cell in results.cells})


def _now(place: str, kind: Kind, home: Path) -> tuple[SetOrigin | None, str | None]:
    if "://" in place:
        return None, "at a URL, not asked"
    try:
        return set_origin(place, kind, home), None
    except (InputError, ShardError):
        return None, "not at hand"
