"""Where records, and what belongs to them, lie in a study's folder of results.

    runs/<name>/seed-<seed>-<identity>/record.json          measurements and provenance
    runs/<name>/seed-<seed>-<identity>/arrays.safetensors   weights and predictions
    runs/files.json                                         digests of files named by a path
    landscape/<part>/seed-<seed>-<identity>.json            what was measured around the weights
    landscape/<part>/seed-<seed>.lock                       held by who measures it
    unfinished/<group>/…                                    what is under way (`unfinished.py`)
    unfinished/<group>.lock                                 held by who trains it
    figures/<name>.<format>                                 pictures, drawn from the above
    tuning/runs/…                                           trials of a tuning, as another study's
    choices.yaml                                            what tuning chose among them

No other module spells these paths.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from swabench.study.search_space import TUNING

RECORD, ARRAYS = "record.json", "arrays.safetensors"
_RUNS, _LANDSCAPE, _FIGURES, _UNFINISHED = "runs", "landscape", "figures", "unfinished"
_FILES = f"{_RUNS}/files.json"

_OF_A_RUN = re.compile(rf"{_RUNS}/[^\W_][\w.-]*/seed-\d+-[0-9a-f]+/[a-z]+\.[a-z]+")
_OF_A_LANDSCAPE = re.compile(rf"{_LANDSCAPE}/[a-z]+/seed-\d+-[0-9a-f]+\.json")


@dataclass(frozen=True)
class Layout:
    """The paths in one study's folder.

    Attributes:
        folder: The study's own, in the results folder.
    """

    folder: Path

    @property
    def runs(self) -> Path:
        """Where all runs lie."""
        return self.folder / _RUNS

    @property
    def named_files(self) -> Path:
        """Digests of the files that the study names by a path."""
        return self.folder / _FILES

    def every_named_files(self) -> list[Path]:
        """The same, where it is there."""
        return list(self.folder.glob(_FILES))  # unlike `exists` it minds no folder's rights

    @property
    def choices(self) -> Path:
        """What tuning chose."""
        return self.folder / "choices.yaml"

    @property
    def of_trials(self) -> "Layout":
        """The same of the study's tuning."""
        return Layout(self.folder / TUNING)

    def run(self, name: str, seed: int, identity: str) -> Path:
        """The folder of a run."""
        return self.runs / name / f"seed-{seed}-{identity}"

    def every_run(self) -> list[Path]:
        """The folders of runs, of whatever settings."""
        return sorted(self.runs.glob("*/seed-*"))

    def seeds_of(self, name: str) -> set[str]:
        """Seeds at which there is a run of that name, of whatever settings, as they are written."""
        try:
            found = [path.name for path in (self.runs / name).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {each.split("-")[1] for each in found if each.startswith("seed-")}

    def landscape(self, part: str, seed: int, identity: str) -> Path:
        """The file of a part of the landscape."""
        return self.folder / _LANDSCAPE / part / f"seed-{seed}-{identity}.json"

    def every_landscape(self, seed: int | None = None) -> list[Path]:
        """The files of landscapes, or of a seed's, of whatever settings."""
        which = "*" if seed is None else f"{seed}-*"
        return sorted(self.folder.glob(f"{_LANDSCAPE}/*/seed-{which}.json"))

    def landscape_lock(self, part: str, seed: int) -> Path:
        """The lock file of a part of the landscape."""
        return self.folder / _LANDSCAPE / part / f"seed-{seed}.lock"

    def figure(self, name: str) -> Path:
        """A picture, by its file name."""
        return self.folder / _FIGURES / name

    def unfinished(self, group: str) -> Path:
        """The folder of runs that are under way together."""
        return self.folder / _UNFINISHED / group

    def under_way(self) -> list[Path]:
        """The folders of all such groups."""
        return sorted(path for path in self.folder.glob(f"{_UNFINISHED}/*") if path.is_dir())

    def written_in(self) -> list[Path]:
        """The folders in which files are written, and may be left half written."""
        places = (_RUNS, _LANDSCAPE, _UNFINISHED)
        patterns = (*places, *(f"{place}/*" for place in places), _FIGURES)
        return [self.folder, *(path for each in patterns for path in self.folder.glob(each))]

    def locks(self) -> list[Path]:
        """The lock files that are there."""
        patterns = (f"{_UNFINISHED}/*.lock", f"{_LANDSCAPE}/*/*.lock")
        return [path for each in patterns for path in self.folder.glob(each)]


def named_by(path: Path) -> dict[str, int | str]:
    """The seed and the identity that a record's place names; nothing where it is no such place."""
    found = re.fullmatch(r"seed-(\d+)-(\w+)", path.name.removesuffix(".json"))
    return {"seed": int(found[1]), "identity": found[2]} if found else {}


def is_file_of_a_run(name: str) -> bool:
    """Whether a path in a study's folder is that of a file in a run's folder."""
    return bool(_OF_A_RUN.fullmatch(name))


def may_travel(name: str) -> bool:
    """Whether a path in a study's folder is one that a parcel of records may hold."""
    return is_file_of_a_run(name) or bool(_OF_A_LANDSCAPE.fullmatch(name)) or name == _FILES
