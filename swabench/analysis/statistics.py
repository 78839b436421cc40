"""Estimates and tests for differences smaller than the noise of one run.

Methods that share a seed share starting weights and data order, so they are compared by their
per-seed differences. Everything here is a pure function of arrays; nothing is rounded, and
nothing is called significant: that takes a rule, and the study states it.

Three kinds of degenerate input have one answer throughout:

* An empty, non-finite or wrongly shaped array is a mistake: ValueError names the argument.
* One seed has a mean and no spread: what needs a spread is NaN, and the sign-flip p is 1.
* Seeds that agree exactly give the limit of a vanishing spread: the interval shrinks onto the
  mean, and the t test's p is 0, or 1 where the mean is 0 as well. The sign-flip p, never below
  2 ** (1 - n), shows how little a few agreeing seeds prove.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

EXACT_SEEDS = 16
"""Up to this many seeds every pattern of signs is tried; beyond, as many are drawn."""

MOST_SEEDS = 1_000_000
"""Where seeds_needed stops looking: more seeds are not practical."""

TIE = 1e-9
"""Sums this near each other, relative to the largest difference, are equal but for rounding."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its confidence interval, in the unit of the values.

    Attributes:
        mean: The sample mean.
        low: Lower end of the interval; NaN for one seed.
        high: Upper end of the interval; NaN for one seed.
        deviation: Standard deviation of the values (ddof=1), not of the mean; NaN for one seed.
        n: Number of seeds.
    """

    mean: float
    low: float
    high: float
    deviation: float
    n: int


@dataclass(frozen=True)
class PairedComparison:
    """What the per-seed differences a - b say; both tests are two-sided.

    Attributes:
        difference: The mean difference with its t interval.
        p_t: The paired t test's p for a mean difference of zero; NaN for one seed.
        p_sign_flip: The sign-flip test's p, see `sign_flip_p`.
    """

    difference: Estimate
    p_t: float
    p_sign_flip: float


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Estimate a mean with its two-sided t interval.

    Args:
        values: One value per seed, shape (n,), n >= 1.
        confidence: Coverage of the interval, between 0 and 1.

    Raises:
        ValueError: If `values` is empty, not finite or not of one dimension, or `confidence`
            is not between 0 and 1.
    """
    sample = _sample("values", values)
    _check_fraction("confidence", confidence)
    mean = float(sample.mean())
    if sample.size < 2:
        return Estimate(mean, math.nan, math.nan, math.nan, sample.size)
    if _is_constant(sample):
        mean = float(sample[0])  # the computed mean may miss it by a rounding error
        return Estimate(mean, mean, mean, 0.0, sample.size)
    low, high = DescrStatsW(sample).tconfint_mean(alpha=1 - confidence)
    return Estimate(mean, float(low), float(high), float(sample.std(ddof=1)), sample.size)


def compare_paired(
    a: ArrayLike,
    b: ArrayLike,
    confidence: float = 0.95,
    rng: np.random.Generator | None = None,
) -> PairedComparison:
    """Compare two methods by their differences a - b over shared seeds.

    Args:
        a: One value per seed, shape (n,), n >= 1.
        b: The other method's values at the same seeds in the same order, shape (n,).
        confidence: Coverage of the interval of the mean difference, between 0 and 1.
        rng: Source of the sign flips, needed for more than `EXACT_SEEDS` seeds.

    Raises:
        ValueError: If an array is empty, not finite or not of one dimension, if the two differ
            in length, if `confidence` is not between 0 and 1, or if `rng` is needed and missing.
    """
    left, right = _sample("a", a), _sample("b", b)
    _check_same_length(a=left, b=right)
    differences = left - right
    return PairedComparison(
        difference=mean_interval(differences, confidence),
        p_t=_t_test_p(differences),
        p_sign_flip=sign_flip_p(differences, rng),
    )


