"""Where a study runs: a registry of places, one file each.

A place decides only where units are executed (`runs/units.py`); the unit, its inputs and its
record are the same everywhere.
"""

from collections.abc import Callable

from swabench.runs.places.base import Place, Wishes
from swabench.runs.places.local import Local
from swabench.runs.places.processes import make_processes
from swabench.runs.places.ray import make_ray
from swabench.system.errors import InputError, in_short

__all__ = ["PLACES", "Place", "Wishes", "kind_of_place", "make_place"]

PLACES: dict[str, Callable[[Wishes], Place]] = {
    "local": lambda wishes: Local(),
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


def make_place(name: str, wishes: Wishes) -> Place:
    """The place that `--on` names.

    Raises:
        InputError: There is no such place, or what it needs is lacking.
    """
    _, _, address = name.partition(":")
    return PLACES[kind_of_place(name)](wishes.at(address or None))
