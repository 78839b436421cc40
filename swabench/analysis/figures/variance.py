"""What each source of chance does: deviations on the left, shares on the right."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from swabench.analysis.figures.inputs import FigureInputs
from swabench.analysis.figures.picture import CannotDrawError, Drawn
from swabench.analysis.figures.pieces import log_ticks, new_figure
from swabench.analysis.figures.style import COLORS, MARKERS, WIDTH
from swabench.analysis.variance import RESULT, variances

TALL = 5.2  # inches: eleven lines of four intervals each
APART = 0.19  # between the intervals of a line, which are one apart
GAP = 0.7  # between the rows' own results and their differences


def variance(inputs: FigureInputs) -> Drawn:
    """Deviations of the test accuracy over each source's draws, and the sources' shares."""
    study = inputs.study
    frame = variances(study, inputs.records.of(study.row_names))
    frame = frame[frame["measure"] == "accuracy"]
    if not (frame["deviation"] > 0).any():
        raise CannotDrawError("no source has two draws that differ; run more seeds")
    figure, (left, right) = new_figure(1, 2, sharey=True, width_ratios=[1.5, 1])
    figure.set_size_inches(WIDTH, TALL)
    lines = list(frame.groupby(["quantity", "method"], sort=False))
    places = [y + GAP * (quantity != RESULT) for y, ((quantity, _), _) in enumerate(lines)]
    for y, (_, of_line) in zip(places, lines, strict=True):
        _deviations(left, of_line, y)
        _shares(right, of_line, y)
    left.set(
        yticks=places,
        yticklabels=[
            method if quantity == RESULT else f"{method} less {study.reference}"
            for (quantity, method), _ in lines
        ],
        ylim=(places[-1] + 0.6, -0.6),
        xlabel="Standard deviation (points)",
    )
    # Intervals are multiples of their deviations, and sources differ by multiples.
    _log_scale(left)
    right.set(xlim=(0, 100), xlabel="Share of variance (%)")
    for ax in (left, right):
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    legend = [
        Line2D([], [], ls="none", color=_color(k), marker=_marker(k), label=source)
        for k, source in enumerate(study.seed_draws)
    ]
    figure.legend(handles=legend, loc="outside upper center", ncols=len(legend), handlelength=1)
    caption = (
        "Standard deviation of the final test accuracy over the draws of each source of chance, "
        f"the others held, with {100 * study.confidence:g} % intervals, for each row and for its "
        f"difference to {study.reference}, paired by seed; and each source's share in the summed "
        "variances. The deviations' axis is logarithmic, so what never varies is not on it."
    )
    left_out = inputs.diverged(study.row_names, "left out")
    return Drawn(figure, caption, inputs.lacking(study.row_names), left_out)


def _deviations(ax: Axes, of_line: pd.DataFrame, y: float) -> None:
    """One line's deviations, an interval a source."""
    for k, row in enumerate(of_line.to_dict(orient="records")):
        place = y + APART * (k - (len(of_line) - 1) / 2)
        ax.plot([row["low"], row["high"]], [place, place], color=_color(k), linewidth=1.4)
        ax.plot(row["deviation"], place, color=_color(k), marker=_marker(k), ls="none", ms=4.5)


def _shares(ax: Axes, of_line: pd.DataFrame, y: float) -> None:
    """One line's shares, side by side; none where they are not known."""
    shares = 100 * of_line["share"].to_numpy()
    if np.isnan(shares).any():
        return
    begins = np.cumsum(shares) - shares
    for k, (begin, share) in enumerate(zip(begins, shares, strict=True)):
        ax.barh(y, share, left=begin, height=0.7, color=_color(k), edgecolor="white", lw=0.8)


def _log_scale(ax: Axes) -> None:
    """A logarithmic x axis with plain numbers, as many as fit."""
    ax.set_xscale("log")
    log_ticks(ax.xaxis, *ax.get_xlim())


def _color(source: int) -> str:
    return COLORS[1 + source]  # black bars would outweigh the others


def _marker(source: int) -> str:
    return MARKERS[1 + source]
