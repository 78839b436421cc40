"""The figures of a study, drawn from records alone.

Which methods a figure shows follows from what they are (the first that averages over a cyclical
rate, the first with phases), never from their names. Colour, line and marker follow the table's
order, so that a method looks the same in every figure, in colour and in grey.

The same records give the same bytes: nothing here reads a clock or draws a random number.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from swabench.analysis.surveys import Gathered, gather
from swabench.analysis.table import (
    Records,
    collect,
    comparison,
    incompleteness,
    measurements,
    missing_runs,
)
from swabench.records import RecordStore
from swabench.study.landscape import Part
from swabench.study.schedules import Constant
from swabench.study.study import Study

Format = Literal["png", "svg"]
FORMATS: tuple[Format, ...] = ("png", "svg")

WIDTH, HEIGHT, DPI = 6.3, 3.6, 200  # inches: the width of a page's text; dots an inch

# Okabe and Ito's palette without its yellow, which is too pale for lines on white; ordered so
# that neighbours differ in lightness as well.
_COLORS = ("#000000", "#D55E00", "#56B4E9", "#0072B2", "#E69F00", "#009E73", "#CC79A7")
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", "-", (0, (3, 1)))
_MARKERS = ("X", "s", "v", "o", "^", "D", "P")
_ITERATE = "#666666"

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.07,  # inches
    "figure.constrained_layout.h_pad": 0.05,
    "legend.handlelength": 3.2,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "swabench",  # else identifiers are random
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Picture:
    """One figure of a study, or why there is none.

    Attributes:
        name: Stem of its file names.
        caption: What it shows, in a sentence or two; plain text.
        content: The files, by format; empty where it was skipped.
        note: What it lacks; empty where it lacks nothing.
        skipped: Why it was not drawn; empty where it was.
    """

    name: str
    caption: str
    content: Mapping[Format, bytes]
    note: str = ""
    skipped: str = ""


class _CannotDrawError(Exception):
    """A figure's inputs are not there; says which."""


def draw(study: Study, store: RecordStore, seeds: Sequence[int]) -> list[Picture]:
    """Draw every figure of a study.

    Raises:
        InputError: There are no records at all, or some cannot be read.
    """
    sources = _Sources(study, store, seeds, collect(study, store, seeds))
    drawers: dict[str, Callable[[_Sources], tuple[Figure, str, str]]] = {
        "figure1-average": _average,
        "figure2-line": _line,
        "figure3-phases": _phases,
        "figure4-forest": _forest,
        "figure5-plane": _plane,
        "figure6-flatness": _flatness,
    }
    return [_picture(name, drawer, sources) for name, drawer in drawers.items()]


def render(figure: Figure, format_: Format, caption: str, note: str = "") -> bytes:
    """A figure as bytes, the same every time; an SVG carries its caption as metadata."""
    words = {"Title": caption, "Description": f"{caption} {note}".strip()}
    metadata: Mapping[Format, Mapping[str, str | None]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None, **words},
    }
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format=format_, dpi=DPI, metadata=metadata[format_])
    return buffer.getvalue()


