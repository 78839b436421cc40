"""What a study measures of the loss around its final weights.

The mathematics is `landscape/geometry.py`; these settings stand apart from it because a study is
read in moments, and torch is not.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from swabench.study.limits import (
    MOST_POINTS_A_SIDE,
    NO_FLAG,
    Coordinate,
    Distance,
    Images,
    Points,
    PositiveFraction,
    Repeats,
    SeedCount,
    SeedNumber,
)
from swabench.study.settings import CHANGES_NO_RESULT, AddedLater, Name, Settings

Part = Literal["lines", "segments", "plane", "rays", "sharpness", "hessian"]
PARTS: tuple[Part, ...] = get_args(Part)


class PartSettings(Settings):
    """What all parts have in common.

    Attributes:
        seeds: How many of the study's seeds to look at, the first ones; None for all.
    """

    seeds: Annotated[SeedCount | None, CHANGES_NO_RESULT] = None


class LineSettings(PartSettings):
    """Straight lines between two weights and beyond both: w(α) = start + α·(end − start).

    Attributes:
        low: The smallest α.
        high: The largest α.
        points: Evenly spaced values of α; 0 and 1 join them where they fall between.
    """

    low: Coordinate = -3
    high: Coordinate = 3
    points: Points = 31

    @model_validator(mode="after")
    def _spans_both_ends(self) -> "LineSettings":
        if self.low > 0 or self.high < 1:
            raise ValueError(f"low to high ({self.low:g} to {self.high:g}) must reach from 0 to 1")
        return self


class PlaneSettings(PartSettings):
    """The plane through the pretrained, the reference's and one average's weights.

    Attributes:
        method: Whose average; None takes the study's first averaging method.
        points: Grid points a side.
        margin: What the grid shows beyond the three weights, as a share of their extent.
    """

    method: str | None = None
    points: Annotated[int, Field(strict=True, ge=2, le=MOST_POINTS_A_SIDE)] = 25
    margin: Annotated[float, Field(ge=0, le=100), NO_FLAG] = 0.4


class RaySettings(PartSettings):
    """Rays in random directions of unit norm (Izmailov et al. 2018, section 4.4).

    A network's are filter-normalised (Li et al. 2018): a distance is a share of the norm of each
    filter's own weights.

    Attributes:
        directions: Number of rays, the same ones for every method.
        points: Evenly spaced distances, 0 included.
        length: The largest distance, in units of the weights; for a network a share, so that 1
            moves every filter by its own length.
    """

    directions: Repeats = 10
    points: Points = 11
    length: Distance = 20


class SharpnessSettings(PartSettings):
    """Sharpness in a box (Keskar et al. 2017).

    Attributes:
        epsilons: Sizes of the box.
        starts: Ascents, of which the highest counts: one from the weights, the others from
            random points of the box.
        steps: Most steps of an ascent.
    """

    epsilons: Annotated[
        tuple[Distance, ...], Field(min_length=1, max_length=MOST_POINTS_A_SIDE, strict=False)
    ] = (1e-3, 5e-4)
    starts: Repeats = 2
    steps: Repeats = 20


class HessianSettings(PartSettings):
    """The Hessian's largest eigenvalue and trace.

    Attributes:
        probes: Random vectors behind the trace.
        tolerance: Relative accuracy asked of the eigenvalue.
    """

    probes: Points = 32
    tolerance: PositiveFraction = 1e-3


class LandscapeSettings(Settings):
    """What is measured around the final weights of a study's runs.

    Attributes:
        training_images: The training loss is that of a stratified draw of so many images; of
            all where there are fewer. A network's BatchNorm is measured on them at every point,
            all in one batch.
        test_images: Test losses are those of such a draw of the test images; None for all.
        methods: Rows to look at, beside pretraining and the reference; None for all.
        seed: Seed of the draws and of every direction and probe.
        lines: From the pretrained weights to each method's.
        segments: From the reference's weights to each average.
        plane: Through three weights of one seed.
        rays: In random directions; at all seeds, for claim C4.
        sharpness: Of the training loss.
        hessian: Of the training loss.
    """

    training_images: Images = 10_000
    test_images: Annotated[Images | None, AddedLater(neutral=None)] = None
    methods: Annotated[tuple[Name, ...] | None, CHANGES_NO_RESULT, Field(strict=False)] = None
    seed: SeedNumber = 0
    lines: LineSettings = LineSettings()
    segments: LineSettings = LineSettings(seeds=3, low=-1, high=2)
    plane: PlaneSettings = PlaneSettings(seeds=1)
    rays: RaySettings = RaySettings()
    sharpness: SharpnessSettings = SharpnessSettings(seeds=4)
    hessian: HessianSettings = HessianSettings(seeds=1)

    def part(self, name: Part) -> PartSettings:
        """The settings of one part."""
        found: PartSettings = getattr(self, name)
        return found


def rows_of_part(
    part: Part,
    rows: Sequence[str],
    *,
    reference: str,
    averages: Sequence[str],
    shown: str | None,
) -> tuple[str, ...]:
    """The rows of a table that a part of the landscape looks at.

    Args:
        part: Which part.
        rows: All rows, pretraining first.
        reference: What the others are compared with.
        averages: The rows that are averages.
        shown: The average that the plane goes through; None for the first.

    Returns:
        Names in order, the plane's as the pretrained, the reference and one average; none where
        there are too few rows for that part.
    """
    start, others = rows[0], [name for name in averages if name != reference]
    found: Mapping[Part, tuple[Sequence[str], int]] = {  # and how many it takes at least
        "lines": ([start, reference, *others], 2),
        "segments": ([reference, *others], 2),
        "plane": ([start, reference, *([shown] if shown else others[:1])], 3),
        "rays": (rows, 1),
        "sharpness": (rows, 1),
        "hessian": (rows, 1),
    }
    names, least = found[part]
    distinct = tuple(dict.fromkeys(names))
    return distinct if len(distinct) >= least else ()
