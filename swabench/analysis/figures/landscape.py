"""Figures 2, 5 and 6: the loss around the weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from numpy.typing import NDArray

from swabench.analysis.figures.inputs import FigureInputs, absent
from swabench.analysis.figures.picture import Drawn
from swabench.analysis.figures.pieces import (
    legend,
    log_scale,
    mark,
    new_figure,
    spread,
    spread_words,
)


def line(inputs: FigureInputs) -> Drawn:
    """Figure 2: the loss along the line from the pretrained to the fine-tuned weights."""
    found = inputs.landscape("lines")
    lines = found.tables["lines"]
    over_seeds = lines.groupby(["split", "end", "alpha"])["loss"]
    band = not (over_seeds.std() >= over_seeds.mean()).any()  # on a logarithmic axis
    figure, axes = new_figure(1, 2, sharey=True)
    for ax, (split, title) in zip(axes, inputs.splits.items(), strict=True):
        shown = lines[lines["split"] == split]
        for name in dict.fromkeys(shown["end"]):
            curves = shown[shown["end"] == name].pivot_table(
                index="alpha", columns="seed", values="loss"
            )
            spread(ax, curves, inputs.style(name), name, every=5, band=band)
        mark(ax, 0, "before")
        mark(ax, 1, "after")
        ax.set(title=title, xlabel="α:  w = before + α (after − before)")
        log_scale(ax)
    axes[0].set_ylabel("Loss (nats, log scale)")
    legend(figure, axes[0], columns=4)
    caption = (
        "Loss along the straight line through the weights before (α = 0) and after (α = 1) "
        f"fine-tuning: {spread_words(len(found.seeds), band)}."
    )
    return Drawn(figure, caption, absent(found))


def plane(inputs: FigureInputs) -> Drawn:
    """Figure 5: the loss on the plane through three weights."""
    found = inputs.landscape("plane")
    seed = found.seeds[0]
    grid, marks, paths = (
        found.tables[name][found.tables[name]["seed"] == seed]
        for name in ("grid", "marks", "paths")
    )
    figure, axes = new_figure(1, 2, sharey=True)
    start, *ends = marks["method"]
    sides = {start: "right", ends[0]: "left"}  # these two may lie near each other
    for ax, (split, title) in zip(axes, inputs.splits.items(), strict=True):
        losses = grid[grid["split"] == split].pivot_table(index="y", columns="x", values="loss")
        levels = _levels(losses.to_numpy())
        norm = BoundaryNorm(levels, 256)
        filled = ax.contourf(*_xyz(losses), levels=levels, norm=norm, cmap="cividis_r")
        ax.contour(*_xyz(losses), levels=levels, colors="white", linewidths=0.4)
        for name in dict.fromkeys(paths["method"]):
            way = paths[paths["method"] == name]
            ax.plot(way["x"], way["y"], label=f"{name}, iterate", **_on_dark(inputs.style(name)))
        for x, y, name in marks[["x", "y", "method"]].itertuples(index=False, name=None):
            ax.plot(x, y, marker="*", ms=11, color="white", mec="black", mew=0.8)
            ax.annotate(
                name,
                (x, y),
                xytext=(0, 7 if y > 0.5 * marks["y"].max() else -7),
                textcoords="offset points",
                ha=sides.get(name, "center"),
                va="bottom" if y > 0.5 * marks["y"].max() else "top",
                # No stroke around the letters: with one, SVG draws them as paths.
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85},
            )
        ax.grid(visible=False)
        ax.set(title=title, xlabel=f"Along {start} → {ends[0]} (weight units)")
        bar = figure.colorbar(filled, ax=ax, orientation="horizontal", format="%.2f", aspect=30)
        bar.set_label("Loss (nats)")
        bar.set_ticks(list(levels[::3]))
        bar.ax.minorticks_off()
    axes[0].set_ylabel("Across (weight units)")
    if not paths.empty:
        legend(figure, axes[0], columns=2)
    caption = (
        f"Loss on the plane through the weights of {', '.join(marks['method'])} at seed {seed} "
        "(stars), on an orthonormal basis; the two axes differ in scale."
    )
    if not paths.empty:
        caption += " The iterates' paths, epoch by epoch, are projected onto the plane."
    return Drawn(figure, caption, absent(found))


def flatness(inputs: FigureInputs) -> Drawn:
    """Figure 6: the loss along random rays, and between SGD and the averages; sharpness."""
    rays, sharp = inputs.landscape("rays"), inputs.landscape("sharpness")
    segments = inputs.landscape("segments")
    figure, (left, middle, right) = new_figure(1, 3, width_ratios=[1, 1, 0.8])
    directions = _rays(left, rays.tables["rays"], inputs)
    start = _segments(middle, segments.tables["segments"], inputs)
    epsilon = _sharpness(right, sharp.tables["sharpness"], inputs)
    legend(figure, left, columns=4)
    caption = (
        f"Left: loss of {inputs.splits['train']} along random directions{_scale(inputs)}, the "
        f"same for every method: mean over {directions} of them, and each of {len(rays.seeds)} "
        "seeds shown faintly. Middle: test "
        f"loss on the straight line from the weights of {start} to each average, and beyond both: "
        f"mean, and each of {len(segments.seeds)} seeds. Right: how far the training loss rises "
        f"within a box of ε = {epsilon:g} around the weights (Keskar et al.), "
        f"mean and each of {len(sharp.seeds)} seeds."
    )
    notes = dict.fromkeys(absent(found) for found in (rays, segments, sharp))
    return Drawn(figure, caption, " ".join(filter(None, notes)))


def _rays(ax: Axes, table: pd.DataFrame, inputs: FigureInputs) -> int:
    """The training loss along the rays, mean by seed; returns how many rays a seed has."""
    train = table[table["split"] == "train"]
    for name in dict.fromkeys(train["method"]):
        own = train[train["method"] == name]
        curves = own.pivot_table(index="distance", columns="seed", values="loss")
        spread(ax, curves, inputs.style(name), name, every=2, band=False)
    unit = "filter norms" if inputs.of_network else "weight units"
    ax.set(xlabel=f"Distance ({unit})", ylabel="Training loss (nats, log scale)")
    ax.set_title("Along random rays")
    log_scale(ax)
    return int(train["direction"].nunique())


def _scale(inputs: FigureInputs) -> str:
    if inputs.of_network:
        return ", filter-normalised (Li et al.)"
    return " of unit norm"


def _segments(ax: Axes, table: pd.DataFrame, inputs: FigureInputs) -> str:
    """The test loss between SGD and each average; returns the name of what they start from."""
    test = table[table["split"] == "test"]
    (start,) = test["start"].unique()
    for name in dict.fromkeys(test["end"]):
        between = test[test["end"] == name].pivot_table(
            index="alpha", columns="seed", values="loss"
        )
        spread(ax, between, inputs.style(name), name, every=5, band=False)
    mark(ax, 0, start)
    mark(ax, 1, "average")
    ax.set(xlabel=f"α:  {start} + α (average − {start})", ylabel="Test loss (nats)")
    ax.set_title(f"From {start} to the average")
    return str(start)


def _sharpness(ax: Axes, values: pd.DataFrame, inputs: FigureInputs) -> float:
    """The sharpness of every row in the largest box; returns the box's ε."""
    epsilon = values["epsilon"].max()
    rows = list(dict.fromkeys(values["method"]))
    for y, name in enumerate(rows):
        own = values[(values["method"] == name) & (values["epsilon"] == epsilon)]["sharpness"]
        style = {**inputs.style(name), "linestyle": "none"}
        ax.plot(own, [y] * len(own), "|", color=style["color"], alpha=0.5, ms=7)
        ax.plot(own.mean(), y, ms=6, **style)
    ax.set(
        yticks=range(len(rows)),
        yticklabels=rows,
        ylim=(len(rows) - 0.5, -0.5),
        xlabel="Sharpness (%)",
        title="In a box",
    )
    ax.set_xlim(0, 1.08 * float(values["sharpness"].max()))
    ax.grid(axis="y", visible=False)
    return float(epsilon)


def _levels(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Contour levels, closer together near the minimum, where the weights lie."""
    lowest, highest = losses.min(), losses.max()
    return np.asarray(lowest + (highest - lowest) * np.linspace(0, 1, 13) ** 2)


def _xyz(grid: pd.DataFrame) -> tuple[NDArray[np.float64], ...]:
    return grid.columns.to_numpy(float), grid.index.to_numpy(float), grid.to_numpy()


def _on_dark(style: Mapping[str, Any]) -> dict[str, Any]:
    """A row's style with a white edge, to be seen on a filled contour."""
    halo = [patheffects.Stroke(linewidth=2.6, foreground="white"), patheffects.Normal()]
    return {**style, "linewidth": 1.2, "ms": 3, "path_effects": halo}