@dataclass(frozen=True)
class _Sources:
    """What figures are drawn from."""

    study: Study
    store: RecordStore
    seeds: Sequence[int]
    records: Records

    @cached_property
    def history(self) -> pd.DataFrame:
        """Every measurement on the test images."""
        every = measurements(self.records)
        return every[every["split"] == "test"]

    def averaging(self, cyclical: bool) -> str:
        """The first method of one phase that averages, over a cyclical rate or over any."""
        methods = self.study.methods
        found = [
            name
            for name in self.study.averaging_methods
            if (plan := methods[name].averaging)
            and plan.phases == 1
            and not (cyclical and isinstance(methods[name].rate, Constant))
        ]
        if not found:
            kind = "averages over a cyclical rate" if cyclical else "averages"
            raise _CannotDrawError(f"no method of the study {kind} in one phase")
        return found[0]

    def periodic(self) -> str:
        """The first method whose average restarts."""
        for name in self.study.averaging_methods:
            plan = self.study.methods[name].averaging
            if plan and plan.phases > 1:
                return name
        raise _CannotDrawError("no method of the study averages in phases")

    def curves(self, name: str, predictor: str, measure: str) -> pd.DataFrame:
        """A measure over the epochs (rows), a column a seed."""
        history = self.history
        chosen = history[(history["method"] == name) & (history["predictor"] == predictor)]
        if chosen.empty:
            raise _CannotDrawError(f"there is no run of {name}")
        return chosen.pivot_table(index="epoch", columns="seed", values=measure)

    def landscape(self, part: Part) -> Gathered:
        """A part of the landscape."""
        found = gather(self.study, self.store, part, self.seeds)
        if found is None:
            raise _CannotDrawError(
                f"the landscape's {part} were not measured; run `swabench landscape`"
            )
        return found

    @property
    def splits(self) -> dict[str, str]:
        """The images of the landscape, by split, in words."""
        drawn, there = self.study.landscape.training_images, self.study.data.training_images
        return {"train": f"{min(drawn, there or drawn):,} training images", "test": "Test images"}

    def lacking(self, rows: Iterable[str]) -> str:
        """Which runs of the rows are missing, in words."""
        missing = missing_runs(self.records, self.seeds)
        return incompleteness({name: missing[name] for name in rows if name in missing})

    def number(self, name: str) -> int:
        """A row's place in the table."""
        return self.study.row_names.index(name)

    def style(self, name: str) -> dict[str, Any]:
        """Colour, line and marker of a row."""
        k = self.number(name)
        return {
            "color": _COLORS[k % len(_COLORS)],
            "linestyle": _LINES[k % len(_LINES)],
            "marker": _MARKERS[k % len(_MARKERS)],
        }


def _picture(
    name: str, drawer: Callable[[_Sources], tuple[Figure, str, str]], sources: _Sources
) -> Picture:
    try:
        with _style():
            figure, caption, note = drawer(sources)
    except _CannotDrawError as reason:
        return Picture(name, "", {}, skipped=str(reason))
    if note:
        figure.supxlabel(note, fontsize=8, color="#a00000", wrap=True)
    content = {f: render(figure, f, caption, note) for f in FORMATS}
    return Picture(name, caption, content, note=note)


# --- the figures ---------------------------------------------------------------------------


def _average(sources: _Sources) -> tuple[Figure, str, str]:
    """Figure 1: the cyclical iterate and its average over the epochs."""
    name = sources.averaging(cyclical=True)
    figure, axes = _figure(1, 2)
    for ax, (measure, label) in zip(
        axes, {"accuracy": "Test accuracy (%)", "loss": "Test loss (nats)"}.items(), strict=True
    ):
        iterate = sources.curves(name, "iterate", measure)
        average = sources.curves(name, "average", measure)
        iterate_style = {"color": _ITERATE, "linestyle": "--", "marker": "x"}
        _spread(ax, iterate, iterate_style, f"{name}, iterate")
        _spread(ax, average, sources.style(name), f"{name}, average")
        ax.set(ylabel=label, xlabel="Epoch of fine-tuning")
        _whole_epochs(ax)
    _legend(figure, axes[0], columns=2)
    seeds = iterate.shape[1]
    caption = (
        f"Test accuracy and loss of the iterate of {name} and of its average after every epoch: "
        f"{_spread_words(seeds)}."
    )
    return figure, caption, sources.lacking([name])


def _line(sources: _Sources) -> tuple[Figure, str, str]:
    """Figure 2: the loss along the line from the pretrained to the fine-tuned weights."""
    found = sources.landscape("lines")
    lines = found.tables["lines"]
    figure, axes = _figure(1, 2, sharey=True)
    for ax, (split, title) in zip(axes, sources.splits.items(), strict=True):
        shown = lines[lines["split"] == split]
        for name in dict.fromkeys(shown["end"]):
            curves = shown[shown["end"] == name].pivot_table(
                index="alpha", columns="seed", values="loss"
            )
            _spread(ax, curves, sources.style(name), name, every=5)
        _mark(ax, 0, "before")
        _mark(ax, 1, "after")
        ax.set(title=title, xlabel=_ALPHA)
        _log_scale(ax)
    axes[0].set_ylabel("Loss (nats, log scale)")
    _legend(figure, axes[0], columns=4)
    caption = (
        "Loss along the straight line through the weights before (α = 0) and after (α = 1) "
        f"fine-tuning: {_spread_words(len(found.seeds))}."
    )
    return figure, caption, _absent(found)


