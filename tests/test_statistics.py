import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import astuple
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from swabench.analysis.crossed import MeanSquares, TwoWay, crossed_interval
from swabench.analysis.statistics import (
    EXACT_SEEDS,
    Estimate,
    compare_paired,
    detectable_difference,
    holm,
    mcnemar_mid_p,
    mean_interval,
    sign_flip_p,
    t_test_above,
    tost_paired,
)

Array = NDArray[np.float64]

# Multiples of 1/64: sums and differences are exact, ties and zeros are common.
VALUES = st.integers(-640, 640).map(lambda k: k / 64)
SAMPLES = st.lists(VALUES, min_size=2, max_size=8).map(np.array)
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=8).map(
    lambda rows: np.array(rows).T
)

# Ten made-up accuracies of two methods, in per cent.
A = np.array([93.15, 93.07, 93.24, 93.02, 93.18, 93.11, 93.29, 93.04, 93.16, 93.20])
B = np.array([93.08, 93.05, 93.11, 93.09, 93.02, 93.06, 93.15, 93.01, 93.16, 93.04])


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def enumerated_sign_flip_p(differences: Array) -> float:
    """Count every pattern of signs, in whole units of 1/64 where ties are exact."""
    units = [round(64 * d) for d in differences]
    observed = abs(sum(units))
    patterns = list(product((-1, 1), repeat=len(units)))
    extreme = [abs(sum(s * u for s, u in zip(p, units, strict=True))) >= observed for p in patterns]
    return float(np.mean(extreme))


class TestMeanInterval:
    def test_known_answer(self) -> None:
        # 1..5: mean 3, variance 2.5, and 2.776445 is t(0.975) with 4 degrees of freedom in tables.
        estimate = mean_interval([1, 2, 3, 4, 5])
        half = 2.776445 * math.sqrt(2.5 / 5)
        assert astuple(estimate) == pytest.approx(
            (3, 3 - half, 3 + half, math.sqrt(2.5), 5), rel=1e-6
        )

    @given(SAMPLES.filter(lambda x: np.ptp(x) > 0), st.floats(0.5, 0.999))
    def test_equals_scipy(self, values: Array, confidence: float) -> None:
        low, high = stats.ttest_1samp(values, 0).confidence_interval(confidence)
        estimate = mean_interval(values, confidence)
        assert (estimate.low, estimate.high) == pytest.approx((low, high))

    def test_one_seed_has_no_spread(self) -> None:
        estimate = mean_interval([93.1])
        assert (estimate.mean, estimate.n) == (93.1, 1)
        assert np.isnan([estimate.low, estimate.high, estimate.deviation]).all()

    def test_equal_values_shrink_the_interval_onto_the_mean(self) -> None:
        assert mean_interval([0.1, 0.1, 0.1]) == Estimate(0.1, 0.1, 0.1, 0.0, 3)

    @pytest.mark.parametrize("confidence", [0.8, 0.95])
    def test_coverage_is_nominal(self, confidence: float) -> None:
        repetitions = 2000
        samples = generator().normal(0.05, 0.07, size=(repetitions, 10))
        intervals = [mean_interval(sample, confidence) for sample in samples]
        covered = sum(i.low <= 0.05 <= i.high for i in intervals)
        within = stats.binom(repetitions, confidence).interval(0.999)
        assert within[0] <= covered <= within[1]

    @given(SAMPLES, st.integers(-5, 5))
    def test_scale_shift_and_order(self, values: Array, exponent: int) -> None:
        scale = 2.0**exponent
        estimate = mean_interval(values)
        scaled = mean_interval(generator(1).permutation(values * scale + 3))
        assert (scaled.mean, scaled.low, scaled.high) == pytest.approx(
            [x * scale + 3 for x in (estimate.mean, estimate.low, estimate.high)], abs=1e-9
        )
        assert scaled.deviation == pytest.approx(estimate.deviation * scale, abs=1e-9)


