"""Evidence: one comparison over seeds, and what it says in words.

The rule: the paired t test decides, after Holm's correction for the comparisons that decide the
same claim. The exact sign-flip test stands beside it; where the two disagree, that is marked.

What a comparison says is one of: better, worse, equal within a margin, open; and of a difference,
whether it is larger than the margin.
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
    detectable_difference,
    holm,
    t_test_above,
    tost_paired,
)
from swabench.study.study import Study

Values = Mapping[int, float]
"""One value per seed."""

Verdict = Literal["supported", "contradicted", "equal", "open", "not measured"]
Test = Literal["better", "worse by more", "equal"]
"""What a claim says of a − b: it is better, worse by more than the margin, or within it."""


@dataclass(frozen=True)
class Quantity:
    """What is compared.

    Attributes:
        name: Such as `test accuracy`.
        unit: Its unit; empty for a pure number.
        sign: 1 where more is better, −1 where less is.
        margin: Differences within it count as none; None where the rules have none for it.
        words: Of a difference to the good and to the bad.
    """

    name: str
    unit: str
    sign: Literal[1, -1]
    margin: float | None = None
    words: tuple[str, str] = ("better", "worse")


@dataclass(frozen=True)
class Evidence:
    """One comparison over seeds.

    Attributes:
        comparison: What is compared, as `a − b` or in words.
        quantity: In what.
        estimate: The mean difference over seeds, with its interval.
        p_t: Two-sided p of the paired t test for a mean difference of zero.
        p_sign_flip: The same of the sign-flip test.
        p_difference: `p_t`, corrected where it decides.
        p_equal: P-value of a difference within the margin (TOST), corrected where it decides;
            NaN without a margin.
        p_beyond: Two-sided p of a difference beyond the margin, likewise.
        test: What the claim says of it; None where it is shown only.
        decides: Whether the verdict rests on it; the rest is there to be looked at.
        control: Whether it says what else would do the same.
        detectable: The difference that so many seeds of this spread find, see `ClaimRules.power`.
        over_images: Interval that counts the test images as drawn, too; None where not computed.
        mcnemar_seeds: Seeds at which McNemar's mid-p test distinguishes the two models; None
            where the test was not made.
    """

    comparison: str
    quantity: Quantity
    estimate: Estimate
    p_t: float
    p_sign_flip: float
    p_difference: float
    p_equal: float = math.nan
    p_beyond: float = math.nan
    test: Test | None = None
    decides: bool = False
    control: bool = False
    detectable: float = math.nan
    over_images: tuple[float, float] | None = None
    mcnemar_seeds: tuple[int, ...] | None = None

    def is_to_the_good(self, alpha: float) -> bool:
        """Whether a is better than b."""
        return self.p_difference <= alpha and self.quantity.sign * self.estimate.mean > 0

    def is_to_the_bad(self, alpha: float) -> bool:
        """Whether a is worse than b."""
        return self.p_difference <= alpha and self.quantity.sign * self.estimate.mean < 0

    def is_equal(self, alpha: float) -> bool:
        """Whether the difference lies within the margin."""
        return self.p_equal <= alpha

    def is_beyond(self, alpha: float) -> bool:
        """Whether the difference is larger than the margin."""
        return self.p_beyond <= alpha

    def speaks_for(self, alpha: float) -> bool:
        """Whether the data say what the claim says."""
        if self.test == "equal":
            return self.is_equal(alpha)
        if self.test == "worse by more":
            return self.is_beyond(alpha) and self.quantity.sign * self.estimate.mean < 0
        return self.is_to_the_good(alpha)

    def speaks_against(self, alpha: float) -> bool:
        """Whether the data say the opposite."""
        if self.test == "equal":
            return self.is_beyond(alpha)
        if self.test == "worse by more":
            return self.is_equal(alpha) or self.is_to_the_good(alpha)
        return self.is_to_the_bad(alpha)

    def tests_disagree(self, alpha: float) -> bool:
        """Whether the t test sees a difference and the sign-flip test none, or the other way.

        Before any correction. With fewer seeds than its smallest p allows, the sign-flip test
        can see none, and says nothing.
        """
        if math.isnan(self.p_t) or 2.0 ** (1 - self.estimate.n) > alpha:
            return False
        return (self.p_t <= alpha) != (self.p_sign_flip <= alpha)

    def finding(self, alpha: float) -> str:
        """What the comparison says, in words."""
        margin = self._margin_in_words()
        good, bad = self.is_to_the_good(alpha), self.is_to_the_bad(alpha)
        if good or bad:
            word = self.quantity.words[0 if good else 1]
            if self.is_beyond(alpha):
                return f"{word}, by more than {margin}"
            if self.is_equal(alpha):
                return f"{word}, by less than {margin}"
            return f"{word}; whether by more than {margin} is open" if margin else word
        return f"equal within ±{margin}" if self.is_equal(alpha) else "open"

    def _margin_in_words(self) -> str:
        quantity = self.quantity
        return "" if quantity.margin is None else f"{quantity.margin:g} {quantity.unit}".rstrip()


class Comparer:
    """Compares values over seeds by a study's rules.

    Args:
        study: Gives the rules and the confidence of the intervals.
    """

    def __init__(self, study: Study) -> None:
        self._confidence = study.confidence
        self._sign_flip_seed = study.claims.sign_flip_seed

    def __call__(
        self,
        comparison: str,
        quantity: Quantity,
        a: Values,
        b: Values,
        *,
        test: Test | None = None,
        decides: bool = False,
        control: bool = False,
    ) -> Evidence:
        """The differences a − b, estimated and tested; nothing is corrected yet.

        Raises:
            ValueError: The two don't have the same seeds.
        """
        if a.keys() != b.keys():
            raise ValueError(f"{comparison}: found seeds {sorted(a)} and {sorted(b)}, not pairs")
        pairs = [a[seed] for seed in sorted(a)], [b[seed] for seed in sorted(a)]
        rng = np.random.default_rng(self._sign_flip_seed)  # other comparisons change nothing
        found = compare_paired(*pairs, confidence=self._confidence, rng=rng)
        d = np.subtract(*pairs)
        equal, beyond = math.nan, math.nan
        if quantity.margin is not None and len(d) > 1:
            equal, beyond = tost_paired(d, quantity.margin), _p_beyond(d, quantity.margin)
        return Evidence(
            comparison,
            quantity,
            found.difference,
            found.p_t,
            found.p_sign_flip,
            p_difference=found.p_t,
            p_equal=equal,
            p_beyond=beyond,
            test=test,
            decides=decides,
            control=control,
        )


def corrected(evidence: Sequence[Evidence], alpha: float, power: float) -> tuple[Evidence, ...]:
    """The evidence of a claim, corrected by Holm for the comparisons that decide it.

    Each question (is there a difference, is it within the margin, is it beyond) has its p-values
    corrected. The detectable difference is at the level of Holm's first step, the strictest.
    """
    deciding = [e for e in evidence if e.decides]
    adjusted = zip(
        holm([e.p_difference for e in deciding]).tolist(),
        holm([e.p_equal for e in deciding]).tolist(),
        holm([e.p_beyond for e in deciding]).tolist(),
        strict=True,
    )
    found = []
    for e in evidence:
        level = alpha
        if e.decides:
            level = alpha / len(deciding)
            difference, equal, beyond = next(adjusted)
            e = replace(e, p_difference=difference, p_equal=equal, p_beyond=beyond)
        detects = detectable_difference(e.estimate.deviation, e.estimate.n, power, level)
        found.append(replace(e, detectable=detects))
    return tuple(found)


def judge(evidence: Sequence[Evidence], alpha: float) -> Verdict:
    """The verdict of corrected evidence: all that decides must speak for it, and any can refute it.

    Args:
        evidence: A claim's, corrected.
        alpha: The level.
    """
    deciding = [e for e in evidence if e.decides]
    if not deciding:
        return "open"
    if any(e.speaks_against(alpha) for e in deciding):
        return "contradicted"
    if all(e.speaks_for(alpha) for e in deciding):
        return "supported"
    # A claim of a difference where there is none beyond the margin.
    if all(e.test == "better" and e.is_equal(alpha) and not e.speaks_for(alpha) for e in deciding):
        return "equal"
    return "open"


def _p_beyond(differences: NDArray[np.float64], margin: float) -> float:
    """Two-sided p of a mean difference beyond ±margin."""
    return min(1.0, 2 * min(t_test_above(side * differences, margin) for side in (1, -1)))
