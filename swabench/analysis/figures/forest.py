"""Figure 4: the table as a forest plot, with the paper's numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from swabench.analysis.figures.inputs import FigureInputs
from swabench.analysis.figures.picture import CannotDrawError, Drawn
from swabench.analysis.figures.pieces import (
    interval,
    new_figure,
    off_scale,
    padded,
    signed_interval,
)
from swabench.analysis.figures.style import PAPER
from swabench.analysis.table import comparison
from swabench.study.study import Study

GREY = "#444444"

Differences = Mapping[str, Sequence[float]]
"""Of each row but the reference: final accuracy less the reference's, seed by seed, in points."""


def forest(inputs: FigureInputs) -> Drawn:
    """Figure 4: accuracies on the left, differences to the reference on the right."""
    study, whole = inputs.study, comparison(inputs.study, inputs.records)
    frame = whole[whole["diverged"] == 0].reset_index(drop=True)
    if frame.empty:
        raise CannotDrawError("every row diverged at some seed")
    figure, (left, right) = new_figure(1, 2, sharey=True, width_ratios=[1, 1.35])
    finals = {name: inputs.records.final(name, "accuracy") for name in inputs.records}
    differences = _differences(finals, study.reference)
    limits = _limits(study, whole, differences)
    for y, (_, row) in enumerate(frame.iterrows()):
        style = {**inputs.style(row["method"]), "linestyle": "none"}
        _accuracy(left, row, list(finals[row["method"]].values()), y, style)
        _difference(right, row, differences, frame, study.reference, limits, y, style)
    right.axvline(0, color=GREY, linewidth=0.8)
    left.set(
        yticks=range(len(frame)),
        yticklabels=frame["method"],
        ylim=(len(frame) - 0.4, -0.6),
        xlabel="Test accuracy (%)",
    )
    right.set(xlim=limits, xlabel=f"Difference to {study.reference} (points)")
    for ax in (left, right):
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    figure.legend(handles=_legend(study, frame), loc="outside upper center", ncols=3)
    beside = ", every seed, and the paper's numbers" if _has_papers(frame) else " and every seed"
    caption = (
        f"Test accuracy of every method, and its difference to {study.reference}, paired by seed: "
        f"means with {100 * study.confidence:g} % t intervals{beside}. A triangle at the edge "
        "marks a difference beyond the axis; its value is on the right."
    )
    left_out = inputs.diverged(study.row_names, "left out")
    return Drawn(figure, caption, inputs.lacking(study.row_names), left_out)


def _differences(finals: Mapping[str, Mapping[int, float]], reference: str) -> Differences:
    return {
        name: [own[s] - finals[reference][s] for s in own if s in finals[reference]]
        for name, own in finals.items()
        if name != reference
    }


def _limits(study: Study, frame: pd.DataFrame, differences: Differences) -> tuple[float, float]:
    """Of the differences' axis: pretraining lies far from the tuned rows, and may be off it."""
    paper = frame.set_index("method")["paper_accuracy"]
    tuned = [d for name, at in differences.items() if name != study.pretrain.name for d in at]
    tuned += [p - paper[study.reference] for n, p in paper.items() if n in study.methods]
    return padded([*tuned, 0.0])


def _accuracy(
    ax: Axes, row: "pd.Series[Any]", seeds: Sequence[float], y: int, style: Mapping[str, Any]
) -> None:
    ax.plot(seeds, [y] * len(seeds), "|", color=style["color"], alpha=0.35, ms=7)
    interval(ax, row["accuracy"], row["accuracy_low"], row["accuracy_high"], y, style)
    ax.plot(row["paper_accuracy"], y + 0.28, **PAPER)


def _difference(
    ax: Axes,
    row: "pd.Series[Any]",
    differences: Differences,
    frame: pd.DataFrame,
    reference: str,
    limits: tuple[float, float],
    y: int,
    style: Mapping[str, Any],
) -> None:
    if row["method"] == reference:
        ax.text(0.0, y, "  reference", va="center", color=GREY)
        return
    at = differences[row["method"]]
    if not at:
        return
    paper = frame.set_index("method")["paper_accuracy"]
    ax.plot(row["paper_accuracy"] - paper[reference], y + 0.28, **PAPER)
    found = row[f"difference_to_{reference}"], row["difference_low"], row["difference_high"]
    place = ax.get_yaxis_transform()
    ax.text(1.02, y, signed_interval(*found), transform=place, va="center", fontsize=7.5)
    low, high = limits
    if found[0] < low or found[0] > high:
        off_scale(ax, low if found[0] < low else high, y, style)
        return
    ax.plot(at, [y] * len(at), "|", color=style["color"], alpha=0.35, ms=7)
    interval(ax, *found, y, style)


def _has_papers(frame: pd.DataFrame) -> bool:
    """Whether the table has any of the paper's numbers."""
    return bool(frame["paper_accuracy"].notna().any())


def _legend(study: Study, frame: pd.DataFrame) -> list[Line2D]:
    mean = f"mean, {100 * study.confidence:g} % interval"
    return [
        Line2D([], [], color=GREY, marker="o", label=mean),
        Line2D([], [], color=GREY, marker="|", ls="none", alpha=0.5, label="each seed"),
        *([Line2D([], [], label="the paper's number", **PAPER)] if _has_papers(frame) else []),
    ]
