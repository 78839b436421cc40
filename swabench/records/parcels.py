"""Records as bytes, for a worker that shares no folder with the results."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from swabench.records.layout import ARRAYS, is_file_of_a_run, may_travel
from swabench.records.store import RecordStore
from swabench.study.study import Study
from swabench.system.errors import InputError, in_short
from swabench.system.files import new_folder, write_file

Parcel = Mapping[str, bytes]
"""Files of a study's results folder, by their paths in it."""


def pack(
    study: Study,
    results: Path,
    seeds: Sequence[int],
    *,
    arrays_of: Collection[str] | None = None,
    without: Collection[str] = (),
) -> Parcel:
    """The records of a study at some seeds.

    Args:
        study: The study as it is now; records of other settings stay.
        results: The results folder.
        seeds: Which seeds.
        arrays_of: Names of the runs whose weights and predictions are wanted; None for all.
        without: Paths of files that are left out.
    """
    store = RecordStore(results, study)
    layout = store.layout
    wanted = layout.every_named_files()
    for seed in seeds:
        wanted += layout.every_landscape(seed)
        for name in study.run_names:
            run = layout.run(name, seed, store.identity(name, seed))
            bare = arrays_of is not None and name not in arrays_of
            wanted += [path for path in run.glob("*") if not (bare and path.name == ARRAYS)]
    named = {path.relative_to(store.folder).as_posix(): path for path in wanted}
    return {name: path.read_bytes() for name, path in named.items() if name not in without}


def unpack(parcel: Parcel, folder: Path) -> None:
    """Write records atomically; those that are there already stay.

    Args:
        parcel: The records.
        folder: The study's results folder.

    Raises:
        InputError: A path is none that a record has; nothing is written then.
    """
    for name in parcel:
        if not may_travel(name):
            raise InputError(f"{in_short(name)}: no record's path; nothing is written")
    runs: dict[Path, dict[str, bytes]] = {}
    for name, content in parcel.items():
        path = folder / name
        if is_file_of_a_run(name):
            runs.setdefault(path.parent, {})[path.name] = content
        elif not path.exists():
            write_file(path, content)
    for place, files in runs.items():
        if not place.is_dir():
            with new_folder(place) as new:
                for name, content in files.items():
                    (new / name).write_bytes(content)
