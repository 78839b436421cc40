"""What figures are put together from: axes, curves with their spread, intervals, legends."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

from swabench.analysis.figures.style import HEIGHT, WIDTH

WIDE = 200.0
"""An axis whose ends differ by more than this factor has a tick a decade."""


def new_figure(rows: int, columns: int, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """A figure of the page's width with its axes, row by row."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def spread(
    ax: Axes,
    curves: pd.DataFrame,
    style: Mapping[str, Any],
    label: str,
    *,
    every: int = 1,
    band: bool = True,
) -> None:
    """The mean of the columns, a band of one deviation, and every column faint behind.

    Mean and band end where the first column does: beyond they would be of the lucky alone.
    """
    x, mean = curves.index, curves.mean(axis=1, skipna=False)
    # As one collection: a thousand seeds as lines of their own take minutes.
    each = [np.column_stack([x, curves[column]]) for column in curves]
    ax.add_collection(
        LineCollection(each, colors=style["color"], linewidths=0.5, alpha=0.22, zorder=1)
    )
    if band and curves.shape[1] > 1:
        deviation = curves.std(axis=1, skipna=False)
        ax.fill_between(
            x, mean - deviation, mean + deviation, color=style["color"], alpha=0.18, lw=0, zorder=2
        )
    ax.plot(x, mean, label=label, markevery=every, zorder=3, **style)


def spread_words(seeds: int, band: bool = True) -> str:
    """What `spread` draws, for a caption."""
    if seeds == 1:
        return "one seed"
    shown = " band of ± 1 standard deviation," if band else ""
    return f"mean over {seeds} seeds,{shown} each seed shown faintly"


def interval(
    ax: Axes, mean: float, low: float, high: float, y: float, style: Mapping[str, Any]
) -> None:
    """A mean with its interval, on its row."""
    ax.plot([low, high], [y, y], color=style["color"], linewidth=2)
    ax.plot(mean, y, ms=6, **style)


def off_scale(ax: Axes, edge: float, y: float, style: Mapping[str, Any]) -> None:
    """A triangle that points to a value beyond the axis."""
    marker = "<" if edge == ax.get_xlim()[0] or edge < 0 else ">"
    ax.plot(edge, y, marker=marker, ms=7, color=style["color"], clip_on=False)


def signed_interval(mean: float, low: float, high: float) -> str:
    """A difference with its interval, as text."""
    words = f"{mean:+.2f}" if np.isnan(low) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    return words.replace("-", "−")


def mark(ax: Axes, x: float, words: str) -> None:
    """A dotted upright line with words at its top."""
    ax.axvline(x, color="#444444", linewidth=0.8, linestyle=":")
    ax.text(
        x, 0.98, words, transform=ax.get_xaxis_transform(), ha="center", va="top", fontsize=7,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
    )  # fmt: skip


def log_scale(ax: Axes) -> None:
    """A logarithmic y axis with plain numbers, as many as fit."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high / low > WIDE:
        log_ticks(ax.yaxis, low, high)
        return
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis, each number as short as it can be."""
    axis.set_major_locator(LogLocator(subs=(1,) if high / low > WIDE else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def whole_epochs(ax: Axes) -> None:
    """Ticks at whole epochs only."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend(figure: Figure, ax: Axes, columns: int) -> None:
    """One legend above all axes, of what is labelled in `ax`."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def padded(values: Iterable[float]) -> tuple[float, float]:
    """Limits of an axis that leave a margin around the values."""
    found = np.array([value for value in values if np.isfinite(value)])
    edge = 0.08 * (np.ptp(found) or 1.0)
    return float(found.min() - edge), float(found.max() + edge)