class TestComparePaired:
    @given(PAIRS.filter(lambda pair: np.ptp(pair[0] - pair[1]) > 0))
    def test_t_test_equals_scipy(self, pair: Array) -> None:
        assert compare_paired(*pair).p_t == pytest.approx(stats.ttest_rel(*pair).pvalue)

    def test_parts_are_about_the_differences(self) -> None:
        comparison = compare_paired(A, B, confidence=0.9)
        assert comparison.difference == mean_interval(A - B, 0.9)
        assert comparison.p_sign_flip == sign_flip_p(A - B)

    @given(PAIRS)
    def test_antisymmetric(self, pair: Array) -> None:
        forth, back = compare_paired(pair[0], pair[1]), compare_paired(pair[1], pair[0])
        assert back.difference == Estimate(
            -forth.difference.mean,
            -forth.difference.high,
            -forth.difference.low,
            forth.difference.deviation,
            forth.difference.n,
        )
        assert (back.p_t, back.p_sign_flip) == (forth.p_t, forth.p_sign_flip)

    @given(PAIRS, st.integers(0, 2**32))
    def test_order_of_seeds_does_not_matter(self, pair: Array, seed: int) -> None:
        order = generator(seed).permutation(pair.shape[1])
        mixed, plain = compare_paired(*pair[:, order]), compare_paired(*pair)
        assert astuple(mixed.difference) == pytest.approx(astuple(plain.difference), abs=1e-9)
        assert mixed.p_t == pytest.approx(plain.p_t, abs=1e-9)
        assert mixed.p_sign_flip == plain.p_sign_flip

    @given(PAIRS, st.integers(-20, 20))
    def test_p_does_not_depend_on_the_unit(self, pair: Array, exponent: int) -> None:
        scaled, plain = compare_paired(*(pair * 2.0**exponent)), compare_paired(*pair)
        assert scaled.p_t == pytest.approx(plain.p_t, abs=1e-9)
        assert scaled.p_sign_flip == plain.p_sign_flip

    def test_one_seed_tells_nothing(self) -> None:
        comparison = compare_paired([2.0], [1.0])
        assert math.isnan(comparison.p_t)
        assert comparison.p_sign_flip == 1

    def test_same_values(self) -> None:
        comparison = compare_paired(A, A)
        assert comparison.difference == Estimate(0, 0, 0, 0, 10)
        assert (comparison.p_t, comparison.p_sign_flip) == (1, 1)

    def test_same_difference_at_every_seed(self) -> None:
        comparison = compare_paired([2.0, 3.0, 4.0], [1.5, 2.5, 3.5])
        assert comparison.difference == Estimate(0.5, 0.5, 0.5, 0.0, 3)
        assert (comparison.p_t, comparison.p_sign_flip) == (0, 0.25)

    def test_same_difference_but_for_rounding(self) -> None:
        comparison = compare_paired([0.93, 0.94, 0.96], [0.92, 0.93, 0.95])
        assert comparison.difference.low == pytest.approx(comparison.difference.high)
        assert comparison.p_t == pytest.approx(0, abs=1e-12)
        assert comparison.p_sign_flip == 0.25


class TestSignFlip:
    @given(SAMPLES)
    def test_equals_enumeration(self, differences: Array) -> None:
        assert sign_flip_p(differences) == enumerated_sign_flip_p(differences)

    def test_known_answers(self) -> None:
        # Of the 8 sums of ±1±2±3, six are 0 or ±2 or ±4; only ±6 is as far as all of one sign.
        assert sign_flip_p([1, 2, 3]) == 2 / 8
        assert sign_flip_p([-1, 2, 3]) == 4 / 8
        assert sign_flip_p([1, 2, -3]) == 1

    def test_zeros_change_nothing(self) -> None:
        assert sign_flip_p([0, 1, 0, 2, 3]) == sign_flip_p([1, 2, 3])

    def test_all_zero(self) -> None:
        assert sign_flip_p([0.0, 0.0, 0.0]) == 1

    @given(st.lists(st.integers(-6, 6), min_size=2, max_size=8))
    def test_ties_survive_rounding(self, hundredths: list[int]) -> None:
        # The same differences as whole hundredths and as differences of decimal accuracies.
        rounded = np.array([93 + h / 100 for h in hundredths]) - 93
        assert sign_flip_p(rounded) == enumerated_sign_flip_p(np.array(hundredths) / 64)

    def test_exact_up_to_the_limit(self) -> None:
        assert sign_flip_p(np.ones(EXACT_SEEDS)) == 2.0 ** (1 - EXACT_SEEDS)

    def test_drawn_beyond_the_limit(self) -> None:
        # With equal differences the sum counts signs: p is a binomial tail, 2·P(X >= 14 of 20).
        differences = np.array([1.0] * 14 + [-1.0] * 6)
        exact = 2 * sum(math.comb(20, k) for k in range(14, 21)) / 2**20
        p = sign_flip_p(differences, generator())
        assert p == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 2**EXACT_SEEDS))
        assert sign_flip_p(differences, generator()) == p

    def test_drawn_p_is_never_zero(self) -> None:
        assert sign_flip_p(np.ones(60), generator()) == 1 / (2**EXACT_SEEDS + 1)

    def test_no_generator_beyond_the_limit(self) -> None:
        with pytest.raises(ValueError, match=r"^rng: 17 seeds"):
            sign_flip_p(np.ones(17))
        with pytest.raises(ValueError, match=r"^rng: 17 seeds"):
            compare_paired(np.ones(17), np.zeros(17))

    def test_level_holds_under_the_null(self) -> None:
        # Heavy tails, eight seeds: exact whatever the distribution, as long as it is symmetric.
        samples = generator().standard_cauchy(size=(1000, 8))
        rejected = sum(sign_flip_p(sample) <= 6 / 256 for sample in samples)
        low, high = stats.binom(1000, 6 / 256).interval(0.999)
        assert low <= rejected <= high


