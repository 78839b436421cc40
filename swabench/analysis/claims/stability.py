"""C3: does the average swing less than its iterate?"""

from collections.abc import Sequence

import numpy as np

from swabench.analysis.claims.context import UNITS, ClaimContext, Measure
from swabench.analysis.evidence import Evidence, Values
from swabench.training.measurement import Predictor


def average_is_steadier(context: ClaimContext) -> list[Evidence]:
    """The average's swing less its iterate's, in accuracy and in loss."""
    name = context.rules.swa_cyclical

    def swings(measure: Measure, predictor: Predictor) -> Values:
        courses = {s: context.course(name, measure, predictor, s) for s in context.seeds}
        return {seed: swing(course) for seed, course in courses.items()}

    return [
        context.compare.directed(
            f"{name}: average − iterate",
            f"swing of the test {measure}",
            unit,
            swings(measure, "average"),
            swings(measure, "iterate"),
            -1,
        )
        for measure, unit in UNITS.items()
    ]


def curves_lack(context: ClaimContext) -> str:
    """Whether epochs are missing in the curves; empty where none is."""
    every = context.study.finetune.score_every_epochs
    return f"Curves have a point every {every} epochs; the swing needs each" if every > 1 else ""


def swing(course: Sequence[float]) -> float:
    """Standard deviation of the changes from one epoch to the next: 0 for a steady trend."""
    changes = np.diff(course)
    return float(changes.std(ddof=1)) if len(changes) > 1 else 0.0
