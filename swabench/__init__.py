"""swabench: does averaging weights help here, and by how much?

In a notebook, `swabench.load("results/mnist")` gives every measurement of a study as a data frame.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swabench.system.version import __version__

if TYPE_CHECKING:  # pandas takes long to import; `load` alone needs it
    import pandas as pd

__all__ = ["__version__", "load"]


def load(
    folder: str | Path, config: str | None = None, seeds: Sequence[int] | None = None
) -> "pd.DataFrame":
    """Every measurement of a study, one a row, from its results folder.

    From the records of its runs if they are there, else from its `metrics.csv`;
    `frame.attrs["source"]` says which.

    Args:
        folder: The study's results, such as `results/mnist`.
        config: The study whose records are meant, a YAML file or a bundled name. By default the
            one in the folder's manifest, else the bundled one that is named like the folder.
        seeds: Which seeds; by default all.

    Returns:
        Columns method, seed, epoch, predictor (iterate, average, ensemble), split (validation,
        test, …), batchnorm (running, re-estimated; None where none trains), accuracy in percent
        and loss in nats. A run that diverged ends in a row whose loss is infinite.

    Raises:
        InputError: There is nothing to load, or it cannot be read.
    """
    from swabench.analysis.frame import load_folder

    return load_folder(Path(folder), config, seeds)