class TestMcnemar:
    @pytest.mark.parametrize(
        ("only_a", "only_b", "p"),
        [
            (1, 0, 0.5),  # exact p 1, less P(0 of 1)
            (5, 0, 1 / 32),
            (2, 1, 5 / 8),  # exact p 2·(1 + 3)/8, less 3/8
            (3, 3, 1.0),
            (0, 0, 1.0),
        ],
    )
    def test_known_answers(self, only_a: int, only_b: int, p: float) -> None:
        assert mcnemar_mid_p(only_a, only_b) == pytest.approx(p)

    @given(st.integers(0, 40), st.integers(0, 40))
    def test_equals_binomial_sums(self, only_a: int, only_b: int) -> None:
        n = only_a + only_b
        # Twice the smaller of the two tails, each with half of the observed split.
        lower = (sum(math.comb(n, k) for k in range(only_a)) + math.comb(n, only_a) / 2) / 2**n
        p = mcnemar_mid_p(only_a, only_b)
        assert p == pytest.approx(2 * min(lower, 1 - lower))
        assert mcnemar_mid_p(only_b, only_a) == p

    def test_ten_thousand_images(self) -> None:
        # A normal approximation without continuity correction is close to mid-p at this size.
        p = mcnemar_mid_p(330, 270)
        assert p == pytest.approx(2 * stats.norm.sf(60 / math.sqrt(600)), rel=0.01)


class TestHolm:
    def test_known_answer(self) -> None:
        # 0.01·4, 0.02·3, 0.03·2, 0.04·1, made monotone; in the order given.
        assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])

    def test_never_above_one(self) -> None:
        assert holm([0.7, 0.9]) == pytest.approx([1, 1])

    def test_nan_is_passed_through_and_not_counted(self) -> None:
        adjusted = holm([0.02, math.nan, 0.03])
        assert math.isnan(adjusted[1])
        assert adjusted[[0, 2]] == pytest.approx([0.04, 0.04])

    @pytest.mark.parametrize("p_values", [[], [math.nan, math.nan]])
    def test_nothing_tested(self, p_values: list[float]) -> None:
        assert np.array_equal(holm(p_values), p_values, equal_nan=True)

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    def test_equals_definition(self, p_values: list[float]) -> None:
        m = len(p_values)
        expected = [0.0] * m
        running = 0.0
        for rank, i in enumerate(sorted(range(m), key=p_values.__getitem__)):
            running = max(running, (m - rank) * p_values[i])
            expected[i] = min(1.0, running)
        assert holm(p_values) == pytest.approx(expected)


class TestTost:
    @given(SAMPLES.filter(lambda x: np.ptp(x) > 0), st.floats(0.01, 20))
    def test_equals_two_one_sided_tests(self, differences: Array, margin: float) -> None:
        above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
        assert tost_paired(differences, margin) == pytest.approx(max(above, below))

    @given(SAMPLES.filter(lambda x: np.ptp(x) > 0))
    def test_agrees_with_the_90_percent_interval(self, differences: Array) -> None:
        estimate = mean_interval(differences, 0.9)
        reach = max(-estimate.low, estimate.high)
        assert tost_paired(differences, reach) == pytest.approx(0.05)
        assert tost_paired(differences, reach * 1.01) < 0.05

    @given(SAMPLES, st.floats(0.01, 20), st.integers(-5, 5))
    def test_sign_scale_and_order(self, differences: Array, margin: float, exponent: int) -> None:
        p = tost_paired(differences, margin)
        scale = 2.0**exponent
        assert tost_paired(-differences[::-1] * scale, margin * scale) == pytest.approx(p)

    @pytest.mark.parametrize(("margin", "p"), [(0.2, 0.0), (0.1, 1.0), (0.05, 1.0)])
    def test_equal_differences(self, margin: float, p: float) -> None:
        assert tost_paired([0.1, 0.1, 0.1], margin) == p
        assert tost_paired([-0.1, -0.1, -0.1], margin) == p

    def test_one_seed(self) -> None:
        assert math.isnan(tost_paired([0.0], 0.1))

    def test_level_holds_on_the_margin(self) -> None:
        samples = generator().normal(0.1, 0.02, size=(1000, 10))
        claimed = sum(tost_paired(sample, 0.1) <= 0.05 for sample in samples)
        low, high = stats.binom(1000, 0.05).interval(0.999)
        assert low <= claimed <= high


