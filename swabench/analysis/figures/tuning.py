"""The figure of a tuning: what trials are chosen by over the learning rate, a curve a family."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from swabench.analysis.figures.picture import FORMATS, CannotDrawError, Drawn, Picture
from swabench.analysis.figures.pieces import log_ticks, new_figure
from swabench.analysis.figures.style import (
    COLORS,
    HEIGHT,
    LINES,
    LOST,
    MARKERS,
    plain_style,
    render,
)
from swabench.study.search_space import tuning_of
from swabench.study.study import Study

NAME = "tuning"
ROOM_BEYOND = 1.5
"""How far the axis reaches beyond the best values, to the worse, in units of their range."""
_LABELS = {"loss": "Validation loss (nats)", "accuracy": "Validation accuracy (%)"}
CROSSES_APART = 0.04
"""Between the crosses of two families that diverged at the same rate, in heights of the axes."""


def draw_tuning(study: Study, frame: pd.DataFrame) -> Picture:
    """Draw a tuning from its trials (`analysis.tuning.trial_frame`)."""
    try:
        with plain_style():
            figure, caption, *_ = _trials(study, frame)
    except CannotDrawError as reason:
        return Picture(NAME, "", {}, skipped=str(reason))
    return Picture(NAME, caption, {kind: render(figure, kind, caption) for kind in FORMATS})


def _trials(study: Study, frame: pd.DataFrame) -> Drawn:
    """Two panels: families that hand over the iterate, and those that hand over an average."""
    measure = tuning_of(study).chosen_by
    rates = {family: rate for family in tuning_of(study).families if (rate := _rate(study, family))}
    panels = {
        "Without an averaging plan": [f for f in rates if not study.methods[f].averaging],
        "With an averaging plan": [f for f in rates if study.methods[f].averaging],
    }
    shown = {title: families for title, families in panels.items() if families}
    if not shown:
        raise CannotDrawError("no family's rate is tuned")
    figure, axes = new_figure(1, len(shown), sharey=True)
    figure.set_figheight(1.4 * HEIGHT)  # the legends need room
    for ax, (title, families) in zip(axes, shown.items(), strict=True):
        for number, family in enumerate(families):
            own = frame[frame["family"] == family]
            _curve(ax, own[rates[family]], own[measure], own["chosen"], family, number)
            _lost(ax, own, rates[family], number)
        _dress(ax, title, sorted(frame.loc[frame["chosen"], measure]), up=measure == "accuracy")
    axes[0].set_ylabel(_LABELS[measure])
    beyond = "above" if measure == "loss" else "below"
    caption = (
        f"Mean validation {measure} over the tuning seeds of what each family hands over, against "
        "its learning rate (of a cyclical rate, the highest), at the best of its other settings. "
        f"Ringed: the trial that was chosen. Curves that leave the picture go on {beyond} it."
    )
    if (frame["diverged"] > 0).any():
        caption += " A cross at the upper edge: every trial at that rate diverged at some seed."
    return Drawn(figure, caption)


def _rate(study: Study, family: str) -> str | None:
    """The setting that is a family's learning rate, where it is tuned."""
    grid = tuning_of(study).families[family]
    return next((k for k in ("rate.learning_rate", "rate.high") if k in grid), None)


def _curve(
    ax: Axes,
    rates: "pd.Series[float]",
    values: "pd.Series[float]",
    chosen: "pd.Series[bool]",
    family: str,
    number: int,
) -> None:
    """A family's best value at each rate, with the chosen one ringed."""
    at_rates = values.groupby(rates)
    best = (at_rates.max() if values.name == "accuracy" else at_rates.min()).dropna()
    style: dict[str, Any] = {
        "color": COLORS[number % len(COLORS)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
    }
    if number >= len(COLORS):  # colours come round again: hollow marks tell the second round
        style["mfc"] = "white"
    ax.plot(best.index, best, label=family, **style)
    ax.plot(
        rates[chosen], values[chosen], "o", ms=10, mfc="none", mec=style["color"], linestyle="none"
    )


def _lost(ax: Axes, trials: pd.DataFrame, rate: str, number: int) -> None:
    """A cross at each rate of a family at which every trial diverged, below those of others."""
    whole = (trials["diverged"] > 0).groupby(trials[rate]).all()
    rates = whole[whole].index
    if rates.empty:
        return
    style = {**LOST, "color": COLORS[number % len(COLORS)]}
    heights = [1 - CROSSES_APART * number] * len(rates)
    ax.plot(rates, heights, transform=ax.get_xaxis_transform(), **style)


def _dress(ax: Axes, title: str, best: Sequence[float], *, up: bool) -> None:
    """Axes for values near the best ones, over rates on a logarithmic scale; `up` is better."""
    reach = best[-1] - best[0] or 0.01 * abs(best[0])
    below, above = (ROOM_BEYOND, 0.3) if up else (0.3, ROOM_BEYOND)
    ax.set_ylim(best[0] - below * reach, best[-1] + above * reach)
    ax.set_xscale("log")
    log_ticks(ax.xaxis, *ax.get_xlim())
    ax.set(title=title, xlabel="Learning rate")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
