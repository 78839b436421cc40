"""Evidence: one comparison over seeds, and how it speaks for or against a claim.

The written rule: a comparison counts only where both tests say so, the t test and the exact
sign-flip test; the larger p of the two is the one that decides. Within a claim, Holm's method
corrects for the number of deciding comparisons.

Every comparison carries two p-values. `p_for` is small where the data speak for the claim,
`p_against` where they speak against it; where neither is small they do not distinguish.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swabench.analysis.statistics import (
    Estimate,
    compare_paired,
    holm,
    seeds_needed,
    sign_flip_p,
    sign_flip_seeds,
    tost_paired,
)
from swabench.study.study import Study

Values = Mapping[int, float]
"""One value per seed."""

Verdict = Literal["supported", "contradicted", "not distinguished", "not measured", "not tested"]


@dataclass(frozen=True)
class Evidence:
    """One comparison over seeds.

    Attributes:
        comparison: What is compared, as `a − b` or in words.
        measure: In what, such as `test accuracy`.
        unit: The unit of the estimate; empty for a pure number.
        estimate: The mean difference over seeds, with its interval.
        p_t: Two-sided p of the paired t test for a mean difference of zero.
        p_sign_flip: The same of the sign-flip test.
        p_for: P-value of the data speaking for the claim; NaN where it does not decide.
        p_against: P-value of the data speaking against it; NaN where it does not decide.
        seeds_needed: Seeds that would detect the observed difference; None if that cannot be
            estimated.
        one_sided: Whether one side of a test would decide it, as equality within a margin.
        fewest_seeds: Seeds below which the sign-flip test cannot decide it, among all that
            decide the claim; 0 before Holm's correction.
        mcnemar_seeds: Seeds at which McNemar's mid-p test distinguishes the two models; None
            where the test was not made.
    """

    comparison: str
    measure: str
    unit: str
    estimate: Estimate
    p_t: float
    p_sign_flip: float
    p_for: float = math.nan
    p_against: float = math.nan
    seeds_needed: int | None = None
    one_sided: bool = False
    fewest_seeds: int = 0
    mcnemar_seeds: tuple[int, ...] | None = None

    @property
    def decides(self) -> bool:
        """Whether the verdict rests on it; the rest is there to be looked at."""
        return not math.isnan(self.p_for)

    @property
    def has_too_few_seeds(self) -> bool:
        """Whether no difference, however large, could be detected with so few seeds."""
        return self.decides and self.estimate.n < self.fewest_seeds


class Comparer:
    """Compares values over seeds by a study's rules.

    Args:
        study: Gives the rules and the confidence of the intervals.
        rng: Source of sign flips, where seeds are too many to try every pattern.
    """

    def __init__(self, study: Study, rng: np.random.Generator) -> None:
        self._rules = study.claims
        self._confidence = study.confidence
        self._rng = rng

    def shown(self, comparison: str, measure: str, unit: str, a: Values, b: Values) -> Evidence:
        """The differences a − b, estimated and tested for zero; decides nothing.

        Raises:
            ValueError: The two don't have the same seeds.
        """
        if a.keys() != b.keys():
            raise ValueError(f"{comparison}: found seeds {sorted(a)} and {sorted(b)}, not pairs")
        pairs = [a[seed] for seed in sorted(a)], [b[seed] for seed in sorted(a)]
        found = compare_paired(*pairs, confidence=self._confidence, rng=self._rng)
        return Evidence(comparison, measure, unit, found.difference, found.p_t, found.p_sign_flip)

    def directed(
        self, comparison: str, measure: str, unit: str, a: Values, b: Values, sign: Literal[1, -1]
    ) -> Evidence:
        """The claim is a > b (sign 1) or a < b (sign −1); two-sided tests of zero decide."""
        shown = self.shown(comparison, measure, unit, a, b)
        d = _differences(a, b)
        return replace(
            shown,
            p_for=min(1.0, 2 * self.p_above(sign * d, 0)),
            p_against=min(1.0, 2 * self.p_above(-sign * d, 0)),
            seeds_needed=self.needed(shown.estimate, 0),
        )

    def equal(
        self, comparison: str, measure: str, unit: str, a: Values, b: Values, margin: float
    ) -> Evidence:
        """The claim is that a and b are equal within a margin; TOST decides.

        What speaks against it is a difference beyond the margin, on either side.
        """
        shown = self.shown(comparison, measure, unit, a, b)
        d = _differences(a, b)
        return replace(
            shown,
            p_for=self.p_within(d, margin),
            p_against=min(1.0, 2 * min(self.p_above(d, margin), self.p_above(-d, margin))),
            seeds_needed=self.needed(shown.estimate, margin),
            one_sided=abs(shown.estimate.mean) < margin,
        )

    def p_above(self, differences: NDArray[np.float64], threshold: float) -> float:
        """One-sided p of a mean difference above a threshold, by both tests."""
        shifted = differences - threshold
        if not shifted.mean() > 0:
            return 1.0
        found = compare_paired(shifted, np.zeros_like(shifted), rng=self._rng)
        # One tail is half of both; one seed alone proves nothing.
        return 1.0 if math.isnan(found.p_t) else max(found.p_t, found.p_sign_flip) / 2

    def p_within(self, differences: NDArray[np.float64], margin: float) -> float:
        """P-value of a mean difference within ±margin: TOST, by both tests."""
        if len(differences) < 2 or not abs(differences.mean()) < margin:
            return 1.0
        flips = (sign_flip_p(margin + side * differences, self._rng) / 2 for side in (1, -1))
        return max(tost_paired(differences, margin), *flips)

    def needed(self, estimate: Estimate, margin: float) -> int | None:
        """Seeds that distinguish the observed difference from the nearer end of ±margin."""
        inside = margin > abs(estimate.mean)
        distance = abs(abs(estimate.mean) - margin)
        # Equality is a one-sided question at each end: its level is not halved.
        level = self._rules.alpha * (2 if inside else 1)
        return seeds_needed(distance, estimate.deviation, self._rules.power, level)


def corrected(evidence: Sequence[Evidence], alpha: float) -> tuple[Evidence, ...]:
    """The evidence of a claim, corrected for the number of comparisons that decide it.

    Besides the p-values that is the number of seeds: the smallest p that the sign-flip test can
    give must still reach `alpha` after Holm's correction.
    """
    p_for = holm([e.p_for for e in evidence])
    p_against = holm([e.p_against for e in evidence])
    level = alpha / max(1, sum(e.decides for e in evidence))
    found = []
    for e, f, a in zip(evidence, p_for, p_against, strict=True):
        fewest = sign_flip_seeds(level * (2 if e.one_sided else 1))
        found.append(
            replace(
                e,
                p_for=float(f),
                p_against=float(a),
                seeds_needed=max(e.seeds_needed, fewest) if e.seeds_needed else None,
                fewest_seeds=fewest,
            )
        )
    return tuple(found)


def judge(evidence: Sequence[Evidence], alpha: float) -> Verdict:
    """The verdict of corrected evidence: all of it must speak for a claim, or any against."""
    deciding = [e for e in evidence if e.decides]
    if any(e.p_against <= alpha for e in deciding):
        return "contradicted"
    if deciding and all(e.p_for <= alpha for e in deciding):
        return "supported"
    return "not distinguished"


def _differences(a: Values, b: Values) -> NDArray[np.float64]:
    return np.array([a[seed] - b[seed] for seed in sorted(a)])