def sign_flip_p(differences: ArrayLike, rng: np.random.Generator | None = None) -> float:
    """Two-sided sign-flip (Fisher's randomisation) test of differences symmetric about zero.

    The p-value is the share of the 2 ** n patterns of signs whose mean is at least as far from
    zero as the observed one. It is exact up to `EXACT_SEEDS` seeds and cannot fall below
    2 ** (1 - n), so fewer than six seeds never reach 0.05. Beyond that, 2 ** `EXACT_SEEDS`
    patterns are drawn and the observed one is counted among them, which keeps the test valid
    (Phipson and Smyth 2010). Zeros stay as they are and change nothing; if all differences are
    zero, or there is only one, p is 1.

    Args:
        differences: One difference per seed, shape (n,), n >= 1.
        rng: Source of the drawn patterns, needed for more than `EXACT_SEEDS` seeds.

    Raises:
        ValueError: If `differences` is empty, not finite or not of one dimension, or if `rng` is
            needed and missing.
    """
    sample = _sample("differences", differences)
    if sample.size > EXACT_SEEDS and rng is None:
        raise ValueError(
            f"rng: {sample.size} seeds are too many for every pattern of signs; pass a generator"
        )
    if sample.size < 2:
        return 1.0
    # Accuracies are counts over a total, so sums tie often, and a tie lost to rounding would
    # make p too small. SciPy's own tolerance shrinks with the statistic: decide here instead.
    threshold = abs(sample.mean()) - TIE * np.abs(sample).max()

    def at_least_as_far(flipped: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.where(np.abs(flipped.mean(axis=axis)) >= threshold, 1.0, 0.0)

    result = stats.permutation_test(
        (sample,),
        at_least_as_far,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**EXACT_SEEDS,
        alternative="greater",
        rng=rng,
    )
    return float(result.pvalue)


def mcnemar_mid_p(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """McNemar's exact two-sided test with the mid-p correction, for two classifiers.

    Of the images that exactly one of the two gets right, each is as likely to fall to one as to
    the other under the null hypothesis; mid-p counts the observed split by half (Fagerland,
    Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data"). Without such
    images p is 1. The test is about one pair of trained models: don't pool images over seeds.

    Args:
        correct_a: Whether the first classifier is right, per image, boolean, shape (N,), N >= 1.
        correct_b: The same of the second classifier on the same images, shape (N,).

    Raises:
        ValueError: If an array is empty, not boolean or not of one dimension, or if the two
            differ in length.
    """
    right_a, right_b = _outcomes("correct_a", correct_a), _outcomes("correct_b", correct_b)
    _check_same_length(correct_a=right_a, correct_b=right_b)
    only_a = int(np.count_nonzero(right_a & ~right_b))
    only_b = int(np.count_nonzero(right_b & ~right_a))
    split = stats.binom(only_a + only_b, 0.5)
    fewer = min(only_a, only_b)
    # Both tails beyond the split, and half of the split itself in each of them.
    return float(min(1.0, 2 * split.cdf(fewer - 1) + split.pmf(fewer)))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values for their number by Holm's step-down method.

    Args:
        p_values: Shape (m,), m >= 0, each between 0 and 1. NaN stands for a comparison that could
            not be tested: it stays NaN and is not counted.

    Returns:
        The adjusted p-values in the order given, shape (m,).

    Raises:
        ValueError: If `p_values` is not of one dimension or leaves the range 0 to 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = ~np.isnan(p)
    if p.ndim != 1 or np.any((p[tested] < 0) | (p[tested] > 1)):
        raise ValueError(f"p_values: expected a list of values between 0 and 1, found {p}")
    adjusted = np.full_like(p, np.nan)
    if tested.any():
        adjusted[tested] = multipletests(p[tested], method="holm")[1]
    return adjusted


def tost_paired(differences: ArrayLike, margin: float) -> float:
    """Test for equivalence by two one-sided t tests (TOST; Schuirmann 1987).

    A small p says that the mean difference lies strictly between -margin and margin. The margin
    must be fixed before the data are seen. Differences that all agree give 0 inside the margins
    and 1 on or outside them.

    Args:
        differences: One difference per seed, shape (n,), n >= 1.
        margin: Largest difference that counts as none, positive, in the unit of `differences`.

    Returns:
        The larger of the two one-sided p-values; NaN for one seed.

    Raises:
        ValueError: If `differences` is empty, not finite or not of one dimension, or `margin` is
            not positive and finite.
    """
    sample = _sample("differences", differences)
    if not 0 < margin < math.inf:
        raise ValueError(f"margin: expected a positive number, found {margin}")
    if sample.size < 2:
        return math.nan
    if _is_constant(sample):
        return 0.0 if abs(sample[0]) < margin else 1.0
    return float(DescrStatsW(sample).ttost_mean(-margin, margin)[0])


def seeds_needed(
    difference: float, deviation: float, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Fewest seeds with which a two-sided paired t test distinguishes a difference from zero.

    Power here is the chance of a significant result with the right sign; what the wrong sign
    adds is of no use to a reader, and is negligible at any power worth having.

    Args:
        difference: True mean difference, of either sign.
        deviation: Standard deviation of the per-seed differences, same unit, not negative.
        power: Chance of detecting the difference, between 0 and 1.
        alpha: Two-sided level of the test, between 0 and 1.

    Returns:
        The number of seeds, at least 2, which is also the answer for a deviation of zero. None
        where it cannot be detected: a zero difference, a deviation of NaN (one seed), or more than
        `MOST_SEEDS`.

    Raises:
        ValueError: If `difference` is not finite, `deviation` is negative or infinite, or `power`
            or `alpha` is not between 0 and 1.
    """
    if not math.isfinite(difference):
        raise ValueError(f"difference: expected a finite number, found {difference}")
    if deviation < 0 or math.isinf(deviation):
        raise ValueError(f"deviation: expected a finite number from 0 up, found {deviation}")
    _check_fraction("power", power)
    _check_fraction("alpha", alpha)
    if difference == 0 or math.isnan(deviation):
        return None
    if deviation == 0:
        return 2
    effect = abs(difference) / deviation

    def power_of(n: int) -> float:
        return float(TTestPower().power(effect, n, alpha / 2, alternative="larger"))

    # Not solve_power: from an effect of 6 up its root finder fails or answers wrongly, as the
    # wrong sign's tail turns NaN. At any usual level the tail asked for here is NaN only where
    # power is all but 1, and bisection takes NaN for "enough".
    with np.errstate(over="ignore", invalid="ignore"):
        n = 2 + bisect_left(range(2, MOST_SEEDS + 1), power, key=power_of)
    return n if n <= MOST_SEEDS else None


def sign_flip_seeds(level: float) -> int:
    """Fewest seeds at which the sign-flip test's two-sided p can be as small as a level.

    Its p is never below 2 ** (1 - n), however large and steady the difference.

    Raises:
        ValueError: If `level` is not between 0 and 1.
    """
    _check_fraction("level", level)
    return max(2, math.ceil(1 - math.log2(level)))


def _t_test_p(differences: NDArray[np.float64]) -> float:
    if differences.size < 2:
        return math.nan
    if _is_constant(differences):
        return 1.0 if differences[0] == 0 else 0.0
    return float(DescrStatsW(differences).ttest_mean(0.0)[1])


def _is_constant(sample: NDArray[np.float64]) -> bool:
    # A computed deviation won't do: that of three times 0.1 is not zero.
    return bool(np.ptp(sample) == 0)


def _sample(name: str, values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"{name}: expected one value per seed, found shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"{name}: expected finite values, found {sample[~np.isfinite(sample)][0]}")
    return sample


def _outcomes(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    outcomes = np.asarray(values)
    if outcomes.dtype != np.bool_:
        # Predicted classes would pass for outcomes if numbers were taken as true or false.
        raise ValueError(f"{name}: expected booleans, found {outcomes.dtype}")
    if outcomes.ndim != 1 or outcomes.size == 0:
        raise ValueError(f"{name}: expected one value per image, found shape {outcomes.shape}")
    return outcomes


def _check_same_length(**arrays: NDArray[Any]) -> None:
    sizes = [array.size for array in arrays.values()]
    if len(set(sizes)) > 1:
        raise ValueError(f"{', '.join(arrays)}: expected pairs, found lengths {sizes}")


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, found {value}")
