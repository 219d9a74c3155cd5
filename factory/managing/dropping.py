"""A set without the records that rules name: ``'confidence<0.6'``, ``label=car``, ``shard=…``."""

import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Self

from configs.errors import InputError
from configs.kinds import did_you_mean
from factory.managing.derived import Derivation, Draft, Step
from shards.manifest import ShardEntry
from shards.raw import RawRecord, read_raw
from shards.reader import ShardSet

_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*(?P<name>[A-Za-z_][\w.]*)\s*(?P<sign><=|>=|!=|==|<|>|=)\s*(?P<wanted>.*\S)\s*")
_WANTED = "wanted NAME<NUMBER, NAME>=NUMBER, NAME=TEXT and the like, joined by ' and '"


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison. sign: ``<``, ``<=``, ``>``, ``>=`` of numbers; ``=``, ``!=`` of numbers or of text,
    where ``*`` and ``?`` stand for anything.
    """

    name: str
    sign: str
    wanted: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InputError for anything that is no comparison."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise InputError(f"rule '{text}': {_WANTED}")
        sign = "=" if found["sign"] == "==" else found["sign"]
        if sign in _COMPARED and _number(found["wanted"]) is None:
            raise InputError(f"rule '{text}': found {found['wanted']!r}, wanted a number after {sign}")
        return cls(found["name"], sign, found["wanted"])

    def holds(self, facts: Mapping[str, str | int | float], place: str) -> bool:
        """Raises InputError at the place of a record that has no such fact, or text where a number is due."""
        if self.name not in facts:
            raise InputError(f"{place}: no {did_you_mean(self.name, sorted(facts))}")
        value = facts[self.name]
        if self.sign in _COMPARED:
            if isinstance(value, str):
                raise InputError(f"{place}: {self.name} is {value!r}, wanted a number for {self.sign}")
            return _COMPARED[self.sign](value, _number(self.wanted))
        if isinstance(value, str):
            equal = fnmatchcase(value, self.wanted)
        else:
            equal = value == _number(self.wanted)
        return equal == (self.sign == "=")


@dataclass(frozen=True, slots=True)
class Rule:
    """Drops what all its conditions hold for. text: as the user wrote it; the reason in the manifest."""

    text: str
    conditions: tuple[Condition, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InputError."""
        return cls(text, tuple(Condition.parse(part) for part in re.split(r"\s+and\s+", text.strip())))

    def holds(self, facts: Mapping[str, str | int | float], place: str) -> bool:
        """Whether the record of these facts is to be dropped. Raises InputError as `Condition.holds`."""
        return all(condition.holds(facts, place) for condition in self.conditions)

    def only(self, name: str) -> bool:
        """Whether it looks at nothing but that fact."""
        return all(condition.name == name for condition in self.conditions)


def drop(parent: ShardSet, texts: Sequence[str]) -> Derivation:
    """Without what any of the rules holds for; the first that does is counted as the reason.

    Facts are ``shard``, ``key``, ``width``, ``height``, ``label``, and all that a record's origin holds.
    A shard that goes as a whole is not read, so a damaged one can be left out. A class that a rule
    ``label=NAME`` drops is none of the new set's. Raises InputError for a rule that is none, or that names a
    class or a shard which the set has not.
    """
    if not texts:
        raise InputError(f"drop: no rule: {_WANTED}")
    rules = [Rule.parse(text) for text in texts]
    for rule in rules:
        _check_names(rule, parent)
    dropped = {c.wanted for rule in rules if rule.only("label") for c in rule.conditions if c.sign == "="}
    classes = tuple(name for name in parent.classes if name not in dropped)
    steps = (
        Step(index, partial(_kept, rules, parent, entry))
        for index, entry in enumerate(parent.manifest.shards)
    )
    return Derivation("drop", {"rules": [rule.text for rule in rules]}, [parent], classes, steps)


def _kept(rules: Sequence[Rule], parent: ShardSet, entry: ShardEntry) -> Draft:
    dropped = Counter(entry.dropped)
    kept: list[RawRecord] = []
    whole = next((r for r in rules if r.only("shard") and r.holds({"shard": entry.name}, entry.name)), None)
    if whole is not None:
        dropped[whole.text] += entry.records
        return Draft(kept, dropped, entry.seen)
    for record in read_raw(parent.store, entry):
        facts = _facts(record, entry)
        place = f"{parent.store.location}/{entry.name}: {record.key}"
        reason = next((rule.text for rule in rules if rule.holds(facts, place)), None)
        if reason is None:
            kept.append(record)
        else:
            dropped[reason] += 1
    return Draft(kept, dropped, entry.seen)


def _facts(record: RawRecord, entry: ShardEntry) -> dict[str, str | int | float]:
    facts = record.facts()
    own = {name: facts[name] for name in ("width", "height", "label") if name in facts}
    return {**facts["origin"], **own, "shard": entry.name, "key": record.key}


def _check_names(rule: Rule, parent: ShardSet) -> None:
    """A class or shard that is not there is a slip of the pen: such a rule would drop nothing, silently."""
    known = {"label": list(parent.classes), "shard": [entry.name for entry in parent.manifest.shards]}
    for condition in rule.conditions:
        names = known.get(condition.name)
        if names is not None and not any(fnmatchcase(name, condition.wanted) for name in names):
            what = "class" if condition.name == "label" else "shard"
            raise InputError(f"rule '{rule.text}': no {what} {did_you_mean(condition.wanted, names[:20])}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