def _phases(sources: _Sources) -> tuple[Figure, str, str]:
    """Figure 3: SWA, PSWA and its iterate over the epochs, phases marked."""
    periodic, single = sources.periodic(), sources.averaging(cyclical=False)
    methods = sources.study.methods
    for name in sources.study.averaging_methods:
        plan = methods[name].averaging
        if plan and plan.phases == 1 and methods[name].rate == methods[periodic].rate:
            single = name  # the same but for the phases
    figure, (ax,) = _figure(1, 1)
    iterate = sources.curves(periodic, "iterate", "accuracy")
    iterate_style = {"color": _ITERATE, "linestyle": "--", "marker": "x"}
    _spread(ax, iterate, iterate_style, f"{periodic}, iterate")
    for name in (single, periodic):
        curves = sources.curves(name, "average", "accuracy")
        _spread(ax, curves, sources.style(name), f"{name}, average")
    plan = methods[periodic].averaging
    phases, epochs = plan.phases if plan else 1, sources.study.finetune.epochs
    for k in range(phases):
        if k:
            ax.axvline(k * epochs / phases + 0.5, color="#444444", linewidth=0.8, linestyle=":")
        ax.text(
            (k + 0.5) * epochs / phases + 0.5,
            1.0,
            f"phase {k + 1}",
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="bottom",
        )
    ax.set(xlabel="Epoch of fine-tuning", ylabel="Test accuracy (%)", xlim=(0.5, epochs + 0.5))
    _whole_epochs(ax)
    _legend(figure, ax, columns=3)
    caption = (
        f"Test accuracy after every epoch of {single} and {periodic} (averages) and of the "
        f"iterate of {periodic}, which starts again from the average at each dotted line: "
        f"{_spread_words(iterate.shape[1])}."
    )
    return figure, caption, sources.lacking([single, periodic])


