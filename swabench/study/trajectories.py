"""Which methods walk the same way: they differ only in what they average, and train once.

A trajectory is the path that a start, a data order, an optimizer and a schedule give. An average
only observes it, unless training restarts from that average (PSWA): then the plan is part of the
path.
"""

from collections.abc import Mapping

from swabench.study.methods import Method
from swabench.study.settings import what_results_depend_on


def trajectories(methods: Mapping[str, Method]) -> list[list[str]]:
    """Names of the methods on each distinct trajectory, in the order in which they are met."""
    found: dict[str, list[str]] = {}
    for name, method in methods.items():
        found.setdefault(_path(method), []).append(name)
    return list(found.values())


def _path(method: Method) -> str:
    """A text that is the same for methods on one trajectory."""
    plan = method.averaging
    parts = [method.rate, method.optimizer, plan if plan and plan.phases > 1 else None]
    return repr([part and what_results_depend_on(part) for part in parts])


def by_optimizer(methods: Mapping[str, Method]) -> list[list[str]]:
    """Names of the methods that share an optimizer: only those can be rows of one tensor."""
    found: dict[str, list[str]] = {}
    for name, method in methods.items():
        found.setdefault(repr(method.optimizer), []).append(name)
    return list(found.values())