def integrated_power(effect: float, n: int, alpha: float) -> float:
    """Power of the paired t test by averaging over the sample deviation's distribution."""
    quantiles = (np.arange(4000) + 0.5) / 4000
    deviation = np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    critical = stats.t.isf(alpha / 2, n - 1) * deviation
    return float(stats.norm.sf(critical - effect * math.sqrt(n)).mean())


class TestDetectableDifference:
    def test_known_answer(self) -> None:
        # With 18 seeds of deviation 0.07 the power at 0.05 points passes 80 %.
        assert detectable_difference(0.07, 18) == pytest.approx(0.05, rel=0.03)
        assert detectable_difference(0.07, 18) < 0.05 < detectable_difference(0.07, 17)

    @pytest.mark.parametrize("seeds", [2, 3, 7, 10, 40, 1000])
    @pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.95, 0.01), (0.6, 0.4)])
    def test_has_the_power_asked_for(self, seeds: int, power: float, alpha: float) -> None:
        effect = detectable_difference(1.0, seeds, power, alpha)
        assert integrated_power(effect, seeds, alpha) == pytest.approx(power, abs=2e-3)

    def test_power_in_simulation(self) -> None:
        """The difference is found that often, and one a fifth smaller is not."""
        difference = detectable_difference(0.07, 10, 0.8, 0.05 / 3)
        noise = generator().normal(0, 0.07, size=(20_000, 10))

        def found(mean: float) -> float:
            p = stats.ttest_1samp(noise + mean, 0, axis=1).pvalue
            return float(((p <= 0.05 / 3) & ((noise + mean).mean(axis=1) > 0)).mean())

        assert found(difference) == pytest.approx(0.8, abs=0.01)
        assert found(0.8 * difference) < 0.65

    @given(st.floats(0.01, 10), st.integers(2, 50))
    def test_proportional_to_the_deviation(self, deviation: float, seeds: int) -> None:
        found = detectable_difference(deviation, seeds)
        assert found == pytest.approx(deviation * detectable_difference(1.0, seeds))

    def test_degenerate(self) -> None:
        assert detectable_difference(0.0, 5) == 0
        assert math.isnan(detectable_difference(math.nan, 1))
        assert math.isnan(detectable_difference(0.1, 1))


