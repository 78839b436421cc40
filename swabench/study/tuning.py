"""Tuning: a search space for every method family, and what was chosen in it.

Each family gets equally many trials, whatever it has to set; what counts is how what a trial
hands over does on the validation images, on seeds that the study itself does not use (Choi et al.
2019, arXiv 1910.05446). This is settings and pure functions; `runs/tuning.py` trains the trials
and `analysis/tuning.py` chooses.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from swabench.study.limits import (
    MOST_METHODS,
    MOST_TRIALS,
    Measured,
    SeedNumber,
    Trials,
    no_flag,
)
from swabench.study.methods import Method
from swabench.study.seeds import DistinctSeeds
from swabench.study.settings import AddedLater, Name, Settings, Text, what_results_depend_on


def _number(value: object) -> object:
    """YAML 1.1 reads `1e-3` as a string; an integer stays one, as counts are strict."""
    return float(value) if isinstance(value, str) else no_flag(value)


# Of any setting; whether it may be that one's is checked where the method is made of it.
Number = Annotated[
    Annotated[int, Field(ge=-(10**9), le=10**9)] | Measured, BeforeValidator(_number)
]
Grid = dict[
    Text,
    Annotated[tuple[Number, ...], Field(min_length=1, max_length=MOST_TRIALS, strict=False)],
]
"""The values of each setting of a method, by its dotted key; a trial is one of each."""


@dataclass(frozen=True)
class Trial:
    """One point of a family's grid.

    Attributes:
        family: The method whose settings are tried.
        settings: The values, by dotted key.
        method: The method with these settings; its title says them.
    """

    family: str
    settings: Mapping[str, Number]
    method: Method


class Choice(Settings):
    """What was chosen for a family.

    Attributes:
        settings: The chosen values, by dotted key.
        loss: Mean validation loss over the tuning seeds, in nats.
        standard_error: Of that mean; None where there is one seed alone.
        trials: How many there were.
        at_edge: The settings whose chosen value is the smallest or largest of several.
    """

    settings: dict[str, Number]
    loss: Measured
    standard_error: Measured | None = None
    trials: Trials
    at_edge: tuple[str, ...] = ()


class Choices(Settings):
    """What tuning chose for a study.

    Attributes:
        search_space: Digest of all that the choice depends on.
        seeds: The tuning seeds.
        families: The choice of each family.
        sides: The family that each side of the primary contrast sends, by the side's name: that
            with the best of all its trials.
    """

    search_space: str
    seeds: tuple[SeedNumber, ...]
    families: dict[Name, Choice]
    sides: dict[Name, str] = Field(default_factory=dict)


class Tuning(Settings):
    """A study's search spaces.

    Attributes:
        seeds: The seeds on which trials are compared; none of the study's.
        trials_per_family: How many trials every family gets.
        families: The grid of each family, which is a method of the study.
        sides: Two sides, each of several families, whose best are compared: equal trials a side.
        chosen_by: What decides, on the validation images: the lowest mean loss, or the highest
            mean accuracy and of equal ones the lowest loss. Where a network overfits, its loss
            rises at any rate while its accuracy does, too: a choice by loss asks not to train.
        chosen: What tuning chose, in a study that is tuned; it is read from `choices.yaml`.
    """

    seeds: DistinctSeeds
    trials_per_family: Trials
    families: Annotated[
        dict[Name, Annotated[Grid, Field(min_length=1)]],
        Field(min_length=1, max_length=MOST_METHODS),
    ]
    sides: dict[Name, Annotated[tuple[str, ...], Field(min_length=1, strict=False)]] = Field(
        default_factory=dict
    )
    chosen_by: Annotated[Literal["loss", "accuracy"], AddedLater(neutral="loss")] = "loss"
    chosen: Choices | None = None

    @model_validator(mode="after")
    def _is_fair(self) -> "Tuning":
        for family, grid in self.families.items():
            trials = math.prod(map(len, grid.values()))
            if trials != self.trials_per_family:
                sizes = " × ".join(str(len(values)) for values in grid.values())
                raise ValueError(
                    f"families.{family}: its grid has {sizes} = {trials} trials where every family "
                    f"has {self.trials_per_family}; change its values, or trials_per_family and "
                    "all grids"
                )
        self._check_sides()
        return self

    def _check_sides(self) -> None:
        if self.sides and len(self.sides) != 2:
            raise ValueError(f"sides: found {len(self.sides)}; name two, or leave them out")
        members = [family for families in self.sides.values() for family in families]
        for side, families in self.sides.items():
            for family in families:
                if family not in self.families:
                    raise ValueError(
                        f"sides.{side}: {family!r} has no search space; "
                        f"choose from {', '.join(self.families)}"
                    )
                if members.count(family) > 1:
                    raise ValueError(f"sides.{side}: {family!r} is named twice; take one out")
        totals = {side: len(f) * self.trials_per_family for side, f in self.sides.items()}
        if len(set(totals.values())) > 1:
            found = ", ".join(f"{side} {total}" for side, total in totals.items())
            raise ValueError(f"sides: {found} trials in all; give both equally many families")

    def check(
        self, methods: Mapping[str, Method], seeds: Sequence[int], epochs: int, start: str
    ) -> None:
        """Check that the search spaces fit the study that they are of.

        Args:
            methods: The study's methods.
            seeds: Its seeds.
            epochs: Of fine-tuning.
            start: Name of the row that all methods start from.

        Raises:
            ValueError: Names the key that does not fit.
        """
        if shared := sorted(set(seeds) & set(self.seeds)):
            found = ", ".join(map(str, shared))
            raise ValueError(
                f"tuning.seeds: {found} among the study's own seeds; choose others, so that "
                "nothing is chosen on what is reported"
            )
        for name, trial in self.trials(methods).items():
            where = f"tuning.families.{trial.family}: {in_words(trial.settings)}"
            if name == start:
                raise ValueError(f"{where}: the trial {name!r} is called like pretrain.name")
            try:
                trial.method.check(epochs)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None

    def trials(self, methods: Mapping[str, Method]) -> dict[str, Trial]:
        """Every trial of every family, by name: the family's and the values, in the grid's order.

        Args:
            methods: The study's.

        Raises:
            ValueError: Names the key that does not fit the study's methods.
        """
        found: dict[str, Trial] = {}
        for family, grid in self.families.items():
            if family not in methods:
                raise ValueError(
                    f"tuning.families: unknown method {family!r}; choose from {', '.join(methods)}"
                )
            where = f"tuning.families.{family}"
            different: list[dict[str, Any]] = []
            for settings in points(grid):
                values = (f"{value:g}".replace("+", "") for value in settings.values())
                name = "-".join([family, *values])
                method = _with_settings(methods[family], settings, where)
                what = what_results_depend_on(method)
                if name in found or what in different:
                    raise ValueError(f"{where}: {name!r} is there twice; take one out")
                different.append(what)
                found[name] = Trial(family, settings, method)
        return found

    def at_edge(self, family: str, settings: Mapping[str, Number]) -> tuple[str, ...]:
        """The settings that lie at an end of their grid, of those that have several values."""
        grid = self.families[family]
        return tuple(
            key
            for key, value in settings.items()
            if len(grid[key]) > 1 and value in (min(grid[key]), max(grid[key]))
        )


def points(grid: Grid) -> Iterator[dict[str, Number]]:
    """All combinations of a grid's values; the last setting varies fastest."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def in_words(settings: Mapping[str, Number]) -> str:
    """Settings by their own names: `learning_rate 0.01, captures 3`."""
    return ", ".join(f"{own_name(key)} {value:g}" for key, value in settings.items())


def own_name(key: str) -> str:
    """A dotted key without the sections that it lies in."""
    return key.rpartition(".")[2]


def _with_settings(method: Method, settings: Mapping[str, Number], where: str) -> Method:
    """A method with other values at some dotted keys.

    Raises:
        ValueError: It has no such settings, or not with such values; names the key.
    """
    content = method.model_dump(exclude_unset=True)
    for key, value in settings.items():
        *sections, last = key.split(".")
        place: Any = content
        for section in sections:
            place = place.get(section)
            if not isinstance(place, dict):
                raise ValueError(f"{where}.{key}: the method has no {section!r} of its own")
        place[last] = value
    content["title"] = f"{method.title} ({in_words(settings)})"
    content["paper_accuracy"] = None  # the paper ran other settings
    try:
        return Method.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        named = (key for key in settings if key.endswith(f".{first['loc'][-1]}"))
        key = next(named, ".".join(map(str, first["loc"])))
        unknown = first["type"] == "extra_forbidden"
        message = "unknown key" if unknown else first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {in_words(settings)}: {key}: {message}") from None
