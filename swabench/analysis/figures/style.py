"""How figures look, and how they become bytes."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from swabench.analysis.figures.picture import Format

WIDTH, HEIGHT, DPI = 6.3, 3.6, 200  # inches: the width of a page's text; dots an inch

# Okabe and Ito's palette without its yellow, which is too pale for lines on white; ordered so
# that neighbours differ in lightness as well.
COLORS = ("#000000", "#D55E00", "#56B4E9", "#0072B2", "#E69F00", "#009E73", "#CC79A7")
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", "-", (0, (3, 1)))
MARKERS = ("X", "s", "v", "o", "^", "D", "P")
ITERATE: dict[str, Any] = {"color": "#666666", "linestyle": "--", "marker": "x"}
LOST: dict[str, Any] = {
    "color": "#a00000",
    "marker": "x",
    "ms": 8,
    "mew": 2,
    "linestyle": "none",
    "clip_on": False,
}
PAPER: dict[str, Any] = {
    "marker": "D",
    "ms": 4.5,
    "mfc": "white",
    "mec": "#444444",
    "linestyle": "none",
}

STYLE: dict[Any, Any] = {
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


@contextmanager
def plain_style() -> Iterator[None]:
    """The style above and matplotlib's own defaults: a user's matplotlibrc changes no figure."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def render(figure: Figure, format_: Format, caption: str, note: str = "") -> bytes:
    """A figure as bytes, the same every time; an SVG carries its caption as metadata."""
    words = {"Title": caption, "Description": f"{caption} {note}".strip()}
    metadata: Mapping[Format, Mapping[str, str | None]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None, **words},
    }
    buffer = io.BytesIO()
    with plain_style():
        figure.savefig(buffer, format=format_, dpi=DPI, metadata=metadata[format_])
    return buffer.getvalue()
