"""The files that a study names by a path, by their bytes: what identities are made of."""

from pathlib import Path

from swabench.data.datasets import folder_digest
from swabench.study.identity import NamedFiles
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.system.files import sha256_of_file

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")


def named_files(study: Study) -> NamedFiles:
    """Read every byte of the files that a study names, and digest them.

    Raises:
        InputError: One is missing or cannot be read; names it.
    """
    data = folder_digest(study.data.folder) if study.data.dataset == "folder" else None
    weights = study.backbone.weights
    return NamedFiles(data, _weights_digest(Path(weights)) if is_path(weights) else None)


def is_path(weights: str) -> bool:
    """Whether `backbone.weights` is a file's path: neither `random` nor a name of torchvision's."""
    return Path(weights).suffix in WEIGHT_SUFFIXES or Path(weights).is_file()


def _weights_digest(path: Path) -> str:
    try:
        return sha256_of_file(path.expanduser())
    except OSError as error:
        raise InputError(
            f"backbone.weights: {path} cannot be read ({error.strerror}); give a file of "
            "weights, 'random', or a name that torchvision knows"
        ) from None
