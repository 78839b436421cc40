"""Training without a stop, where a test has nothing else to do meanwhile."""

from typing import Any

from swabench.training.loop import training
from swabench.training.observers import Outcome


def train(*arguments: Any, **options: Any) -> list[Outcome]:
    """What `training` returns in the end."""
    steps = training(*arguments, **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcomes: list[Outcome] = end.value
            return outcomes
