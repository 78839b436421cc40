"""What figures are drawn from: the study, its measurements and its landscape."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from swabench.analysis.figures.picture import CannotDrawError
from swabench.analysis.figures.style import COLORS, LINES, MARKERS
from swabench.analysis.frame import Records, incompleteness, missing_runs
from swabench.analysis.surveys import Gathered, gather
from swabench.records import LandscapeRecord
from swabench.study.landscape import Part
from swabench.study.published import PUBLISHED_SIZES
from swabench.study.schedules import Cyclical, Triangular
from swabench.study.study import Study
from swabench.training.measurement import Predictor


@dataclass(frozen=True)
class FigureInputs:
    """What figures are drawn from.

    Attributes:
        study: The study.
        seeds: Which seeds.
        everything: Records of all runs; `records` are those of the table's rows.
        surveys: What was measured around their weights.
    """

    study: Study
    seeds: Sequence[int]
    everything: Records
    surveys: Sequence[LandscapeRecord]

    @cached_property
    def records(self) -> Records:
        """Records of the table's rows."""
        return self.everything.of(self.study.row_names)

    def averaging(self, cyclical: bool) -> str:
        """The first method of one phase that averages, over a cyclical rate or over any."""
        methods = self.study.methods
        found = [
            name
            for name in self.study.averaging_methods
            if (plan := methods[name].averaging)
            and plan.phases == 1
            and (not cyclical or isinstance(methods[name].rate, Cyclical | Triangular))
        ]
        if not found:
            kind = "averages over a cyclical rate" if cyclical else "averages"
            raise CannotDrawError(f"no method of the study {kind} in one phase")
        return found[0]

    def periodic(self) -> str:
        """The first method whose average restarts."""
        for name in self.study.averaging_methods:
            plan = self.study.methods[name].averaging
            if plan and plan.phases > 1:
                return name
        raise CannotDrawError("no method of the study averages in phases")

    def curves(self, name: str, predictor: Predictor, measure: str) -> pd.DataFrame:
        """A measure on the test images over the epochs (rows), a column a seed."""
        found = self.records.course(name, measure, predictor)
        if found.empty:
            lost = self.records.divergences([name])
            raise CannotDrawError(lost[0] if lost else f"there is no run of {name}")
        if len(found) == 1:
            raise CannotDrawError(
                "runs were measured after one epoch alone; finetune.score_every_epochs says when"
            )
        return found

    def label(self, name: str, predictor: Predictor) -> str:
        """What a legend calls a curve; it says where the run diverged."""
        seeds, lost = len(self.records[name]), len(self.records.diverged.get(name, ()))
        ended = f"\n(diverged: {lost} of {seeds})" if lost else ""  # else legends grow too wide
        return f"{name}, {predictor}{ended}"

    def landscape(self, part: Part) -> Gathered:
        """A part of the landscape."""
        found = gather(self.study, self.surveys, part, self.seeds)
        if found is None:
            raise CannotDrawError(
                f"no {part} of the landscape was measured; run `swabench landscape`"
            )
        return found

    @property
    def splits(self) -> dict[str, str]:
        """The images of the landscape, by split, in words."""
        drawn, data = self.study.landscape.training_images, self.study.data
        there = data.training_images
        if there is None and data.dataset in PUBLISHED_SIZES:
            there = PUBLISHED_SIZES[data.dataset].training_images - data.validation_images
        number = f"{min(drawn, there):,} training" if there else "Training"
        tested = self.study.landscape.test_images
        return {
            "train": f"{number} images",
            "test": f"{tested:,} test images" if tested else "Test images",
        }

    @property
    def of_network(self) -> bool:
        """Whether the landscape is that of a network and not of a final layer alone."""
        return self.study.finetune.trainable != "head"

    def lacking(self, rows: Iterable[str]) -> str:
        """Which runs of the rows are missing, in words."""
        missing = missing_runs(self.records, self.seeds)
        return incompleteness({name: missing[name] for name in rows if name in missing})

    def diverged(self, rows: Iterable[str], so: str) -> str:
        """Which of some runs diverged, and what that does to a figure; empty where none did."""
        lost = self.everything.divergences(dict.fromkeys(rows))
        return f"{'; '.join(lost)}: {so}." if lost else ""

    def number(self, name: str) -> int:
        """A row's place in the table."""
        return self.study.row_names.index(name)

    def style(self, name: str) -> dict[str, Any]:
        """Colour, line and marker of a row."""
        k = self.number(name)
        return {
            "color": COLORS[k % len(COLORS)],
            "linestyle": LINES[k % len(LINES)],
            "marker": MARKERS[k % len(MARKERS)],
        }


def absent(found: Gathered) -> str:
    """At which seeds a part of the landscape is missing, in words."""
    if not found.missing:
        return ""
    return f"INCOMPLETE: not measured at seeds {', '.join(map(str, found.missing))}."