class TestTwoWay:
    def layout(self, seeds: int, images: int) -> Array:
        rng = generator()
        return np.asarray(
            0.3
            + rng.normal(0, 0.5, (seeds, 1))
            + rng.normal(0, 2, (1, images))
            + rng.normal(0, 1, (seeds, images))
        )

    def test_equals_the_definitions(self) -> None:
        d = self.layout(5, 40)
        layout = TwoWay()
        for row in d:
            layout.add(row)
        found = layout.mean_squares()
        mean, rows, columns = d.mean(), d.mean(axis=1), d.mean(axis=0)
        left = d - rows[:, None] - columns[None] + mean
        assert (found.seeds, found.images) == (5, 40)
        assert found.mean == pytest.approx(mean)
        assert found.of_seeds == pytest.approx(40 * ((rows - mean) ** 2).sum() / 4)
        assert found.of_images == pytest.approx(5 * ((columns - mean) ** 2).sum() / 39)
        assert found.residual == pytest.approx((left**2).sum() / (4 * 39))

    @pytest.mark.parametrize(("of_seeds", "of_images"), [(0.2, 0.3), (0.0, 0.3), (0.3, 0.0)])
    def test_the_interval_covers_as_often_as_it_says(
        self, of_seeds: float, of_images: float
    ) -> None:
        """Seeds and images drawn anew each time; the interval over seeds alone covers less."""
        rng, covered, alone, trials = generator(), 0, 0, 2000
        for _ in range(trials):
            d = (
                rng.normal(0, of_seeds, (8, 1))
                + rng.normal(0, of_images, (1, 12))
                + rng.normal(0, 1, (8, 12))
            )
            layout = TwoWay()
            for row in d:
                layout.add(row)
            low, high = crossed_interval(layout.mean_squares())
            covered += low <= 0 <= high
            narrow = mean_interval(d.mean(axis=1))
            alone += narrow.low <= 0 <= narrow.high
        assert covered / trials > 0.94
        assert alone <= covered

    def test_is_no_narrower_than_over_seeds(self) -> None:
        d = self.layout(6, 30)
        layout = TwoWay()
        for row in d:
            layout.add(row)
        low, high = crossed_interval(layout.mean_squares())
        narrow = mean_interval(d.mean(axis=1))
        assert low < narrow.low < narrow.high < high

    @pytest.mark.parametrize("seeds", [2, 3, 4, 6])
    def test_counting_the_images_never_narrows_it(self, seeds: int) -> None:
        rng = generator()
        for _ in range(200):
            d = (
                rng.normal(0, 1, (seeds, 1))
                + rng.normal(0, 0.3, (1, 20))
                + rng.normal(0, 1, (seeds, 20))
            )
            layout = TwoWay()
            for row in d:
                layout.add(row)
            low, high = crossed_interval(layout.mean_squares())
            narrow = mean_interval(d.mean(axis=1))
            assert high - low >= (narrow.high - narrow.low) * (1 - 1e-9)

    def test_one_seed_has_no_interval(self) -> None:
        layout = TwoWay()
        layout.add([1.0, 2.0, 4.0])
        assert all(math.isnan(end) for end in crossed_interval(layout.mean_squares()))

    @pytest.mark.parametrize("beyond", [1e-15, 1e-9, 1e-3])
    def test_mean_squares_that_all_but_cancel_give_no_boundless_interval(
        self, beyond: float
    ) -> None:
        """As of two runs that have every accuracy in common, on other images."""
        residual = 0.1667
        found = MeanSquares(12, 10_000, 0.0, 0.0, residual * (1 + beyond), residual)
        low, high = crossed_interval(found)
        standard_error = math.sqrt((found.of_images - residual) / 120_000)
        assert high == pytest.approx(stats.t.isf(0.025, 1) * standard_error, rel=1e-6)
        assert low == -high

    def test_seeds_share_their_images(self) -> None:
        layout = TwoWay()
        layout.add([1.0, 2.0])
        with pytest.raises(ValueError, match="found 3 images after 2"):
            layout.add([1.0, 2.0, 3.0])


class TestAbove:
    @given(SAMPLES.filter(lambda x: np.ptp(x) > 0), st.floats(-5, 5))
    def test_equals_scipy(self, differences: Array, threshold: float) -> None:
        expected = stats.ttest_1samp(differences, threshold, alternative="greater").pvalue
        assert t_test_above(differences, threshold) == pytest.approx(expected)

    def test_equal_differences(self) -> None:
        assert t_test_above([0.2, 0.2], 0.1) == 0
        assert t_test_above([0.1, 0.1], 0.1) == 1
        assert math.isnan(t_test_above([0.2], 0.1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "^values: .*shape"),
        (lambda: mean_interval([[1.0, 2.0]]), "^values: .*shape"),
        (lambda: mean_interval([1.0, math.nan]), "^values: .*nan"),
        (lambda: mean_interval([1.0, math.inf]), "^values: .*inf"),
        (lambda: mean_interval([1.0, 2.0], 95), "^confidence: .*95"),
        (lambda: compare_paired([math.nan, 1], [1, 2]), "^a: .*nan"),
        (lambda: compare_paired([1, 2], [1, math.nan]), "^b: .*nan"),
        (lambda: compare_paired([1, 2], [1, 2], confidence=0), "^confidence: .*0"),
        (lambda: compare_paired([1, 2], [1, 2, 3]), r"^a, b: .*\[2, 3\]"),
        (lambda: sign_flip_p([math.nan]), "^differences: .*nan"),
        (lambda: sign_flip_p([]), "^differences: .*shape"),
        (lambda: mcnemar_mid_p(1, -1), "^only_a, only_b: .*-1"),
        (lambda: holm([0.5, 1.5]), "^p_values: .*1.5"),
        (lambda: holm([-0.1]), "^p_values: .*-0.1"),
        (lambda: holm([[0.1]]), "^p_values: "),
        (lambda: tost_paired([1.0, math.nan], 0.1), "^differences: .*nan"),
        (lambda: tost_paired([1.0, 2.0], 0.0), "^margin: .*0"),
        (lambda: tost_paired([1.0, 2.0], math.nan), "^margin: .*nan"),
        (lambda: detectable_difference(-1.0, 5), "^deviation: .*-1"),
        (lambda: detectable_difference(math.inf, 5), "^deviation: .*inf"),
        (lambda: detectable_difference(1.0, 5, power=1.0), "^power: .*1"),
        (lambda: detectable_difference(1.0, 5, alpha=0.0), "^alpha: .*0"),
    ],
)
def test_mistakes_name_the_argument(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
