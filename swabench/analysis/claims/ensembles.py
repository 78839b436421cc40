"""C6: is the average like an ensemble of its snapshots?"""

import math

import numpy as np

from swabench.analysis.claims.context import UNITS, ClaimContext
from swabench.analysis.evidence import Evidence, Values
from swabench.analysis.statistics import mean_interval
from swabench.training.measurement import Predictor


def average_is_like_ensemble(context: ClaimContext) -> list[Evidence]:
    """Average less ensemble, and the average's variance over seeds less the iterate's."""
    margins = {"accuracy": context.rules.margin_points, "loss": context.rules.margin_nats}
    found = []
    for name in (context.rules.swa, context.rules.swa_cyclical):
        found += [
            context.compare.equal(
                f"{name}: average − ensemble",
                f"test {measure}",
                unit,
                context.final(name, measure, "average"),
                context.final(name, measure, "ensemble"),
                margins[measure],
            )
            for measure, unit in UNITS.items()
        ]
        found.append(
            context.compare.directed(
                f"{name}: average − iterate",
                "variance of the predictions over seeds",
                "",
                _distance_from_others(context, name, "average"),
                _distance_from_others(context, name, "iterate"),
                -1,
            )
        )
        found.append(_agreement(context, name))
    return found


def ensembles_lack(context: ClaimContext) -> str:
    """Which ensembles were not kept; empty where none lacks."""
    names = (context.rules.swa, context.rules.swa_cyclical)
    absent = {
        name: [s for s in context.seeds if s not in context.records.final(name, "loss", "ensemble")]
        for name in names
    }
    parts = [f"{name} at seeds {', '.join(map(str, s))}" for name, s in absent.items() if s]
    return f"No ensemble was kept of {'; '.join(parts)}" if parts else ""


def _distance_from_others(context: ClaimContext, name: str, predictor: Predictor) -> Values:
    """Per seed, the mean squared distance of its probabilities from the other seeds' mean.

    The variance term of the Brier score's bias and variance, up to a factor that is the same
    for all predictors.
    """
    if len(context.seeds) < 2:
        return dict.fromkeys(context.seeds, 0.0)
    every = np.stack([context.probabilities(name, seed, predictor) for seed in context.seeds])
    others = (every.sum(axis=0) - every) / (len(every) - 1)
    distances = ((every - others) ** 2).sum(axis=-1).mean(axis=-1)
    return dict(zip(context.seeds, distances.tolist(), strict=True))


def _agreement(context: ClaimContext, name: str) -> Evidence:
    shares = []
    for seed in context.seeds:
        a, b = (
            context.probabilities(name, seed, predictor).argmax(-1)
            for predictor in ("average", "ensemble")
        )
        shares.append(100 * float((a == b).mean()))
    estimate = mean_interval(shares, context.study.confidence)
    label = f"{name}: average and ensemble"
    return Evidence(label, "test images given the same class", "%", estimate, math.nan, math.nan)
