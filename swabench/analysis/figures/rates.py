"""Figure 7: what averaging does at every rate of the sweep, on the same trajectory."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from swabench.analysis.figures.inputs import FigureInputs
from swabench.analysis.figures.picture import CannotDrawError, Drawn
from swabench.analysis.figures.pieces import legend, new_figure
from swabench.analysis.figures.style import ITERATE, LOST
from swabench.analysis.statistics import mean_interval
from swabench.analysis.table import on_one_trajectory


def rates(inputs: FigureInputs) -> Drawn:
    """Figure 7: iterate and average over the rate, and their difference; decay's level beside."""
    name = _swept_average(inputs)
    runs = [run for (method, _), run in inputs.study.sweep_cells.items() if method == name]
    there = inputs.everything.of([run for run in runs if run in inputs.everything])
    frame = on_one_trajectory(inputs.study, there)
    if frame.empty:
        raise CannotDrawError(f"there is no run of {name} in the rate sweep")
    frame = frame.sort_values("rate")
    figure, (left, right) = new_figure(1, 2)
    level = _level(inputs)
    _over_rates(left, frame, "iterate_accuracy", ITERATE, f"{name}, iterate")
    _over_rates(left, frame, "average_accuracy", inputs.style(name), f"{name}, average")
    _over_rates(right, frame, "accuracy_difference", inputs.style(name), "average − iterate")
    if level:
        decayed, at = level
        left.axhspan(*at[1:], color=inputs.style(decayed)["color"], alpha=0.25, lw=0)
        left.axhline(at[0], color=inputs.style(decayed)["color"], lw=1.2, label=decayed)
    right.axhline(0, color="#444444", linewidth=0.8)
    _lost(left, frame)
    _lost(right, frame)
    left.set(ylabel="Test accuracy (%)")
    right.set(ylabel="Average − iterate (points)")
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xticks(frame["rate"], [f"{rate:g}" for rate in frame["rate"]])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(axis="x", rotation=45)
        ax.set_xlabel("Constant learning rate")
    legend(figure, left, columns=3)
    confidence = f"{100 * inputs.study.confidence:g} %"
    caption = (
        f"Averaging at equal rates: test accuracy of the iterate and of its average ({name}) at "
        f"every rate of the sweep, and the difference on the same trajectory; means with "
        f"{confidence} t intervals over {int(frame['seeds'].max())} seeds."
    )
    if level:
        caption += f" The band is {level[0]}, which decays its rate and averages nothing."
    marked = inputs.diverged(runs, "a cross at the lower edge in place of means")
    return Drawn(figure, caption, inputs.lacking([]), marked)


def _swept_average(inputs: FigureInputs) -> str:
    """The first averaging method whose rate is swept."""
    study = inputs.study
    for method, _ in study.sweep_cells:
        if study.row_method(method).averaging:
            return method
    raise CannotDrawError("the study sweeps no averaging method's rate")


def _level(inputs: FigureInputs) -> tuple[str, tuple[float, float, float]] | None:
    """The decayed SGD's accuracy with its interval; None where the study has none."""
    name = inputs.study.claims.decayed
    found = inputs.records.final(name, "accuracy") if name in inputs.records else {}
    if not found:
        return None
    at = mean_interval(list(found.values()), inputs.study.confidence)
    return name, (at.mean, at.low, at.high)


def _lost(ax: Axes, frame: pd.DataFrame) -> None:
    """A cross at the lower edge at each rate at which the runs diverged."""
    at = frame.loc[frame["diverged"] > 0, "rate"]
    if len(at):
        ax.plot(at, [0.0] * len(at), label="diverged", transform=ax.get_xaxis_transform(), **LOST)


def _over_rates(
    ax: Axes, frame: pd.DataFrame, column: str, style: Mapping[str, Any], label: str
) -> None:
    mean = frame[column]
    reach = [mean - frame[f"{column}_low"], frame[f"{column}_high"] - mean]
    ax.errorbar(frame["rate"], mean, yerr=reach, capsize=2, label=label, **style)
