"""How sharp the minima are: one number a method and seed, from the landscape's tables.

Every measure is positive, and larger is sharper, so methods are compared by ratios.
"""

from collections.abc import Mapping

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
    for seed, parts in sorted(tables.items()):
        for measure, method, value in _of_seed(parts):
            found.setdefault(measure, {}).setdefault(method, {})[seed] = value
    return found


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


def _of_seed(parts: Mapping[str, pd.DataFrame]) -> list[tuple[str, str, float]]:
    found = []
    if "lines" in parts:
        for (method, split), line in parts["lines"].groupby(["end", "split"]):
            name = LINE.replace("test", str(split))
            found.append((name, str(method), mean_rise(line["alpha"], line["loss"], 1)))
    if "rays" in parts:
        grouped = parts["rays"].groupby(["method", "split", "distance"], as_index=False)
        mean = grouped["loss"].mean()
        for (method, split), ray in mean.groupby(["method", "split"]):
            name = f"mean rise of the {split} loss along random rays"
            found.append((name, str(method), mean_rise(ray["distance"], ray["loss"], 0)))
    if "sharpness" in parts:
        for row in parts["sharpness"].itertuples():
            name = f"sharpness in a box of ε = {row.epsilon:g}"
            found.append((name, str(row.method), float(row.sharpness)))  # type: ignore[arg-type]
    if "hessian" in parts:
        for name, column in (
            ("Hessian's largest eigenvalue", "largest_eigenvalue"),
            ("Hessian's trace", "trace"),
        ):
            values = zip(parts["hessian"]["method"], parts["hessian"][column], strict=True)
            found += [(name, str(method), float(value)) for method, value in values]
    return found
