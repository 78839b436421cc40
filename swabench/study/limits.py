"""The numbers that a study may name: each kind with its limits, and no kind without.

The upper limits lie far above any real study. What is beyond them is a slip of the pen, which
would otherwise show late and as something else: memory that does not suffice, arithmetic that
overflows, a loop without end.

YAML's `true` must not pass for 1, nor 2.5 for 2, so whole numbers are strict. The others are not,
because YAML 1.1 reads `1e-3` as a string, which pydantic then turns into the number meant.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field

MOST_SEEDS = 10_000
LARGEST_SEED = 2**32 - 1
"""Of NumPy's and torch's generators."""
MOST_EPOCHS = 100_000
MOST_STEPS = 100_000_000
"""Iterations of a run, each with its rate: a gigabyte."""
MOST_IMAGES = 100_000_000
LARGEST_SIDE = 4096
"""Of an image, in pixels."""
HIGHEST_RATE = 1e38
"""About what float32 holds. A rate that is merely much too high diverges, and training says so."""
STRONGEST_DECAY = 1e6
MOST_REPEATS = 10_000
"""Of what is drawn or tried anew: directions, probes, points of a line, steps of an ascent."""
MOST_POINTS_A_SIDE = 1000
"""Of a grid, which has the square of it."""
MOST_METHODS = 200
MOST_TRIALS = 1000
FARTHEST = 1e6
"""In units of the weights, of a distance between two of them, or of a difference that counts."""
LONGEST_TEXT = 4000
LONGEST_NAME = 200
"""In bytes: names become folders, and a file system takes 255."""


def no_flag(value: object) -> object:
    """Refuse a truth value where a number is meant: Python takes one for the other."""
    if isinstance(value, bool):
        raise ValueError("give a number, not true or false")
    return value


NO_FLAG = BeforeValidator(no_flag)

SeedNumber = Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEED)]
SeedCount = Annotated[int, Field(strict=True, ge=1, le=MOST_SEEDS)]
Epochs = Annotated[int, Field(strict=True, ge=1, le=MOST_EPOCHS)]
EpochSpan = Annotated[float, Field(gt=0, le=MOST_EPOCHS), NO_FLAG]
SomeEpochs = Annotated[float, Field(ge=0, le=MOST_EPOCHS), NO_FLAG]
"""A span that may be none at all."""
Images = Annotated[int, Field(strict=True, ge=1, le=MOST_IMAGES)]
Repeats = Annotated[int, Field(strict=True, ge=1, le=MOST_REPEATS)]
Points = Annotated[int, Field(strict=True, ge=2, le=MOST_REPEATS)]
Rate = Annotated[float, Field(gt=0, le=HIGHEST_RATE), NO_FLAG]
Decay = Annotated[float, Field(ge=0, le=STRONGEST_DECAY), NO_FLAG]
Distance = Annotated[float, Field(gt=0, le=FARTHEST), NO_FLAG]
Coordinate = Annotated[float, Field(ge=-FARTHEST, le=FARTHEST), NO_FLAG]
Exponent = Annotated[float, Field(ge=0, le=1e6), NO_FLAG]
Fraction = Annotated[float, Field(ge=0, lt=1), NO_FLAG]
PositiveFraction = Annotated[float, Field(gt=0, lt=1), NO_FLAG]
Share = Annotated[float, Field(gt=0, le=1), NO_FLAG]
AtMostHalf = Annotated[float, Field(ge=0, le=0.5), NO_FLAG]
BelowHalf = Annotated[float, Field(gt=0, lt=0.5), NO_FLAG]
AboveHalf = Annotated[float, Field(gt=0.5, lt=1), NO_FLAG]
Trials = Annotated[int, Field(strict=True, ge=1, le=MOST_TRIALS)]
Measured = Annotated[float, Field(ge=-HIGHEST_RATE, le=HIGHEST_RATE), NO_FLAG]
Percent = Annotated[float, Field(ge=0, le=100), NO_FLAG]
