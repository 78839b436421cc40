"""Arrays out of pickles, with no code run but NumPy's own."""

import gzip
import pickle
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from swabench.system.errors import SwabenchError

# What a pickled array names, under the module path that NumPy 1 wrote.
_ARRAY_RECONSTRUCTION: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Loads containers, numbers, text and NumPy arrays; refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ARRAY_RECONSTRUCTION[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}") from None


def load_arrays(stream: IO[bytes] | gzip.GzipFile) -> Any:
    """Unpickle what Python 2 or NumPy 1 pickled, with no code but NumPy's array reconstruction.

    Raises:
        SwabenchError: The pickle names anything else, or ends too early.
    """
    try:
        return _ArrayUnpickler(stream, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise SwabenchError(f"Refused to unpickle: {error}.") from error