def _forest(sources: _Sources) -> tuple[Figure, str, str]:
    """Figure 4: the table as a forest plot, with the paper's numbers."""
    study, frame = sources.study, comparison(sources.study, sources.records)
    figure, (left, right) = _figure(1, 2, sharey=True, width_ratios=[1, 1.35])
    reference = study.reference
    paper = frame.set_index("method")["paper_accuracy"]
    finals = {
        name: {seed: r.final(r.result, "test").accuracy for seed, r in found.items()}
        for name, found in sources.records.items()
    }
    differences: dict[str, list[float]] = {
        name: [own[s] - finals[reference][s] for s in own if s in finals[reference]]
        for name, own in finals.items()
        if name != reference
    }
    tuned = [d for name, at in differences.items() if name != study.pretrain.name for d in at]
    tuned += [p - paper[reference] for n, p in paper.items() if n in study.methods]
    low, high = _padded([*tuned, 0.0])
    column = f"difference_to_{reference}"
    for y, row in enumerate(frame.to_dict(orient="records")):
        name = row["method"]
        style = {**sources.style(name), "linestyle": "none"}
        seeds = finals[name].values()
        left.plot(list(seeds), [y] * len(seeds), "|", color=style["color"], alpha=0.35, ms=7)
        _interval(left, row["accuracy"], row["accuracy_low"], row["accuracy_high"], y, style)
        left.plot(paper[name], y + 0.28, **_PAPER)
        if name == reference:
            right.text(0.0, y, "  reference", va="center", color="#444444")
            continue
        if not differences[name]:
            continue
        right.plot(paper[name] - paper[reference], y + 0.28, **_PAPER)
        words = _signed_interval(row[column], row["difference_low"], row["difference_high"])
        right.text(1.02, y, words, transform=right.get_yaxis_transform(), va="center", fontsize=7.5)
        if row[column] < low or row[column] > high:
            _off_scale(right, low if row[column] < low else high, y, style)
            continue
        at = differences[name]
        right.plot(at, [y] * len(at), "|", color=style["color"], alpha=0.35, ms=7)
        _interval(right, row[column], row["difference_low"], row["difference_high"], y, style)
    right.axvline(0, color="#444444", linewidth=0.8)
    left.set(
        yticks=range(len(frame)),
        yticklabels=frame["method"],
        ylim=(len(frame) - 0.4, -0.6),
        xlabel="Test accuracy (%)",
    )
    right.set(xlim=(low, high), xlabel=f"Difference to {reference} (points)")
    for ax in (left, right):
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    handles = [
        Line2D(
            [],
            [],
            color="#444444",
            marker="o",
            label=f"mean, {100 * study.confidence:g} % interval",
        ),
        Line2D([], [], color="#444444", marker="|", ls="none", alpha=0.5, label="each seed"),
        Line2D([], [], label="the paper's number", **_PAPER),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    caption = (
        f"Test accuracy of every method, and its difference to {reference}, paired by seed: means "
        f"with {100 * study.confidence:g} % t intervals, every seed, and the paper's numbers. "
        "A triangle at the edge stands for a difference off the scale; its number is on the right."
    )
    return figure, caption, sources.lacking(study.row_names)


def _plane(sources: _Sources) -> tuple[Figure, str, str]:
    """Figure 5: the loss on the plane through three weights."""
    found = sources.landscape("plane")
    seed = found.seeds[0]
    grid, marks, paths = (
        found.tables[name][found.tables[name]["seed"] == seed]
        for name in ("grid", "marks", "paths")
    )
    figure, axes = _figure(1, 2, sharey=True)
    start, *ends = marks["method"]
    for ax, (split, title) in zip(axes, sources.splits.items(), strict=True):
        losses = grid[grid["split"] == split].pivot_table(index="y", columns="x", values="loss")
        levels = _levels(losses.to_numpy())
        norm = BoundaryNorm(levels, 256)
        filled = ax.contourf(*_xyz(losses), levels=levels, norm=norm, cmap="cividis_r")
        ax.contour(*_xyz(losses), levels=levels, colors="white", linewidths=0.4)
        for name in ends:
            way = paths[paths["method"] == name]
            ax.plot(way["x"], way["y"], label=f"{name}, iterate", **_on_dark(sources.style(name)))
        for x, y, name in marks[["x", "y", "method"]].itertuples(index=False, name=None):
            ax.plot(x, y, marker="*", ms=11, color="white", mec="black", mew=0.8)
            ax.annotate(
                name,
                (x, y),
                xytext=(0, 7 if y > 0.5 * marks["y"].max() else -7),
                textcoords="offset points",
                ha="center",
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
    _legend(figure, axes[0], columns=2)
    caption = (
        f"Loss on the plane through the weights of {', '.join(marks['method'])} at seed {seed} "
        "(stars), on an orthonormal basis; the two axes differ in scale. The iterates' ways, epoch "
        "by epoch, are projected on the plane."
    )
    return figure, caption, _absent(found)


def _flatness(sources: _Sources) -> tuple[Figure, str, str]:
    """Figure 6: the loss along random rays, and between SGD and the averages; sharpness."""
    rays, sharp = sources.landscape("rays"), sources.landscape("sharpness")
    segments = sources.landscape("segments")
    figure, (left, middle, right) = _figure(1, 3, width_ratios=[1, 1, 0.8])
    table = rays.tables["rays"]
    train = table[table["split"] == "train"]
    for name in dict.fromkeys(train["method"]):
        own = train[train["method"] == name].assign(
            ray=lambda f: f["seed"].astype(str) + "/" + f["direction"].astype(str)
        )
        curves = own.pivot_table(index="distance", columns="ray", values="loss")
        _spread(left, curves, sources.style(name), name, every=2, band=False)
    left.set(xlabel="Distance (weight units)", ylabel="Training loss (nats, log scale)")
    left.set_title("Along random rays")
    _log_scale(left)
    table = segments.tables["segments"]
    test = table[table["split"] == "test"]
    (start,) = test["start"].unique()
    for name in dict.fromkeys(test["end"]):
        between = test[test["end"] == name].pivot_table(
            index="alpha", columns="seed", values="loss"
        )
        _spread(middle, between, sources.style(name), name, every=5, band=False)
    _mark(middle, 0, start)
    _mark(middle, 1, "average")
    middle.set(xlabel=f"α:  {start} + α (average − {start})", ylabel="Test loss (nats)")
    middle.set_title(f"From {start} to the average")
    values = sharp.tables["sharpness"]
    epsilon = values["epsilon"].max()
    rows = list(dict.fromkeys(values["method"]))
    for y, name in enumerate(rows):
        own = values[(values["method"] == name) & (values["epsilon"] == epsilon)]["sharpness"]
        style = {**sources.style(name), "linestyle": "none"}
        right.plot(own, [y] * len(own), "|", color=style["color"], alpha=0.5, ms=7)
        right.plot(own.mean(), y, ms=6, **style)
    right.set(
        yticks=range(len(rows)),
        yticklabels=rows,
        ylim=(len(rows) - 0.5, -0.5),
        xlabel="Sharpness (%)",
        title="In a box",
    )
    right.set_xlim(left=0)
    right.grid(axis="y", visible=False)
    _legend(figure, left, columns=4)
    caption = (
        f"Left: loss of {sources.splits['train']} along random directions of unit norm, the same "
        f"for every method: mean, and each of {curves.shape[1]} rays faint behind. Middle: test "
        f"loss on the straight line from the weights of {start} to each average, and beyond both: "
        f"mean, and each of {len(segments.seeds)} seeds. Right: how far the training loss rises "
        f"within a box of ε = {epsilon:g} around the weights (Keskar et al.), "
        f"mean and each of {len(sharp.seeds)} seeds."
    )
    notes = dict.fromkeys(_absent(found) for found in (rays, segments, sharp))
    return figure, caption, " ".join(filter(None, notes))


# --- pieces --------------------------------------------------------------------------------


@contextmanager
def _style() -> Iterator[None]:
    """The style above and matplotlib's own defaults: a user's matplotlibrc changes no figure."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


_ALPHA = "α:  w = before + α (after − before)"
_PAPER: dict[str, Any] = {
    "marker": "D",
    "ms": 4.5,
    "mfc": "white",
    "mec": "#444444",
    "linestyle": "none",
}


def _figure(rows: int, columns: int, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def _spread(
    ax: Axes,
    curves: pd.DataFrame,
    style: Mapping[str, Any],
    label: str,
    *,
    every: int = 1,
    band: bool = True,
) -> None:
    """The mean of the columns, a band of one deviation, and every column faint behind."""
    x, mean = curves.index, curves.mean(axis=1)
    ax.plot(x, curves, color=style["color"], linewidth=0.5, alpha=0.22, zorder=1)
    if band and curves.shape[1] > 1:
        deviation = curves.std(axis=1)
        ax.fill_between(
            x, mean - deviation, mean + deviation, color=style["color"], alpha=0.18, lw=0, zorder=2
        )
    ax.plot(x, mean, label=label, markevery=every, zorder=3, **style)


def _spread_words(seeds: int) -> str:
    if seeds == 1:
        return "one seed"
    return f"mean over {seeds} seeds, band of ± 1 standard deviation, every seed faint behind"


def _interval(
    ax: Axes, mean: float, low: float, high: float, y: float, style: Mapping[str, Any]
) -> None:
    ax.plot([low, high], [y, y], color=style["color"], linewidth=2)
    ax.plot(mean, y, ms=6, **style)


def _off_scale(ax: Axes, edge: float, y: float, style: Mapping[str, Any]) -> None:
    """A triangle that points to a value beyond the axis."""
    marker = "<" if edge == ax.get_xlim()[0] or edge < 0 else ">"
    ax.plot(edge, y, marker=marker, ms=7, color=style["color"], clip_on=False)


def _signed_interval(mean: float, low: float, high: float) -> str:
    words = f"{mean:+.2f}" if np.isnan(low) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    return words.replace("-", "−")


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


def _mark(ax: Axes, x: float, words: str) -> None:
    ax.axvline(x, color="#444444", linewidth=0.8, linestyle=":")
    ax.text(
        x, 0.98, words, transform=ax.get_xaxis_transform(), ha="center", va="top", fontsize=7,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
    )  # fmt: skip


def _log_scale(ax: Axes) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _whole_epochs(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(figure: Figure, ax: Axes, columns: int) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def _padded(values: Iterable[float]) -> tuple[float, float]:
    found = np.array([value for value in values if np.isfinite(value)])
    edge = 0.08 * (np.ptp(found) or 1.0)
    return float(found.min() - edge), float(found.max() + edge)


def _absent(found: Gathered) -> str:
    if not found.missing:
        return ""
    return f"INCOMPLETE: not measured at seeds {', '.join(map(str, found.missing))}."
