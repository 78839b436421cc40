"""Intervals over seeds and test images at once: both are draws from larger populations."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from swabench.analysis.statistics import check_fraction, checked_sample


@dataclass(frozen=True)
class MeanSquares:
    """A two-way layout of differences without replication: seeds × images, in squares.

    Attributes:
        seeds: Number of seeds S.
        images: Number of images N.
        mean: The mean of all differences.
        of_seeds: Mean square between seeds, of S − 1 degrees of freedom.
        of_images: Mean square between images, of N − 1.
        residual: Mean square of what is left, of (S − 1)(N − 1).
    """

    seeds: int
    images: int
    mean: float
    of_seeds: float
    of_images: float
    residual: float


class TwoWay:
    """Sums up a two-way layout seed by seed, so that no more than one is held at a time."""

    def __init__(self) -> None:
        self._by_seed: list[float] = []
        self._by_image: NDArray[np.float64] | float = 0.0
        self._squares = 0.0
        self._images = 0

    def add(self, differences: ArrayLike) -> None:
        """Take in the differences of one seed, one an image, shape (N,).

        Raises:
            ValueError: They are of another number of images than those before.
        """
        values = checked_sample("differences", differences)
        if self._images and values.size != self._images:
            raise ValueError(f"differences: found {values.size} images after {self._images}")
        self._images = values.size
        self._by_seed.append(float(values.sum()))
        self._by_image = self._by_image + values
        self._squares += float(values @ values)

    def mean_squares(self) -> MeanSquares:
        """The three mean squares; NaN where there are too few seeds or images for one."""
        s, n = len(self._by_seed), self._images
        total = sum(self._by_seed)
        correction = total**2 / (s * n)
        seeds = float(np.square(self._by_seed).sum()) / n - correction
        images = float(np.square(self._by_image).sum()) / s - correction
        residual = self._squares - correction - seeds - images
        return MeanSquares(
            s, n, total / (s * n), _share(seeds, s - 1), _share(images, n - 1),
            _share(residual, (s - 1) * (n - 1)),
        )  # fmt: skip


def crossed_interval(found: MeanSquares, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean where seeds and test images are both draws from larger populations.

    Two-way random effects: the variance of the mean is estimated by (MS_seeds + MS_images −
    MS_residual) / (S·N), its degrees of freedom by Satterthwaite's formula. It is wider than
    that over seeds alone, which holds for these very test images; where the images' share comes
    out negative, it is left out. Where the mean squares all but cancel, the formula's degrees of
    freedom go to zero and the interval would reach anywhere: there is one at least.

    Raises:
        ValueError: If `confidence` is not between 0 and 1.
    """
    check_fraction("confidence", confidence)
    s, n = found.seeds, found.images
    if s < 2 or n < 2:
        return math.nan, math.nan
    parts = [(found.of_seeds, s - 1)]
    if found.of_images > found.residual:
        parts += [(found.of_images, n - 1), (-found.residual, (s - 1) * (n - 1))]
    square = sum(part for part, _ in parts)
    if square <= 0:
        return found.mean, found.mean
    # No more than the seeds', so that counting the images can only widen it.
    freedom = min(s - 1, max(1.0, square**2 / sum(part**2 / df for part, df in parts)))
    reach = float(stats.t.isf((1 - confidence) / 2, freedom)) * math.sqrt(square / (s * n))
    return found.mean - reach, found.mean + reach


def _share(squares: float, freedom: int) -> float:
    return squares / freedom if freedom else math.nan
