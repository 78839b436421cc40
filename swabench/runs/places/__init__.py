"""Where a study runs: a registry of places, one file each.

A place decides only where units are executed (`runs/units.py`); the unit, its inputs and its
record are the same everywhere.
"""

from collections.abc import Callable, Sequence

from swabench.runs.places.base import Job, Options, Place, Written
from swabench.runs.places.local import Local
from swabench.runs.places.processes import make_processes
from swabench.runs.places.ray import make_ray
from swabench.runs.units import Unit
from swabench.system.errors import InputError, in_short

__all__ = ["PLACES", "Options", "Place", "kind_of_place", "place_when_needed"]

PLACES: dict[str, Callable[[Options], Place]] = {
    "local": lambda options: Local(),
    "processes": make_processes,
    "ray": make_ray,
}
"""What makes each place, by the name that `--on` has for it."""


def kind_of_place(name: str) -> str:
    """The place that `--on` names, without the address that it may carry: `ray:ADDRESS`.

    Raises:
        InputError: There is no such place.
    """
    kind, colon, address = name.partition(":")
    if kind not in PLACES or (colon and not (address and kind == "ray")):
        raise InputError(
            f"--on: {in_short(name)} is no place to run; choose from {', '.join(PLACES)}, or "
            "ray:ADDRESS"
        )
    return kind


def place_when_needed(name: str, options: Options) -> Place:
    """The place that `--on` names, which is made when there is something to do.

    Raises:
        InputError: There is no such place.
    """
    kind, _, address = name.partition(":")
    make = PLACES[kind_of_place(name)]
    return WhenNeeded(lambda: make(options.at(address or None))) if kind != "local" else Local()


class WhenNeeded:
    """A place that is made at the first unit: documents alone need no cluster.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Place]) -> None:
        self._make = make
        self._place: Place | None = None

    def carry_out(self, job: Job, title: str, units: Sequence[Unit]) -> Written:
        """Execute units, see `Place`."""
        self._place = self._place or self._make()
        return self._place.carry_out(job, title, units)

    def close(self) -> None:
        """Let its workers go, if it was made."""
        if self._place:
            self._place.close()
