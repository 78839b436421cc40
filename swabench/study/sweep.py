"""A rate sweep: the same methods at several constant rates, beside the table's rows."""

import json
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator

from swabench.study.limits import MOST_METHODS, Rate
from swabench.study.methods import Method
from swabench.study.schedules import Constant
from swabench.study.settings import Settings, what_results_depend_on


class RateSweep(Settings):
    """Which methods run at which rates; each pair is one cell of the sweep.

    Attributes:
        methods: Methods of the study whose rate is constant.
        rates: The rates that each of them gets instead of its own.
    """

    methods: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_METHODS)]
    rates: Annotated[tuple[Rate, ...], Field(min_length=1, max_length=MOST_METHODS)]

    @field_validator("methods", "rates")
    @classmethod
    def _nothing_twice(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"{list(values)} names something twice")
        return values

    def cells(self, methods: Mapping[str, Method]) -> dict[tuple[str, float], str]:
        """The run behind each (method, rate): a method of the table where one is the same."""
        rows: dict[str, str] = {}
        for name, method in methods.items():
            rows.setdefault(_what_counts(method), name)
        return {
            (name, rate): rows.get(
                _what_counts(self._method(methods, name, rate)), f"{name}-rate-{rate:g}"
            )
            for name in self.methods
            for rate in self.rates
        }

    def further_methods(self, methods: Mapping[str, Method]) -> dict[str, Method]:
        """The methods that the sweep adds to those of the table.

        Raises:
            ValueError: Names the key that does not fit the study's methods.
        """
        for name in self.methods:
            if name not in methods:
                raise ValueError(
                    f"methods: unknown method {name!r}; choose from {', '.join(methods)}"
                )
            if not isinstance(methods[name].rate, Constant):
                raise ValueError(f"methods: {name!r} has no constant rate that could be replaced")
        cells = self.cells(methods)
        further = {
            run: self._method(methods, name, rate)
            for (name, rate), run in cells.items()
            if run not in methods
        }
        taken = {f"{name}-rate-{rate:g}" for name in self.methods for rate in self.rates}
        if clash := sorted(taken & methods.keys()):
            raise ValueError(f"rates: {clash[0]!r}, a run of the sweep, is also a method's name")
        if len(further) < sum(run not in methods for run in cells.values()):
            raise ValueError(f"rates: {list(self.rates)} has rates too near each other to name")
        return further

    @staticmethod
    def _method(methods: Mapping[str, Method], name: str, rate: float) -> Method:
        return methods[name].model_copy(
            update={
                "title": f"{methods[name].title}, at {rate:g}",
                "rate": methods[name].rate.model_copy(update={"learning_rate": rate}),
                "paper_accuracy": None,
            }
        )


def _what_counts(method: Method) -> str:
    """A text that is the same for methods that differ in nothing that changes a result."""
    return json.dumps(what_results_depend_on(method), sort_keys=True)
