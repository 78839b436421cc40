"""What a study names and does not hold: files, by their bytes, and another study's run."""

from pathlib import Path

from swabench.data.datasets import folder_digest
from swabench.study.identity import Identities, NamedFiles
from swabench.study.inputs import RunOfStudy
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.system.files import sha256_of_file

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")


def named_files(study: Study) -> NamedFiles:
    """Read every byte of the files that a study names, and digest them.

    Raises:
        InputError: One is missing or cannot be read, or the run that the study starts from is
            none; names it.
    """
    return _named(study, ())


def starting_run(study: Study) -> tuple[Study, RunOfStudy] | None:
    """The study that a study's backbone comes from, and the run; None without such.

    Raises:
        InputError: There is no such study, or it has no such run.
    """
    named = study.backbone.weights
    if not isinstance(named, RunOfStudy):
        return None
    try:
        source = load_study(named.study)
    except InputError as error:
        raise InputError(f"backbone.weights.study: {error}") from None
    if source.tuning:
        raise InputError(
            f"backbone.weights.study: {source.name!r} is tuned before it runs; name a study that "
            "is not, with the settings that were chosen"
        )
    if named.method not in source.row_names:
        raise InputError(
            f"backbone.weights.method: {named.method!r} is not a row of study {source.name!r}; "
            f"choose from {', '.join(source.row_names)}"
        )
    return source, named


def is_path(weights: str) -> bool:
    """Whether `backbone.weights` is a file's path: neither `random` nor a name of torchvision's."""
    return Path(weights).suffix in WEIGHT_SUFFIXES or Path(weights).is_file()


def _named(study: Study, above: tuple[str, ...]) -> NamedFiles:
    if study.name in above:
        raise InputError(
            f"backbone.weights.study: {' → '.join((*above, study.name))}: the studies start from "
            "each other in a circle"
        )
    data = folder_digest(study.data.folder) if study.data.dataset == "folder" else None
    weights = study.backbone.weights
    if found := starting_run(study):
        source, run = found
        identities = Identities(source, _named(source, (*above, study.name)))
        return NamedFiles(data, identities.run(run.method, run.seed))
    if isinstance(weights, str) and is_path(weights):
        return NamedFiles(data, _weights_digest(Path(weights)))
    return NamedFiles(data)


def _weights_digest(path: Path) -> str:
    try:
        return sha256_of_file(path.expanduser())
    except OSError as error:
        raise InputError(
            f"backbone.weights: {path} cannot be read ({error.strerror}); give a file of "
            "weights, 'random', or a name that torchvision knows"
        ) from None
