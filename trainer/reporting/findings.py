"""What the scores say, in sentences: where a condition is better or worse, and where one cannot tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.reporting.scores import Grid, Row, Spread, listed, photos

_BASELINE, _PRETRAINED = "no_pretraining", "pretrain_only"

_GENERATED = ("with_pretraining", "pretrain_segmentation", "pretrain_gan_objects")
_RIVALS = ("mixed", "pretrain_naive_pasting", "pretrain_real_objects")

Verdict = Literal["better", "worse", "not told apart", "one seed"]
VERDICTS: tuple[Verdict, ...] = ("better", "worse", "not told apart", "one seed")


@dataclass(frozen=True)
class Comparison:
    """A condition against another at the same amount of photos. difference: of the means, in points.

    wins, pairs: seeds with the higher score, of the seeds that both have.
    """

    num_real: int
    difference: float
    verdict: Verdict
    wins: int
    pairs: int


@dataclass(frozen=True)
class Finding:
    """A condition against another wherever both have scores."""

    grid: str
    name: str
    against: str
    metric: str
    comparisons: Sequence[Comparison]

    @property
    def verdicts(self) -> list[Verdict]:
        """Those that occur."""
        return [verdict for verdict in VERDICTS if any(c.verdict == verdict for c in self.comparisons)]

    @property
    def sentences(self) -> list[tuple[Verdict, str]]:
        """One for each verdict."""
        return [(verdict, self._sentence(verdict)) for verdict in self.verdicts]

    def _sentence(self, verdict: Verdict) -> str:
        found = [each for each in self.comparisons if each.verdict == verdict]
        amounts = [photos(found[0].num_real), *(f"{each.num_real:,}" for each in found[1:])]
        where = listed([f"{_points(c.difference)} with {n}" for c, n in zip(found, amounts, strict=True)])
        wins, pairs = sum(each.wins for each in found), sum(each.pairs for each in found)
        seeds = f", higher in {wins} of {pairs} pairs of the same seed" if pairs > 1 else ""
        signs = {bool(each.difference > 0) for each in found}
        stands = "against" if len(signs) > 1 else "ahead of" if signs == {True} else "behind"
        said = {
            "better": f"“{self.name}” beats “{self.against}”",
            "worse": f"“{self.name}” loses to “{self.against}”",
            "not told apart": f"“{self.name}” and “{self.against}” overlap",
            "one seed": f"“{self.name}” {stands} “{self.against}”",
        }[verdict]
        return f"{said}: {where} ({self.metric}){seeds}."


@dataclass(frozen=True)
class PretrainedAlone:
    """What pretraining is worth before any photo is learnt from. tag: in short, whether a label chose it."""

    tag: str
    sentence: str


def findings_of(grid: Grid) -> list[Finding]:
    """Every condition against the one from scratch, or against the first where none is from scratch; then
    pretraining on generated objects against its rivals, and against mixed data of as many scenes.

    Better or worse means that the intervals, mean ± standard deviation of the seeds, do not overlap.
    """
    rows = {row.condition: row for row in grid.rows if any(row.spreads[n].by_seed for n in row.spreads if n)}
    found = []
    for own, other in _pairs(list(rows)):
        comparisons = _comparisons(rows[own], rows[other])
        if comparisons:
            found.append(Finding(grid.title, rows[own].name, rows[other].name, grid.metric, comparisons))
    return found


def _pairs(conditions: Sequence[str]) -> list[tuple[str, str]]:
    """Which conditions are compared: (own, other)."""
    same_scenes = [
        (own, other)
        for own in conditions
        if (other := own.replace("pretrain_finetune_", "mixed_data_")) != own and other in conditions
    ]
    if not conditions or (same_scenes and _BASELINE not in conditions):
        return same_scenes
    base = _BASELINE if _BASELINE in conditions else conditions[0]
    to_base = [(own, base) for own in conditions if own != base]
    rivals = [(own, other) for own in _GENERATED for other in _RIVALS]
    return [
        *to_base,
        *(
            (own, other)
            for own, other in rivals
            if {own, other} <= {*conditions} and base not in (own, other)
        ),
        *same_scenes,
    ]


def pretrained_alone(grid: Grid) -> PretrainedAlone | None:
    """What pretraining alone is worth, in photos from scratch; None where either is missing."""
    by_condition = {row.condition: row for row in grid.rows}
    if _BASELINE not in by_condition or _PRETRAINED not in by_condition:
        return None
    alone = by_condition[_PRETRAINED].spreads.get(0)
    scratch = {n: each for n, each in by_condition[_BASELINE].spreads.items() if each.by_seed}
    if alone is None or not alone.by_seed or not scratch:
        return None
    beaten = [n for n, each in scratch.items() if _verdict(alone, each) == "better"]
    nearest = max(beaten) if beaten else min(scratch)
    verdict = _verdict(alone, scratch[nearest])
    stands = {"better": "more than", "worse": "less than", "not told apart": "not told apart from"}
    ahead = "ahead of" if alone.mean > scratch[nearest].mean else "not ahead of"
    said = stands.get(verdict, f"one seed, {ahead}")
    tag, begins = _labels_of(by_condition[_PRETRAINED])
    return PretrainedAlone(
        tag,
        f"{begins} has {alone} {grid.metric}: {said} {photos(nearest)} from scratch ({scratch[nearest]}).",
    )


def _labels_of(pretrained: Row) -> tuple[str, str]:
    """A tag, and how the sentence begins: no label is said only where that is known."""
    labels = pretrained.labels
    if labels is None:
        return "pretrained only", "Pretraining alone"
    chosen = f"its checkpoint chosen by {photos(labels.chosen_by)} with boxes" if labels.chosen_by else ""
    fitted = "its scenes fitted to real boxes" if labels.fits_scales else ""
    if chosen or fitted:
        return (
            "helped by labels",
            f"Pretraining alone, {listed([each for each in (chosen, fitted) if each])},",
        )
    return "no real box", "Without one real box, pretraining alone"


def tally(findings: Sequence[Finding]) -> dict[Verdict, int]:
    """How often each verdict was given."""
    given = [each.verdict for finding in findings for each in finding.comparisons]
    return {verdict: given.count(verdict) for verdict in VERDICTS if verdict in given}


def _comparisons(row: Row, base: Row) -> list[Comparison]:
    return [
        _compared(amount, row.spreads[amount], base.spreads[amount])
        for amount in row.spreads
        if amount in base.spreads and row.spreads[amount].by_seed and base.spreads[amount].by_seed
    ]


def _compared(amount: int, own: Spread, other: Spread) -> Comparison:
    both = sorted(own.by_seed.keys() & other.by_seed.keys())
    wins = int(np.sum([own.by_seed[seed] > other.by_seed[seed] for seed in both]))
    return Comparison(amount, own.mean - other.mean, _verdict(own, other), wins, len(both))


def _verdict(own: Spread, other: Spread) -> Verdict:
    if own.std is None or other.std is None:
        return "one seed"
    if own.low > other.high:
        return "better"
    return "worse" if own.high < other.low else "not told apart"


def _points(difference: float) -> str:
    """With its sign."""
    return f"{round(difference, 1) + 0.0:+.1f}".replace("-", "−")
