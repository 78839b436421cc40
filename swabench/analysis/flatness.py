"""How sharp the minima are: one number a method and seed, from the landscape's tables.

Every measure is positive, and larger is sharper, so methods are compared by ratios.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from swabench.analysis.evidence import Values

Flatness = Mapping[str, Mapping[str, Values]]
"""Measure → method → seed → sharpness."""

LINE = "mean rise of the test loss along the line"
"""The paper's figure 2 as one number: along a direction and in a unit of each method's own."""

# Per seed, the landscape's tables by part. Columns: lines alpha (0 start, 1 end), end, split,
# loss; rays distance, direction, method, split, loss; sharpness method, epsilon, sharpness;
# hessian method, largest_eigenvalue, trace.
Tables = Mapping[int, Mapping[str, pd.DataFrame]]


def measure_flatness(tables: Tables) -> Flatness:
    """Reduce the landscape of several seeds to its measures; parts may be missing."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for part, measure_part in _MEASURES.items():
        # The seeds' tables as one: grouping each by itself takes minutes for a thousand.
        own = [parts[part].assign(seed=seed) for seed, parts in tables.items() if part in parts]
        if own:
            for measure, method, seed, value in measure_part(pd.concat(own, ignore_index=True)):
                found.setdefault(measure, {}).setdefault(method, {})[seed] = value
    return {
        measure: {method: dict(sorted(values.items())) for method, values in methods.items()}
        for measure, methods in found.items()
    }


def flatness_frame(flatness: Flatness) -> pd.DataFrame:
    """The measures as a table: one row a measure, method and seed."""
    return pd.DataFrame(
        [
            (measure, method, seed, value)
            for measure, methods in flatness.items()
            for method, values in methods.items()
            for seed, value in values.items()
        ],
        columns=["measure", "method", "seed", "value"],
    )


def mean_rise(positions: "pd.Series[float]", losses: "pd.Series[float]", centre: float) -> float:
    """Mean of loss − loss(centre) over the widest stretch with `centre` in its middle.

    Args:
        positions: Places along a line or ray, shape (K,); `centre` is one of them.
        losses: Loss at each, shape (K,).
        centre: Where the minimum is. If it is the first place, the stretch is one-sided.
    """
    order = np.argsort(positions.to_numpy())
    x, y = positions.to_numpy()[order], losses.to_numpy()[order]
    reach = min(centre - x[0], x[-1] - centre) or x[-1] - x[0]
    inside = np.linspace(max(x[0], centre - reach), centre + reach, 201)
    return float(trapezoid(np.interp(inside, x, y), inside) / np.ptp(inside)) - float(
        np.interp(centre, x, y)
    )


Found = Iterator[tuple[str, str, int, float]]
"""A measure, a method, a seed and the value there."""


def _of_lines(lines: pd.DataFrame) -> Found:
    for (method, split, seed), line in lines.groupby(["end", "split", "seed"]):
        name = LINE.replace("test", str(split))
        yield name, str(method), int(cast(int, seed)), mean_rise(line["alpha"], line["loss"], 1)


def _of_rays(rays: pd.DataFrame) -> Found:
    grouped = rays.groupby(["method", "split", "seed", "distance"], as_index=False)
    for (method, split, seed), ray in grouped["loss"].mean().groupby(["method", "split", "seed"]):
        name = f"mean rise of the {split} loss along random rays"
        yield name, str(method), int(cast(int, seed)), mean_rise(ray["distance"], ray["loss"], 0)


def _of_sharpness(sharpness: pd.DataFrame) -> Found:
    columns = sharpness[["method", "seed", "epsilon", "sharpness"]]
    for method, seed, epsilon, value in columns.itertuples(index=False, name=None):
        yield f"sharpness in a box of ε = {epsilon:g}", method, seed, float(value)


def _of_hessian(hessian: pd.DataFrame) -> Found:
    for name, column in (
        ("Hessian's largest eigenvalue", "largest_eigenvalue"),
        ("Hessian's trace", "trace"),
    ):
        values = hessian[["method", "seed", column]].itertuples(index=False, name=None)
        for method, seed, value in values:
            yield name, method, seed, float(value)


_MEASURES: Mapping[str, Callable[[pd.DataFrame], Found]] = {
    "lines": _of_lines,
    "rays": _of_rays,
    "sharpness": _of_sharpness,
    "hessian": _of_hessian,
}
