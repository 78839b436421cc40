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
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

EXACT_SEEDS = 16
"""Up to this many seeds every pattern of signs is tried; beyond, as many are drawn."""

_PATTERNS = 2**12
"""Of signs that are drawn at a time: megabytes for a thousand seeds."""

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
    sample = checked_sample("values", values)
    check_fraction("confidence", confidence)
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
    left, right = checked_sample("a", a), checked_sample("b", b)
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
    sample = checked_sample("differences", differences)
    if sample.size > EXACT_SEEDS and rng is None:
        raise ValueError(
            f"rng: {sample.size} seeds are too many for every pattern of signs; pass a generator"
        )
    if sample.size < 2:
        return 1.0
    # Accuracies are counts over a total, so sums tie often, and a tie lost to rounding would
    # make p too small. SciPy's own tolerance shrinks with the statistic: decide here instead.
    threshold = abs(sample.mean()) - TIE * np.abs(sample).max()
    if rng is not None and sample.size > EXACT_SEEDS:
        return _drawn_sign_flip_p(sample, threshold, rng)

    def at_least_as_far(flipped: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.where(np.abs(flipped.mean(axis=axis)) >= threshold, 1.0, 0.0)

    result = stats.permutation_test(
        (sample,),
        at_least_as_far,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**EXACT_SEEDS,
        alternative="greater",
    )
    return float(result.pvalue)


def _drawn_sign_flip_p(
    sample: NDArray[np.float64], threshold: float, rng: np.random.Generator
) -> float:
    """The same by drawn patterns, a random bit a sign.

    SciPy draws them too, and takes thirty times as long, which a thousand seeds make minutes.
    """
    as_far = 0
    for _ in range(2**EXACT_SEEDS // _PATTERNS):
        drawn = rng.bytes(_PATTERNS * -(-sample.size // 8))
        packed = np.frombuffer(drawn, np.uint8).reshape(_PATTERNS, -1)
        flips = np.unpackbits(packed, axis=1, count=sample.size)
        means = (sample.sum() - 2 * (flips @ sample)) / sample.size
        as_far += int(np.count_nonzero(np.abs(means) >= threshold))
    return (as_far + 1) / ((1 << EXACT_SEEDS) + 1)


def mcnemar_mid_p(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided test with the mid-p correction, for two classifiers.

    Of the images that exactly one of the two gets right, each is as likely to fall to one as to
    the other under the null hypothesis; mid-p counts the observed split by half (Fagerland,
    Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data"). Without such
    images p is 1. The test is about one pair of trained models: don't pool images over seeds.

    Args:
        only_a: Images that the first classifier alone gets right.
        only_b: Images that the second alone gets right.

    Raises:
        ValueError: If a number is negative.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"only_a, only_b: expected counts, found {only_a} and {only_b}")
    both, fewer = only_a + only_b, min(only_a, only_b)
    # Both tails beyond the split, and half of the split itself in each of them.
    tails = 2 * stats.binom.cdf(fewer - 1, both, 0.5) + stats.binom.pmf(fewer, both, 0.5)
    return min(1.0, float(tails))


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
    sample = checked_sample("differences", differences)
    if not 0 < margin < math.inf:
        raise ValueError(f"margin: expected a positive number, found {margin}")
    if sample.size < 2:
        return math.nan
    if _is_constant(sample):
        return 0.0 if abs(sample[0]) < margin else 1.0
    return float(DescrStatsW(sample).ttost_mean(-margin, margin)[0])


def detectable_difference(
    deviation: float, seeds: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The difference that a two-sided paired t test of so many seeds detects.

    What a study can tell is a matter of its spread and its seeds, not of what it found: power at
    the observed difference says nothing that p does not (Hoenig and Heisey 2001). Power is the
    chance of a significant result with the right sign.

    Args:
        deviation: Standard deviation of the per-seed differences, not negative.
        seeds: Number of seeds n.
        power: Chance of detecting the difference, between 0 and 1.
        alpha: Two-sided level of the test, between 0 and 1.

    Returns:
        The difference, in the unit of the deviation, which it is proportional to; NaN for one
        seed.

    Raises:
        ValueError: If `deviation` is negative or infinite, or `power` or `alpha` is not between 0
            and 1.
    """
    if deviation < 0 or math.isinf(deviation):
        raise ValueError(f"deviation: expected a finite number from 0 up, found {deviation}")
    check_fraction("power", power)
    check_fraction("alpha", alpha)
    if seeds < 2 or math.isnan(deviation):
        return math.nan
    critical = float(stats.t.isf(alpha / 2, seeds - 1))

    def missing(effect: float) -> float:
        return float(stats.nct.sf(critical, seeds - 1, effect * math.sqrt(seeds))) - power

    # Twice the quantiles' sum is beyond the answer: at its half the normal test has the power.
    most = 2 * (critical + float(stats.t.ppf(power, seeds - 1)) + 1) / math.sqrt(seeds)
    return deviation * float(optimize.brentq(missing, 0, most))


def t_test_above(differences: ArrayLike, threshold: float) -> float:
    """One-sided p of the t test for a mean difference above a threshold; NaN for one seed.

    Raises:
        ValueError: If `differences` is empty, not finite or not of one dimension.
    """
    sample = checked_sample("differences", differences)
    if sample.size < 2:
        return math.nan
    if _is_constant(sample):
        return 0.0 if sample[0] > threshold else 1.0
    return float(DescrStatsW(sample).ttest_mean(threshold, alternative="larger")[1])


def _t_test_p(differences: NDArray[np.float64]) -> float:
    if differences.size < 2:
        return math.nan
    if _is_constant(differences):
        return 1.0 if differences[0] == 0 else 0.0
    return float(DescrStatsW(differences).ttest_mean(0.0)[1])


def _is_constant(sample: NDArray[np.float64]) -> bool:
    # A computed deviation won't do: that of three times 0.1 is not zero.
    return bool(np.ptp(sample) == 0)


def checked_sample(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """A sample as float64, one-dimensional, neither empty nor other than finite.

    Raises:
        ValueError: It is not so; names the argument.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"{name}: expected one value per seed, found shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"{name}: expected finite values, found {sample[~np.isfinite(sample)][0]}")
    return sample


def _check_same_length(**arrays: NDArray[Any]) -> None:
    sizes = [array.size for array in arrays.values()]
    if len(set(sizes)) > 1:
        raise ValueError(f"{', '.join(arrays)}: expected pairs, found lengths {sizes}")


def check_fraction(name: str, value: float) -> None:
    """Raise ValueError where a value is not between 0 and 1; names the argument."""
    if not 0 < value < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, found {value}")
