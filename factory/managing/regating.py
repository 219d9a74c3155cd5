"""The gate once more, with stricter limits, from the scores in the records: nothing is generated again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from configs.errors import InputError
from configs.kinds import StrictModel
from configs.load import apply_overrides, validated
from factory.managing.derived import Derivation, Draft, Step
from factory.quality import LIMITS, Limit, QualityConfig
from shards.manifest import ShardEntry
from shards.raw import RawRecord, read_raw
from shards.reader import ShardSet


class Regate(StrictModel):
    """What the command takes: ``quality.min_confidence=0.6``."""

    quality: QualityConfig


def regate(parent: ShardSet, overrides: Sequence[str]) -> Derivation:
    """The crops that a build with these limits would have kept of the same images.

    Limits that are not named stay as they were. Whole frames (``segmenter.kind=whole``) pass, as in a build.
    Three things differ from a build: keys stay as they are; records hold scores to four digits, so a score
    within 0.00005 of a limit may be judged otherwise; and where the first of two near-duplicates falls, a
    build would have had the second, which this set has not. (A build from an endless source would also go on
    until its shards are full.)
    Raises InputError for backgrounds, a limit looser than the set's own (what it refused is gone), and
    ``duplicate_bits``.
    """
    if parent.manifest.kind != "crops":
        raise InputError(f"{parent.store.location}: holds {parent.manifest.kind}, wanted crops")
    limits = _limits(overrides)
    for place in range(len(parent.manifest.shards)):
        _check_stricter(limits, _history(parent.manifest.recipe, place), parent)
    steps = (
        Step(place, partial(_judged, limits, parent, place, entry))
        for place, entry in enumerate(parent.manifest.shards)
    )
    return Derivation("regate", {"quality": limits}, [parent], parent.classes, steps)


def _limits(overrides: Sequence[str]) -> dict[str, float]:
    """The limits that the command names, checked as a recipe's are."""
    given = apply_overrides({}, overrides)
    found = validated(Regate, given, "command line")
    named = set(given.get("quality", {}))
    if "duplicate_bits" in named:
        raise InputError("quality.duplicate_bits: is about pixels, not scores: wanted the command dedupe")
    if not named:
        raise InputError("regate: no limit, wanted for example quality.min_confidence=0.6")
    return {name: getattr(found.quality, name) for name in sorted(named)}


@dataclass(frozen=True, slots=True)
class _History:
    """What a shard's crops have passed. limits: of the gate they came through. is_whole: past the gate."""

    limits: Mapping[str, float]
    is_whole: bool


def _history(recipe: Mapping[str, Any], place: int) -> _History:
    """Of the shard at that place of a set: all commands but merge leave shards at their places."""
    if "made" not in recipe:
        return _built(recipe)
    for parent in recipe["parents"]:
        if place < parent["shards"]:
            break
        place -= parent["shards"]
    found = _history(parent["recipe"], place)
    if recipe["made"] != "regate":
        return found
    return _History({**found.limits, **recipe["settings"]["quality"]}, found.is_whole)


def _built(recipe: Mapping[str, Any]) -> _History:
    """What `factory.build` says of a set; sets of other programs may say nothing."""
    settings = _group(recipe, "settings")
    is_whole = _group(settings, "segmenter").get("kind") == "whole"
    return _History(_group(settings, "quality"), is_whole)


def _group(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, Mapping) else {}


def _check_stricter(limits: Mapping[str, float], history: _History, parent: ShardSet) -> None:
    for limit in LIMITS:
        if limit.name not in limits or limit.name not in history.limits:
            continue
        old, new = history.limits[limit.name], limits[limit.name]
        if limit.refuses(new, old):
            raise InputError(
                f"quality.{limit.name}: found {new}, {parent.store.location} was gated at {old} and has no "
                "others: wanted a stricter limit, or a new build"
            )


def _judged(limits: Mapping[str, float], parent: ShardSet, place: int, entry: ShardEntry) -> Draft:
    history = _history(parent.manifest.recipe, place)
    at_work = [
        limit
        for limit in LIMITS
        if limit.name in limits and limits[limit.name] != history.limits.get(limit.name)
    ]
    kept: list[RawRecord] = []
    dropped = Counter(entry.dropped)
    for record in read_raw(parent.store, entry):
        where = f"{parent.store.location}/{entry.name}: {record.key}"
        reason = "" if history.is_whole else _reason(record.facts()["origin"], at_work, limits, where)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(record)
    return Draft(kept, dropped, entry.seen)


def _reason(
    origin: Mapping[str, Any], at_work: Sequence[Limit], limits: Mapping[str, float], where: str
) -> str:
    """The first that the crop falls by, in the gate's order; empty when it passes."""
    for limit in at_work:
        score = origin.get(limit.score)
        if not isinstance(score, int | float):
            raise InputError(
                f"{where}: has no {limit.score}, which quality.{limit.name} needs: wanted a build"
            )
        if limit.refuses(score, limits[limit.name]):
            return limit.reason
    return ""
