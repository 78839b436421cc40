"""A run's arrays: what they are called in its file, and what whoever reads them asks for."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from swabench.study.inputs import SplitName
from swabench.training.measurement import Predictor

if TYPE_CHECKING:  # records are read in moments, and torch takes seconds to import
    from swabench.training.observers import Outcome

TRAJECTORY = "trajectory"


def weights_key(predictor: Predictor) -> str:
    """What a predictor's weights are called."""
    return f"weights/{predictor}"


class RunArrays(dict[str, NDArray[Any]]):
    """Weights, predictions and trajectory of a run.

    Keys: `weights/<predictor>` (P,), `log_probabilities/<predictor>/<split>` (N, C),
    `labels/<split>` (N,) and, where there is BatchNorm, `statistics/<predictor>` (S,); where it
    was kept, `trajectory` (epochs + 1, P).
    """

    def weights(self, predictor: Predictor) -> NDArray[np.float32] | None:
        """Final weights (P,); None where they were not kept."""
        return self.get(weights_key(predictor))

    def statistics(self, predictor: Predictor) -> NDArray[np.float32]:
        """BatchNorm's final statistics (S,); S = 0 without BatchNorm."""
        return self.get(f"statistics/{predictor}", np.empty(0, np.float32))

    def log_probabilities(self, split: SplitName) -> dict[Predictor, NDArray[np.float64]]:
        """Final predictions on a split, (N, C) for each predictor."""
        start, end = "log_probabilities/", f"/{split}"
        return {
            cast(Predictor, key.removeprefix(start).removesuffix(end)): values.astype(np.float64)
            for key, values in self.items()
            if key.startswith(start) and key.endswith(end)
        }

    def labels(self, split: SplitName) -> NDArray[np.int64] | None:
        """The true classes (N,); None where a record holds none."""
        found = self.get(f"labels/{split}")
        return None if found is None else found.astype(np.int64)


def arrays_of(outcome: "Outcome") -> RunArrays:
    """What a run leaves behind, as arrays."""
    named = {weights_key(name): weights for name, weights in outcome.weights.items()}
    for name, statistics in outcome.statistics.items():
        if len(statistics):
            named[f"statistics/{name}"] = statistics
    for (predictor, split), values in outcome.log_probabilities.items():
        named[f"log_probabilities/{predictor}/{split}"] = values.float()
    for split, labels in outcome.labels.items():
        named[f"labels/{split}"] = labels.short()
    if outcome.trajectory is not None:
        named[TRAJECTORY] = outcome.trajectory
    return RunArrays((name, np.ascontiguousarray(t.numpy())) for name, t in named.items())
