"""Records as bytes, for a worker that shares no folder with the results."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from swabench.system.errors import InputError
from swabench.system.files import new_folder, write_file

Parcel = Mapping[str, bytes]
"""Files of a study's results folder, by their paths in it."""

_KINDS = ("runs/*/seed-{}-*/*", "landscape/*/seed-{}-*.json")


def pack(folder: Path, seeds: Sequence[int], without: Collection[str] = ()) -> Parcel:
    """The records of some seeds.

    Args:
        folder: The study's results folder.
        seeds: Which seeds.
        without: Paths of files that are left out.
    """
    found = [
        path for seed in seeds for kind in _KINDS for path in sorted(folder.glob(kind.format(seed)))
    ]
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path.read_bytes() for name, path in named.items() if name not in without}


def unpack(parcel: Parcel, folder: Path) -> None:
    """Write records atomically; those that are there already stay.

    Raises:
        InputError: A path leaves the folder.
    """
    runs: dict[PurePosixPath, dict[str, bytes]] = {}
    for name, content in parcel.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{name!r}: a path that leaves the results folder; nothing is written")
        if path.parts[0] == "runs":
            runs.setdefault(path.parent, {})[path.name] = content
        elif not (folder / path).exists():
            write_file(folder / path, content)
    for place, files in runs.items():
        if not (folder / place).is_dir():
            with new_folder(folder / place) as new:
                for name, content in files.items():
                    (new / name).write_bytes(content)
